# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbit with depth: around two peaks in a lake at sunset. The scene's own pictures are mixed into what is painted, so
that the mountain stays the same mountain, and what comes out from behind something is not left to the model.

    blender -b -P examples/blend/make_orbit.py -- orbit.blend
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import bpy
from mathutils import Vector, noise

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FRAMES = 36
TURN = math.radians(46.0)
AWAY = 12.0  # metres from the camera to the middle
Peak = tuple[float, float, float, float]  # x, y, height, radius of the foot
PEAKS = ((-0.9, 0.4, 4.9, 3.2), (1.5, -0.5, 3.5, 2.6), (-2.6, -0.8, 2.0, 2.0))
ROUND = [k * math.tau / 22 for k in range(22)]
RANGE = [(26 * math.cos(a), 26 * math.sin(a), 3.0 + 1.6 * math.sin(5 * a), 5.0) for a in ROUND]
ISLETS = ((-3.6, -6.6), (2.6, -7.0), (6.4, -3.4), (-6.6, -2.0))
TREES = ((-0.35, 0.1, 1.3), (0.3, -0.1, 1.0), (0.05, 0.3, 1.6))  # on each: x, y, height
SKY = ((0.0, (1.0, 0.46, 0.18)), (0.14, (0.72, 0.30, 0.34)), (0.45, (0.13, 0.16, 0.42)))
GRASS, ROCK, DARK, SNOW = (0.03, 0.06, 0.035), (0.10, 0.09, 0.10), (0.13, 0.12, 0.15), (0.86, 0.88, 0.95)
SLOPES = ((0.02, GRASS), (0.14, ROCK), (0.34, DARK), (0.40, SNOW))  # by a fifth of the height in metres


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """A mountain with things before and behind it, a camera around it, one prompt."""
    common.output(scene, "Orbit", FRAMES)
    common.ground(scene, common.material("Lake", (0.04, 0.10, 0.18), 0.08))
    mountains(scene, snowy(), PEAKS, 8.4, 84)
    mountains(scene, common.material("Far Range", (0.20, 0.17, 0.30)), RANGE, 64.0, 48)
    shore, firs = common.material("Shore", (0.06, 0.08, 0.035)), common.material("Firs", (0.012, 0.05, 0.035))
    for x, y in ISLETS:
        common.cone(scene, shore, (x, y, -0.25), 1.3, 0.5)
        for dx, dy, height in TREES:
            common.fir(scene, firs, x + dx, y + dy, height)
    common.light(scene, SKY, (1.0, 0.72, 0.48), math.radians(68.0), turn=math.radians(-80.0), energy=5.0)
    way = []
    for step in range(9):
        angle = TURN * (step / 8 - 0.5) - math.pi / 2
        place = Vector((AWAY * math.cos(angle), AWAY * math.sin(angle), 1.9))
        way.append((1 + round(step * (FRAMES - 1) / 8), place))
    common.camera(scene, way, Vector((0.0, 0.0, 1.9)), lens=34.0)
    koshi = scene.koshi
    koshi.motion_source, koshi.start, koshi.seed = 'EXACT', 'SCENE', 3
    common.mixed_with_itself(scene)
    common.key(scene, "strength", ((1, 0.35), (4, 0.5)))
    common.prompts(scene, (1, "snowy mountains at sunset, photo"))


def mountains(scene: bpy.types.Scene, of: bpy.types.Material, peaks: Sequence[Peak], size: float, sides: int) -> None:
    """A square grid that rises to peaks, roughened by Blender's own noise."""
    corners = []
    for j in range(sides + 1):
        for i in range(sides + 1):
            x, y = size * (i / sides - 0.5), size * (j / sides - 0.5)
            rise = max(top * max(1.0 - math.hypot(x - px, y - py) / foot, 0.0) ** 1.25 for px, py, top, foot in peaks)
            rough = noise.ridged_multi_fractal(Vector((x * 0.5, y * 0.5, 3.0)), 1.0, 2.0, 5, 1.0, 2.0)
            corners.append((x, y, rise * (0.72 + 0.22 * rough) - 0.1))
    row = sides + 1
    faces = [(k, k + 1, k + row + 1, k + row) for j in range(sides) for k in range(j * row, j * row + sides)]
    common.mesh(scene, of, corners, faces)


def snowy() -> bpy.types.Material:
    """Grass, rock and snow by height, with a rough line between them."""
    made = common.material("Mountain", (0.5, 0.5, 0.55))
    tree = made.node_tree
    nodes, links = tree.nodes, tree.links
    place, split, rough = (nodes.new(f"ShaderNode{n}") for n in ("NewGeometry", "SeparateXYZ", "TexNoise"))
    rough.inputs["Scale"].default_value = 2.2
    offset, height = nodes.new("ShaderNodeMath"), nodes.new("ShaderNodeMath")
    offset.operation = height.operation = 'MULTIPLY_ADD'
    offset.inputs[1].default_value, offset.inputs[2].default_value, height.inputs[1].default_value = 0.5, -0.25, 0.2
    links.new(place.outputs["Position"], split.inputs[0])
    links.new(place.outputs["Position"], rough.inputs["Vector"])
    links.new(rough.outputs[0], offset.inputs[0])
    links.new(split.outputs["Z"], height.inputs[0])
    links.new(offset.outputs[0], height.inputs[2])
    shader = next(node for node in nodes if node.type == 'BSDF_PRINCIPLED')
    links.new(common.ramp(tree, height.outputs[0], SLOPES), shader.inputs["Base Color"])
    return made


if __name__ == "__main__":
    common.build(make)

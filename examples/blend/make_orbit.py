# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbit with depth: around a mountain in a lake. The model is shown the scene's depth, so that things keep their shape.

    blender -b -P examples/blend/make_orbit.py -- orbit.blend
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import bpy
from mathutils import Vector, noise

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FRAMES = 24
TURN = math.radians(40.0)
SIDES = 48  # of the mountain's grid


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """A mountain, a camera around it, one prompt."""
    common.output(scene, "Orbit", FRAMES)
    common.ground(scene, common.material("Lake", (0.05, 0.13, 0.22), 0.15))
    mountain(scene, common.material("Rock", (0.30, 0.27, 0.26)))
    common.light(scene, (0.80, 0.45, 0.30), (1.0, 0.70, 0.45), math.radians(70.0))
    way = []
    for step in range(5):
        angle = TURN * (step / 4 - 0.5) - math.pi / 2
        way.append((1 + step * (FRAMES - 1) // 4, Vector((12 * math.cos(angle), 12 * math.sin(angle), 3.0))))
    common.camera(scene, way, Vector((0.0, 0.0, 1.8)), lens=30.0)
    koshi = scene.koshi
    koshi.motion_source, koshi.start, koshi.structure, koshi.seed = 'EXACT', 'SCENE', 'DEPTH', 3
    common.key(scene, "strength", ((1, 0.7), (4, 0.3)))
    common.prompts(scene, (1, "snowy mountains at sunset, photo"))


def mountain(scene: bpy.types.Scene, rock: bpy.types.Material) -> None:
    """A grid whose middle rises, roughened by Blender's own noise."""
    corners = []
    for j in range(SIDES + 1):
        for i in range(SIDES + 1):
            x, y = 8.0 * (i / SIDES - 0.5), 8.0 * (j / SIDES - 0.5)
            rise = max(1.0 - math.hypot(x, y) / 4.0, 0.0)
            rough = noise.fractal(Vector((x * 0.6, y * 0.6, 2.0)), 1.0, 2.0, 5)
            corners.append((x, y, 4.6 * rise**1.25 + 0.9 * rough * rise - 0.12))
    row = SIDES + 1
    faces = [(k, k + 1, k + row + 1, k + row) for j in range(SIDES) for k in range(j * row, j * row + SIDES)]
    common.mesh(scene, rock, corners, faces)


if __name__ == "__main__":
    common.build(make)

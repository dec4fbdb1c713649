# SPDX-License-Identifier: GPL-3.0-or-later
"""What the example files share: an empty scene that is ready for Koshi, materials, meshes, a camera on its way."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

Keys = Sequence[tuple[int, float]]
Color = tuple[float, float, float]
Colors = Sequence[tuple[float, Color]]


def build(make: Callable[[bpy.types.Scene, Path], None]) -> None:
    """Run a script's `make(scene, folder)` with an empty scene and save the file that the command line names."""
    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if len(given) != 1:
        sys.exit(f"Usage: blender -b -P {sys.argv[-1]} -- OUT.blend")
    path = Path(given[0]).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    if not hasattr(scene, "koshi"):
        sys.exit("Koshi is not enabled: install its zip in Preferences > Get Extensions > Install from Disk first.")
    make(scene, path.parent)
    scene.frame_set(scene.frame_start)
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True, relative_remap=True)
    print(f"Saved {path}")


def output(scene: bpy.types.Scene, name: str, frames: int, size: int = 256, fps: int = 12) -> None:
    """The scene's name, range, size and speed, in colours that stay as they are painted."""
    scene.name = name
    scene.frame_start, scene.frame_end = 1, frames
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.fps = fps
    bpy.ops.koshi.exact_colors()
    scene.sequence_editor_create()


def mixed_with_itself(scene: bpy.types.Scene) -> None:
    """Mix the scene's own picture into every frame before it is painted: shapes stay, and nothing uncovered is unknown.

    Cycles draws it, roughly and quickly.
    """
    scene.render.engine = 'CYCLES'
    scene.cycles.samples, scene.cycles.max_bounces, scene.cycles.use_denoising = 8, 2, False
    scene.koshi.video_source, scene.koshi.hybrid_composite, scene.koshi.hybrid_alpha = 'SCENE', "normal", 0.5


def prompts(scene: bpy.types.Scene, *given: tuple[int, str]) -> None:
    """Prompts at their frames."""
    for frame, text in given:
        prompt = scene.koshi.prompts.add()
        prompt.frame, prompt.text = frame, text


def key(scene: bpy.types.Scene, name: str, keys: Keys) -> None:
    """Keyframes of one of Koshi's values."""
    for frame, value in keys:
        setattr(scene.koshi, name, value)
        scene.koshi.keyframe_insert(name, frame=frame)


def material(name: str, color: tuple[float, float, float], roughness: float = 0.9) -> bpy.types.Material:
    """A plain material that also has its colour in the solid viewport."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = next(node for node in made.node_tree.nodes if node.type == 'BSDF_PRINCIPLED')
    shader.inputs["Base Color"].default_value = made.diffuse_color = (*color, 1.0)
    shader.inputs["Roughness"].default_value = made.roughness = roughness
    return made


def mesh(scene: bpy.types.Scene, of: bpy.types.Material, corners: list[Any], faces: list[Any]) -> bpy.types.Object:
    """An object of one material, named after it."""
    data = bpy.data.meshes.new(of.name)
    data.from_pydata(corners, [], faces)
    data.materials.append(of)
    made = bpy.data.objects.new(of.name, data)
    scene.collection.objects.link(made)
    return made


def ground(scene: bpy.types.Scene, of: bpy.types.Material, size: float = 60.0) -> None:
    """A flat square around the origin."""
    mesh(scene, of, [(-size, -size, 0), (size, -size, 0), (size, size, 0), (-size, size, 0)], [(0, 1, 2, 3)])


def cone(
    scene: bpy.types.Scene, of: bpy.types.Material, foot: tuple[float, float, float], radius: float, height: float
) -> None:
    """Twelve sides and a tip over a place."""
    x, y, z = foot
    turns = [k * math.tau / 12 for k in range(12)]
    corners = [(x + math.cos(a) * radius, y + math.sin(a) * radius, z) for a in turns]
    mesh(scene, of, [*corners, (x, y, z + height)], [(k, (k + 1) % 12, 12) for k in range(12)])


def fir(scene: bpy.types.Scene, of: bpy.types.Material, x: float, y: float, height: float) -> None:
    """Three cones, one above the other."""
    for low, high, radius in ((0.1, 0.62, 0.3), (0.35, 0.82, 0.23), (0.6, 1.0, 0.16)):
        cone(scene, of, (x, y, height * low), height * radius, height * (high - low))


def light(scene: bpy.types.Scene, sky: Colors, sun: Color, low: float, turn: float, energy: float = 3.0) -> Any:
    """A sky whose colours stand at heights from 0 (horizon) to 1 (zenith), and a sun, `low` radians from the zenith.

    Returns the points of the sky's colours and the sun, to be keyed.
    """
    lamp = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", 'SUN'))
    lamp.data.energy, lamp.data.color = energy, sun
    lamp.rotation_euler = (low, 0.0, turn)
    scene.collection.objects.link(lamp)
    world = scene.world = bpy.data.worlds.new("Sky")
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    background = next(node for node in nodes if node.type == 'BACKGROUND')
    place, split = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeSeparateXYZ")
    links.new(place.outputs["Generated"], split.inputs[0])
    colors = ramp(world.node_tree, split.outputs["Z"], sky)
    links.new(colors, background.inputs["Color"])
    return colors.node.color_ramp.elements, lamp.data


def ramp(tree: bpy.types.NodeTree, by: bpy.types.NodeSocket, colors: Colors) -> bpy.types.NodeSocket:
    """Colours that follow a number."""
    made = tree.nodes.new("ShaderNodeValToRGB")
    points = made.color_ramp.elements
    for k, (position, color) in enumerate(colors):
        point = points[k] if k < len(points) else points.new(position)
        point.position, point.color = position, (*color, 1.0)
    tree.links.new(by, made.inputs[0])
    return made.outputs[0]


def camera(
    scene: bpy.types.Scene, keys: Sequence[tuple[int, Vector]], target: Vector, lens: float = 35.0
) -> bpy.types.Object:
    """A camera that looks at `target` on its way."""
    made = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(made)
    scene.camera, made.data.lens = made, lens
    before = None
    for frame, place in keys:
        made.location = place
        turn = (target - place).to_track_quat('-Z', 'Y')
        made.rotation_euler = turn.to_euler('XYZ', before) if before else turn.to_euler()
        before = made.rotation_euler.copy()
        made.keyframe_insert("location", frame=frame)
        made.keyframe_insert("rotation_euler", frame=frame)
    return made

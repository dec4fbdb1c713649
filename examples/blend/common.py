# SPDX-License-Identifier: GPL-3.0-or-later
"""What the example files share: an empty scene that is ready for Koshi, materials, meshes, a camera on its way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

Keys = Sequence[tuple[int, float]]


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


def light(scene: bpy.types.Scene, sky: tuple[float, float, float], sun: tuple[float, float, float], low: float) -> None:
    """A sky of one colour, and a sun, `low` radians from the zenith."""
    lamp = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", 'SUN'))
    lamp.data.energy, lamp.data.color = 3.0, sun
    lamp.rotation_euler = (low, 0.0, 0.6)
    scene.collection.objects.link(lamp)
    world = scene.world = bpy.data.worlds.new("Sky")
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == 'BACKGROUND')
    background.inputs["Color"].default_value = (*sky, 1.0)


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

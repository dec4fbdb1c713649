# SPDX-License-Identifier: GPL-3.0-or-later
"""Render guides, change things, and tell which files were made anew: `-- OUT_FOLDER PROGRAM`.

PROGRAM: what starts a Blender like this one, for guides rendered by another process.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

guides = koshi("operators.guides")
raycast = koshi("operators.raycast")
sample, scene_values = koshi("operators.sample"), koshi("operators.scene_values")
BridgeError = koshi("bridge_server.protocol").BridgeError
FOLDER, PROGRAM = Path(arguments()[0]), arguments()[1]
out: dict[str, Any] = {}
bpy.app.binary_path = ""  # rendered here, unless it is told otherwise


def material(thing: bpy.types.Object, colour: tuple[float, float, float]) -> bpy.types.Material:
    """A plain material of its own."""
    made = bpy.data.materials.new(thing.name)
    if bpy.app.version < (5, 0, 0):
        made.use_nodes = True
    shader = next(node for node in made.node_tree.nodes if node.type == 'BSDF_PRINCIPLED')
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    thing.data.materials.append(made)
    return made


def build() -> bpy.types.Scene:
    """Ground, a ball, a cube in a collection of its own that moves, a lamp, a camera that moves."""
    scene = empty_scene(96, 64, frames=4)
    bpy.ops.mesh.primitive_plane_add(size=30.0)
    material(bpy.context.object, (0.2, 0.6, 0.2))
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.8, location=(-1.2, -1.5, 1.1))
    material(bpy.context.object, (0.8, 0.1, 0.1))
    bpy.ops.mesh.primitive_cube_add(size=1.4, location=(0.9, 0.5, 0.9))
    cube = bpy.context.object
    material(cube, (0.1, 0.2, 0.8))
    chosen = bpy.data.collections.new("Chosen")
    scene.collection.children.link(chosen)
    chosen.objects.link(cube)
    for frame in (1, 4):
        cube.location.x = 0.6 + 0.1 * frame
        cube.keyframe_insert("location", index=0, frame=frame)
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", 'SUN'))
    lamp.matrix_world = Matrix.Rotation(0.6, 4, 'X')
    scene.collection.objects.link(lamp)
    lamp.data.energy = 3.0
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.matrix_world = Matrix.Translation((0.0, -7.0, 1.8)) @ Matrix.Rotation(1.466, 4, 'X')
    for frame in (0, 5):
        camera.location.y = -7.0 + 0.1 * frame
        camera.keyframe_insert("location", index=1, frame=frame)
    cube.pass_index, bpy.data.objects["Sphere"].pass_index = 7, 1
    settings = scene.koshi
    settings.motion_source, settings.structure, settings.start, settings.mask = 'EXACT', 'CLAY', 'SCENE', chosen
    return scene


def rendered(scene: bpy.types.Scene) -> list[str]:
    """Render what is missing; which files were made anew."""
    shot = sample.shot_from_scene(scene).shot
    folder = guides.guides_folder(scene)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.[ep][xn]*")} if folder.is_dir() else {}
    out["lines"] = list(guides.render_guides(scene, shot, folder))
    return sorted(p.name for p in folder.glob("*.[ep][xn]*") if before.get(p.name) != p.stat().st_mtime_ns)


def things() -> dict[str, list[str]]:
    """All datablocks, to see what is left behind."""
    kinds = ("scenes", "objects", "cameras", "materials", "worlds", "meshes")
    return {kind: sorted(item.name for item in getattr(bpy.data, kind)) for kind in kinds}


scene = build()
before = things()
out["first"] = rendered(scene)
out["first_lines"] = out["lines"]
out["left_behind"] = {kind: names for kind, names in things().items() if names != before[kind]}
out["pass_index"] = [bpy.data.objects[name].pass_index for name in ("Cube", "Sphere")]
out["handlers"] = len(bpy.app.handlers.frame_change_post)
out["shot"] = sample.shot_from_scene(scene).shot
out["again"] = rendered(scene)
out["again_line"] = out["lines"][-1]

# What counts, and what does not.
objects = bpy.data.objects
changed: dict[str, list[str]] = {}
scene.koshi.structure, scene.koshi.start = 'NONE', 'PROMPT'  # the quickest, and all go by the same looks


def after(name: str) -> None:
    changed[name] = rendered(scene)


scene.koshi.zoom = 1.01
scene.koshi.keyframe_insert("strength", frame=2)
scene.render.filepath, scene.render.use_border = "//elsewhere", True
after("of no concern")
objects["Sphere"].location.x += 0.1
after("object moved")
objects["Sphere"].data.vertices[0].co.z += 0.2
after("mesh edited")
objects["Sphere"].modifiers.new("Twist", 'SIMPLE_DEFORM')
after("modifier")
objects["Sphere"].data.materials[0].node_tree.nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.1
after("material")
objects["Lamp"].data.energy = 4.0
after("light")
objects["Sphere"].hide_render = True
after("hidden")
objects["Camera"].data.lens = 45.0
after("lens")
cube = objects["Cube"]
cube.location.x = 1.5
cube.keyframe_insert("location", index=0, frame=8)
curve = next(c for c in koshi("operators.compat").fcurves(cube))
for point in curve.keyframe_points:
    point.interpolation = 'CONSTANT'
after("all keys held")
curve.keyframe_points[1].co.x = 3.0
curve.update()
after("from frame 3 on")
out["changed"] = changed
objects["Sphere"].hide_render, objects["Sphere"].hide_viewport = False, True
out["unseen"] = [len(rendered(scene)), len(rendered(scene))]
objects["Sphere"].hide_viewport = False

# The same from another process.
scene.koshi.structure, scene.koshi.start, scene.frame_end = 'CLAY', 'SCENE', 2
rendered(scene)
shutil.copytree(guides.guides_folder(scene), FOLDER / "here")
bpy.ops.koshi.guides_clear()
out["cleared"] = guides.guides_folder(scene).exists()
bpy.app.binary_path = PROGRAM
begin = time.perf_counter()
shot, slowest, lines = sample.shot_from_scene(scene).shot, 0.0, []
steps = guides.render_guides(scene, shot, guides.guides_folder(scene))
while True:
    step = time.perf_counter()
    line = next(steps, None)
    if line is None:
        break
    lines.append(line)
    slowest = max(slowest, time.perf_counter() - step)
shutil.copytree(guides.guides_folder(scene), FOLDER / "there")
bpy.app.binary_path = ""
out["process"] = {
    "lines": list(dict.fromkeys(lines)),
    "seconds": time.perf_counter() - begin,
    "slowest": slowest,
    "again": rendered(scene),  # here again: what the other process made counts
}
bpy.app.binary_path = PROGRAM
steps = guides.render_guides(scene, sample.shot_from_scene(scene, 1, 60).shot, FOLDER / "stopped")
for _ in range(4):
    next(steps)
begin = time.perf_counter()
steps.close()
out["stopped"] = time.perf_counter() - begin
bpy.app.binary_path = ""

# Depth without an engine, and what is refused then.
scene.koshi.structure, scene.koshi.start, scene.koshi.mask = 'NONE', 'PROMPT', None
exact = sample.shot_from_scene(scene)
(FOLDER / "depth").mkdir()
with scene_values.evaluated(scene) as depsgraph:
    scene.frame_set(2)
    begin = time.perf_counter()
    np.save(FOLDER / "depth" / "all.npy", raycast.ray_depth(scene, depsgraph, cell=1))
    middle = time.perf_counter()
    np.save(FOLDER / "depth" / "cells.npy", raycast.ray_depth(scene, depsgraph))
    out["rays"] = {"all": middle - begin, "cells": time.perf_counter() - middle}
out["folder"] = str(guides.guides_folder(scene))
bpy.ops.preferences.addon_disable(module="cycles")
without = sample.shot_from_scene(scene).shot
for _ in guides.render_guides(scene, guides.moved_to(without, FOLDER / "rays"), FOLDER / "rays"):
    pass
out["without_cycles"] = {
    "guides": sorted({Path(name).name for name in without["guides"].values()}),
    "files": sorted(path.name for path in (FOLDER / "rays").glob("*.npy")),
}
refused = {}
for name, value in (("start", 'SCENE'), ("structure", 'CLAY'), ("mask", bpy.data.collections["Chosen"])):
    kept = getattr(scene.koshi, name)
    setattr(scene.koshi, name, value)
    try:
        sample.shot_from_scene(scene)
    except BridgeError as error:
        refused[name] = str(error)
    setattr(scene.koshi, name, kept)
out["refused"] = refused
result(out)

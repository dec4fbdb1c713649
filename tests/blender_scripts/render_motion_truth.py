# SPDX-License-Identifier: GPL-3.0-or-later
"""Render what motion fields are judged by: `-- OUT_FOLDER '{"name": {"width": 256, ...}, ...}'`.

For every case two frames of a scene of emitters (so that nothing changes its colour with the view), each with its
picture as Blender usually filters it (OUT_FOLDER/name_picture_0001.exr) and its passes through the pixels' centres
(name_passes_0001.exr). The result line gives, per case, the camera of each frame as plain numbers, and points with the
places where Blender itself puts them.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import bpy
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Euler, Matrix, Vector

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, result

DEFAULTS = {
    "width": 256, "height": 160, "percentage": 100, "aspect": [1.0, 1.0],
    "camera": {}, "camera_after": {},  # values of the camera in frame 1, and of those that change in frame 2
    "place": [0.0, -7.0, 1.8], "turn": [84.0, 0.0, 0.0],  # where the camera stands, and its turn in degrees
    "step": [0.0, 0.0, 0.0], "step_turn": [0.0, 0.0, 0.0],  # what it does from frame to frame, in its own axes
    "moving": [0.0, 0.0, 0.0], "moving_turn": [0.0, 0.0, 0.0],  # what the cube does, in the world's axes
    "plain_sky": False,  # for parallel cameras, which see one spot of the sky everywhere
}  # fmt: skip


def main(folder: Path, cases: dict) -> None:
    """Render all cases."""
    out = {}
    for name, given in cases.items():
        assert not set(given) - set(DEFAULTS), given
        scene = build({**DEFAULTS, **given})
        out[name] = []
        for frame in (1, 2):
            scene.frame_set(frame)
            out[name].append({"camera": camera_numbers(scene), **known_points(scene)})
        render(scene, folder / f"{name}_picture_", 8, 1.5)
        render(scene, folder / f"{name}_passes_", 1, 0.01)
    result(out)


def build(case: dict) -> bpy.types.Scene:
    """Ground, wall, a row of things at different depths, a cube that can move, and a camera."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 2
    render = scene.render
    render.resolution_x, render.resolution_y = case["width"], case["height"]
    render.resolution_percentage = case["percentage"]
    render.pixel_aspect_x, render.pixel_aspect_y = case["aspect"]
    scene.world = bpy.data.worlds.new("Sky")
    light = (0.8, 0.9, 0.95)
    textured(scene.world, 3.0, light if case["plain_sky"] else (0.1, 0.2, 0.5), light)
    bpy.ops.mesh.primitive_plane_add(size=40.0)
    shown("Ground", 0.9, (0.1, 0.3, 0.05), (0.6, 0.7, 0.3))
    bpy.ops.mesh.primitive_plane_add(size=5.0, location=(-4.0, 6.0, 1.5), rotation=(math.radians(90), 0.0, 0.3))
    shown("Wall", 1.2, (0.5, 0.2, 0.1), (0.95, 0.7, 0.5))
    bpy.ops.mesh.primitive_uv_sphere_add(segments=96, ring_count=48, radius=0.8, location=(-1.2, -1.5, 1.1))
    shown("Ball", 2.0, (0.7, 0.1, 0.1), (1.0, 0.8, 0.2))
    bpy.ops.mesh.primitive_cylinder_add(vertices=96, radius=0.25, depth=4.0, location=(2.0, -3.0, 1.6))
    shown("Post", 2.0, (0.05, 0.05, 0.1), (0.4, 0.35, 0.6))
    bpy.ops.mesh.primitive_cube_add(size=1.2, location=(0.6, 0.5, 1.0))
    cube = shown("Cube", 1.6, (0.8, 0.8, 0.9), (0.1, 0.4, 0.9))
    keyed(cube, (0.6, 0.5, 1.0), (11.0, 6.0, 29.0), case["moving"], case["moving_turn"], own_axes=False)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    for name, value in {"lens": 35.0, **case["camera"]}.items():
        setattr(camera.data, name, value)
    for name, value in case["camera_after"].items():
        camera.data.keyframe_insert(name, frame=1)
        setattr(camera.data, name, value)
        camera.data.keyframe_insert(name, frame=2)
    keyed(camera, case["place"], case["turn"], case["step"], case["step_turn"], own_axes=True)
    return scene


def keyed(thing: bpy.types.Object, place: list, turn: list, step: list, step_turn: list, own_axes: bool) -> None:
    """Put it at `place`, turned by `turn` degrees, in frame 1, and let it do one step per frame from 0 to 3."""
    start = Matrix.LocRotScale(place, Euler([math.radians(a) for a in turn]), None)
    axis, angle = Euler([math.radians(a) for a in step_turn]).to_quaternion().to_axis_angle()
    thing.rotation_mode = 'QUATERNION'
    for frame in range(4):
        move = Matrix.Translation(Vector(step) * (frame - 1))
        rotate = Matrix.Rotation(angle * (frame - 1), 4, axis)
        where = start @ move @ rotate if own_axes else move @ start @ rotate
        thing.location, thing.rotation_quaternion = where.translation, where.to_quaternion()
        thing.keyframe_insert("location", frame=frame)
        thing.keyframe_insert("rotation_quaternion", frame=frame)


def shown(name: str, scale: float, dark: tuple, light: tuple) -> bpy.types.Object:
    """Name the object just made, and let it emit a smooth texture that sticks to it."""
    thing = bpy.context.object
    thing.name = name
    material = bpy.data.materials.new(name)
    textured(material, scale, dark, light)
    thing.data.materials.append(material)
    return thing


def textured(owner: bpy.types.ID, scale: float, dark: tuple, light: tuple) -> None:
    """Let a material or a world shine in a smooth noise between two colours, fixed to the thing or to the sky."""
    sky = isinstance(owner, bpy.types.World)
    if sky:  # nothing here is lit by it, and the map of where it is bright takes Cycles nine tenths of a render
        owner.cycles.sampling_method = 'NONE'
    if bpy.app.version < (5, 0, 0):
        owner.use_nodes = True  # always so from 5.0 on
    nodes, links = owner.node_tree.nodes, owner.node_tree.links
    nodes.clear()
    place = nodes.new("ShaderNodeTexCoord")
    noise = nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = scale
    noise.inputs["Detail"].default_value = 1.0
    ramp = nodes.new("ShaderNodeValToRGB")
    for element, position, colour in zip(ramp.color_ramp.elements, (0.3, 0.7), (dark, light), strict=True):
        element.position, element.color = position, (*colour, 1.0)
    shine = nodes.new("ShaderNodeBackground" if sky else "ShaderNodeEmission")
    out = nodes.new("ShaderNodeOutputWorld" if sky else "ShaderNodeOutputMaterial")
    links.new(place.outputs["Generated" if sky else "Object"], noise.inputs["Vector"])
    links.new(noise.outputs[0], ramp.inputs[0])
    links.new(ramp.outputs[0], shine.inputs["Color"])
    links.new(shine.outputs[0], out.inputs["Surface"])


def camera_numbers(scene: bpy.types.Scene) -> dict:
    """The scene's camera as evaluated now, as koshi_backend.motion.camera.Camera reads it."""
    camera = scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    data, render = camera.data, scene.render
    return {
        "matrix_world": [list(row) for row in camera.matrix_world.normalized()],
        "kind": data.type,
        "lens": data.lens,
        "sensor_width": data.sensor_width,
        "sensor_height": data.sensor_height,
        "sensor_fit": data.sensor_fit,
        "shift_x": data.shift_x,
        "shift_y": data.shift_y,
        "ortho_scale": data.ortho_scale,
        "clip_start": data.clip_start,
        "clip_end": data.clip_end,
        "pixel_aspect_x": render.pixel_aspect_x,
        "pixel_aspect_y": render.pixel_aspect_y,
    }


def known_points(scene: bpy.types.Scene) -> dict:
    """Points of the scene's space, and for each its pixel (centres at whole numbers, y down) and its depth."""
    render = scene.render
    width = render.resolution_x * render.resolution_percentage // 100
    height = render.resolution_y * render.resolution_percentage // 100
    points = [(x, y, z) for x in (-3.0, -1.0, 0.4, 2.0) for y in (-2.0, 1.0, 5.0) for z in (0.0, 1.3, 3.1)]
    seen = [world_to_camera_view(scene, scene.camera, Vector(point)) for point in points]
    return {
        "points": points,
        "pixels": [[s.x * width - 0.5, (1.0 - s.y) * height - 0.5, s.z] for s in seen],
        "size": [width, height],
    }


def render(scene: bpy.types.Scene, path: Path, samples: int, filter_width: float) -> None:
    """Render both frames with Cycles, all passes into one EXR each."""
    render, cycles, layer = scene.render, scene.cycles, scene.view_layers[0]
    render.engine = 'CYCLES'
    cycles.device = 'CPU'
    cycles.samples = samples
    cycles.use_adaptive_sampling = False
    cycles.use_denoising = False
    cycles.pixel_filter_type = 'BLACKMAN_HARRIS' if samples > 1 else 'BOX'
    cycles.filter_width = filter_width
    cycles.max_bounces = 0
    layer.use_pass_z = layer.use_pass_vector = True
    settings = render.image_settings
    if hasattr(settings, "media_type"):  # Blender 5.0 and later
        settings.media_type = 'MULTI_LAYER_IMAGE'
    settings.file_format = 'OPEN_EXR_MULTILAYER'
    settings.color_depth = '32'
    settings.exr_codec = 'ZIP'
    render.filepath = str(path)
    bpy.ops.render.render(animation=True)


if __name__ == "__main__":
    to, wanted = arguments()
    main(Path(to), json.loads(wanted))

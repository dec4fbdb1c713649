# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the film that a video's motion is judged by: `-- FOLDER`.

16 frames, 160 x 96: a textured wall, a cube before it that moves by itself, and a camera that goes sideways and in
while it rolls, in parallel to the wall up to frame 7, and turns away from there on. FOLDER/film.mp4 is H.264 with
B-frames, as Blender writes it. The result line gives for every frame the pixels (centres at whole numbers, y down) of
points of the wall, as Blender projects them, and whether the camera sees them.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import bpy
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Euler, Matrix, Vector

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, result
from render_motion_truth import shown, textured

WIDTH, HEIGHT, FRAMES, TURNS = 160, 96, 16, 7


def main(folder: Path) -> None:
    """Render the film and say where the points of the wall are in it."""
    scene = build()
    points = [Vector((0.4 * x, 6.0, 0.4 * z)) for x in range(-14, 19) for z in range(-9, 11)]
    pixels, visible = [], []
    for frame in range(FRAMES):
        scene.frame_set(frame)
        seen = [world_to_camera_view(scene, scene.camera, point) for point in points]
        pixels.append([[s.x * WIDTH - 0.5, (1.0 - s.y) * HEIGHT - 0.5] for s in seen])
        visible.append([on_the_wall(scene, point) for point in points])
    render(scene, folder / "film.mp4")
    result({"size": [WIDTH, HEIGHT], "turns": TURNS, "pixels": pixels, "visible": visible})


def build() -> bpy.types.Scene:
    """The wall, the cube and the camera."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 0, FRAMES - 1
    scene.world = bpy.data.worlds.new("Sky")
    textured(scene.world, 3.0, (0.1, 0.2, 0.5), (0.8, 0.9, 0.95))
    bpy.ops.mesh.primitive_plane_add(size=40.0, location=(0.0, 6.0, 0.0), rotation=(math.radians(90), 0.0, 0.0))
    shown("Wall", 1.6, (0.25, 0.05, 0.02), (0.95, 0.75, 0.5))
    bpy.ops.mesh.primitive_cube_add(size=0.8, location=(0.9, 1.5, -0.9))
    cube = shown("Cube", 2.5, (0.05, 0.1, 0.4), (0.7, 0.9, 1.0))
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera, camera.data.lens, camera.rotation_mode = camera, 35.0, 'QUATERNION'
    ahead = Euler((math.radians(90), 0.0, 0.0)).to_matrix().to_4x4()
    for frame in range(FRAMES):
        turned = math.radians(-1.2 * max(0, frame - TURNS))
        where = Matrix.Translation((0.13 * frame, -2.0 + 0.12 * frame, 0.04 * frame))
        where = where @ Matrix.Rotation(turned, 4, 'Z') @ ahead @ Matrix.Rotation(math.radians(0.7 * frame), 4, 'Z')
        camera.location, camera.rotation_quaternion = where.translation, where.to_quaternion()
        cube.location.z = -0.9 + 0.09 * frame
        for thing in (camera, cube):
            thing.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_quaternion", frame=frame)
    return scene


def on_the_wall(scene: bpy.types.Scene, point: Vector) -> bool:
    """Whether the camera sees the wall there, and not what is before it."""
    eye = scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.translation
    there = scene.ray_cast(bpy.context.evaluated_depsgraph_get(), eye, (point - eye).normalized())
    return bool(there[0]) and there[4].name == "Wall"


def render(scene: bpy.types.Scene, path: Path) -> None:
    """The film, as Blender encodes it."""
    settings, cycles = scene.render, scene.cycles
    settings.engine = 'CYCLES'
    cycles.device, cycles.samples, cycles.use_adaptive_sampling, cycles.use_denoising = 'CPU', 4, False, False
    settings.resolution_x, settings.resolution_y, settings.resolution_percentage = WIDTH, HEIGHT, 100
    settings.use_motion_blur, settings.fps = False, 24
    scene.view_settings.view_transform = 'Standard'
    if hasattr(settings.image_settings, "media_type"):
        settings.image_settings.media_type = 'VIDEO'  # Blender 5
    settings.image_settings.file_format = 'FFMPEG'
    film = settings.ffmpeg
    film.format, film.codec, film.constant_rate_factor, film.audio_codec = 'MPEG4', 'H264', 'HIGH', 'NONE'
    film.gopsize, film.use_max_b_frames, film.max_b_frames = 6, True, 2
    settings.filepath = str(path)
    bpy.ops.render.render(animation=True)


if __name__ == "__main__":
    main(Path(arguments()[0]))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the demo: a small scene whose camera and curves Koshi turns into two seconds of video.

    blender -b -P examples/make_demo_scene.py -- OUT.blend

Koshi must be installed and enabled. Then, to render it and to make a video of it:

    blender -b OUT.blend --command koshi render --save
    blender -b OUT.blend -a
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import bpy
from mathutils import Matrix, Vector

FRAMES = 48
SIZE = 256
TARGET = Vector((0.0, 2.0, 1.4))
# (frame, camera's place, turn about the view in degrees, where it looks beside the target)
CAMERA_KEYS = (
    (1, (0.0, -9.0, 1.6), -3.0, (-0.15, 0.0, 0.0)),
    (25, (0.2, -6.6, 1.6), 1.0, (0.05, 0.0, 0.05)),
    (48, (0.1, -4.6, 1.5), 6.0, (0.15, 0.0, 0.1)),
)
ZOOM_KEYS = ((1, 1.0), (24, 1.004), (48, 1.0))
STRENGTH_KEYS = ((1, 0.45), (24, 0.5), (30, 0.6), (48, 0.5))
PROMPTS = ((1, "a modern city at sunset, photo"), (25, "a modern city at night, photo"))


def main(path: Path) -> None:
    """Build the scene and save it at `path`."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.name = "Demo"
    if not hasattr(scene, "koshi"):
        sys.exit(
            "Koshi is not enabled: install its zip in Preferences > Get Extensions > Install from Disk first."
        )
    set_up_output(scene)
    add_city(scene)
    add_camera(scene)
    set_up_koshi(scene)
    scene.frame_set(scene.frame_start)
    path.parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(path.resolve()))
    print(f"Saved {path}")


def set_up_output(scene: bpy.types.Scene) -> None:
    """256 x 256 at 24 frames a second; rendering the animation writes an H.264 video beside the .blend."""
    scene.frame_start, scene.frame_end = 1, FRAMES
    render = scene.render
    render.resolution_x = render.resolution_y = SIZE
    render.resolution_percentage = 100
    render.fps, render.fps_base = 24, 1.0
    render.filepath = "//demo.mp4"
    render.use_file_extension = False
    if hasattr(render.image_settings, "media_type"):  # Blender 5.0 and later
        render.image_settings.media_type = 'VIDEO'
    render.image_settings.file_format = 'FFMPEG'
    render.ffmpeg.format = 'MPEG4'
    render.ffmpeg.codec = 'H264'
    render.ffmpeg.constant_rate_factor = 'HIGH'
    render.ffmpeg.audio_codec = 'NONE'
    render.dither_intensity = 0.0
    scene.display_settings.display_device = 'sRGB'
    scene.view_settings.view_transform = 'Standard'


def add_city(scene: bpy.types.Scene) -> None:
    """A row of towers by the water: what the camera flies towards, and what the viewport shows."""
    water = material("Water", (0.05, 0.12, 0.25), roughness=0.15)
    stone = material("Towers", (0.25, 0.2, 0.22), roughness=0.9)
    bpy.ops.mesh.primitive_plane_add(size=60.0)
    bpy.context.object.name = "Water"
    bpy.context.object.data.materials.append(water)
    for i in range(13):
        height = 0.8 + 2.4 * abs(math.sin(2.1 * i + 0.7))
        bpy.ops.mesh.primitive_cube_add(size=1.0, location=(0.75 * (i - 6), 2.0 + 0.6 * math.cos(3.0 * i), height / 2))
        tower = bpy.context.object
        tower.name = f"Tower {i + 1}"
        tower.scale = (0.6, 0.6, height)
        tower.data.materials.append(stone)
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", 'SUN'))
    sun.data.energy = 3.0
    sun.data.color = (1.0, 0.6, 0.4)
    sun.rotation_euler = (math.radians(75.0), 0.0, math.radians(30.0))
    scene.collection.objects.link(sun)
    world = bpy.data.worlds.new("Sunset")
    world.color = (0.5, 0.25, 0.3)
    scene.world = world


def material(name: str, color: tuple[float, float, float], roughness: float) -> bpy.types.Material:
    """A plain material that also has its colour in the solid viewport."""
    made = bpy.data.materials.new(name)
    made.diffuse_color = (*color, 1.0)
    made.roughness = roughness
    return made


def add_camera(scene: bpy.types.Scene) -> None:
    """A slow push-in with a turn and a pan, eased by Blender's own Bezier keys."""
    focus = bpy.data.objects.new("Focus", None)
    focus.location = TARGET
    scene.collection.objects.link(focus)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.lens = 35.0
    camera.data.dof.use_dof = True
    camera.data.dof.focus_object = focus
    before = None
    for frame, place, turn, beside in CAMERA_KEYS:
        camera.location = place
        view = (TARGET + Vector(beside) - Vector(place)).to_track_quat('-Z', 'Y').to_matrix()
        rolled = view @ rotation_about_view(turn)
        camera.rotation_euler = rolled.to_euler('XYZ', before) if before else rolled.to_euler('XYZ')
        before = camera.rotation_euler.copy()
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)


def rotation_about_view(degrees: float) -> Matrix:
    """A rotation about the camera's own view axis."""
    return Matrix.Rotation(math.radians(degrees), 3, 'Z')


def set_up_koshi(scene: bpy.types.Scene) -> None:
    """Curves on top of the camera, and two prompts a second apart."""
    koshi = scene.koshi
    koshi.model = "koshi-tiny"
    koshi.mode = 'BOTH'
    koshi.motion_source = 'CAMERA'
    koshi.steps = 4
    koshi.seed = 5
    for name, keys in (("zoom", ZOOM_KEYS), ("strength", STRENGTH_KEYS)):
        for frame, value in keys:
            setattr(koshi, name, value)
            koshi.keyframe_insert(name, frame=frame)  # float keys are Bezier by default
    for frame, text in PROMPTS:
        prompt = koshi.prompts.add()
        prompt.frame, prompt.text = frame, text


if __name__ == "__main__":
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if len(arguments) != 1:
        sys.exit("Usage: blender -b -P examples/make_demo_scene.py -- OUT.blend")
    main(Path(arguments[0]))

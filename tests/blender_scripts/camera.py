# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera moves as similarities, judged by Blender's own projection of points on the focus plane.

For every frame of every case: where `world_to_camera_view` puts each point in the frame before, moved as the
sampled shot says, against where it puts it now. Reports the largest distance in pixels, and how far the
points really went.
"""

from __future__ import annotations

import cmath
import math
import os
import sys

import bpy
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Matrix, Vector

sys.path.insert(0, os.path.dirname(__file__))
from inside import empty_scene, koshi, result

sample = koshi("operators.sample")
FRAMES = 8
NAMES = ("zoom", "angle", "translation_x", "translation_y")


def build(width: int, height: int, places: list[Matrix], distance: float = 8.0, **camera_settings: object):
    """A scene whose camera stands at places[i] in frame 1 + i, focused on a point in front of places[0]."""
    scene = empty_scene(width, height, FRAMES)
    scene.koshi.motion_source = 'CAMERA'
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    for name, value in camera_settings.items():
        setattr(camera.data, name, value)
    focus = bpy.data.objects.new("Focus", None)
    scene.collection.objects.link(focus)
    focus.location = places[0] @ Vector((0.0, 0.0, -distance))
    camera.data.dof.use_dof = True
    camera.data.dof.focus_object = focus
    camera.rotation_mode = 'QUATERNION'
    for i, place in enumerate(places):
        camera.location, camera.rotation_quaternion = place.translation, place.to_quaternion()
        camera.keyframe_insert("location", frame=1 + i)
        camera.keyframe_insert("rotation_quaternion", frame=1 + i)
    return scene, distance


def judge(scene: bpy.types.Scene, spread: float) -> dict[str, float]:
    """The largest error and the largest true motion of points within `spread` of the picture's half size."""
    sampled = sample.shot_from_scene(scene)
    table = sampled.shot["schedules"]
    width, height = sampled.shot["width"], sampled.shot["height"]
    centre = complex(width / 2, height / 2)
    worst = moved = 0.0
    for i in range(1, FRAMES):
        zoom, angle, x, y = (table[n][i] if isinstance(table[n], list) else table[n] for n in NAMES)
        scene.frame_set(i)
        points = on_focus_plane(scene, spread)
        before = [pixel(scene, point) for point in points]
        scene.frame_set(i + 1)
        after = [pixel(scene, point) for point in points]
        factor = zoom * cmath.exp(-1j * math.radians(angle))
        for p, q in zip(before, after, strict=True):
            predicted = centre + factor * (p - centre + complex(x, y))
            worst = max(worst, abs(predicted - q))
            moved = max(moved, abs(q - p))
    return {"error": worst, "moved": moved, "notes": sampled.notes}


def on_focus_plane(scene: bpy.types.Scene, spread: float) -> list[Vector]:
    """Points on the plane through the focus object, found with the camera's own frustum."""
    camera = scene.camera
    focus = camera.data.dof.focus_object
    depth = -(camera.matrix_world.inverted() @ focus.matrix_world.translation).z
    corners = [Vector(c) for c in camera.data.view_frame(scene=scene)]  # on a plane in front of the camera
    if camera.data.type != 'ORTHO':
        corners = [c * (depth / -c.z) for c in corners]
    low = Vector((min(c.x for c in corners), min(c.y for c in corners), 0.0))
    high = Vector((max(c.x for c in corners), max(c.y for c in corners), 0.0))
    middle, half = (low + high) / 2, (high - low) / 2
    steps = (-1.0, -0.5, 0.0, 0.5, 1.0)
    return [
        camera.matrix_world @ Vector((middle.x + u * spread * half.x, middle.y + v * spread * half.y, -depth))
        for u in steps
        for v in steps
    ]


def pixel(scene: bpy.types.Scene, point: Vector) -> complex:
    seen = world_to_camera_view(scene, scene.camera, point)
    width = scene.render.resolution_x * scene.render.resolution_percentage // 100
    height = scene.render.resolution_y * scene.render.resolution_percentage // 100
    return complex(seen.x * width, (1.0 - seen.y) * height)


START = Matrix.Translation((1.0, -6.0, 2.5)) @ Matrix.Rotation(math.radians(80), 4, 'X')
STEPS = {
    "push": lambda i: Matrix.Translation((0.0, 0.0, -0.12 * i)),
    "pull": lambda i: Matrix.Translation((0.0, 0.0, 0.2 * i)),
    "roll": lambda i: Matrix.Rotation(math.radians(1.5 * i), 4, 'Z'),
    "truck": lambda i: Matrix.Translation((0.06 * i, -0.04 * i, 0.0)),
    "pan": lambda i: Matrix.Rotation(math.radians(0.3 * i), 4, 'Y'),
    "tilt": lambda i: Matrix.Rotation(math.radians(0.3 * i), 4, 'X'),
    "all": lambda i: Matrix.Translation((0.02 * i, 0.01 * i, -0.1 * i)) @ Matrix.Rotation(0.015 * i, 4, 'Z'),
}
SIZES = {"landscape": (640, 352), "portrait": (352, 640), "square": (256, 256)}
out: dict = {"cases": {}}
for size, (width, height) in SIZES.items():
    for name, step in STEPS.items():
        scene, _ = build(width, height, [START @ step(i) for i in range(FRAMES)])
        out["cases"][f"{name} {size}"] = judge(scene, 0.5)
for name, settings in {
    "shift": {"shift_x": 0.2, "shift_y": -0.1},
    "vertical fit": {"sensor_fit": 'VERTICAL', "sensor_height": 20.0},
    "parallel": {"type": 'ORTHO', "ortho_scale": 7.0},
}.items():
    scene, _ = build(640, 352, [START @ STEPS["all"](i) for i in range(FRAMES)], **settings)
    out["cases"][f"all {name}"] = judge(scene, 0.5)

# A changing lens is a zoom.
scene, _ = build(640, 352, [START] * FRAMES)
for frame, lens in ((1, 35.0), (FRAMES, 50.0)):
    scene.camera.data.lens = lens
    scene.camera.data.keyframe_insert("lens", frame=frame)
out["cases"]["lens landscape"] = judge(scene, 0.5)

# The curves come on top: the camera's roll first, then the curve's own zoom and shift.
scene, _ = build(256, 256, [START @ STEPS["roll"](i) for i in range(FRAMES)])
alone = sample.shot_from_scene(scene).shot["schedules"]
scene.koshi.zoom, scene.koshi.translation_x = 1.02, 3.0
both = sample.shot_from_scene(scene).shot["schedules"]
out["composed"] = {"alone": {n: alone[n] for n in NAMES}, "both": {n: both[n] for n in NAMES}}

# Signs, in Deforum's terms: the camera turning clockwise turns the picture counter-clockwise, and so on.
out["signs"] = {}
for name, step in {
    "push": Matrix.Translation((0, 0, -0.1)), "clockwise": Matrix.Rotation(-0.02, 4, 'Z'),
    "right": Matrix.Translation((0.1, 0, 0)), "up": Matrix.Translation((0, 0.1, 0)),
}.items():  # fmt: skip
    scene, _ = build(256, 256, [START, *([START @ step] * (FRAMES - 1))])
    table = sample.shot_from_scene(scene).shot["schedules"]
    out["signs"][name] = {n: table[n][1] if isinstance(table[n], list) else table[n] for n in NAMES}

# Where the distance comes from, in words.
scene, _ = build(256, 256, [START] * FRAMES)
camera = scene.camera.data
notes = {"object": sample.shot_from_scene(scene).notes}
camera.dof.focus_object = None
camera.dof.focus_distance = 3.25
notes["distance"] = sample.shot_from_scene(scene).notes
camera.dof.use_dof = False
notes["origin"] = sample.shot_from_scene(scene).notes
scene, _ = build(256, 256, [START @ Matrix.Rotation(math.pi, 4, 'Y')] * FRAMES)
scene.camera.data.dof.use_dof = False
notes["behind"] = sample.shot_from_scene(scene).notes
out["notes"] = notes

# A cut between two cameras bound to markers moves nothing.
scene, _ = build(256, 256, [START] * FRAMES)
other = scene.camera.copy()
other.name = "Other"
scene.collection.objects.link(other)
other.animation_data_clear()
other.location.x += 5.0
for frame, bound in ((1, scene.camera), (5, other)):
    marker = scene.timeline_markers.new("cut", frame=frame)
    marker.camera = bound
sampled = sample.shot_from_scene(scene)
out["cut"] = {"translation_x": sampled.shot["schedules"]["translation_x"], "notes": sampled.notes}

# What shows nothing, through a parent too; and no camera at all.
def refused() -> dict[str, object] | None:
    try:
        sample.shot_from_scene(scene)
    except koshi("bridge_server.protocol").BridgeError as error:
        return error.as_dict()
    return None


scene.timeline_markers.clear()
camera = scene.camera
parent = bpy.data.objects.new("Parent", None)
scene.collection.objects.link(parent)
out["no_scale"] = {}
for source in ('CAMERA', 'EXACT'):
    scene.koshi.motion_source = source
    camera.parent, camera.scale = None, (0.0, 0.0, 0.0)
    out["no_scale"][source] = refused()
    camera.parent, camera.scale = parent, (1.0, 1.0, 1.0)
    for frame, scale in ((1, 1.0), (3, 0.0)):
        parent.scale.z = scale
        parent.keyframe_insert("scale", index=2, frame=frame)
    out["no_scale"][f"{source} parent"] = refused()
    parent.animation_data_clear()
    parent.scale.z = 1e-6  # which is little, and something
    out["no_scale"][f"{source} small"] = refused()
scene.koshi.motion_source = 'CAMERA'
scene.camera = None
out["no_camera"] = refused()
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty-odd scenes with a moving camera: `-- OUT_FOLDER`. For each: its shot (OUT_FOLDER/NAME.koshi.json) with the
guides that Koshi renders, and where Blender itself projects points in each frame and in the one before.

Points are what Blender's own ray through a pixel's centre hits; where it puts them, `world_to_camera_view` says.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Euler, Matrix, Vector

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

camera_module, camera_curves = koshi("operators.camera"), koshi("operators.camera_curves")
compat, guides = koshi("operators.compat"), koshi("operators.guides")
sample, scene_values = koshi("operators.sample"), koshi("operators.scene_values")
FOLDER = Path(arguments()[0])
LIBRARY = FOLDER / "library.blend"
Scene, Object = bpy.types.Scene, bpy.types.Object
CASES: dict[str, Callable[[Scene, Object], None]] = {}


def case(function: Callable[[Scene, Object], None]) -> Callable[[Scene, Object], None]:
    """Adds a scene, by the function's name."""
    CASES[function.__name__] = function
    return function


def keyed(thing: Any, name: str, values: dict[int, Any]) -> None:
    """Key a property."""
    for frame, value in values.items():
        setattr(thing, name, value)
        thing.keyframe_insert(name, frame=frame)


def path(thing: Object, start: Matrix, step: tuple[float, float, float], turn: tuple[float, float, float]) -> None:
    """Key one step a frame, in its own axes; turns in degrees."""
    thing.rotation_mode = 'QUATERNION'
    one = Matrix.Translation(step) @ Euler([math.radians(a) for a in turn]).to_matrix().to_4x4()
    where = start.copy()
    for frame in range(8):
        thing.location, thing.rotation_quaternion = where.translation, where.to_quaternion()
        thing.keyframe_insert("location", frame=frame)
        thing.keyframe_insert("rotation_quaternion", frame=frame)
        where = where @ one


def empty(scene: Scene, name: str) -> Object:
    """An empty in the scene."""
    made = bpy.data.objects.new(name, None)
    scene.collection.objects.link(made)
    return made


def constrained(camera: Object, kind: str, target: Object, **settings: Any) -> None:
    """Add a constraint."""
    constraint = camera.constraints.new(kind)
    constraint.target = target
    for name, value in settings.items():
        setattr(constraint, name, value)


def build() -> tuple[Scene, Object]:
    """Ground, wall, ball and a cube that moves; a camera that pushes in, drifts and turns."""
    scene = empty_scene(96, 64, frames=2)
    bpy.ops.mesh.primitive_plane_add(size=40.0)
    bpy.ops.mesh.primitive_plane_add(size=5.0, location=(-4.0, 6.0, 1.5), rotation=(math.radians(90), 0.0, 0.3))
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3, radius=0.8, location=(-1.2, -1.5, 1.1))
    bpy.ops.mesh.primitive_cube_add(size=1.2, location=(0.6, 0.5, 1.0))
    cube = bpy.context.object
    path(cube, cube.matrix_basis.copy(), (0.1, 0.02, 0.03), (0.0, 0.0, 4.0))
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.lens = 35.0
    camera.data.dof.use_dof, camera.data.dof.focus_distance = True, 7.0
    camera.data.dof.aperture_fstop = 0.5
    start = Matrix.Translation((0.0, -7.0, 1.8)) @ Matrix.Rotation(math.radians(84), 4, 'X')
    path(camera, start, (0.08, 0.03, -0.15), (0.3, 0.6, 1.0))
    return scene, camera


@case
def plain(scene: Scene, camera: Object) -> None:
    pass


@case
def zooming_lens(scene: Scene, camera: Object) -> None:
    keyed(camera.data, "lens", {0: 30.0, 4: 60.0})


@case
def shifted(scene: Scene, camera: Object) -> None:
    camera.data.shift_x, camera.data.shift_y = 0.2, -0.1


@case
def shifting(scene: Scene, camera: Object) -> None:
    keyed(camera.data, "shift_x", {0: 0.1, 4: 0.2})
    keyed(camera.data, "shift_y", {0: 0.0, 4: -0.15})


@case
def vertical_fit(scene: Scene, camera: Object) -> None:
    camera.data.sensor_fit, camera.data.sensor_height = 'VERTICAL', 20.0


@case
def horizontal_fit_of_a_tall_picture(scene: Scene, camera: Object) -> None:
    scene.render.resolution_x, scene.render.resolution_y = 64, 96
    camera.data.sensor_fit, camera.data.shift_y = 'HORIZONTAL', 0.1


@case
def tall_picture(scene: Scene, camera: Object) -> None:
    scene.render.resolution_x, scene.render.resolution_y = 64, 112


@case
def orthographic(scene: Scene, camera: Object) -> None:
    camera.data.type, camera.data.ortho_scale = 'ORTHO', 8.0


@case
def orthographic_growing(scene: Scene, camera: Object) -> None:
    camera.data.type, camera.data.shift_x = 'ORTHO', 0.1
    keyed(camera.data, "ortho_scale", {0: 8.0, 4: 6.0})


@case
def by_angles_and_modifiers(scene: Scene, camera: Object) -> None:
    """Angles in another order, a scale, a curve that shakes, one that is switched off, and a focus that is pulled."""
    curves = compat.fcurves(camera)
    for curve in [curve for curve in curves if curve.data_path == "rotation_quaternion"]:
        curves.remove(curve)
    camera.rotation_mode, camera.scale = 'ZXY', (2.0, 2.0, 2.0)
    keyed(camera, "rotation_euler", {0: (1.46, 0.0, 0.0), 7: (1.5, -0.05, 0.15)})
    shaken, silent, *_ = compat.fcurves(camera)
    shaken.modifiers.new('NOISE').strength = 0.3
    silent.mute = True
    camera.data.dof.use_dof = True
    keyed(camera.data.dof, "focus_distance", {0: 6.0, 7: 4.0})
    keyed(camera.data, "clip_start", {0: 0.1, 7: 0.2})


@case
def parented(scene: Scene, camera: Object) -> None:
    rig = empty(scene, "Rig")
    path(rig, Matrix.Translation((0.2, 0.1, 0.3)), (0.05, 0.0, 0.02), (0.0, 0.0, 1.5))
    rig.scale = (2.0, 2.0, 2.0)
    camera.parent = rig
    camera.matrix_parent_inverse = Matrix.Scale(0.5, 4)


@case
def parent_that_shears(scene: Scene, camera: Object) -> None:
    rig = empty(scene, "Rig")
    path(rig, Matrix.Rotation(0.2, 4, 'Z'), (0.02, 0.0, 0.0), (0.0, 0.0, 1.0))
    rig.scale = (1.0, 1.15, 0.9)
    camera.parent = rig


@case
def tracking(scene: Scene, camera: Object) -> None:
    target = empty(scene, "Target")
    keyed(target, "location", {0: (0.0, 0.0, 1.0), 5: (0.6, 1.0, 1.3)})
    constrained(camera, 'TRACK_TO', target, track_axis='TRACK_NEGATIVE_Z', up_axis='UP_Y')


@case
def following_a_path(scene: Scene, camera: Object) -> None:
    bpy.ops.curve.primitive_bezier_circle_add(radius=6.0, location=(0.0, 0.0, 2.0))
    rail = bpy.context.object
    camera.animation_data_clear()
    camera.location = (0.0, 0.0, 0.0)
    constrained(camera, 'FOLLOW_PATH', rail, use_fixed_location=True)
    keyed(camera.constraints[0], "offset_factor", {0: 0.70, 7: 0.78})
    constrained(camera, 'TRACK_TO', bpy.data.objects["Cube"], track_axis='TRACK_NEGATIVE_Z', up_axis='UP_Y')


@case
def child_of_a_scaled_thing(scene: Scene, camera: Object) -> None:
    rig = empty(scene, "Rig")
    path(rig, Matrix.Identity(4), (0.05, 0.04, 0.0), (0.0, 0.0, 1.0))
    camera.scale = (0.5, 0.5, 2.0)
    constrained(camera, 'CHILD_OF', rig)


@case
def cameras_bound_to_markers(scene: Scene, camera: Object) -> None:
    scene.frame_end = 5
    other = camera.copy()
    other.data = camera.data.copy()
    other.name, other.data.lens = "Other", 28.0
    scene.collection.objects.link(other)
    start = Matrix.Translation((2.0, -6.0, 2.5)) @ Matrix.Rotation(1.35, 4, 'X')
    path(other, start, (0.0, 0.05, -0.2), (0.0, 1.0, 0.0))
    for frame, bound in ((1, camera), (3, other), (5, camera)):
        scene.timeline_markers.new("cut", frame=frame).camera = bound


@case
def wide_pixels(scene: Scene, camera: Object) -> None:
    scene.render.pixel_aspect_x = 2.0


@case
def tall_pixels(scene: Scene, camera: Object) -> None:
    scene.render.pixel_aspect_y = 1.5
    camera.data.sensor_fit, camera.data.shift_x = 'VERTICAL', 0.1


@case
def render_border(scene: Scene, camera: Object) -> None:
    render = scene.render
    render.use_border = render.use_crop_to_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.2, 0.7, 0.1, 0.6


@case
def every_second_frame(scene: Scene, camera: Object) -> None:
    scene.frame_end, scene.frame_step = 6, 2


@case
def every_third_frame_with_a_cut(scene: Scene, camera: Object) -> None:
    cameras_bound_to_markers(scene, camera)
    scene.timeline_markers[2].frame = 40
    scene.frame_start, scene.frame_end, scene.frame_step = 0, 6, 3  # the second camera comes in at frame 3
    scene.timeline_markers[1].frame = 2
    other = scene.timeline_markers[1].camera
    other.data.dof.use_dof = False


@case
def motion_blurred(scene: Scene, camera: Object) -> None:
    scene.render.use_motion_blur = True
    scene.render.motion_blur_shutter = 1.0


@case
def half_size(scene: Scene, camera: Object) -> None:
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 192, 160, 50


@case
def driven_and_in_the_nla(scene: Scene, camera: Object) -> None:
    driver = camera.data.driver_add("lens").driver
    driver.expression = "30 + frame"
    animation = camera.animation_data
    action = animation.action
    strip = animation.nla_tracks.new().strips.new("Move", 0, action)
    if hasattr(strip, "action_slot") and strip.action_slot is None:
        strip.action_slot = strip.action_suitable_slots[0]
    animation.action = None
    strip.scale = 1.5


@case
def linked_from_a_library(scene: Scene, camera: Object) -> None:
    scene.frame_end = 3
    with bpy.data.libraries.load(str(LIBRARY), link=True) as (_, wanted):
        wanted.objects = ["Camera"]
    (linked,) = wanted.objects
    scene.collection.objects.link(linked)
    assert linked.name == camera.name and linked.library
    for frame, bound in ((1, linked), (3, camera)):  # a cut between two cameras of one name
        scene.timeline_markers.new("cut", frame=frame).camera = bound


def rays(scene: Scene, depsgraph: Any, spacing: int) -> list[tuple[list[int], Vector, Object]]:
    """What pixels show: pixel, place, thing. Rays by the frame that Blender draws for the camera."""
    width, height = camera_module.picture_size(scene)
    camera = scene.camera.evaluated_get(depsgraph)
    world = camera.matrix_world.normalized()
    corners = camera.data.view_frame(scene=scene)
    right, left = max(c.x for c in corners), min(c.x for c in corners)
    top, bottom = max(c.y for c in corners), min(c.y for c in corners)
    back = corners[0].z
    found = []
    for y in range(spacing // 2, height, spacing):
        for x in range(spacing // 2, width, spacing):
            u, v = (x + 0.5) / width, (y + 0.5) / height
            spot = Vector((left + u * (right - left), top + v * (bottom - top), back))
            if camera.data.type == 'ORTHO':
                origin, toward = Vector((spot.x, spot.y, 0.0)), Vector((0.0, 0.0, -1.0))
            else:
                origin, toward = Vector(), spot
            hit, place, _, _, thing, _ = scene.ray_cast(depsgraph, world @ origin, world.to_3x3() @ toward)
            if hit:
                found.append(([x, y], place, thing.original if hasattr(thing, "original") else thing))
    return found


def pixel(scene: Scene, place: Vector) -> list[float]:
    """Where Blender puts a point, pixel centres at whole numbers, and its depth."""
    width, height = camera_module.picture_size(scene)
    seen = world_to_camera_view(scene, scene.camera, place)
    return [seen.x * width - 0.5, (1.0 - seen.y) * height - 0.5, seen.z]


def truth(scene: Scene, frames: list[int]) -> list[dict[str, Any]]:
    """For each frame but the first: pixels, where they really are, where they were; and points of the focus plane."""
    out = []
    for before, now in itertools.pairwise(frames):
        with scene_values.evaluated(scene) as depsgraph:
            scene.frame_set(now)
            shown = rays(scene, depsgraph, 7)
            here = [pixel(scene, place) for _, place, _ in shown]
            local = [thing.matrix_world.inverted() @ place for _, place, thing in shown]
            scene.frame_set(before)
            was = [
                pixel(scene, thing.matrix_world @ place)
                for (_, _, thing), place in zip(shown, local, strict=True)
            ]
            view = camera_module.view_of(scene, camera_module.eye_of(scene, depsgraph))
            plane = on_focus_plane(scene, depsgraph, view.focus)
            first = [pixel(scene, place)[:2] for place in plane]
            scene.frame_set(now)
            second = [pixel(scene, place)[:2] for place in plane]
        pixels = [at for at, _, _ in shown]
        out.append({"pixels": pixels, "here": here, "was": was, "plane": [first, second]})
    return out


def on_focus_plane(scene: Scene, depsgraph: Any, focus: float) -> list[Vector]:
    """A grid over the middle half of the picture, on the plane at the focus distance, by the camera's own frame."""
    camera = scene.camera.evaluated_get(depsgraph)
    corners = [Vector(c) for c in camera.data.view_frame(scene=scene)]
    if camera.data.type != 'ORTHO':
        corners = [c * (focus / -c.z) for c in corners]
    low = Vector((min(c.x for c in corners), min(c.y for c in corners)))
    high = Vector((max(c.x for c in corners), max(c.y for c in corners)))
    middle, half = (low + high) / 2, (high - low) / 2
    steps = (-0.5, -0.25, 0.0, 0.25, 0.5)
    world = camera.matrix_world.normalized()
    return [world @ Vector((middle.x + u * half.x, middle.y + v * half.y, -focus)) for u in steps for v in steps]


def without_evaluating(scene: Scene, frames: list[int]) -> float | None:
    """How far the camera that is read from its F-curves is from the evaluated one in any number; None: it is not."""
    eye_at = camera_curves.reader(scene)
    if eye_at is None:
        return None
    read = [camera_module.numbers_of(scene, eye_at(frame)) for frame in frames]
    focused = [camera_module.view_of(scene, eye_at(frame)).focus for frame in frames]
    worst = 0.0
    with scene_values.evaluated(scene) as depsgraph:
        for frame, numbers, focus in zip(frames, read, focused, strict=True):
            scene.frame_set(frame)
            eye = camera_module.eye_of(scene, depsgraph)
            told = camera_module.numbers_of(scene, eye)
            for name, number in numbers.items():
                if name == "matrix_world":
                    pairs = zip(itertools.chain(*number), itertools.chain(*told[name]), strict=True)
                    worst = max(worst, *(abs(a - b) for a, b in pairs))
                elif isinstance(number, float):
                    worst = max(worst, abs(number - told[name]))
                else:
                    assert number == told[name], name
            worst = max(worst, abs(focus - camera_module.view_of(scene, eye).focus))
    return worst


if __name__ == "__main__":
    build()
    bpy.data.objects["Camera"].data.lens = 42.0
    bpy.data.libraries.write(str(LIBRARY), {bpy.data.objects["Camera"]})
    out: dict[str, Any] = {}
    for name, change in CASES.items():
        scene, camera = build()
        change(scene, camera)
        scene.koshi.motion_source = 'CAMERA'
        flat = sample.shot_from_scene(scene)
        scene.koshi.motion_source = 'EXACT'
        exact = sample.shot_from_scene(scene)
        folder = FOLDER / name
        shot = guides.moved_to(exact.shot, folder)
        for _ in guides.render_guides(scene, shot, folder):
            pass
        (FOLDER / f"{name}.koshi.json").write_text(json.dumps(shot))
        step = scene.frame_step
        frames = list(range(scene.frame_start, scene.frame_end + 1, step))
        out[name] = {
            "flat": flat.shot["schedules"], "truth": truth(scene, frames), "notes": exact.notes,
            "curves": without_evaluating(scene, frames),
        }  # fmt: skip
    result(out)

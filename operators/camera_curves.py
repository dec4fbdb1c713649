# SPDX-License-Identifier: GPL-3.0-or-later
"""The scene camera's place and lens from its F-curves, without evaluating the scene.

`frame_set` is always right, and evaluates everything in the scene for every frame: it keeps a window waiting, and has
the 3D view drawn anew. Where nothing but F-curves moves the camera, they say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bpy
from mathutils import Euler, Matrix, Quaternion, Vector

from . import values
from .camera import STATE, Eye

PLACE = ("location", "rotation_euler", "rotation_quaternion", "scale")
FOCUS = "dof.focus_distance"
# What of these is not as Blender makes an object moves it, too.
DELTAS = {
    "delta_location": (0, 0, 0), "delta_rotation_euler": (0, 0, 0), "delta_rotation_quaternion": (1, 0, 0, 0),
    "delta_scale": (1, 1, 1),
}  # fmt: skip

Read = Callable[[int], float]


def reader(scene: bpy.types.Scene) -> Callable[[int], Eye] | None:
    """What tells the camera at a scene frame, or None if anything but F-curves may have a say in it.

    To be used at once: it holds what Blender may free when anything changes.
    """
    eye = scene.camera
    if eye is None or eye.type != 'CAMERA' or not _scene_is_plain(scene) or not _object_is_plain(eye):
        return None
    data = eye.data
    if data.dof.use_dof and data.dof.focus_object is not None:
        return None
    moving, turning = values.only_curves(eye), values.only_curves(data)
    if moving is None or turning is None:
        return None
    if {path for path, _ in moving} - {*PLACE} or {path for path, _ in turning} - {*STATE, FOCUS}:
        return None

    def vector(name: str) -> list[Read]:
        return [_read(eye, moving.get((name, i)), name, i) for i in range(len(getattr(eye, name)))]

    mode = eye.rotation_mode
    place, size = vector("location"), vector("scale")
    turn = vector("rotation_quaternion" if mode == 'QUATERNION' else "rotation_euler")
    numbers = {name: _read(data, turning.get((name, 0)), name) for name in STATE}
    focus = _read(data.dof, turning.get((FOCUS, 0)), "focus_distance")
    fixed = {"type": data.type, "sensor_fit": data.sensor_fit}
    focused = data.dof.use_dof

    def at(frame: int) -> Eye:
        angles = [read(frame) for read in turn]
        rotation = Quaternion(angles).normalized() if mode == 'QUATERNION' else Euler(angles, mode)
        world = Matrix.LocRotScale(
            Vector([read(frame) for read in place]), rotation, Vector([read(frame) for read in size])
        )
        dof = SimpleNamespace(use_dof=focused, focus_object=None, focus_distance=focus(frame))
        return Eye(SimpleNamespace(**fixed, **{name: read(frame) for name, read in numbers.items()}, dof=dof), world)

    return at


def _scene_is_plain(scene: bpy.types.Scene) -> bool:
    """Whether the scene has one camera all the time, and a picture of one shape."""
    if not values.only_time_counts(scene) or any(marker.camera for marker in scene.timeline_markers):
        return False
    return values.only_curves(scene, "render.") == {} and values.only_curves(scene, "camera") == {}


def _object_is_plain(eye: bpy.types.Object) -> bool:
    """Whether the object is where its own numbers say."""
    if eye.parent is not None or len(eye.constraints) or eye.rigid_body is not None:
        return False
    return eye.rotation_mode != 'AXIS_ANGLE' and all(
        tuple(getattr(eye, name)) == none for name, none in DELTAS.items()
    )


def _read(owner: Any, curve: bpy.types.FCurve | None, name: str, index: int | None = None) -> Read:
    """What reads one number at a frame."""
    if curve is None:
        value = getattr(owner, name)
        value = value if index is None else value[index]
        return lambda frame: value
    stored, evaluate = values.as_stored(owner.bl_rna.properties[name]), curve.evaluate
    return lambda frame: stored(evaluate(frame))

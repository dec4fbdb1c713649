# SPDX-License-Identifier: GPL-3.0-or-later
"""Keyframes for one of Koshi's values in a scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from . import compat, course, values
from .course import Knot

# How far a curve may be from the shot's numbers, as a share of the largest: lines in single precision; keys that were
# written, as Bezier pieces (5e-6 is the worst seen up to frame 1000; Blender solves for the time in single precision).
NEAR, FAR = 1e-6, 1e-5


def lay(scene: bpy.types.Scene, path: str, column: Sequence[float], knots: list[Knot] | None = None) -> None:
    """Give a value of `scene.koshi`, by its path there, this course from the scene's first frame on.

    column: a number for each frame. knots: the keys that were written, if any; otherwise, and where those do not give
    the numbers in single precision, there is a key wherever the values leave a straight line.
    """
    clear(scene, path)
    settings, name = owner(scene, path)
    whole = settings.bl_rna.properties[name].type in ('INT', 'BOOLEAN')
    setattr(settings, name, int(column[0]) if whole else column[0])
    if len(set(column)) == 1:
        return
    numbers = list(column)
    if whole:
        _draw(scene, path, course.stepped(numbers))
        return
    if knots is not None and _off(_draw(scene, path, knots), scene, numbers) <= FAR:
        return
    off = _off(_draw(scene, path, course.straight(numbers)), scene, numbers)
    # Numbers as Blender samples them come back to the last digit.
    if off > (0.0 if all(values.rounded(value) == value for value in numbers) else NEAR):
        _draw(scene, path, course.every(numbers))


def clear(scene: bpy.types.Scene, path: str) -> None:
    """Remove a value's keyframes and driver."""
    settings, name = owner(scene, path)
    settings.driver_remove(name)
    curves = compat.fcurves(scene)
    for curve in [c for c in curves or () if c.data_path == f"koshi.{path}"]:
        curves.remove(curve)


def owner(scene: bpy.types.Scene, path: str) -> tuple[Any, str]:
    """The group that has a value of `scene.koshi`, and its name there."""
    group, _, name = f"koshi.{path}".rpartition(".")
    return scene.path_resolve(group), name


def _off(curve: bpy.types.FCurve, scene: bpy.types.Scene, column: list[float]) -> float:
    """How far a curve is from these numbers at worst, in seven digits, as a share of the largest."""
    drawn = (values.rounded(curve.evaluate(scene.frame_start + k)) for k in range(len(column)))
    return max(abs(a - b) for a, b in zip(drawn, column, strict=True)) / max(map(abs, column))


def _draw(scene: bpy.types.Scene, path: str, knots: list[Knot]) -> bpy.types.FCurve:
    """The value's F-curve, with these keys alone."""
    clear(scene, path)
    settings, name = owner(scene, path)
    settings.keyframe_insert(name, frame=scene.frame_start)
    curve = next(c for c in compat.fcurves(scene) or () if c.data_path == f"koshi.{path}")
    points, start = curve.keyframe_points, scene.frame_start
    points.add(len(knots) - len(points))
    points.foreach_set("co", [n for knot in knots for n in (start + knot.frame, knot.value)])
    kinds = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items
    points.foreach_set("interpolation", [kinds[knot.kind].value for knot in knots])
    shaped = any(knot.kind == 'BEZIER' for knot in knots)
    handles = bpy.types.Keyframe.bl_rna.properties["handle_left_type"].enum_items
    for side, step in (("left", -1), ("right", 1)):
        points.foreach_set(f"handle_{side}_type", [handles['FREE' if shaped else 'AUTO_CLAMPED'].value] * len(knots))
        places = []
        for k, knot in enumerate(knots):
            near = knots[min(max(k + step, 0), len(knots) - 1)]
            reach = (near.frame - knot.frame) / 3 or step
            places += [start + knot.frame + reach, knot.value + knot.slope * reach]
        points.foreach_set(f"handle_{side}", places)
    curve.update()
    return curve

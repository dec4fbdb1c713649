# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions of a shot's schedules as drivers of a scene's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

from . import formula, lay_keys, shot_fields
from .carried_shot import WHOLE, Carried
from .formula import NoDriver


def lay(scene: bpy.types.Scene, shot: dict[str, Any], carried: Carried) -> list[str]:
    """Make a driver of every schedule that is arithmetic, in place of its keys; returns what stays keys, in words."""
    told = []
    turned = shot.get("strength_convention") == "deforum"
    for path, schedule, values in _arithmetic(shot, carried):
        try:
            if path in (shot.get("motion") or {}).get("absolute", []):
                raise NoDriver("it says where the picture is, and its moves are what counts")
            if path in WHOLE:
                raise NoDriver("whole numbers have keys")
            said = formula.formula(
                schedule, values, carried.frame_start, shot.get("seed", 0), turned and path == "strength"
            )
        except NoDriver as reason:
            told.append(f"{path} has keys instead of a driver: {reason}.")
            continue
        drive(scene, path, said)
    return told


def drive(scene: bpy.types.Scene, path: str, expression: str) -> None:
    """Give a value of `scene.koshi` a scripted driver, in place of its keyframes."""
    lay_keys.clear(scene, path)
    settings, name = lay_keys.owner(scene, path)
    curve = settings.driver_add(name)
    curve.driver.type, curve.driver.expression = 'SCRIPTED', expression
    # 5.0 and later give the curve keys at 0 and 1, and take what is within 1e-5 of them for 0 and 1.
    while len(curve.keyframe_points):
        curve.keyframe_points.remove(curve.keyframe_points[0])


def _arithmetic(shot: dict[str, Any], carried: Carried) -> Iterator[tuple[str, Any, list[float]]]:
    """The schedules with expressions whose values are not all the same: path, schedule, values."""
    found: list[tuple[str, Any, list[float] | None]] = [
        (shot_fields.property_of(name), schedule, carried.values.get(name))
        for name, schedule in shot.get("schedules", {}).items()
        if name != "seed"
    ]
    for k, (prompt, known) in enumerate(zip(shot["prompts"], carried.prompts, strict=True)):
        found.append((f"prompts[{k}].weight", prompt.get("weight"), known.weights))
    loras = shot.get("loras") or []
    if len(loras) == len(carried.loras):
        for k, (lora, worn) in enumerate(zip(loras, carried.loras, strict=True)):
            found.append((f"loras[{k}].weight", lora.get("weight"), worn.weights))
    for path, schedule, values in found:
        if values is not None and len(set(values)) > 1 and formula.has_expressions(schedule):
            yield path, schedule, values

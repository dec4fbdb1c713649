# SPDX-License-Identifier: GPL-3.0-or-later
"""The animated values of `scene.koshi`, frame by frame.

`frame_set` and reading the property is always right: F-curves, modifiers, drivers and NLA. It also evaluates the whole
scene. Where nothing but F-curves has a say, those are read directly, with the same values to the bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import bpy

from .. import __package__ as base_package
from . import compat
from .camera import Similarity, push_zoom
from .shot_fields import property_of

FLAT = ("zoom", "angle", "translation_x", "translation_y")  # what a similarity of the picture is made of
PUSH = "translation_z"
MOTION = (*FLAT, PUSH)
TURNS = ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z")
FLIPS = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma")
MOST_PUSH = 75.0  # the backend's; Deforum's push over a flat depth turns the picture inside out at 82


def rounded(value: float) -> float:
    """A single-precision property as the decimal number it was typed as (1.01, not 1.0099999904632568)."""
    return float(f"{value:.7g}")


def direct(scene: bpy.types.Scene, names: Sequence[str], frames: Sequence[int]) -> dict[str, list[Any]] | None:
    """The values at `frames` from the F-curves alone, or None if anything else may have a say."""
    curves = only_curves(scene, "koshi.") if only_time_counts(scene) else None
    if curves is None:
        return None
    settings = scene.koshi
    table: dict[str, list[Any]] = {}
    for name in names:
        path = property_of(name)
        curve = curves.get((f"koshi.{path}", 0))
        if curve is None:
            table[name] = [settings.path_resolve(path)] * len(frames)
        else:
            group, _, last = path.rpartition(".")  # of "prompts[2].weight"
            owner = settings.path_resolve(group) if group else settings
            taken = as_stored(owner.bl_rna.properties[last])
            evaluate = curve.evaluate
            table[name] = [taken(evaluate(frame)) for frame in frames]
    return table


def accumulated(table: dict[str, list[float]], step: int) -> None:
    """Turn the motion of every scene frame into that of every `step`-th: one after the other, as one move.

    Zooms multiply, angles add up, and shifts do so as seen after what follows. The first frame's values stay: they move
    nothing.
    """
    count = (len(table["zoom"]) - 1) // step + 1
    moves: list[Similarity] = [Similarity(*(table[name][0] for name in FLAT))]
    pushes = [table[PUSH][0]]
    for i in range(1, count):
        total, pushed = Similarity(), 0.0
        for k in range((i - 1) * step + 1, i * step + 1):
            total = total.then(Similarity(*(table[name][k] for name in FLAT)))
            if push := table[PUSH][k]:
                total = total.then(Similarity(push_zoom(push)))
                pushed += push
        if pushed:
            pushed = min(pushed, MOST_PUSH)
            total = total.then(Similarity(1.0 / push_zoom(pushed)))  # the push comes last, so it can be taken out there
        moves.append(total.rounded())
        pushes.append(rounded(pushed))
    for column, name in enumerate(FLAT):
        table[name] = [move[column] for move in moves]
    table[PUSH] = pushes


def added_up(table: dict[str, list[float]], names: Sequence[str], step: int) -> None:
    """The same for values that simply add up (zoom: multiply), one after the other."""
    for name in names:
        column = table[name]
        parts = [column[i - step + 1 : i + 1] for i in range(step, len(column), step)]
        table[name] = [column[0], *(rounded(math.prod(part) if name == "zoom" else math.fsum(part)) for part in parts)]


def per_frame(name: str, places: list[float], around: bool = False) -> list[float]:
    """The move into every frame of a curve that holds places: differences, of zoom ratios. None into the first, or,
    around, that from the last one."""
    pairs = itertools.pairwise([places[-1] if around else places[0], *places])
    if name == "zoom":
        return [rounded(after / before) for before, after in pairs]
    return [rounded(after - before) for before, after in pairs]


def only_time_counts(scene: bpy.types.Scene) -> bool:
    """Whether a frame is evaluated at its own number, and nobody's script changes what comes of it."""
    if scene.render.frame_map_old != scene.render.frame_map_new:
        return False
    handlers = (*bpy.app.handlers.frame_change_pre, *bpy.app.handlers.frame_change_post)
    return all(str(getattr(handler, "__module__", "")).startswith(base_package) for handler in handlers)


def only_curves(owner: bpy.types.ID, prefix: str = "") -> dict[tuple[str, int], bpy.types.FCurve] | None:
    """The F-curves of an owner's values whose paths begin so, by path and index, if they alone make these values."""
    animation = owner.animation_data
    if animation is None:
        return {}
    if any(driver.data_path.startswith(prefix) for driver in animation.drivers):
        return None
    if len(animation.nla_tracks) or animation.use_tweak_mode:
        return None
    if animation.action is None:
        return {}
    if animation.action_influence != 1.0 or animation.action_blend_type != 'REPLACE':
        return None
    curves = compat.fcurves(owner)
    if curves is None:
        return None
    found: dict[tuple[str, int], bpy.types.FCurve] = {}
    for curve in curves:
        if not curve.data_path.startswith(prefix):
            continue
        place = curve.data_path, curve.array_index
        if place in found or not curve.is_valid:
            return None
        if curve.mute or (curve.group is not None and curve.group.mute) or curve.is_empty:
            continue
        found[place] = curve
    return found


def as_stored(prop: bpy.types.Property) -> Callable[[float], Any]:
    """What a property holds after Blender has written a curve's value to it: cut to its range, whole if it is."""
    if prop.type == 'BOOLEAN':
        return lambda value: value >= 1.0
    if prop.type == 'INT':
        low, high = prop.hard_min, prop.hard_max
        return lambda value: min(max(int(value), low), high) if math.isfinite(value) else value
    low, high = prop.hard_min, prop.hard_max
    return lambda value: low if value < low else high if value > high else value

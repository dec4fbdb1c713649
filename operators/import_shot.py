# SPDX-License-Identifier: GPL-3.0-or-later
"""A shot as a scene's keyframes, prompts and settings: what sampling the scene gives again."""

from __future__ import annotations

import copy
from collections.abc import Generator
from pathlib import Path
from typing import Any

import bpy

from . import exchange, lay_drivers, lay_keys, scene_values, shot_fields, shot_file, values
from .carried_shot import LARGEST_KEYED, Carried

BAKE, DRIVERS = 'BAKE', 'DRIVERS'  # what becomes of expressions
NEAR = 1e-5  # how far a value of the scene may be from the shot's, as a share of it where that is more than 1


def apply_shot(
    scene: bpy.types.Scene, shot: dict[str, Any], *, expressions: str = BAKE, folder: Path | None = None
) -> list[str]:
    """Make a shot (its JSON document) the scene's; returns in words what is not as the shot says.

    Its frames, frame rate, size, seed, model, prompts with their weights, easings and markers, curves as keyframes with
    the interpolation they were written with, and all settings that a scene knows. Keyframes and prompts that were there
    go away.

    expressions: 'BAKE' makes keys of them; 'DRIVERS' makes scripted drivers, where Blender can work them out, and keys
    of the others. folder: where the shot's relative file names begin; None: in the current one.
    Raises BridgeError "bad_shot" for a document that is no shot; the scene is as it was then.
    """
    steps = applying(scene, shot, expressions=expressions, folder=folder)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def applying(
    scene: bpy.types.Scene, shot: dict[str, Any], *, expressions: str = BAKE, folder: Path | None = None
) -> Generator[float, None, list[str]]:
    """The same in portions; yields how far it is, 0 to 1, once the scene has begun to change."""
    shot = copy.deepcopy(shot)
    carried = shot_file.carry(shot, folder or Path())
    told = [f"{left} is not taken over: a scene has nothing for it." for left in carried.left]
    told += _cut(carried, exchange.limits(scene))
    yield from exchange.laying(carried, scene)
    if expressions == DRIVERS:
        told += lay_drivers.lay(scene, shot, carried)
    return told + _faults(scene, carried) + _switches(scene)


def _cut(carried: Carried, limits: dict[str, tuple[float, float]]) -> list[str]:
    """Hold the values in the ranges of Blender's properties; what that changes, in words."""
    told = []
    for name in ("seed", "subseed"):
        seeds = carried.values[name]
        room = LARGEST_KEYED if len(set(seeds)) > 1 else 2**31  # Blender's whole numbers end there
        if max(seeds) >= room:
            carried.values[name] = [seed % room for seed in seeds]
            kind = "keyframes hold" if room < 2**31 else "Blender holds"
            told.append(f"{name} goes up to {max(seeds):.0f}, more than {kind}: what is left by {room} counts instead.")
    for name, (low, high) in limits.items():
        if name in carried.values:
            column = carried.values[name]
        elif carried.settings[name] is not None:
            column = [carried.settings[name]]
        else:
            continue
        held = [min(max(value, low), high) for value in column]
        if held == column:
            continue
        frame = next(k for k, value in enumerate(column) if held[k] != value)
        where = f"{name} is {column[frame]:g} at frame {carried.frame_start + frame}"
        told.append(f"{where}: it is cut, as a scene holds {low:g} to {high:g}.")
        if name in carried.values:
            carried.values[name] = held
            carried.keys.pop(name, None)
        else:
            carried.settings[name] = held[0]
    return told


def _faults(scene: bpy.types.Scene, carried: Carried) -> list[str]:
    """Read the scene as a render will; where a driver is off, bake it, and where something else moves the values, say
    so."""
    wanted = {shot_fields.property_of(name): column for name, column in carried.values.items()}
    wanted |= {
        f"prompts[{k}].weight": prompt.weights for k, prompt in enumerate(carried.prompts) if prompt.weights is not None
    }
    wrong = off(scene, wanted)
    for path in wrong:
        lay_keys.lay(scene, path, wanted[path])
    still = off(scene, {path: wanted[path] for path in wrong}) if wrong else {}
    told = [
        f"{path} could not be a driver: from frame {frame} on Blender works it out differently. It has keys."
        for path, frame in wrong.items()
        if path not in still
    ]
    return told + [
        f"{path} is not what the shot says from frame {frame} on: something else in the scene animates it, "
        "an NLA strip or a handler."
        for path, frame in still.items()
    ]


def _switches(scene: bpy.types.Scene) -> list[str]:
    """The scene's own camera cuts, which no file brings and none takes away."""
    bound = (marker.frame for marker in scene.timeline_markers if marker.camera is not None)
    frames = sorted({frame for frame in bound if scene.frame_start < frame <= scene.frame_end})
    if not frames:
        return []
    where = ", ".join(map(str, frames))
    return [f"Markers of the scene switch its camera: frames begin anew at {where}, whatever the file says."]


def off(scene: bpy.types.Scene, wanted: dict[str, list[float]]) -> dict[str, int]:
    """The values that are not what they should be, by their paths in `scene.koshi`, with the first frame where that is
    so."""
    table = read(scene, list(wanted), range(scene.frame_start, scene.frame_end + 1))
    found = {}
    for path, column in wanted.items():
        pairs = enumerate(zip(table[path], column, strict=True))
        far = (k for k, (got, value) in pairs if abs(got - value) > NEAR * max(1.0, abs(value)))
        if (first := next(far, None)) is not None:
            found[path] = scene.frame_start + first
    return found


def read(scene: bpy.types.Scene, paths: list[str], frames: range) -> dict[str, list[Any]]:
    """The values of `scene.koshi` at these paths, as Blender evaluates them."""
    table = values.direct(scene, paths, frames)
    if table is None:
        table = {path: [] for path in paths}
        with scene_values.evaluated(scene):
            for frame in frames:
                scene.frame_set(frame)
                for path, column in table.items():
                    column.append(scene.koshi.path_resolve(path))
    return table

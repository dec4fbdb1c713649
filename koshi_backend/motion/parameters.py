# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of a motion that is given as a dict: names, ranges, and their values at one frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import KoshiError, problem, raise_problems
from ..schedules import ScheduleError, evaluate, parse
from .deforum import FLIP_FIELD_OF_VIEW

Motion = Mapping[str, Any]

MAX_FRAMES = 100_000

# Neutral, lowest and highest value of each parameter.
PARAMETERS: dict[str, tuple[float, float, float]] = {
    "zoom": (1.0, 0.1, 10.0),
    "angle": (0.0, -360.0, 360.0),
    "translation_x": (0.0, -4096.0, 4096.0),
    "translation_y": (0.0, -4096.0, 4096.0),
    "translation_z": (0.0, -500.0, 100.0),
    "transform_center_x": (0.5, -10.0, 10.0),
    "transform_center_y": (0.5, -10.0, 10.0),
    "perspective_flip_theta": (0.0, -360.0, 360.0),
    "perspective_flip_phi": (0.0, -360.0, 360.0),
    "perspective_flip_gamma": (0.0, -360.0, 360.0),
    "perspective_flip_fv": (FLIP_FIELD_OF_VIEW, 1.0, 170.0),
}
AIMS = ("transform_center_x", "transform_center_y", "perspective_flip_fv")  # these alone move nothing
NEEDS_DEPTH = ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z", "fov")


def read_motions(motions: Mapping[str, Any], frame: int, frames: int | None, seed: int) -> dict[str, dict[str, float]]:
    """Every parameter of every motion as a number at `frame`, neutral where it is not given.

    motions: {label: motion}; the labels stand in messages. frames: the length that schedules are read over; None: as
        far as their keys go.
    Raises KoshiError("bad_value") that lists every unknown name and unfit value.
    """
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < MAX_FRAMES:
        raise KoshiError("bad_value", f"frame is {frame!r}.", f"Frames are whole numbers from 0 to {MAX_FRAMES - 1}.")
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames <= frame):
        raise KoshiError("bad_value", f"frames is {frames!r} for frame {frame}.", "Give the length of the schedules.")
    faults: list[dict[str, Any]] = []
    found: dict[str, dict[str, float]] = {}
    for label, motion in motions.items():
        if not isinstance(motion, Mapping):
            faults.append(problem(label, f"is a {type(motion).__name__}.", "Give {parameter: value}."))
            continue
        found[label] = {name: neutral for name, (neutral, _, _) in PARAMETERS.items()}
        for name, value in motion.items():
            field = f"{label}.{name}"
            if name not in PARAMETERS:
                faults.append(problem(field, "is not a parameter of latent motion.", _advice(name), value=value))
                continue
            try:
                found[label][name] = _at(plain(value), frame, frames, seed)
            except ScheduleError as error:
                faults.append(problem(field, error.message, error.hint, error.frame, value))
                continue
            low, high = PARAMETERS[name][1:]
            if not low <= found[label][name] <= high:
                asked = f"is {found[label][name]:g}."
                faults.append(problem(field, asked, f"It may be {low:g} to {high:g}.", frame, value))
    raise_problems("bad_value", "This motion", faults)
    return found


def _at(value: Any, frame: int, frames: int | None, seed: int) -> float:
    if isinstance(value, (list, tuple)) and frames is None:
        if frame >= len(value):
            raise ScheduleError(f"the list has {len(value)} values and none for frame {frame}", frame=frame)
        frames = len(value)
    return evaluate(value, frames or _length(value, frame), seed=seed)[frame]


def _length(value: Any, frame: int) -> int:
    """As many frames as reach both `frame` and a schedule's last key: keys beyond the end would count for nothing."""
    text = value.get("keys") if isinstance(value, Mapping) else value
    marks = [key.frame for key in parse(text).keys] if isinstance(text, str) else []
    last = max((mark for mark in marks if isinstance(mark, int)), default=0)
    if last >= MAX_FRAMES:
        raise ScheduleError(f"a key at frame {last} is too far away", "Give `frames`, the length of the animation.")
    return max(frame, last) + 1


def _advice(name: object) -> str:
    if name in NEEDS_DEPTH:
        return "It needs depth: move the picture instead."
    return f"There are {', '.join(PARAMETERS)}."


def plain(value: Any) -> Any:
    """Numpy's and torch's numbers and arrays as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value

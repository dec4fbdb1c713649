# SPDX-License-Identifier: GPL-3.0-or-later
"""From one of a shot's schedules to keyframes that an artist can go on with. No bpy.

Keys that were written stay keys: straight ones straight, steps steps, and splines as Bezier pieces, which are the same
curve where both handles reach a third of the way. What cannot be said so (lists, expressions, moves between places) is
baked: a key wherever the values leave a straight line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..koshi_backend import schedules as text

SAME = 1e-9  # of the value: keys that were written have to give it back to this
STRAIGHT = 2e-7  # of the largest value: half of what seven digits leave open, which is what Blender's values have


class Knot(NamedTuple):
    """A keyframe. frame: counted from the shot's first; kind: how it goes on to the next one, in Blender's words;
    slope: of the curve here, a frame, where a BEZIER comes in or leaves."""

    frame: float
    value: float
    kind: str = 'LINEAR'
    slope: float = 0.0


def stepped(values: list[float]) -> list[Knot]:
    """Whole numbers, which hold until the next key."""
    return [Knot(k, value, 'CONSTANT') for k, value in enumerate(values) if k == 0 or value != values[k - 1]]


def straight(values: list[float]) -> list[Knot]:
    """Values with lines between as few of them as will do."""
    tolerance = STRAIGHT * max(abs(value) for value in values)
    return [Knot(k, values[k]) for k in text.marks(values, tolerance)]


def every(values: list[float]) -> list[Knot]:
    """Values one by one, but for those between two that are the same: exact, whatever the arithmetic of lines."""
    last = len(values) - 1
    kept = (k for k in range(len(values)) if k in (0, last) or not values[k - 1] == values[k] == values[k + 1])
    return [Knot(k, values[k]) for k in kept]


def written(schedule: object, values: list[float], seed: int = 0) -> list[Knot] | None:
    """The keys of a text, if they are numbers, and their curve, or 1 minus it, is what has these values at every frame:
    then an artist finds the keys that were written, instead of one for every frame."""
    if not isinstance(schedule, (str, Mapping)):
        return None
    keys, kind = text.placed(schedule, len(values), seed=seed)
    if len(keys) < 2 or not all(isinstance(key.value, float) for _, key in keys):
        return None
    places = [frame for frame, _ in keys]
    points: Any = [(frame, values[frame]) for frame in places]
    kind = text.drawn_as(kind, len(points))
    if kind in ("linear", "step"):
        knots = [Knot(*point, {"linear": 'LINEAR', "step": 'CONSTANT'}[kind]) for point in points]
    else:
        knots = [Knot(frame, value, 'BEZIER', slope) for frame, value, slope in text.joints(points, kind)]
    drawn = evaluate(knots, len(values))
    same = all(abs(a - b) <= SAME * max(1.0, abs(a)) for a, b in zip(values, drawn, strict=True))
    return knots if same else None


def evaluate(knots: list[Knot], frames: int) -> list[float]:
    """The values that keyframes give at every frame."""
    drawn = [knots[0].value] * frames
    for left, right in itertools.pairwise(knots):
        gap, rise = right.frame - left.frame, right.value - left.value
        for k in range(math.ceil(left.frame), min(math.floor(right.frame), frames - 1) + 1):
            u = (k - left.frame) / gap
            if left.kind == 'CONSTANT':
                drawn[k] = left.value
            elif left.kind == 'LINEAR':
                drawn[k] = left.value + u * rise
            else:
                leave, arrive = left.slope * gap, right.slope * gap
                bend = 3 * rise - 2 * leave - arrive
                drawn[k] = left.value + u * (leave + u * (bend + u * (leave + arrive - 2 * rise)))
    end = knots[-1]
    drawn[int(end.frame) :] = [end.value] * (frames - int(end.frame))
    return drawn

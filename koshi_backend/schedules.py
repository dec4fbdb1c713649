# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules: one number per frame, from a constant, a dense list or a Deforum string.

A Deforum string is `frame:(value), frame:(value), ...`. Values between two keys are interpolated linearly, the
last one is held, and a schedule that does not begin at frame 0 holds its first value back to frame 0
(sd-webui-deforum crashes there). The parentheses may be left out, a trailing comma is fine, and a bare number
means that number on every frame. Expressions such as `0:(1+0.1*t)` are refused, never misread.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .errors import KoshiError

Schedule = float | int | str | Sequence[float]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_EXAMPLE = 'Write a number, or keys such as "0:(1.0), 24:(1.05)".'
_MAX_DIGITS = 9  # of a frame number
_MAX_TEXT = 1_000_000  # characters; a dense schedule of 10,000 frames written as text has about 200,000


class ScheduleError(KoshiError):
    """A schedule that cannot be read.

    position: the offending character's index in the text, from 0. frame: the frame whose value is at fault.
    """

    def __init__(self, message: str, hint: str = "", position: int | None = None, frame: int | None = None) -> None:
        self.position, self.frame = position, frame
        where = "" if position is None else f" (at character {position + 1})"
        super().__init__("bad_schedule", f"{message}{where}.", hint)


def evaluate(schedule: Schedule, frames: int) -> list[float]:
    """The schedule's value at every frame 0 .. frames-1.

    Raises ScheduleError for text that is not a schedule, a list of the wrong length, NaN and infinities.
    """
    if isinstance(schedule, bool):
        raise ScheduleError("a schedule is a number, text or a list of numbers, not true or false")
    if isinstance(schedule, (int, float)):
        return [_finite(schedule, 0)] * frames
    if isinstance(schedule, str):
        return interpolate(parse(schedule), frames)
    return _dense(schedule, frames)


def parse(text: str) -> dict[int, float]:
    """Keys of a Deforum string: {frame: value}. A frame named twice keeps its last value, as in Deforum."""
    if len(text) > _MAX_TEXT:
        raise ScheduleError(f"a schedule of {len(text)} characters is too long", f"Keep it under {_MAX_TEXT}.")
    if not text.strip():
        raise ScheduleError("the schedule is empty", _EXAMPLE)
    whole = _NUMBER.fullmatch(text.strip())
    if whole:
        return {0: _finite(float(whole.group()), 0)}
    keys: dict[int, float] = {}
    for start, item in _split(text):
        frame, value = _parse_key(item, start)
        keys[frame] = value
    if not keys:
        raise ScheduleError("the schedule holds no key", _EXAMPLE, 0)
    return keys


def interpolate(keys: dict[int, float], frames: int) -> list[float]:
    """Linear between keys, held before the first and after the last."""
    marks = sorted(keys)
    values: list[float] = []
    after = 0  # index of the first mark beyond the current frame
    for frame in range(frames):
        while after < len(marks) and marks[after] <= frame:
            after += 1
        if after == 0:
            values.append(keys[marks[0]])
        elif after == len(marks):
            values.append(keys[marks[-1]])
        else:
            left, right = marks[after - 1], marks[after]
            share = (frame - left) / (right - left)
            values.append(keys[left] * (1 - share) + keys[right] * share)
    return values


def to_text(values: Sequence[float], tolerance: float = 1e-6) -> str:
    """A Deforum string that gives `values` again to within `tolerance`, with as few keys as a greedy walk finds."""
    if not values:
        raise ScheduleError("there are no values to write")
    marks = [0]
    while marks[-1] < len(values) - 1:
        left, right = marks[-1], marks[-1] + 1
        while right + 1 < len(values) and _straight(values, left, right + 1, tolerance):
            right += 1
        marks.append(right)
    while len(marks) > 1 and abs(values[marks[-1]] - values[marks[-2]]) == 0.0:
        marks.pop()  # the last value is held anyway
    return ", ".join(f"{m}:({values[m]!r})" for m in marks)


def _straight(values: Sequence[float], left: int, right: int, tolerance: float) -> bool:
    rise = (values[right] - values[left]) / (right - left)
    return all(abs(values[left] + rise * (k - left) - values[k]) <= tolerance for k in range(left + 1, right))


def _dense(values: Sequence[float], frames: int) -> list[float]:
    if len(values) != frames:
        raise ScheduleError(
            f"a list of {len(values)} values was given for {frames} frames", "Give one value per frame."
        )
    dense: list[float] = []
    for frame, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ScheduleError(f"the value at frame {frame} is {value!r}, not a number", frame=frame)
        dense.append(_finite(value, frame))
    return dense


def _finite(value: float, frame: int) -> float:
    try:
        value = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        value = math.inf
    if not math.isfinite(value):
        raise ScheduleError(f"the value at frame {frame} is {value}", "Use a finite number.", frame=frame)
    return value


def _split(text: str) -> list[tuple[int, str]]:
    """Items between commas outside parentheses, each with its position. Empty items (trailing comma) are dropped."""
    items: list[tuple[int, str]] = []
    depth = start = 0
    for place, letter in enumerate(text):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth < 0:
                raise ScheduleError("a closing parenthesis has no opening one", position=place)
        elif letter == "," and depth == 0:
            items.append((start, text[start:place]))
            start = place + 1
    if depth:
        raise ScheduleError("a parenthesis is not closed", position=text.rindex("("))
    items.append((start, text[start:]))
    return [(place, item) for place, item in items if item.strip()]


def _parse_key(item: str, start: int) -> tuple[int, float]:
    frame_text, colon, value_text = item.partition(":")
    begin = start + len(item) - len(item.lstrip())
    if not colon:
        raise ScheduleError(
            f"{item.strip()!r} is not a key", 'A key is written frame:(value), such as "24:(1.05)".', begin
        )
    frame_name = frame_text.strip().strip("'\"").strip()
    if not frame_name.isascii() or not frame_name.isdigit() or len(frame_name) > _MAX_DIGITS:
        hint = "Frame numbers are whole numbers from 0."
        if re.search(r"[a-z]", frame_name):
            hint += " Expressions for frames are not supported yet."
        raise ScheduleError(f"{frame_name!r} is not a frame number", hint, begin)
    value_name = value_text.strip()
    place = start + item.index(":") + 1 + len(value_text) - len(value_text.lstrip())
    while value_name.startswith("(") and value_name.endswith(")"):
        value_name = value_name[1:-1].strip()
    if not _NUMBER.fullmatch(value_name):
        raise ScheduleError(
            f"{value_name!r} at frame {frame_name} is not a number",
            "Expressions are not supported yet: write the numbers out, or draw the curve in Blender.",
            place,
        )
    return int(frame_name), _finite(float(value_name), int(frame_name))

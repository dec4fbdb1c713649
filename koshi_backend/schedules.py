# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules: one number, or one text, per frame.

A schedule is a number, a list with one number per frame, a text such as "0:(1.0), 24:(1.05)" (`schedule_text.py` has
the grammar, `expressions.py` the arithmetic), or an object {"keys": text, "interpolation": kind}. The kind may stand in
the text too, "cubic; 0:(1), 12:(1.1)"; it is one of curves.KINDS, linear unless something else is said.

Between the keys it is Deforum's rule. A number marks its frame, and gaps between numbers are interpolated. An
expression is evaluated at every frame from its key up to the next one; a curve that comes from a number meets its first
value, and after it the next key begins with a jump. After the last key a number is held and an expression goes on.
A curve through several keys (quadratic, cubic, bezier) therefore begins at the first number after an expression and
ends at the next expression.

`t` counts frames from 0, the shot's first; `max_f` is the last frame, frames - 1; `s` is the seed.

What Deforum crashes on or drops in silence is read and remarked on: see `check`. Standard library only: Blender imports
this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from . import curves
from .curves import drawn_as, joints
from .expressions import Expression, ExpressionError
from .schedule_text import EXAMPLE, Key, ParsedSchedule, ScheduleError, check_kind, parse, parse_texts

__all__ = [
    "Key",
    "ParsedSchedule",
    "Schedule",
    "ScheduleError",
    "check",
    "drawn_as",
    "evaluate",
    "evaluate_texts",
    "joints",
    "marks",
    "parse",
    "placed",
    "to_text",
]

Schedule = float | int | str | Sequence[float] | Mapping[str, str]

MAX_STEPS = 10_000_000  # of all expressions of one schedule together, about a second
_FIELDS = ("keys", "interpolation")


def evaluate(
    schedule: Schedule,
    frames: int,
    *,
    seed: int = 0,
    interpolation: str = "linear",
    warnings: list[str] | None = None,
) -> list[float]:
    """The schedule's value at every frame 0 .. frames-1.

    seed: what `s` stands for in expressions. interpolation: used where the schedule names none itself.
    warnings: a list to which sentences are added about what was read differently from what somebody may have meant.
    Raises ScheduleError for text that is not a schedule, an expression without a finite value at some frame, a list
    of the wrong length, NaN and infinities.
    """
    notes: list[str] = [] if warnings is None else warnings
    if isinstance(schedule, bool):
        raise ScheduleError("a schedule is a number, text or a list of numbers, not true or false")
    if isinstance(schedule, (int, float)):
        return [_finite(schedule, 0)] * frames
    kind = check_kind(interpolation)
    if isinstance(schedule, str):
        return _evaluate_keys(parse(schedule), frames, seed, kind, notes)
    if isinstance(schedule, Mapping):
        parsed, kind = _from_object(schedule, kind)
        return _evaluate_keys(parsed, frames, seed, kind, notes)
    if not hasattr(schedule, "__len__"):  # arrays count as lists
        raise ScheduleError(f"a schedule is not a {type(schedule).__name__}", EXAMPLE)
    return _dense(schedule, frames)


def evaluate_texts(schedule: str, frames: int, *, seed: int = 0, warnings: list[str] | None = None) -> list[str]:
    """The text in force at every frame 0 .. frames-1; each holds until the next key, as Deforum's samplers do.

    schedule: `0:("Euler a"), 10:("DPM++ 2M")`, or a text alone for all frames. seed, warnings: as in `evaluate`.
    Raises ScheduleError.
    """
    if not isinstance(schedule, str):
        raise ScheduleError(f"a schedule of texts is text, not {type(schedule).__name__}", 'Write 0:("Euler a").')
    placed = _place(parse_texts(schedule), frames, seed, [] if warnings is None else warnings)
    values: list[str] = []
    if not placed:
        return values
    for (_, key), (after, _) in zip(placed, [*placed[1:], (frames, None)], strict=True):
        values += [str(key.value)] * (after - len(values))  # the first one from frame 0, wherever its key stands
    return values


def check(schedule: Schedule, frames: int, seed: int = 0, interpolation: str = "linear") -> list[str]:
    """What `evaluate` would warn of: no key at frame 0, a frame named twice, keys outside the shot, too few keys.

    Raises ScheduleError like `evaluate`.
    """
    notes: list[str] = []
    evaluate(schedule, frames, seed=seed, interpolation=interpolation, warnings=notes)
    return notes


def to_text(values: Sequence[float], tolerance: float = 1e-6) -> str:
    """A Deforum string that gives `values` again to within `tolerance`, with as few keys as a greedy walk finds."""
    if not len(values):
        raise ScheduleError("there are no values to write")
    values = _dense(values, len(values))
    return ", ".join(f"{m}:({values[m]!r})" for m in marks(values, tolerance))


def marks(values: Sequence[float], tolerance: float = 1e-6) -> list[int]:
    """The frames, from 0, that need a key so that lines from key to key, and the last one held, give `values` to within
    `tolerance`: as few as a greedy walk finds."""
    found = [0]
    while found[-1] < len(values) - 1:
        found.append(_straight_to(values, found[-1], tolerance))
    while len(found) > 1 and values[found[-1]] == values[found[-2]]:
        found.pop()  # the last value is held anyway
    return found


def placed(schedule: str | Mapping[str, str], frames: int, *, seed: int = 0) -> tuple[list[tuple[int, Key]], str]:
    """The keys that count, by rising frame, one a frame, and the interpolation. Raises ScheduleError."""
    parsed, kind = (parse(schedule), "linear") if isinstance(schedule, str) else _from_object(schedule, "linear")
    return _place(parsed, frames, seed, []), parsed.interpolation or kind


def _straight_to(values: Sequence[float], left: int, tolerance: float) -> int:
    """The first frame after which a straight line from `left` would miss a value on its way by more than allowed."""
    low, high = -math.inf, math.inf  # the slopes that pass all values so far
    right = left + 1
    while right + 1 < len(values):
        rise, away = values[right] - values[left], right - left
        low, high = max(low, (rise - tolerance) / away), min(high, (rise + tolerance) / away)
        if not low <= (values[right + 1] - values[left]) / (away + 1) <= high:
            break
        right += 1
    return right


def _from_object(table: Mapping[str, str], kind: str) -> tuple[ParsedSchedule, str]:
    """Keys and interpolation of a schedule that is written as an object; `kind` where it names none."""
    for name in table:
        if name not in _FIELDS:
            raise ScheduleError(f"a schedule has no field {name!r}", f"It has {' and '.join(map(repr, _FIELDS))}.")
    keys = table.get("keys")
    if not isinstance(keys, str):
        raise ScheduleError("the field 'keys' of a schedule is text", 'Write {"keys": "0:(1.0), 24:(1.05)"}.')
    parsed = parse(keys)
    if "interpolation" not in table:
        return parsed, kind
    kind = check_kind(table["interpolation"])
    if parsed.interpolation not in (None, kind):
        message = f"the keys say {parsed.interpolation}, but the field 'interpolation' says {kind}"
        raise ScheduleError(message, "Keep one of the two.")
    return parsed, kind


def _evaluate_keys(parsed: ParsedSchedule, frames: int, seed: int, kind: str, notes: list[str]) -> list[float]:
    kind = parsed.interpolation or kind
    placed = _place(parsed, frames, seed, notes)
    if not placed:
        return []
    ends = [frame for frame, _ in placed[1:]] + [frames]
    _check_steps(placed, ends)
    values: list[float] = []
    points: list[tuple[int, float]] = []
    kinds: set[str] = set()

    def finish_curve() -> None:
        if points:
            kinds.add(curves.drawn_as(kind, len(points)) if len(points) > 1 else kind)
            values[points[0][0] :] = curves.draw(points, kind)
            points.clear()

    names = {"t": 0, "max_f": frames - 1, "s": seed}
    for (frame, key), end in zip(placed, ends, strict=True):
        if isinstance(key.value, Expression):
            run = [_run(key, key.value, names, t) for t in range(frame, end)]
            if points:
                points.append((frame, run[0]))
                finish_curve()
            _fill(values, frame, run[0])
            values[frame:] = run
        else:
            assert isinstance(key.value, float)
            if not points:
                _fill(values, frame, key.value)
            points.append((frame, key.value))
    finish_curve()
    _fill(values, frames, values[-1])
    for wanted in sorted(kinds - {kind}):
        notes.append(f"A {kind} curve needs {curves.FEWEST[kind]} keys; with fewer it is drawn {wanted}.")
    return values if kind in ("linear", "step") else [_finite(value, frame) for frame, value in enumerate(values)]


def _fill(values: list[float], to: int, value: float) -> None:
    """Hold `value` up to frame `to`, where nothing else stands: before the first key and after the last."""
    values.extend([value] * (to - len(values)))


def _place(parsed: ParsedSchedule, frames: int, seed: int, notes: list[str]) -> list[tuple[int, Key]]:
    """The keys that count, by rising frame: inside the shot, and the last one of each frame.

    Raises ScheduleError if there are frames but no key in them.
    """
    placed: dict[int, Key] = {}
    outside: list[str] = []
    twice: dict[int, None] = {}
    for key in parsed.keys:
        frame = _frame_of(key, frames, seed)
        if not 0 <= frame < frames:
            outside.append(str(frame) if abs(frame) < 1e9 else f"{frame:.3g}")
            continue
        if frame in placed:
            twice[frame] = None
        placed[frame] = key
    if not placed and frames > 0:
        raise ScheduleError(
            f"no key lies in frames 0 to {frames - 1}",
            f"There are keys at {_listed(outside)}. Add one at frame 0.",
            parsed.keys[0].frame_position,
        )
    if outside:
        notes.append(f"Keys outside frames 0 to {frames - 1} are not used, as in Deforum: {_listed(outside)}.")
    if twice:
        notes.append(f"Of two keys at the same frame the last one counts: {_listed([str(k) for k in twice])}.")
    if placed and 0 not in placed:
        first = min(placed)
        notes.append(f"There is no key at frame 0: the value at frame {first} also holds before it.")
    return sorted(placed.items())


def _frame_of(key: Key, frames: int, seed: int) -> int:
    """Where a key stands. The fraction of an expression is dropped, as in Deforum."""
    if isinstance(key.frame, int):
        return key.frame
    try:
        return int(key.frame.value({"max_f": frames - 1, "s": seed}))
    except ExpressionError as error:
        reason = f"the frame number {key.frame.text!r}: {error.reason}"
        raise ScheduleError(reason, error.hint, key.frame_position + error.position) from error


def _run(key: Key, expression: Expression, names: dict[str, int], frame: int) -> float:
    names["t"] = frame
    try:
        return expression.value(names)
    except ExpressionError as error:
        text = expression.text if len(expression.text) <= 60 else f"{expression.text[:57]}..."
        reason = f"the value at frame {frame}: {error.reason}, in {text!r}"
        raise ScheduleError(reason, error.hint, key.value_position + error.position, frame) from error


def _check_steps(placed: list[tuple[int, Key]], ends: list[int]) -> None:
    steps = 0
    for (frame, key), end in zip(placed, ends, strict=True):
        if isinstance(key.value, Expression):
            steps += key.value.nodes * (end - frame)
            if steps > MAX_STEPS:
                hint = "Write a shorter expression, or fewer frames."
                raise ScheduleError(f"the expressions take more than {MAX_STEPS} steps", hint, key.value_position)


def _listed(frames: list[str]) -> str:
    shown = ", ".join(frames[:5])
    return f"frame {shown}" + (f" and {len(frames) - 5} more" if len(frames) > 5 else "")


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

# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules of other tools as schedules of Koshi that have the same value at every frame, and back.

Koshi reads Deforum's grammar as it is; what is left are the places where a tool takes for an expression what Koshi
takes for a number, which matters because expressions are held and numbers interpolated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..expressions import Expression, ExpressionError
from ..schedule_text import Key, ParsedSchedule, ScheduleError, parse
from ..schedules import evaluate, to_text

# What Deforum takes for a number, once quotes and parentheses are gone (prompt.py, check_is_number).
_DEFORUM_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
_ANY_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# What numexpr certainly does as Koshi: sums and products, and functions of one value.
_SAFE = re.compile(
    r"(?:\s|[0-9]+\.?[0-9]*|\.[0-9]+|[()+\-*/%]|\b(?:t|max_f|s)\b(?!\s*\()"
    r"|\b(?:sin|cos|tan|arcsin|arccos|arctan|sinh|cosh|tanh|arcsinh|arccosh|arctanh|log|log10|log1p|exp|expm1|sqrt|abs"
    r"|floor|ceil)\b(?=\s*\())+"
)


def from_deforum(schedule: Any) -> Any:
    """A schedule of webui, Forge or the notebook, so that Koshi's values are theirs.

    `1e-3`, `5.` and `( 1 )` are expressions there, and `-(1)` is a number. Raises ScheduleError.
    """
    if not isinstance(schedule, str):
        return schedule
    parsed = parse(schedule)
    keys = [_as_deforum_reads(key, schedule) for key in parsed.keys]
    return schedule if keys == list(parsed.keys) else str(replace(parsed, keys=tuple(keys)))


def from_a043(schedule: Any, frames: int, seed: int) -> Any:
    """A schedule of A043's nodes, which evaluate an expression at its own key only and draw lines between."""
    if not isinstance(schedule, str):
        return schedule
    keys: list[Key] = []
    for key in parse(schedule).keys:
        names = {"t": 0, "max_f": frames - 1, "s": seed}
        try:
            frame = key.frame if isinstance(key.frame, int) else int(key.frame.value(names))
            names["t"] = frame
            value = key.value.value(names) if isinstance(key.value, Expression) else key.value
        except ExpressionError as error:
            raise ScheduleError(error.reason, error.hint, key.value_position) from error
        keys.append(Key(frame, value))
    return str(ParsedSchedule(tuple(keys)))


def turned_values(values: Sequence[float]) -> list[float]:
    """1 minus each strength, cut to 0..1 first."""
    return [_less(value) for value in values]


def turned(schedule: Any, frames: int, seed: int) -> Any:
    """1 minus a strength, cut to 0..1 first as Deforum does; keys stay keys where nothing has to be cut."""
    values = evaluate(schedule, frames, seed=seed)
    if isinstance(schedule, (int, float)):
        return _less(schedule)
    if isinstance(schedule, str) and all(0.0 <= value <= 1.0 for value in values):
        text = str(_turned_keys(parse(schedule)))
        try:
            check = evaluate(text, frames, seed=seed)
        except ScheduleError:  # an expression that was as long as one may be
            check = []
        if len(check) == frames and all(abs(a + b - 1.0) < 1e-9 for a, b in zip(values, check, strict=True)):
            return text
    return [_less(value) for value in values]


def to_deforum(schedule: Any, values: Sequence[float], frames: int, whole: bool = False) -> str:
    """A string that every Deforum reads, and whose values are `values`.

    schedule: what Koshi has; kept if it is a text that Deforum understands as Koshi does. whole: seeds, which are cut
    to whole numbers there, so that a line between keys must not pass under one.
    """
    if isinstance(schedule, str) and (kept := _kept(schedule)) is not None:
        return kept
    if len(set(values)) == 1:
        return f"0: ({plain(values[0])})"
    marks = _corners(values) if whole else [key.frame for key in parse(to_text(values)).keys]
    return ", ".join(f"{mark}: ({plain(values[mark])})" for mark in marks if isinstance(mark, int))


def plain(value: float) -> str:
    """A number without an exponent, which Deforum would not take for a number; to the last digit."""
    return str(int(value)) if float(value).is_integer() else format(Decimal(repr(float(value))), "f")


def _as_deforum_reads(key: Key, text: str) -> Key:
    if isinstance(key.value, float):
        found = _ANY_NUMBER.match(text, key.value_position)
        assert found is not None  # the parser has found a number there
        before, after = text[: key.value_position], text[found.end() :]
        spaced = (before[-1:].isspace() and before.rstrip().endswith("(")) or (
            after[:1].isspace() and after.lstrip().startswith(")")
        )
        if spaced or not _DEFORUM_NUMBER.fullmatch(found.group()):
            return replace(key, value=_expression(f"{found.group()}+0"))
    elif isinstance(key.value, Expression):
        bare = re.sub(r"[()'\"]", "", key.value.text)
        if _DEFORUM_NUMBER.fullmatch(bare):
            return replace(key, value=float(bare))
    return key


def _turned_keys(parsed: ParsedSchedule) -> ParsedSchedule:
    def turn(key: Key) -> Key:
        if isinstance(key.value, Expression):
            return replace(key, value=Expression(f"1-({key.value.text})", 0, _never))
        return replace(key, value=_less(float(key.value)))

    return replace(parsed, keys=tuple(turn(key) for key in parsed.keys))


def _less(value: float) -> float:
    return round(1.0 - min(max(float(value), 0.0), 1.0), 12)  # 1 - .85 is .15


def _kept(schedule: str) -> str | None:
    """The text in Deforum's words, or None where one of them would be read otherwise."""
    parsed = parse(schedule)
    if parsed.interpolation not in (None, "linear") or not any(key.frame == 0 for key in parsed.keys):
        return None
    parts = []
    for key in parsed.keys:
        if isinstance(key.frame, Expression):
            if not _SAFE.fullmatch(key.frame.text):
                return None
            frame = f'"{key.frame.text}"'
        else:
            frame = str(key.frame)
        if isinstance(key.value, Expression):
            bare = re.sub(r"[()'\"]", "", key.value.text)
            if not _SAFE.fullmatch(key.value.text) or "**" in key.value.text or _DEFORUM_NUMBER.fullmatch(bare):
                return None
            parts.append(f"{frame}: ({key.value.text})")
        else:
            parts.append(f"{frame}: ({plain(float(key.value))})")
    return ", ".join(parts)


def _corners(values: Sequence[float]) -> list[int]:
    """The frames that need a key so that between two of them nothing changes."""
    last = len(values) - 1
    return [
        k for k, value in enumerate(values) if k in (0, last) or value != values[k - 1] or value != values[k + 1]
    ]


def _expression(text: str) -> Expression:
    return parse(f"0:({text})").keys[0].value  # type: ignore[return-value]  # a sum is an expression


def _never(names: Any) -> float:
    return math.nan  # only its text is used

# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of schedules: from text to keys and back.

    frame:(value), frame:(value), ...          0:(1.0), 24:(1.05)
    a value alone, in force from frame 0       1.02    or    1+0.02*sin(t)
    an interpolation before the keys           cubic; 0:(1), 12:(1.1), 24:(1), 36:(1.2)

A frame is a whole number or an expression of max_f and s, with or without quotes (`"max_f-1":(2)`), whose fraction is
dropped, as Deforum does. A value is a number or an expression of t, max_f and s (`expressions.py`). Parentheses round
a value may be left out, blanks and line breaks are free, a trailing comma is fine. In a schedule of texts the values
are texts, best in quotes: `0:("Euler a"), 10:("DPM++ 2M")`; quotes protect commas, colons and parentheses.

What counts as a number is wider than in Deforum: `( 1 )`, `1e-3` and `5.` too. Deforum takes these for expressions and
holds them until the next key instead of interpolating.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from . import expressions
from .curves import KINDS
from .errors import KoshiError
from .expressions import Expression, ExpressionError

MAX_TEXT = 1_000_000  # characters; a dense schedule of 10,000 frames written as text has about 200,000
MAX_KEY = 2 * expressions.MAX_LENGTH + 100  # characters of one key, its frame and its value
MAX_TEXT_KEY = 21_000  # the same where values are texts; a prompt may have 20,000
MAX_DIGITS = 9  # of a frame number
MAX_ARITHMETIC = 100_000  # characters of all expressions of one schedule, 20 more for each: 0.2 s to read
EXAMPLE = 'Write a number, or keys such as "0:(1.0), 24:(1.05)".'

VALUE_NAMES = frozenset(("t", "max_f", "s"))
FRAME_NAMES = frozenset(("max_f", "s"))

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_PREFIX = re.compile(r"\s*+([A-Za-z_]{1,40}+)\s*+;")  # possessive: a megabyte of blanks must not be tried twice
_MARKS = re.compile(r"[(),:;\"']")
# A key of plain numbers, by far the most common; it says nothing that the long way would say differently.
_PLAIN = re.compile(r"\s*+([0-9]{1,9})\s*+:\s*+\(([+-]?[0-9]++(?:\.[0-9]+)?(?:e-?[0-9]{1,2})?)\)\s*+(?:,|\Z)")


class ScheduleError(KoshiError):
    """A schedule that cannot be read, or that has no value somewhere.

    position: the offending character's index in the text, from 0; the text's length where the text ends too soon.
    frame: the frame whose value is at fault.
    """

    def __init__(self, message: str, hint: str = "", position: int | None = None, frame: int | None = None) -> None:
        self.position, self.frame = position, frame
        where = "" if position is None else f" (at character {position + 1})"
        super().__init__("bad_schedule", f"{message}{where}.", hint)


@dataclass(frozen=True)
class Key:
    """One key. Two are equal when they mean the same; where they stand in the text does not count."""

    frame: int | Expression
    value: float | Expression | str  # text in a schedule of texts only
    frame_position: int = field(default=0, compare=False)
    value_position: int = field(default=0, compare=False)

    def __str__(self) -> str:
        frame = str(self.frame) if isinstance(self.frame, int) else f'"{self.frame.text}"'
        if isinstance(self.value, str):
            quote = "'" if '"' in self.value else '"'
            if quote in self.value:  # it has both kinds, so it was written without
                quote = ""
            return f"{frame}:({quote}{self.value}{quote})"
        return f"{frame}:({self.value.text if isinstance(self.value, Expression) else repr(self.value)})"


@dataclass(frozen=True)
class ParsedSchedule:
    """Keys in the order they were written, and the interpolation named before them, if any.

    str() gives text that parses to an equal ParsedSchedule.
    """

    keys: tuple[Key, ...]
    interpolation: str | None = None

    def __str__(self) -> str:
        prefix = f"{self.interpolation}; " if self.interpolation else ""
        return prefix + ", ".join(map(str, self.keys))


def parse(text: str) -> ParsedSchedule:
    """Read a schedule of numbers. Raises ScheduleError, which points at the character."""
    return _parse(text, texts=False)


def parse_texts(text: str) -> ParsedSchedule:
    """Read a schedule whose values are texts. Raises ScheduleError, which points at the character."""
    return _parse(text, texts=True)


def check_kind(kind: object, position: int | None = None) -> str:
    """The name of an interpolation. Raises ScheduleError for any other, naming the near one."""
    if isinstance(kind, str) and kind.lower() in KINDS:
        return kind.lower()
    near = difflib.get_close_matches(str(kind).lower(), KINDS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(KINDS)}."
    raise ScheduleError(f"there is no interpolation {kind!r}", hint, position)


def _parse(text: str, texts: bool) -> ParsedSchedule:
    if len(text) > MAX_TEXT:
        raise ScheduleError(f"a schedule of {len(text)} characters is too long", f"Keep it under {MAX_TEXT}.")
    if not text.strip():
        raise ScheduleError("the schedule is empty", EXAMPLE)
    kind, begin = None, 0
    prefix = None if texts else _PREFIX.match(text)
    if prefix:
        kind, begin = check_kind(prefix.group(1), prefix.start(1)), prefix.end()
    keys: list[Key] = []
    if not texts:
        begin = _read_plain(text, begin, keys)
    items = (item for item in _items(text, begin, texts) if text[item.start : item.end].strip())
    arithmetic = 0
    for item in items:
        if item.colon is None and not keys and next(items, None) is None:
            value, place = _value(text, item.start, item.end, texts, 0)
            return ParsedSchedule((Key(0, value, place, place),), kind)
        keys.append(key := _key(text, item, texts))
        arithmetic += sum(len(part.text) + 20 for part in (key.frame, key.value) if isinstance(part, Expression))
        if arithmetic > MAX_ARITHMETIC:
            hint = "Write values as numbers where you can."
            raise ScheduleError("the schedule has too many expressions", hint, item.start)
    if not keys:
        raise ScheduleError("the schedule holds no key", EXAMPLE, min(begin, len(text) - 1))
    return ParsedSchedule(tuple(keys), kind)


def _read_plain(text: str, begin: int, keys: list[Key]) -> int:
    """Append the plain keys that the text begins with; where the first other one begins."""
    while plain := _PLAIN.match(text, begin):
        keys.append(Key(int(plain[1]), float(plain[2]), plain.start(1), plain.start(2)))
        begin = plain.end()
    return begin


class _Item(NamedTuple):
    """What stands between two commas, and the first colon in it that no parenthesis or quote protects."""

    start: int
    end: int
    colon: int | None


def _items(text: str, begin: int, texts: bool) -> Iterator[_Item]:
    longest = MAX_TEXT_KEY if texts else MAX_KEY
    start = at = begin
    colon: int | None = None
    opened: list[int] = []
    while True:
        found = _MARKS.search(text, at, start + longest)
        if found is None:
            break
        place, mark = found.start(), found.group()
        at = place + 1
        if mark in "\"'":
            if text[start:place].rstrip()[-1:] in ("", "(", ":"):  # elsewhere it is an apostrophe
                at = text.find(mark, at) + 1
                if not at:
                    raise ScheduleError("a quote is not closed", "", place)
        elif mark == "(":
            opened.append(place)
            if len(opened) > expressions.MAX_NESTING:
                raise ScheduleError("parentheses are nested too deep", "", place)
        elif mark == ")":
            if not opened:
                raise ScheduleError("a closing parenthesis has no opening one", "", place)
            opened.pop()
        elif opened:
            continue
        elif mark == ",":
            yield _Item(start, place, colon)
            start, colon = at, None
        elif mark == ";":
            if not texts:
                raise ScheduleError("a semicolon cannot stand here", "Keys are separated by commas.", place)
        elif colon is None:
            colon = place
        else:
            hint = "Put the text in quotes." if texts else "Is a comma missing before this key?"
            raise ScheduleError("a key has two colons", hint, place)
    if len(text) - start > longest:
        raise ScheduleError(f"a key has more than {longest} characters", "Is a comma missing?", start)
    if opened:
        raise ScheduleError("a parenthesis is not closed", "", opened[-1])
    yield _Item(start, len(text), colon)


def _key(text: str, item: _Item, texts: bool) -> Key:
    if item.colon is None:
        begin, word = _trim(text, item.start, item.end)
        hint = 'A key is written frame:(value), such as "24:(1.05)".'
        raise ScheduleError(f"{_short(word)!r} is not a key", hint, begin)
    frame, frame_position = _frame(text, item.start, item.colon)
    value, value_position = _value(text, item.colon + 1, item.end, texts, frame)
    return Key(frame, value, frame_position, value_position)


def _frame(text: str, start: int, end: int) -> tuple[int | Expression, int]:
    place, word = _unwrap(text, start, end)
    if not word:
        raise ScheduleError("a key has no frame number", EXAMPLE, min(place, end))
    if _WHOLE.fullmatch(word):
        if len(word) > MAX_DIGITS:
            raise ScheduleError(f"{_short(word)!r} is too large for a frame number", "", place)
        return int(word), place
    if _NUMBER.fullmatch(word):
        raise ScheduleError(f"{_short(word)!r} is not a frame number", "Frames are whole numbers from 0.", place)
    try:
        return expressions.read(word, FRAME_NAMES), place
    except ExpressionError as error:
        reason = f"{_short(word)!r} is not a frame number: {error.reason}"
        hint = error.hint or "Frames are whole numbers from 0."
        raise ScheduleError(reason, hint, place + error.position) from error


def _value(
    text: str, start: int, end: int, texts: bool, frame: int | Expression
) -> tuple[float | Expression | str, int]:
    place, word = _unwrap_text(text, start, end) if texts else _unwrap(text, start, end)
    named = frame if isinstance(frame, int) else None
    at = f"the value at frame {frame if isinstance(frame, int) else frame.text}"
    if texts:
        return word, place
    if not word:
        raise ScheduleError(f"{at} is missing", EXAMPLE, min(place, len(text) - 1), named)
    if _NUMBER.fullmatch(word):
        number = float(word)
        if math.isinf(number):
            raise ScheduleError(f"{at} is too large", "Use a finite number.", place, named)
        return number, place
    try:
        return expressions.read(word, VALUE_NAMES), place
    except ExpressionError as error:
        raise ScheduleError(f"{at}: {error.reason}", error.hint, place + error.position, named) from error


def _unwrap(text: str, start: int, end: int) -> tuple[int, str]:
    """What stands inside all the parentheses and quotes that go round the whole of it, and where that begins."""
    while True:
        start, word = _trim(text, start, end)
        if not (_in_quotes(word) or _in_parentheses(word)):
            return start, word
        start, end = start + 1, start + len(word) - 1


def _unwrap_text(text: str, start: int, end: int) -> tuple[int, str]:
    """The same for a text: one pair of parentheses, then one pair of quotes; the rest belongs to the text."""
    place, word = _trim(text, start, end)
    if _in_parentheses(word):
        place, word = _trim(text, place + 1, place + len(word) - 1)
    elif word.startswith("("):
        raise ScheduleError(f"{_short(word)!r} is not a text", "Put the text in quotes.", place)
    if _in_quotes(word):
        return place + 1, word[1:-1]
    if not word or word[0] in "\"'":
        raise ScheduleError("a text is missing" if not word else "a text goes on after its quotes", "", place)
    return place, word


def _trim(text: str, start: int, end: int) -> tuple[int, str]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), part.strip()


def _in_quotes(word: str) -> bool:
    return len(word) > 1 and word[0] in "\"'" and word.find(word[0], 1) == len(word) - 1


def _in_parentheses(word: str) -> bool:
    """Whether the first parenthesis is closed by the last character. The word's parentheses are balanced."""
    if not (word.startswith("(") and word.endswith(")")):
        return False
    depth = 0
    for found in re.finditer(r"[()]|(?<=\()\s*(?:\"[^\"]*\"|'[^']*')", word):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)  # a quoted text counts for nothing
        if depth == 0:
            return found.end() == len(word)
    return False


def _short(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:37]}..."

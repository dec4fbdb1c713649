# SPDX-License-Identifier: GPL-3.0-or-later
"""Masks in words: Deforum's little language of places, such as `{video_mask} & ![sky.png]`.

    {everywhere}   all of the picture          !a      where a is not
    {video_mask}   guides.mask                 a & b   in both
    {init_mask}    init_image's alpha channel  a | b   in one or both
    [file]         a picture, numbered         a ^ b   in just one
                   pictures (####) or a film   a \\ b   in a and not in b; a - b is the same
    ( )            first this

They bind as they stand here, `!` closest, as in sd-webui-deforum's composable_masks.py. Nothing at all is everywhere,
also before a \\. At most 64 of these marks may lie within one another, or join masks in a row. No torch: the server
checks shots too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import KoshiError
from .schedule_text import Key, ParsedSchedule, parse_texts

WORDS = ("where", "noise")  # the fields of `masking` that hold them
NAMES = ("everywhere", "video_mask", "init_mask")
BINDINGS = ("\\", "^", "|", "&")  # from the loosest to the closest
# Parentheses and ! within one another; and marks that wait for one another, as those of a & b & c do. All that is done
# with a Place goes as deep as it does, and Python lets nothing go deeper than a thousand calls.
_DEEPEST = 64
_SHOWN = 300  # characters of a mask, where it is refused
_TOKEN = re.compile(r"\s*(?:(\{[^{}]*\})|(\[(?:[^\[\]]|\[[^\[\]]*\])*\])|(<[^<>]*>)|([!&|^\\()-]))")
_FOUND = "Koshi finds nothing in pictures by itself: draw it, or save it as a film, and name the file: [mask.mp4]."


@dataclass(frozen=True)
class Place:
    """op: a name of NAMES, "file" (whose name is `file`), "!", or one of BINDINGS, of `parts`."""

    op: str
    parts: tuple[Place, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        if self.op == "file":
            return f"[{self.file}]"
        if self.op in NAMES:
            return f"{{{self.op}}}"
        inner = [f"({part})" if part.op in BINDINGS else str(part) for part in self.parts]
        return f"!{inner[0]}" if self.op == "!" else f" {self.op} ".join(inner)

    def leaves(self) -> Iterator[Place]:
        """The names and files in it."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def replaced(self, change: Callable[[Place], Place]) -> Place:
        """The same with other names and files."""
        if not self.parts:
            return change(self)
        return Place(self.op, tuple(part.replaced(change) for part in self.parts))


EVERYWHERE = Place("everywhere")


def without(place: Place) -> Place:
    """Where it is not."""
    return place.parts[0] if place.op == "!" else Place("!", (place,))


def read_place(text: str) -> Place:
    """Read words. Raises KoshiError("bad_mask"), which says where."""
    return _Reader(text).read()


def renamed(schedule: str, rename: Callable[[str], str]) -> str:
    """A schedule of words with other file names. Raises KoshiError like `read_place`, and ScheduleError."""

    def change(leaf: Place) -> Place:
        return Place("file", file=rename(leaf.file)) if leaf.op == "file" else leaf

    def key(one: Key) -> Key:
        return Key(one.frame, str(read_place(str(one.value)).replaced(change)))

    parsed = parse_texts(schedule)
    return str(ParsedSchedule(tuple(key(one) for one in parsed.keys), parsed.interpolation))


def rename_words(masking: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Give the files in a document's masks other names; what cannot be read stays, and is reported when it is checked
    (mask_checks.py)."""
    for name in WORDS:
        if isinstance(words := masking.get(name), str):
            with contextlib.suppress(KoshiError):
                masking[name] = renamed(words, rename)


class _Token(NamedTuple):
    text: str
    at: int  # character, from 0


class _Read(NamedTuple):
    """height: marks that wait for one another in the place."""

    place: Place
    height: int = 0


class _Reader:
    """Reads one text, token by token."""

    def __init__(self, text: str) -> None:
        self._text, self._depth = text, 0
        self._tokens = list(self._split())
        self._next = 0

    def read(self) -> Place:
        if not self._tokens:
            return EVERYWHERE
        place = self._bound(0).place
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise self._fault(f"{token.text} is not expected", token.at)
        return place

    def _split(self) -> Iterator[_Token]:
        at = 0
        while self._text[at:].strip():
            found = _TOKEN.match(self._text, at)
            if found is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._fault(f"{self._text[start:start + 12]!r} means nothing", start)
            yield _Token(found[found.lastindex or 0], found.start(found.lastindex or 0))
            at = found.end()

    def _peek(self) -> str:
        text = self._tokens[self._next].text if self._next < len(self._tokens) else ""
        return "\\" if text == "-" else text

    def _bound(self, level: int) -> _Read:
        """What is bound by BINDINGS[level], or closer; from left to right."""
        if level == len(BINDINGS):
            return self._one()
        op = BINDINGS[level]
        read = _Read(EVERYWHERE) if level == 0 and self._peek() == op else self._bound(level + 1)
        while self._peek() == op:
            at = self._tokens[self._next].at
            self._next += 1
            read = self._made(op, at, read, self._bound(level + 1))
        return read

    def _made(self, op: str, at: int, *parts: _Read) -> _Read:
        height = 1 + max(part.height for part in parts)
        if height > _DEEPEST:
            text = f"more than {_DEEPEST} marks join masks in a row, or lie within one another"
            raise self._fault(text, at, "Draw some of them into one picture, and name that.")
        return _Read(Place(op, tuple(part.place for part in parts)), height)

    def _one(self) -> _Read:
        if self._next == len(self._tokens):
            raise self._fault("it ends too soon", len(self._text))
        token = self._tokens[self._next]
        self._next += 1
        if token.text in ("!", "("):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise self._fault(f"more than {_DEEPEST} parentheses and ! lie within one another", token.at)
            inner = self._one() if token.text == "!" else self._bound(0)
            self._depth -= 1
            if token.text == "!":
                return self._made("!", token.at, inner)
            if self._peek() != ")":
                raise self._fault("a ( is not closed", token.at)
            self._next += 1
            return inner
        return _Read(self._leaf(token))

    def _leaf(self, token: _Token) -> Place:
        inner = token.text[1:-1].strip()
        if token.text[0] == "{" and inner in NAMES:
            return Place(inner)
        if token.text[0] == "[" and inner:
            return Place("file", file=inner)
        if token.text[0] == "<" or inner == "human_mask":
            raise self._fault(f"there is no mask of {token.text}", token.at, _FOUND)
        if token.text[0] == "{":
            raise self._fault(f"there is no mask {token.text}", token.at)
        raise self._fault(f"{token.text} is not expected", token.at)

    def _fault(self, what: str, at: int, hint: str = "") -> KoshiError:
        names = ", ".join(f"{{{name}}}" for name in NAMES)
        hint = hint or f"Use {names} and [file], joined by & | ^ \\ and turned round by !."
        text = self._text if len(self._text) <= _SHOWN else f"{self._text[:_SHOWN]}..."
        return KoshiError("bad_mask", f"The mask {text!r} cannot be read: {what} (at character {at + 1}).", hint)

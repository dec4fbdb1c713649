# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as people write it: comments, trailing commas, single quotes, Python's True and None, NaN, a byte order mark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import KoshiError

MAX_BYTES = 256 * 1024 * 1024  # a Parseq document of 10,000 frames with every field has some 40 MB
MAX_DEPTH = 100
_SKIP = re.compile(r"(?:\s++|//[^\n]*|\#[^\n]*|/\*.*?\*/)*+", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$.-]*+")
_NUMBER = re.compile(r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?|[+-]?(?:Infinity|inf\b|nan\b|NaN)")
_STRING = {mark: re.compile(rf"[^{mark}\\]*+(?:\\.[^{mark}\\]*+)*+{mark}", re.DOTALL) for mark in "\"'"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}


def read_text(path: Path) -> str:
    """A file's text, whatever editor wrote it. Raises KoshiError("bad_settings") for what cannot be read as text."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _bad(f"{path} is larger than {MAX_BYTES // 2**20} MB.")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _bad(f"{path} cannot be read: {reason}.", "Check the path.") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # what Windows' editors write
    if "\0" in text:
        raise _bad(f"{path} is no text.", "Give a settings file, a Parseq document or a shot.")
    return text


def read_loose(text: str) -> Any:
    """The value that `text` holds. Raises KoshiError("bad_settings") with line and column.

    Plain JSON is read by Python's own reader, which takes NaN; where that fails, tolerantly.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    reader = _Reader(text)
    value = reader.value(0)
    reader.skip()
    if reader.at < len(text):
        raise reader.fault("something follows after the end")
    return value


class Lines(NamedTuple):
    """`name: text` lines. rest: how many lines belong to no name."""

    table: dict[str, str]
    rest: int


def read_lines(text: str) -> Lines:
    """A text file of schedules, one `zoom: 0:(1.0), 30:(1.02)` a line; lines that begin with # are comments.

    A line without a name goes on with the one before it.
    """
    table: dict[str, str] = {}
    name, rest = "", 0
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        found = re.match(r"([A-Za-z][\w \-]*?)\s*[:=]\s*(.*)\Z", line)
        if found:
            name = re.sub(r"[\s\-]+", "_", found[1].strip()).lower()
            table[name] = found[2]
        elif name:
            table[name] += f" {line}"
        else:
            rest += 1
    return Lines(table, rest)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def skip(self) -> None:
        found = _SKIP.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def ahead(self) -> str:
        self.skip()
        return self.text[self.at : self.at + 1]

    def fault(self, what: str) -> KoshiError:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - self.text.rfind("\n", 0, self.at)
        return _bad(f"The text is no JSON: {what}, in line {line}, column {column}.")

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.fault("it is nested too deep")
        mark = self.ahead()
        if mark == "{":
            return self.table(depth)
        if mark in ("[", "("):
            return self.items("]" if mark == "[" else ")", depth)
        if mark and mark in "\"'":
            return self.string()
        if found := _NUMBER.match(self.text, self.at):
            self.at = found.end()
            return _number(found.group())
        if found := _WORD.match(self.text, self.at):
            word = found.group()
            if word.lower() not in _WORDS:
                raise self.fault(f"{word[:40]!r} stands without quotes")
            self.at = found.end()
            return _WORDS[word.lower()]
        raise self.fault(f"{mark!r} stands where a value should" if mark else "it ends too soon")

    def table(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while (mark := self.ahead()) != "}":
            if mark and mark in "\"'":
                name = self.string()
            elif word := _WORD.match(self.text, self.at) or _NUMBER.match(self.text, self.at):
                name, self.at = word.group(), word.end()
            else:
                raise self.fault("a name is missing" if mark else "a brace is not closed")
            if self.ahead() != ":":
                raise self.fault(f"a colon is missing after {name[:40]!r}")
            self.at += 1
            found[name] = self.value(depth + 1)
            self.comma("}")
        self.at += 1
        return found

    def items(self, end: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while self.ahead() != end:
            found.append(self.value(depth + 1))
            self.comma(end)
        self.at += 1
        return found

    def comma(self, end: str) -> None:
        """Past a comma, or up to the end; a comma that is missing at the end of a line is forgiven."""
        before = self.at
        mark = self.ahead()
        if mark == ",":
            self.at += 1
        elif mark != end and (not mark or "\n" not in self.text[before : self.at]):
            raise self.fault("a comma is missing" if mark else "a bracket is not closed")

    def string(self) -> str:
        mark = self.text[self.at]
        found = _STRING[mark].match(self.text, self.at + 1)
        if found is None:
            raise self.fault("a quote is not closed")
        self.at = found.end()
        return _ESCAPE.sub(_unescaped, found.group()[:-1])


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "ux" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code in "\"'\\/":
        return code
    return _LETTERS.get(code, f"\\{code}")  # a Windows path: C:\videos


def _number(word: str) -> int | float:
    try:
        return int(word)
    except ValueError:
        return float(word)


def _bad(message: str, hint: str = "") -> KoshiError:
    return KoshiError("bad_settings", message, hint)

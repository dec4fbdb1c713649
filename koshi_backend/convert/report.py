# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of every key of a file that was converted."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..outputs import write_whole

_LONGEST = 200  # characters of a value in a report; a Parseq document is a value, too


@dataclass
class Report:
    """dialect: which tool wrote the file, and decided: what said so. strength_convention: as it was read.

    carried: key -> where it went. no_effect: keys that change no picture, or not with these settings.
    not_carried: keys that would, with the reason and what to do instead; one that is carried in part is in both.
    unknown: keys that no tool is known to write. defaults: keys that the file lacks and whose default was carried.
    notes: what else somebody should know.
    """

    dialect: str
    decided: str
    strength_convention: str
    carried: dict[str, str] = field(default_factory=dict)
    no_effect: list[str] = field(default_factory=list)
    not_carried: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave(self, key: str, value: object, why: str) -> None:
        """Note a key that is not carried, or not wholly; the same reason once."""
        if not any(left["key"] == key and left["why"] == why for left in self.not_carried):
            self.not_carried.append({"key": key, "value": shortened(value), "why": why})

    def note(self, text: str) -> None:
        """A sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def as_text(self) -> str:
        """For a person."""
        lines = [
            f"Read as {self.dialect}: {self.decided}.",
            f"Strength is read in the convention {self.strength_convention!r}.",
        ]
        counts = f"{len(self.carried)} keys carried, {len(self.no_effect)} without effect on the pictures"
        lines.append(f"{counts}, {len(self.not_carried)} not carried, {len(self.unknown)} unknown.")
        if self.defaults:
            lines += _wrapped("Not in the file, so the tool's own default counts: " + ", ".join(self.defaults) + ".")
        if self.not_carried:
            lines += ["", "Not carried over:"]
            for why in dict.fromkeys(left["why"] for left in self.not_carried):
                same = [left for left in self.not_carried if left["why"] == why]
                lines += _wrapped(f"{', '.join(_said(left) for left in same)}: {why}", "  ")
        if self.unknown:
            lines += ["", *_wrapped("Unknown: " + ", ".join(self.unknown) + ".")]
        if self.notes:
            lines += ["", "Notes:"]
            for note in self.notes:
                lines += _wrapped(note, "  ")
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """As JSON where the name ends in .json, else as text."""
        told = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        write_whole(path, (told if path.suffix.lower() == ".json" else self.as_text()).encode())


def shortened(value: object) -> object:
    """A value as JSON can hold it, not too long to read."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _said(left: dict[str, Any]) -> str:
    value = json.dumps(left["value"], ensure_ascii=False)
    return f"{left['key']} = {value if len(value) < 60 else value[:56] + '...'}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=indent, subsequent_indent=indent + "  ") or [""]

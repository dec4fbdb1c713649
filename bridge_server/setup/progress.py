# SPDX-License-Identifier: GPL-3.0-or-later
"""From the lines that pip and uv print to how far an installation is."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")  # pip's --progress-bar raw: bytes
_NAME = re.compile(r"[A-Za-z0-9][\w.]*?(?:-[A-Za-z][\w.]*?)*(?=-\d|$)")


@dataclass
class Progress:
    """How far one call of pip or uv is.

    detail: for people. fraction: 0 to 1; how many packages there will be is not known while they are looked for, so it
    only comes ever closer.
    """

    detail: str = ""
    fraction: float = 0.0
    _packages: int = 0
    _name: str = ""

    def read(self, line: str) -> bool:
        """Take in one line; whether it said anything."""
        line = line.strip()
        if found := _PROGRESS.match(line):
            done, total = int(found[1]), max(int(found[2]), 1)
            self.detail = f"{self._name}, {done / 1e6:.0f} of {total / 1e6:.0f} MB"
            self.fraction = self._reached(done / total)
            return True
        word, _, rest = line.partition(" ")
        match word:
            case "Collecting" if rest:
                self._packages += 1
                self._name = re.split(r"[\s<>=!~\[;(]", rest)[0]
                self.detail = f"package {self._packages}, {self._name}"
            case "Downloading" | "Processing" if rest:
                if word == "Processing" or not self._packages or self._name == "":
                    self._packages += 1
                self._name = _name_of(rest)
                size = re.search(r"\(([\d.]+ ?[kKMG]i?B)\)", rest)
                self.detail = f"package {self._packages}, {self._name}" + (f", {size[1]}" if size else "")
            case "Prepared" | "Resolved" if "package" in rest:
                self.detail = line.rpartition(" in ")[0] or line
                self.fraction = max(self.fraction, 0.8 if word == "Prepared" else 0.05)
                return True
            case "Installing" if rest.startswith("collected packages"):
                self.detail = f"unpacking {rest.count(',') + 1} packages"
                self.fraction = 0.85
                return True
            case _:
                return False
        self.fraction = self._reached(0.0)
        return True

    def _reached(self, part: float) -> float:
        whole = max(self._packages - 1, 0) + part
        return max(self.fraction, 0.8 * whole / (whole + 6) if self._packages > 1 else 0.8 * part * part)


def _name_of(text: str) -> str:
    """A package's name from a wheel's path or address."""
    file = re.split(r"[\\/]", text.split(" ")[0])[-1]
    found = _NAME.match(file.split("-")[0])
    return found[0] if found else file

# SPDX-License-Identifier: GPL-3.0-or-later
"""A shot in the making, out of the settings of another tool."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checks import MAX_FRAMES
from ..schedules import ScheduleError, check, evaluate
from ..seeds import LARGEST
from ..settings import SCHEDULES
from . import grammar
from .dialects import KEEPS, Dialect
from .report import Report

NAMED = ("strength", "guidance", "seed")  # a shot that does not name them takes the model's own, or seed_behavior's
NONE = (None, "", False, "None", "none", "null", "False", "No")


class NotCarried(Exception):
    """Why a key's value cannot be in a shot."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Draft:
    """settings: the file's table with the tool's defaults under it. shot: what is ready of the document.

    mode: 2D, 3D, Interpolation, Video Input or None. keeps: whether a high strength keeps the picture. folder, out:
    where the settings lie and where the shot will, for relative file names.
    """

    def __init__(
        self, settings: Mapping[str, Any], dialect: Dialect, report: Report, folder: Path, out: Path | None
    ) -> None:
        self.settings, self.dialect, self.report, self.folder, self.out = settings, dialect, report, folder, out
        self.keeps = report.strength_convention == KEEPS
        self.mode = self._mode()
        self.frames = self._frames()
        self.seed = self._seed()
        self.shot: dict[str, Any] = {"koshi": 1, "frames": self.frames, "seed": self.seed, "schedules": {}}

    def on(self, key: str) -> bool:
        """Whether a switch is on."""
        value = self.settings.get(key)
        return value is not None and value not in NONE and value != 0

    def part(self, name: str) -> dict[str, Any]:
        """One of the shot's inner tables: feedback, motion, depth, guides."""
        table: dict[str, Any] = self.shot.setdefault(name, {})
        return table

    def read(self, value: Any) -> Any:
        """A schedule as this tool means it, in Koshi's words. Raises ScheduleError."""
        if isinstance(value, Mapping):  # {"0": 1.0, "30": 1.02}
            value = ", ".join(f"{frame}:({number})" for frame, number in value.items())
        if self.dialect.name in ("webui", "forge", "notebook", "xlabs"):
            return grammar.from_deforum(value)
        if self.dialect.name == "comfy":
            return grammar.from_a043(value, self.frames, self.seed)
        return value

    def values(self, key: str, value: Any) -> tuple[Any, list[float]]:
        """A key's schedule in Koshi's words, and its value at every frame. Raises NotCarried."""
        try:
            schedule = self.read(value)
            found = evaluate(schedule, self.frames, seed=self.seed)
            for note in check(schedule, self.frames, self.seed):
                self.report.note(f"{key}: {note}")
        except (ScheduleError, TypeError) as error:
            raise NotCarried(f"it cannot be read: {error}") from error
        return schedule, found

    def put_curve(self, name: str, key: str, schedule: Any, values: list[float]) -> str:
        """Put a schedule into the shot, within its range; where it stands."""
        low, high = SCHEDULES[name].low, SCHEDULES[name].high
        outside = [k for k, value in enumerate(values) if not low <= value <= high]
        if outside:
            first = outside[0]
            why = f"the value at frame {first} is {values[first]:g}; Koshi has {low:g} to {high:g} and holds it there."
            self.report.leave(key, self.settings.get(key, schedule), why)
            values = [min(max(value, low), high) for value in values]
            schedule = values
        if len(set(values)) == 1:
            schedule = values[0]
            if schedule == SCHEDULES[name].default and name not in NAMED:
                return f"schedules.{name}"  # what a shot means that does not name it
        self.shot["schedules"][name] = schedule
        return f"schedules.{name}"

    def file(self, value: Any) -> str:
        """A file name as the shot has to say it. Raises NotCarried for an address on the net, or none."""
        if not isinstance(value, str) or not value.strip():
            raise NotCarried("no file is named.")
        value = value.strip()
        if "://" in value:
            raise NotCarried("Koshi fetches nothing: save the file beside the shot and name it.")
        path = Path(value).expanduser()
        if not path.is_absolute():
            path = self.folder / path
            home = self.folder if self.out is None else self.out.parent
            value = os.path.relpath(path, home) if path.parent.absolute().drive == home.absolute().drive else str(path)
        if "#" not in path.name and not _is_file(path):
            self.report.note(f"{value} is not there yet; the shot cannot be rendered without it.")
        return value

    def whole(self, key: str, value: Any, low: int, high: int) -> int:
        """A whole number, in range. Raises NotCarried."""
        number = as_number(value)
        if number is None:
            raise NotCarried("it is no number.")
        if not low <= int(number) <= high:
            raise NotCarried(f"Koshi takes {low} to {high}.")
        return int(number)

    def _mode(self) -> str:
        given = self.settings.get("animation_mode")
        modes = {"2d": "2D", "3d": "3D", "interpolation": "Interpolation", "video input": "Video Input", "none": "None"}
        if isinstance(given, str):
            return modes.get(given.strip().lower(), "2D")
        return "2D"

    def _frames(self) -> int:
        number = as_number(self.settings.get("max_frames"))
        if self.mode == "None" or number is None:
            return 1
        given = min(max(int(number), 1), MAX_FRAMES)
        # There a film's length is the animation's.
        from .carry_hybrid import film_length

        found = min(film_length(self) or given, MAX_FRAMES)
        if found != given:
            self.report.note(f"The film gives {found} frames, and the shot has as many, whatever max_frames says.")
        return found

    def _seed(self) -> int:
        """The file's seed; one drawn from its content where it asks for a random one."""
        number = as_number(self.settings.get("seed"))
        if number is not None and 0 <= number <= LARGEST:
            return int(number)
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def as_number(value: Any) -> float | None:
    """A finite number, also one in quotes; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shot says that another tool's file has no place for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..schedules import evaluate
from ..settings import GUIDE_FILES, SCHEDULES
from ..shot import Shot, load_shot
from .report import Report

FILES = ("init_image", "audio", "color_image", *(f"guides.{name}" for name in GUIDE_FILES))
# These hold for every shot, and no tool needs to be told.
_OURS = ("koshi", "strength_convention", "time_rounding", "feedback.position", "steps")


class Outgoing:
    """A shot on its way out. carried: what has a place there; `end` reports the rest that is not as by default."""

    def __init__(self, shot: Shot, report: Report, folder: Path, out: Path | None) -> None:
        self.shot, self.report, self.folder, self.out = shot, report, folder, out
        self.flat = flattened(shot.as_dict())
        self.values = written_values(shot)

    def carry(self, where: str, *fields: str) -> None:
        """Note that fields of the shot stand in `where`."""
        for field in fields:
            self.report.carried[field] = where

    def leave(self, field: str, why: str) -> None:
        self.report.leave(field, self.flat.get(field), why)

    def moves(self, name: str) -> bool:
        """Whether a schedule is anywhere else than at its neutral value."""
        return any(value != SCHEDULES[name].default for value in self.values[name])

    def file(self, field: str) -> str:
        """A file of the shot, as the new file has to say it."""
        return self.place(str(self.flat[field]))

    def place(self, name: str) -> str:
        """A file name of the shot, as the new file has to say it."""
        path = Path(name).expanduser()
        home = self.folder if self.out is None else self.out.parent
        return name if path.is_absolute() else os.path.relpath(self.folder / path, home)

    def end(self, why: str) -> None:
        """Report what is not as in a shot that says nothing, and has not been carried or reported yet."""
        silent = bare(self.shot)
        plain = flattened(silent.as_dict())
        known = {*_OURS, *self.report.carried, *(left["key"] for left in self.report.not_carried)}
        if "seed" in self.shot.schedules or "schedules.seed" in known:
            known |= {"seed_behavior", "seed_iter_n"}  # which then count for nothing
        elif self.shot.seed_behavior != "iter":
            known.add("seed_iter_n")
        for field, value in self.flat.items():
            part, _, name = field.partition(".")
            same = self.values[name] == silent.values[name] if part == "schedules" else value == plain[field]
            if not same and field not in known:
                self.report.leave(field, value, why)


def flattened(document: dict[str, Any]) -> dict[str, Any]:
    """A shot's document with inner tables as dotted names; prompts stay a list."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            flat[name] = value
    return flat


def written_values(shot: Shot) -> dict[str, list[float]]:
    """Every schedule's value at every frame, as written: `strength` is that of its own curve at keyframes too."""
    values = dict(shot.values)
    if shot.keyframes:
        given = shot.schedules.get("strength", SCHEDULES["strength"].default)
        values["strength"] = evaluate(given, shot.frames, seed=shot.seed)
    return values


def bare(shot: Shot) -> Shot:
    """A shot of the same model that says nothing."""
    return load_shot({"model": shot.model, "frames": shot.frames, "prompts": [{"text": "a picture"}]})

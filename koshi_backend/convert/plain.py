# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules and nothing else: a table of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checks import MAX_FRAMES
from ..schedules import ScheduleError, parse
from . import grammar
from .dialects import CHANGES, DIALECTS, KEEPS, schedule_name
from .draft import Draft, NotCarried, as_number
from .report import Report

LENGTH = 120  # frames of a shot whose schedules do not say how far they go
_DEEP = ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z", "fov", "aspect_ratio")


def convention_of(data: Mapping[str, Any]) -> tuple[str, str]:
    """What strength means in such a file, which says nothing of it: Deforum's name has Deforum's meaning."""
    if "strength_schedule" in data:
        return KEEPS, "strength_schedule is Deforum's name, so a high one keeps the picture"
    return CHANGES, "strength is Koshi's name, so a high one makes the picture anew"


def to_shot(data: Mapping[str, Any], report: Report, folder: Path, out: Path | None = None) -> dict[str, Any]:
    """A shot's document; every curve counts, in 3D where a turn or a field of view is named."""
    settings = {"max_frames": _length(data), **{key: data[key] for key in ("seed",) if key in data}}
    draft = Draft(settings, DIALECTS["schedules"], report, folder, out)
    names: set[str] = set()
    for key, value in data.items():
        name = schedule_name(str(key))
        if name == "seed" and isinstance(value, (int, float)):
            report.carried[key] = "seed"
            continue
        if name is None:
            _carry_other(draft, str(key), value)
            continue
        try:
            schedule, values = draft.values(key, value)
            if name == "strength" and draft.keeps:
                schedule = grammar.turned(schedule, draft.frames, draft.seed)
                values = grammar.turned_values(values)
            report.carried[key] = draft.put_curve(name, key, schedule, values)
            names.add(name)
        except NotCarried as error:
            report.leave(key, value, error.why)
    if names & set(_DEEP):
        draft.part("motion")["source"] = "3d"
        report.note("The schedules turn in depth, so the shot's motion is 3d.")
    if "subseed_strength" in names:
        draft.part("feedback")["noise_mode"] = "subseed"
    draft.shot["prompts"] = [{"frame": 0, "text": "a picture"}]
    report.note('The file has no prompt; the shot says "a picture".')
    return draft.shot


def _carry_other(draft: Draft, key: str, value: Any) -> None:
    number = as_number(value)
    if key in ("frames", "max_frames") and number is not None:
        draft.report.carried[key] = "frames"
    elif key == "fps" and number is not None and 0.1 <= number <= 1000:
        draft.shot["fps"] = number
        draft.report.carried[key] = "fps"
    else:
        draft.report.unknown.append(key)


def _length(data: Mapping[str, Any]) -> int:
    """As many frames as the file says, else as its keys reach."""
    for key in ("frames", "max_frames"):
        if (number := as_number(data.get(key))) is not None:
            return min(max(int(number), 1), MAX_FRAMES)
    reach = 0
    for key, value in data.items():
        if schedule_name(str(key)) is None:
            continue
        if isinstance(value, list):
            reach = max(reach, len(value))
        elif isinstance(value, str):
            try:
                marks = [mark.frame for mark in parse(value).keys]
            except ScheduleError:
                continue
            reach = max(reach, *(mark + 1 for mark in marks if isinstance(mark, int)), 0)
    return min(reach, MAX_FRAMES) if reach > 1 else LENGTH

# SPDX-License-Identifier: GPL-3.0-or-later
"""The value of every schedule at every frame."""

from __future__ import annotations

import csv
import io

from ..settings import SCHEDULES
from ..shot import Shot
from .leftover import written_values

_SEEDS = ("seed", "subseed", "subseed_strength")


def columns(shot: Shot) -> list[str]:
    """`frame`, Koshi's schedules, then steps and the seeds."""
    return ["frame", *(name for name in SCHEDULES if name not in _SEEDS), "steps", *_SEEDS]


def rows(shot: Shot) -> list[list[float]]:
    """One row for each frame, counted from 0. Strength is Koshi's: how much is made anew. Absolute curves stand as the
    moves that they are."""
    names, table = columns(shot)[1:], {**written_values(shot), "steps": [float(shot.steps)] * shot.frames}
    return [[float(index), *(table[name][index] for name in names)] for index in range(shot.frames)]


def as_csv(shot: Shot) -> str:
    """The table as CSV, numbers to the last digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(shot))
    writer.writerows([[int(v) if v.is_integer() else repr(v) for v in row] for row in rows(shot)])
    return text.getvalue()

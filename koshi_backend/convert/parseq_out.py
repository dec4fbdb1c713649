# SPDX-License-Identifier: GPL-3.0-or-later
"""A shot as a Parseq document: one row for each frame, places and the moves between them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ..settings import TURNS
from ..shot import Shot
from . import prompts
from .leftover import Outgoing
from .parseq import MOVES
from .report import Report

_FLAT = ("zoom", "angle", "translation_x", "translation_y")
_DEEP = ("translation_x", "translation_y", "translation_z", *TURNS)
_FLIPS = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
_NAMES = {"guidance": "scale", "sharpen": "antiblur_amount"}  # Koshi's name -> Parseq's, where they differ


def to_manifest(shot: Shot, report: Report, folder: Path, out: Path | None = None) -> dict[str, Any]:
    """The document. Its moves, `_delta`, are the shot's to the last digit; places begin at the first frame's move."""
    way = Outgoing(shot, report, folder, out)
    deep = shot.motion.source == "3d"
    names = [*(_DEEP if deep else _FLAT), "noise", "contrast", "sharpen", "guidance"]
    if deep:
        names.append("fov")
    if any(way.moves(name) for name in _FLIPS[:3]):
        names += _FLIPS
    if shot.motion.source in ("2d", "3d"):
        way.carry("the fields that are managed", "motion.source")
    rows: list[dict[str, Any]] = [{"frame": index} for index in range(shot.frames)]
    for name in names:
        _write(rows, _NAMES.get(name, name), way.values[name])
        way.carry(_NAMES.get(name, name), f"schedules.{name}")
    _write(rows, "strength", [round(1.0 - v, 12) for v in way.values["strength"]])
    way.carry("strength", "schedules.strength")
    _write(rows, "seed", way.values["seed"])
    way.carry("seed", "seed", "schedules.seed", "seed_behavior", "seed_iter_n")
    if shot.feedback.noise_mode == "subseed":
        for name in ("subseed", "subseed_strength"):
            _write(rows, name, way.values[name])
            way.carry(name, f"schedules.{name}")
    if shot.feedback.noise_mode in ("fixed", "subseed"):
        way.carry("seed", "feedback.noise_mode")
    given = [prompt for prompt in way.flat["prompts"] if prompt.get("weight") is None] or way.flat["prompts"]
    ordered = sorted(given, key=lambda prompt: int(prompt["frame"]))
    for row in rows:
        before = [prompt for prompt in ordered if prompt["frame"] <= row["frame"]]
        row["deforum_prompt"] = prompts.with_negative(before[-1] if before else ordered[0])
    if len(given) < len(way.flat["prompts"]):
        way.leave("prompts.weight", "those with a weight of their own are left out.")
    if any(prompt.get("ease", "hold") != "hold" for prompt in ordered[:-1]):
        way.leave("prompts.ease", "prompts change at once.")
    way.carry("deforum_prompt", "prompts")
    way.carry("options.output_fps", "fps")
    way.carry("rendered_frames", "frames")
    cadence = [int(value) for value in way.values["cadence"]]
    if len(set(cadence)) == 1:
        way.carry("options.cadence", "schedules.cadence")
    if shot.motion.absolute:
        way.carry("_delta", "motion.absolute")
    for name in ("width", "height", "steps"):
        way.leave(name, "a Parseq document has no place for it: say it in Deforum's settings.")
    way.end("a Parseq document has no place for it.")
    fields = [name for name in rows[0] if name not in ("frame", "deforum_prompt") and not name.endswith("_delta")]
    return {
        "meta": {"generated_by": "koshi", "version": "1"},
        "options": {"output_fps": shot.fps, "cadence": cadence[0]},
        "managedFields": fields,
        "rendered_frames": rows,
    }


def _write(rows: list[dict[str, Any]], field: str, values: list[float]) -> None:
    """A field's column; of a motion the moves too, whose sum the places are."""
    if field not in MOVES:
        for row, value in zip(rows, values, strict=True):
            row[field] = value
        return
    rest = 1.0 if field == "zoom" else 0.0
    places = itertools.accumulate(values[1:], lambda place, move: place + move - rest, initial=values[0])
    for row, place, move in zip(rows, places, values, strict=True):
        row[field], row[f"{field}_delta"] = place, move

# SPDX-License-Identifier: GPL-3.0-or-later
"""Parseq documents: what Parseq has worked out for every frame, as schedules.

Places there are absolute, and the columns `_delta` hold the moves (for zoom 1 plus the difference). At frame 0 a move
is the place itself, which moves nothing. Read as sd-webui-deforum does (parseq_adapter.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checks import MAX_FRAMES
from ..errors import KoshiError
from ..seeds import LARGEST, split_seed
from .dialects import Dialect
from .draft import NotCarried, as_number
from .loose import read_loose, read_text
from .report import Report

MOVES = ("angle", "zoom", "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y",
         "rotation_3d_z", "perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma")  # fmt: skip
# Parseq's field -> the setting that it replaces.
FIELDS: dict[str, str] = {
    **{name: name for name in MOVES},
    "perspective_flip_fv": "perspective_flip_fv",
    **{name: f"{name}_schedule" for name in ("fov", "near", "far", "noise", "strength", "contrast", "seed", "subseed")},
    "subseed_strength": "subseed_strength_schedule",
    "scale": "cfg_scale_schedule",
    **{f"antiblur_{name}": f"{name}_schedule" for name in ("kernel", "sigma", "amount", "threshold")},
    **{f"hybrid_{name}": f"hybrid_{name}_schedule" for name in (
        "comp_alpha", "comp_mask_blend_alpha", "comp_mask_contrast", "comp_mask_auto_contrast_cutoff_low",
        "comp_mask_auto_contrast_cutoff_high", "flow_factor")},
    "cadence_flow_factor": "cadence_flow_factor_schedule",
    "redo_flow_factor": "redo_flow_factor_schedule",
}  # fmt: skip
FLAT_ONLY, DEEP_ONLY = ("zoom", "angle"), ("translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z", "fov")
_IDLE = ("keyframes", "prompts", "managedFields", "displayedFields", "timeSeries", "keyframeLock", "reverseRender",
         "rendered_frames_meta", "meta", "docId", "version", "generatedBy", "versionNumber", "name", "id", "$schema")
_IDLE_OPTIONS = ("bpm", "input_fps")
_INTERNAL = ("prompt_weight_", "prompt_", "info", "audio")  # they stand in deforum_prompt, or were worked in


class Manifest(NamedTuple):
    """settings: what a document says, in webui's words, schedules as one number a frame. names: field of a setting.
    frames: how many there are. left: fields that no setting has."""

    settings: dict[str, Any]
    names: dict[str, str]
    frames: int
    left: list[str]


def read_manifest(data: Mapping[str, Any], report: Report, deltas: bool = True, frames: int | None = None) -> Manifest:
    """Read a document. deltas: take moves from `_delta`. frames: the length wanted; else the document's own.

    Frames that are missing hold what was before them, with a note. Raises KoshiError("bad_settings") for a document
    without rendered frames.
    """
    rows = _rows(data)
    count = max(rows) + 1
    if len(rows) < count:
        report.note(f"{count - len(rows)} of {count} frames are missing in the Parseq document; the one before holds.")
    length = count if frames is None else frames
    if length > count:
        report.note(f"The Parseq document ends at frame {count - 1}; its last values hold up to {length - 1}.")
    fields = list(dict.fromkeys(name for row in rows.values() for name in row))
    settings: dict[str, Any] = {}
    names: dict[str, str] = {}
    left: list[str] = []
    for field in fields:
        if field in FIELDS:
            if values := _column(rows, field, length, deltas, report):
                settings[FIELDS[field]], names[FIELDS[field]] = values, field
        elif field not in ("frame", "deforum_prompt") and not _derived(field):
            left.append(field)
    if "seed_schedule" in settings:
        _add_seeds(settings, report)
    if prompts := _prompts(rows, length):
        settings["prompts"], names["prompts"] = prompts, "deforum_prompt"
    return Manifest(settings, names, count, left)


def as_settings(data: Mapping[str, Any], report: Report) -> tuple[dict[str, Any], dict[str, str]]:
    """A document on its own as settings of webui, and what it calls them."""
    manifest = read_manifest(data, report)
    settings = {**manifest.settings, "max_frames": manifest.frames}
    settings["animation_mode"] = _mode(manifest, report)
    settings["enable_perspective_flip"] = any(
        any(settings.get(f"perspective_flip_{name}", ())) for name in ("theta", "phi", "gamma")
    )
    options = data.get("options")
    options = options if isinstance(options, Mapping) else {}
    names = {**manifest.names, "max_frames": "rendered_frames", "animation_mode": "rendered_frames"}
    if "output_fps" in options:
        settings["fps"], names["fps"] = options["output_fps"], "options.output_fps"
    if "cadence" in options:
        settings["diffusion_cadence"], names["diffusion_cadence"] = options["cadence"], "options.cadence"
    known = ("output_fps", "cadence", *_IDLE_OPTIONS)
    report.no_effect += [f"options.{name}" for name in options if name in _IDLE_OPTIONS]
    report.unknown += [f"options.{name}" for name in options if name not in known]
    report.no_effect += [name for name in data if name in _IDLE]
    report.unknown += [str(name) for name in data if name not in (*_IDLE, "rendered_frames", "options")]
    report.unknown += manifest.left
    return settings, names


def replace_by_manifest(settings: Mapping[str, Any], report: Report, folder: Path, dialect: Dialect) -> dict[str, Any]:
    """Settings whose parseq_manifest, if they have one, has taken its place in the schedules."""
    merged = dict(settings)
    given = merged.get("parseq_manifest")
    if not given or dialect.name not in ("webui", "forge"):
        return merged
    del merged["parseq_manifest"]
    overrides = settings.get("parseq_non_schedule_overrides", True) is not False
    frames = as_number(settings.get("max_frames", 120))
    try:
        data = given if isinstance(given, Mapping) else _load(str(given), folder)
        wanted = None if overrides or frames is None else min(max(int(frames), 1), MAX_FRAMES)
        manifest = read_manifest(data, report, settings.get("parseq_use_deltas", True) is not False, wanted)
    except (NotCarried, KoshiError) as error:
        report.leave("parseq_manifest", given, error.why if isinstance(error, NotCarried) else str(error))
        return merged
    merged.update(manifest.settings)
    for field in manifest.left:
        report.unknown.append(f"parseq_manifest: {field}")
    options = data.get("options")
    if overrides:
        merged["max_frames"] = manifest.frames
        if isinstance(options, Mapping) and "output_fps" in options:
            merged["fps"] = options["output_fps"]
        if isinstance(options, Mapping) and "cadence" in options:
            merged["diffusion_cadence"] = options["cadence"]
    report.carried["parseq_manifest"] = ", ".join(manifest.settings)
    return merged


def _load(given: str, folder: Path) -> Mapping[str, Any]:
    """A manifest that is written out, or a file."""
    text = given.strip()
    if not text.startswith("{"):
        if "://" in text:
            raise NotCarried("Koshi fetches nothing: save the document and name the file here.")
        text = read_text(folder / Path(text).expanduser())
    data = read_loose(text)
    if not isinstance(data, Mapping):
        raise NotCarried("it is no Parseq document.")
    return data


def _rows(data: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """The rendered frames by number; of two with one number the later counts."""
    found: dict[int, Mapping[str, Any]] = {}
    given = data.get("rendered_frames")
    for place, row in enumerate(given if isinstance(given, list) else []):
        if isinstance(row, Mapping):
            number = as_number(row.get("frame", place))
            if number is not None and 0 <= number < MAX_FRAMES:
                found[int(number)] = row
    if not found:
        hint = "Open it in Parseq and press Render, then save it again."
        raise KoshiError("bad_settings", "The Parseq document has no rendered frames.", hint)
    return dict(sorted(found.items()))


def _column(
    rows: Mapping[int, Mapping[str, Any]], field: str, length: int, deltas: bool, report: Report
) -> list[float]:
    """One number a frame; [] if there is none at all. A delta that is missing is worked out of the places."""
    moved = deltas and field in MOVES
    written = moved and any(f"{field}_delta" in row for row in rows.values())
    if moved and not written:
        report.note(f"The Parseq document has no {field}_delta; the moves are worked out of the places.")
    numbers = {frame: as_number(row.get(f"{field}_delta" if written else field)) for frame, row in rows.items()}
    known = [number for number in numbers.values() if number is not None]
    if not known:
        return []
    values: list[float] = []
    for frame in range(length):
        number = numbers.get(frame)
        values.append(number if number is not None else values[-1] if values else known[0])
    if moved and not written:
        rest = 1.0 if field == "zoom" else 0.0
        values = values[:1] + [rest + values[k] - values[k - 1] for k in range(1, length)]
    return values


def _add_seeds(settings: dict[str, Any], report: Report) -> None:
    """A seed's fraction is how far it has gone to the next one."""
    seeds = settings["seed_schedule"]
    settings["seed_behavior"] = "schedule"
    if "subseed_strength_schedule" in settings:
        settings["enable_subseed_scheduling"] = True
    if all(0.0 <= seed <= LARGEST for seed in seeds):
        split = [split_seed(seed) for seed in seeds]
        settings.setdefault("subseed_schedule", [float(sub) for _, sub, _ in split])
        settings.setdefault("subseed_strength_schedule", [share for *_, share in split])
        if any(settings["subseed_strength_schedule"]):
            settings["enable_subseed_scheduling"] = True
    settings["seed"] = int(seeds[0]) if 0 <= seeds[0] <= LARGEST and math.isfinite(seeds[0]) else 0


def _prompts(rows: Mapping[int, Mapping[str, Any]], length: int) -> dict[str, str]:
    found: dict[str, str] = {}
    before: str | None = None
    for frame, row in rows.items():
        text = row.get("deforum_prompt")
        if isinstance(text, str) and text.strip() and text != before and frame < length:
            found[str(frame)] = before = text
    return found


def _mode(manifest: Manifest, report: Report) -> str:
    """A document does not say whether it is for 2D or 3D; the fields that it manages do."""
    fields = set(manifest.names.values())
    flat, deep = fields & set(FLAT_ONLY), fields & set(DEEP_ONLY)
    if flat and deep:
        moving = [name for name in DEEP_ONLY[:-1] if any(manifest.settings.get(name, ()))]
        mode = "3D" if moving else "2D"
        reason = f"{moving[0]} moves" if moving else "nothing moves in depth"
    else:
        mode = "3D" if deep else "2D"
        reason = f"it has {', '.join(sorted(deep or flat))}" if deep or flat else "it has no zoom, angle or depth"
    report.note(f"A Parseq document does not say its mode; this one is read as {mode}, because {reason}.")
    return mode


def _derived(field: str) -> bool:
    return field.endswith(("_delta", "_pc")) or field.startswith(_INTERNAL)

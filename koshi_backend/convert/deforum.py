# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Deforum's family as a shot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .dialects import Dialect
from .draft import NONE, Draft, NotCarried
from .keys import PATTERNS, ROWS, find_row
from .report import Report

# Older names, and other tools' names for the same.
ALIASES = {
    "flip_2d_perspective": "enable_perspective_flip",
    "skip_video_for_run_all": "skip_video_creation",
    "near_plane": "near_schedule",
    "far_plane": "far_schedule",
    "fov": "fov_schedule",
    "subseed": "subseed_schedule",
    "subseed_strength": "subseed_strength_schedule",
    "seed_enable_extras": "enable_subseed_scheduling",
    "animation_prompts": "prompts",
    "cond_prompts": "prompts",
    "prompt": "prompts",
    "uncond_prompts": "neg_prompts",
    "animation_negative_prompts": "neg_prompts",
    "width": "W",
    "height": "H",
    "num_frames": "max_frames",
    "frames": "max_frames",
    "num_inference_steps": "steps",
    "guidance_scale": "scale",
    "guidance": "scale",
    "cfg": "scale",
    "sampler_name": "sampler",
    "noise": "noise_schedule",
    "noise_amount": "noise_schedule",
    "contrast": "contrast_schedule",
    "sharpen": "amount_schedule",
    "sharpen_amount": "amount_schedule",
    "denoise": "strength_schedule",
    "klein_strength": "strength_schedule",
}
# Where the strength that is not scheduled is the loop's, and not an initial picture's.
_LOOP_STRENGTH = ("comfy", "koshi-flux")

_NEITHER = {"animation_mode": "2D", "seed_behavior": "iter", "seed": -1, "enable_perspective_flip": False}
# What counts where a file says nothing.
_WEBUI: dict[str, Any] = {
    **_NEITHER, "W": 512, "H": 512, "max_frames": 120, "fps": 15, "steps": 25, "strength": 0.8, "border": "replicate",
    "zoom": "0: (1.0025+0.002*sin(1.25*3.14*t/30))", "translation_z": "0: (1.75)", "strength_schedule": "0: (0.65)",
    "noise_schedule": "0: (0.065)", "noise_type": "perlin", "cfg_scale_schedule": "0: (7)", "color_coherence": "LAB",
    "amount_schedule": "0: (0.1)", "padding_mode": "border", "use_depth_warping": True, "fov_schedule": "0: (70)",
    "depth_algorithm": "Midas-3-Hybrid", "diffusion_cadence": 2, "optical_flow_cadence": "None",
    "hybrid_use_first_frame_as_init_image": True,
}  # fmt: skip
_NOTEBOOK: dict[str, Any] = {
    **_NEITHER, "W": 512, "H": 512, "max_frames": 1000, "fps": 12, "steps": 50, "strength": 0.8, "scale": 7,
    "border": "replicate", "zoom": "0:(1.04)", "translation_z": "0:(10)", "strength_schedule": "0:(0.65)",
    "noise_schedule": "0:(0.02)", "noise_type": "uniform", "color_coherence": "Match Frame 0 LAB",
    "amount_schedule": "0:(0.2)", "padding_mode": "border", "use_depth_warping": True, "fov_schedule": 40,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "webui": _WEBUI,
    "forge": {
        **_WEBUI, "W": 1280, "H": 720, "max_frames": 333, "fps": 60, "steps": 20, "zoom": "0: (1.0)",
        "translation_z": "0: (0)", "strength_schedule": "0: (0.85)", "strength": 0.85, "color_coherence": "None",
        "cfg_scale_schedule": "0: (1.0)", "distilled_cfg_scale_schedule": "0: (3.5)",
        "depth_algorithm": "Depth-Anything-V2-Small", "diffusion_cadence": 10,
        "keyframe_distribution": "Keyframes Only", "keyframe_strength_schedule": "0: (0.50)",
    },
    "notebook": _NOTEBOOK,
    "xlabs": {
        **_NOTEBOOK, "W": 1024, "H": 1024, "steps": 30, "scale": 3.5, "translation_z": "0:(7.5)", "strength": 1.0,
        "strength_schedule": "0: (0.65), 12: (0.70), 24: (0.8), 36: (0.85), 38: (0.65)",
        "color_coherence": "Match Frame 0 RGB",
    },
    "comfy": {**_NEITHER, "W": 512, "H": 512, "max_frames": 120, "strength_schedule": 0.65, "steps": 25, "scale": 7},
    "koshi-flux": {
        **_NEITHER, "W": 768, "H": 768, "max_frames": 30, "fps": 24, "strength_schedule": 0.25,
        "color_coherence": "LAB",
    },
    "parseq": {**_NEITHER, "max_frames": 1},
}  # fmt: skip


def to_shot(
    data: Mapping[str, Any],
    dialect: Dialect,
    report: Report,
    folder: Path,
    out: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A shot's document from a settings table; what became of every key goes into `report`.

    folder: where relative file names in the settings begin. out: the file that the shot will be written to; its own
    relative names begin there. names: what the file calls some keys, for the report. Nothing in the settings is fatal.
    """
    given, called = _renamed(data, dialect, report)
    called.update(names or {})
    defaults = DEFAULTS[dialect.name]
    draft = Draft({**defaults, **given}, dialect, report, folder, out)
    for key in [*ROWS, *(key for key in draft.settings if key not in ROWS)]:
        if key not in draft.settings:
            continue
        name, value = called.get(key, key), draft.settings[key]
        row = find_row(key)
        if row is None:
            report.unknown.append(name)
        elif not row.counts(draft, value):
            if key in given:
                report.no_effect.append(name)
        elif row.carry is None:
            report.leave(name, value, row.why)
        else:
            try:
                where = row.carry(draft, name, value)
            except NotCarried as error:
                report.leave(name, value, error.why)
                continue
            if key in given:
                report.carried[name] = where
            else:
                report.defaults.append(key)
    return _finished(draft)


def known(key: str) -> bool:
    """Whether a key is one of the family's."""
    return key in ROWS or key in ALIASES or any(pattern.fullmatch(key) for pattern, _ in PATTERNS)


def _renamed(data: Mapping[str, Any], dialect: Dialect, report: Report) -> tuple[dict[str, Any], dict[str, str]]:
    """The table by the names of today, without what holds nothing; and what the file calls them."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if key in ("motion_params", "feedback_config", "schedules") and isinstance(value, Mapping):
            flat.update(value)
        else:
            flat[str(key)] = value
    aliases = dict(ALIASES)
    if dialect.name in _LOOP_STRENGTH:
        aliases["strength"] = "strength_schedule"
    defaults = DEFAULTS[dialect.name]
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    for key, value in flat.items():
        name = aliases.get(key, key)
        if name != key and name in flat:
            report.no_effect.append(key)  # it stands there by its right name
            continue
        if isinstance(value, float) and not math.isfinite(value):
            report.leave(key, value, "it is no number" + ("; the default counts." if name in defaults else "."))
            continue
        if value is None and name in defaults:
            report.no_effect.append(key)
            continue
        given[name], called[name] = value, key
    if "use_zoe_depth" in given:  # webui before its list of depth models
        zoe = given.pop("use_zoe_depth") not in NONE
        given.setdefault("depth_algorithm", "Zoe+AdaBins (old)" if zoe else "Midas+AdaBins (old)")
        called.setdefault("depth_algorithm", "use_zoe_depth")
    return given, called


def _finished(draft: Draft) -> dict[str, Any]:
    """The document, with what holds for the whole of this family."""
    shot, report = draft.shot, draft.report
    if "prompts" not in shot:
        report.note('The file has no prompt; the shot says "a picture".')
        shot["prompts"] = [{"frame": 0, "text": "a picture"}]
    feedback = draft.part("feedback")
    if draft.dialect.name != "koshi-flux":
        # There, noise is the seed's and nothing else. Koshi's own default would draw another one in each frame.
        feedback.setdefault("noise_mode", "fixed")
        if feedback["noise_mode"] == "fixed" and shot.get("seed_behavior") == "fixed":
            report.note("The seed stays the same, and the same noise burns in: noise_mode incremental does not.")
    _note_differences(draft)
    for name in ("guides", "depth", "motion", "time", "masking", "hybrid"):
        if not shot.get(name, True):
            del shot[name]
    order = ("koshi", "width", "height", "fps", "frames", "seed", "seed_behavior", "seed_iter_n", "steps", "init_image",
             "guided_images", "color_image", "color_every", "loras",
             "audio", "prompts", "schedules", "time", "motion", "depth", "guides", "hybrid", "masking",
             "feedback")  # fmt: skip
    return {name: shot[name] for name in order if name in shot}


def _note_differences(draft: Draft) -> None:
    """What the same numbers do otherwise there."""
    note, moved = draft.report.note, {"translation_x", "translation_y"} & set(draft.shot["schedules"])
    if draft.dialect.name == "notebook":
        note("XLabs' deforum-x-flux writes the same keys, and its strength is turned: if this file is its, "
             "say --dialect xlabs.")  # fmt: skip
    if draft.dialect.name == "koshi-flux" and moved:
        note("Koshi-Flux counts translations in cells of the latent and the other way round; the numbers are carried "
             "as they are. Multiply them by -8 for what FLUX.1 showed, by -16 for FLUX.2.")  # fmt: skip
    if draft.dialect.name == "comfy" and moved:
        note("A043's nodes translate after turning and zooming, Koshi and Deforum before.")
    if draft.on("enable_perspective_flip") and draft.mode == "2D" and moved:
        note("With the perspective flip on, webui forgets translation_x and translation_y; here they count.")

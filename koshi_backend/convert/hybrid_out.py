# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shot takes from a video, as settings of sd-webui-deforum."""

from __future__ import annotations

from typing import Any

from ..hybrid_checks import FOLLOWERS
from .leftover import Outgoing

CURVES = {
    "hybrid_alpha": "hybrid_comp_alpha_schedule", "hybrid_mask_alpha": "hybrid_comp_mask_blend_alpha_schedule",
    "hybrid_mask_contrast": "hybrid_comp_mask_contrast_schedule",
    "hybrid_cutoff_low": "hybrid_comp_mask_auto_contrast_cutoff_low_schedule",
    "hybrid_cutoff_high": "hybrid_comp_mask_auto_contrast_cutoff_high_schedule",
}  # fmt: skip


def write_hybrid(way: Outgoing, settings: dict[str, Any]) -> tuple[str, ...]:
    """Write the film, its timing, the composite and its mask; which of its curves there is a place for."""
    shot, hybrid = way.shot, way.shot.hybrid
    moving = shot.feedback.carry != "none"
    mixes = moving and hybrid.composite != "none"
    if not (mixes or hybrid.over == "every" or (moving and shot.motion.source in FOLLOWERS)):
        return ()  # webui then has nothing to do with a film
    settings["video_init_path"], settings["hybrid_generate_inputframes"] = way.file("guides.video"), True
    way.carry("video_init_path", "guides.video")
    _write_timing(way, settings)
    if hybrid.over == "every":
        way.carry("animation_mode", "hybrid.over")
        return ()
    if hybrid.over == "first":
        settings["hybrid_use_first_frame_as_init_image"] = True
        settings["strength"] = round(1.0 - way.values["strength"][0], 12)
        way.carry("hybrid_use_first_frame_as_init_image, strength", "hybrid.over")
    if not mixes:
        return ()
    settings["hybrid_composite"] = hybrid.composite.replace("_", " ").title()
    way.carry("hybrid_composite", "hybrid.composite")
    if hybrid.mask == "none":
        return ("hybrid_alpha",)
    settings["hybrid_comp_mask_type"] = hybrid.mask.replace("_", " ").title()
    settings["hybrid_comp_mask_inverse"] = hybrid.inverse
    settings["hybrid_comp_mask_equalize"] = hybrid.equalize.title()
    settings["hybrid_comp_mask_auto_contrast"] = hybrid.auto_contrast
    way.carry("hybrid_comp_mask_type", "hybrid.mask")
    way.carry("hybrid_comp_mask_inverse", "hybrid.inverse")
    way.carry("hybrid_comp_mask_equalize", "hybrid.equalize")
    way.carry("hybrid_comp_mask_auto_contrast", "hybrid.auto_contrast")
    names = ["hybrid_alpha", "hybrid_mask_contrast"]
    names += ["hybrid_mask_alpha"] if hybrid.mask == "blend" else []
    if hybrid.auto_contrast:
        whole = True
        for name in ("hybrid_cutoff_low", "hybrid_cutoff_high"):
            whole = whole and all(value == int(value) for value in way.values[name])
        if whole:
            names += ["hybrid_cutoff_low", "hybrid_cutoff_high"]
        else:
            way.leave("schedules.hybrid_cutoff_low", "webui takes whole percentiles.")
    return tuple(names)


def _write_timing(way: Outgoing, settings: dict[str, Any]) -> None:
    """webui makes as many frames as it takes from the film: the last one that is needed is its last one."""
    guides, frames = way.shot.guides, way.shot.frames
    first, every = guides.video_first, guides.video_every
    if first % every:
        why = f"of every {every} frames webui takes those whose number is a multiple of {every}."
        way.leave("guides.video_first", why)
        way.report.note(f"webui makes as many frames as it takes from the film, whatever max_frames says: {frames}?")
        return
    settings["extract_from_frame"], settings["extract_nth_frame"] = first, every
    way.carry("extract_from_frame", "guides.video_first")
    way.carry("extract_nth_frame", "guides.video_every")
    if frames > 1:
        settings["extract_to_frame"] = first + (frames - 1) * every
    else:
        way.report.note("webui makes as many frames as the film has, not one.")
    if guides.video_last is not None:
        way.leave("guides.video_last", "extract_to_frame is the last frame that the shot needs.")

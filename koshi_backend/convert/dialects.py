# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tool wrote a file. Only keys and words that one tool alone writes decide, never a number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import KoshiError
from ..settings import SCHEDULES

KEEPS, CHANGES = "deforum", "denoise"  # what a high strength does


class Dialect(NamedTuple):
    """One way to write settings.

    convention: what its strength means. keys: that of this tool and the ones after it in DIALECTS only this one writes.
    words: values that only it writes, by key.
    """

    name: str
    title: str
    convention: str
    keys: frozenset[str] = frozenset()
    words: Mapping[str, tuple[str, ...]] = {}


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLUX_SCHEDULERS = ("Default Flux Scheduler",)
# The first one with a sign of its own counts: Forge writes all of webui's keys, XLabs' port all of the notebook's.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("koshi", "a Koshi shot", CHANGES),
        Dialect("parseq", "a Parseq document", KEEPS),
        Dialect(
            "forge",
            "sd-forge-deforum",
            KEEPS,
            _keys("""distilled_cfg_scale_schedule keyframe_distribution keyframe_strength_schedule shake_name
            shake_intensity shake_speed enable_scheduler_scheduling scheduler_schedule image_keyframe_strength_schedule
            wan_t2v_model freeu_enabled kohya_hrfix_enabled"""),
        ),
        Dialect(
            "koshi-flux",
            "Koshi-Flux",
            CHANGES,
            _keys("""feedback_mode feedback_config feedback_decay motion_params noise_mode noise_delta klein_strength
            num_inference_steps guidance_scale adaptive_corrections burn_threshold latent_ema"""),
        ),
        Dialect(
            "comfy",
            "ComfyUI nodes (A043, deforum-comfy-nodes)",
            CHANGES,
            _keys("sampler_name cfg denoise slerp_strength class_type"),
        ),
        Dialect(
            "xlabs",
            "XLabs' deforum-x-flux",
            CHANGES,
            _keys("true_gs timestep_to_start_cfg"),
            {"sampler": _FLUX_SCHEDULERS, "sampler_schedule": _FLUX_SCHEDULERS, "scheduler": _FLUX_SCHEDULERS},
        ),
        Dialect(
            "notebook",
            "the Deforum notebook",
            KEEPS,
            _keys("""n_batch n_samples save_samples display_samples save_sample_per_step show_sample_per_step make_grid
            grid_rows prompt_weighting normalize_prompt_weights log_weighted_subprompts precision outdir ddim_eta
            near_plane far_plane interpolate_key_frames interpolate_x_frames model_checkpoint filename_format
            bit_depth_output dynamic_threshold static_threshold"""),
        ),
        Dialect(
            "webui",
            "sd-webui-deforum",
            KEEPS,
            _keys("""sd_model_name sd_model_hash deforum_git_commit_id show_info_on_ui
            reroll_blank_frames reroll_patience motion_preview_mode transform_center_x transform_center_y noise_type
            aspect_ratio_schedule aspect_ratio_use_old_formula legacy_colormatch use_looper blendFactorMax
            parseq_manifest parseq_use_deltas cfg_scale_schedule enable_steps_scheduling enable_subseed_scheduling
            enable_checkpoint_scheduling enable_clipskip_scheduling noise_multiplier_schedule optical_flow_cadence
            cadence_flow_factor_schedule optical_flow_redo_generation diffusion_redo hybrid_flow_factor_schedule
            cn_1_enabled cn_1_model animation_prompts_positive positive_prompts frame_interpolation_engine
            store_frames_in_ram depth_algorithm color_force_grayscale fov_schedule"""),
        ),
        Dialect("schedules", "plain schedules", KEEPS),
    )
}
ASSUMED = "webui"

# What no tool but webui and its fork for Forge writes.
_WEBUI_ALONE = _keys("deforum_git_commit_id sd_model_hash show_info_on_ui reroll_patience cn_1_enabled")
# What settings have, and a file of schedules has not.
_SETTINGS = _keys("W H prompts animation_mode max_frames sampler steps width height")


def detect(data: Mapping[str, Any]) -> tuple[Dialect, str]:
    """The dialect of a settings table, and in words what decided."""
    if "koshi" in data and not isinstance(data["koshi"], (dict, list)):
        return DIALECTS["koshi"], 'it says "koshi"'
    if "rendered_frames" in data or "keyframes" in data:
        return DIALECTS["parseq"], "it has " + ("rendered_frames" if "rendered_frames" in data else "keyframes")
    if _is_plain(data):
        return DIALECTS["schedules"], "it holds schedules and nothing else"
    told = {name: _told(dialect, data) for name, dialect in DIALECTS.items()}
    if _WEBUI_ALONE & set(data):  # whatever else is in it
        told = {name: told[name] for name in ("forge", "webui")}
    for name, signs in told.items():
        if signs:
            return DIALECTS[name], f"it has {_listed(signs)}"
    return DIALECTS[ASSUMED], (
        "no key tells which tool wrote it, so the most common one is assumed; --dialect says otherwise"
    )


def named(name: str) -> Dialect:
    """The dialect of this name. Raises KoshiError("bad_arguments")."""
    if name not in DIALECTS:
        raise KoshiError("bad_arguments", f"There is no dialect {name!r}.", f"There are {', '.join(DIALECTS)}.")
    return DIALECTS[name]


def schedule_name(key: str) -> str | None:
    """The name in Koshi of a schedule that a file of plain schedules calls `key`; None for anything else."""
    short = {"noise_schedule": "noise", "strength_schedule": "strength", "contrast_schedule": "contrast",
             "cfg_scale_schedule": "guidance", "scale": "guidance", "scale_schedule": "guidance",
             "amount_schedule": "sharpen", "antiblur_amount_schedule": "sharpen", "fov_schedule": "fov",
             "aspect_ratio_schedule": "aspect_ratio", "seed_schedule": "seed", "subseed_schedule": "subseed",
             "subseed_strength_schedule": "subseed_strength", "denoise": "strength",
             "distilled_cfg_scale_schedule": "guidance"}  # fmt: skip
    name = short.get(key, key)
    return name if name in SCHEDULES else None


def _is_plain(data: Mapping[str, Any]) -> bool:
    named = sum(schedule_name(key) is not None for key in data)
    return not _SETTINGS & set(data) and 2 * named > len(data)


def _told(dialect: Dialect, data: Mapping[str, Any]) -> list[str]:
    signs = sorted(key for key in dialect.keys if key in data)
    for key, words in dialect.words.items():
        value = data.get(key)
        text = value if isinstance(value, str) else ""
        signs += [f"{key} {json.dumps(word)}" for word in words if word in text]
    return signs


def _listed(signs: list[str]) -> str:
    return ", ".join(signs[:3]) + (f" and {len(signs) - 3} more" if len(signs) > 3 else "")

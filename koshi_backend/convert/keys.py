# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key of the Deforum family: how it gets into a shot, or why not.

A row without `carry` is a key that a shot cannot hold; give it one (carriers.py, carry_time.py) once it can. `counts`
says whether the key changes the picture with these settings at all. Rows are carried in this order: files before what
needs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..schedules import ScheduleError, evaluate
from . import carriers as c
from . import carry_guided as guided
from . import carry_hybrid as hybrid
from . import carry_time
from . import carry_words as words
from .carry_guided import looped, masked, pictured
from .draft import NONE, Draft, as_number
from .prompts import carry_prompts

Counts = Callable[[Draft, Any], bool]
_OWN_MASK = ('0: ("{video_mask}")', '0:("{video_mask}")', "{video_mask}", None)  # the mask that the files give anyway


class Row(NamedTuple):
    """counts: whether the value changes the picture. carry: how it gets into the shot. why: why it does not."""

    counts: Counts
    carry: c.Carry | None
    why: str


def always(draft: Draft, value: Any) -> bool:
    return True


def never(draft: Draft, value: Any) -> bool:
    return False


def modes(*names: str) -> Counts:
    return lambda draft, value: draft.mode in names


def on(*switches: str) -> Counts:
    """All of these switches are on."""
    return lambda draft, value: all(draft.on(switch) for switch in switches)


def differs(*neutral: Any) -> Counts:
    """The value is none of these, whether written as a number, in quotes or as a schedule."""

    def counts(draft: Draft, value: Any) -> bool:
        if value in neutral or (value in NONE and set(neutral) & {None, False}):
            return False
        if isinstance(value, str) and value.strip().lower() in [str(known).lower() for known in neutral]:
            return False
        number = as_number(value)
        if number is None and isinstance(value, str) and ":" in value:
            try:
                values = set(evaluate(value, draft.frames, seed=draft.seed))
            except ScheduleError:  # what cannot be read is reported as it stands
                return True
            number = values.pop() if len(values) == 1 else None
        return number is None or number not in [as_number(known) for known in neutral]

    return counts


def both(*parts: Counts) -> Counts:
    return lambda draft, value: all(part(draft, value) for part in parts)


def film(draft: Draft, value: Any) -> bool:
    used = draft.mode == "Video Input" or draft.settings.get("color_coherence") == "Video Input"
    return hybrid.is_hybrid(draft) or used


def keyed_only(draft: Draft) -> bool:
    return str(draft.settings.get("keyframe_distribution")).strip().lower() == "keyframes only"


def cadenced(draft: Draft, value: Any) -> bool:
    return draft.mode in ("2D", "3D") and differs(0, 1)(draft, draft.settings.get("diffusion_cadence", 1))


def _subseeds(draft: Draft, value: Any) -> bool:
    return draft.on("enable_subseed_scheduling") or draft.dialect.name in ("comfy", "koshi-flux")


FLAT, DEEP, MOVING = modes("2D"), modes("3D"), modes("2D", "3D")
FLIPPED = both(MOVING, on("enable_perspective_flip"))
ROWS: dict[str, Row] = {}
PATTERNS: list[tuple[re.Pattern[str], Row]] = []


def _row(names: str, carry: c.Carry | None = None, counts: Counts = always, why: str = "") -> None:
    ROWS.update({name: Row(counts, carry, why) for name in names.split()})


def _left(names: str, counts: Counts, why: str) -> None:
    _row(names, None, counts, why)


def find_row(key: str) -> Row | None:
    """The row of a key; None for one that no tool is known to write."""
    return ROWS.get(key) or next((row for pattern, row in PATTERNS if pattern.fullmatch(key)), None)


# ---- carried

_row("animation_mode", c.carry_mode)
_row("init_images", guided.carry_images, looped)
_row("use_looper", guided.carry_use, looped)
_row("max_frames", c.carry_frames)
_row("W", c.carry_side("width"))
_row("H", c.carry_side("height"))
_row("fps", c.carry_fps)
_row("seed", c.carry_seed)
_row("seed_behavior", c.carry_behavior)
_row("seed_iter_N", c.carry_iter_n, lambda draft, value: str(draft.settings.get("seed_behavior")).lower() == "iter")
_row("seed_schedule", c.curve("seed"),
     lambda d, v: pictured(d) or str(d.settings.get("seed_behavior")).lower() == "schedule")  # fmt: skip
_row("subseed_schedule", c.carry_subseed, _subseeds)
_row("subseed_strength_schedule", c.carry_subseed_strength, _subseeds)
_row("enable_subseed_scheduling", lambda draft, key, value: "feedback.noise_mode", on("enable_subseed_scheduling"))
_row("prompts", carry_prompts)
_row("positive_prompts animation_prompts_positive", lambda draft, key, value: "prompts", differs("", None))
_row("negative_prompts animation_prompts_negative neg_prompts negative_prompt",
     lambda draft, key, value: "prompts", differs("", None))  # fmt: skip
_row("init_image", c.carry_init_image, both(on("use_init"), lambda d, v: not pictured(d)))
_row("use_init", lambda draft, key, value: "init_image", both(on("use_init"), lambda d, v: "init_image" in d.shot))
_row("hybrid_use_first_frame_as_init_image", hybrid.carry_first_frame, hybrid.first_of_film)
_row("strength_schedule", c.carry_strength, both(modes("2D", "3D", "Video Input"), lambda d, v: not pictured(d)))
_row("strength", c.carry_init_strength,
     both(lambda d, v: d.on("use_init") or hybrid.first_of_film(d), lambda d, v: not pictured(d)))  # fmt: skip

_row("zoom", c.curve("zoom"), FLAT)
_row("angle", c.curve("angle"), FLAT)
_row("translation_x", c.curve("translation_x"), MOVING)
_row("translation_y", c.curve("translation_y"), MOVING)
_row("translation_z", c.curve("translation_z"), DEEP)
for _name in ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z"):
    _row(_name, c.curve(_name), DEEP)
for _name in ("transform_center_x", "transform_center_y"):
    _row(_name, c.curve(_name), FLAT)
for _name in ("theta", "phi", "gamma", "fv"):
    _row(f"perspective_flip_{_name}", c.curve(f"perspective_flip_{_name}"), FLIPPED)
_row("enable_perspective_flip", lambda draft, key, value: "schedules.perspective_flip_*", FLIPPED)
_row("fov_schedule", c.curve("fov"), DEEP)
_row("aspect_ratio_schedule", c.curve("aspect_ratio"), DEEP)
_row("border", c.carry_border, lambda d, v: d.mode == "2D" or (d.mode == "3D" and d.on("enable_perspective_flip")))
_row("padding_mode", c.carry_border, DEEP)
_row("hybrid_composite", hybrid.carry_composite, both(hybrid.is_hybrid, on("hybrid_composite")))
_row("hybrid_comp_alpha_schedule", c.curve("hybrid_alpha"), hybrid.mixes)
_row("hybrid_comp_mask_type", hybrid.carry_mask_type, both(hybrid.mixes, on("hybrid_comp_mask_type")))
_row("hybrid_comp_mask_inverse", hybrid.carry_switch("inverse"), both(hybrid.masked, on("hybrid_comp_mask_inverse")))
_row("hybrid_comp_mask_equalize", hybrid.carry_equalize, both(hybrid.masked, on("hybrid_comp_mask_equalize")))
_row("hybrid_comp_mask_auto_contrast", hybrid.carry_switch("auto_contrast"),
     both(hybrid.masked, on("hybrid_comp_mask_auto_contrast")))  # fmt: skip
_row("hybrid_comp_mask_contrast_schedule", c.curve("hybrid_mask_contrast"), hybrid.masked)
_row("hybrid_comp_mask_blend_alpha_schedule", c.curve("hybrid_mask_alpha"),
     both(hybrid.masked, lambda d, v: d.part("hybrid").get("mask") == "blend"))  # fmt: skip
for _name in ("low", "high"):
    _row(f"hybrid_comp_mask_auto_contrast_cutoff_{_name}_schedule", hybrid.carry_cutoff(f"hybrid_cutoff_{_name}"),
         both(hybrid.masked, lambda d, v: "auto_contrast" in d.part("hybrid")))  # fmt: skip
_row("depth_algorithm", c.carry_depth, lambda d, v: (d.mode == "3D" and d.on("use_depth_warping")) or
     (hybrid.masked(d) and d.part("hybrid")["mask"] in ("depth", "video_depth")))  # fmt: skip
_row("use_depth_warping", lambda draft, key, value: "depth.source", DEEP)

_row("noise_schedule", c.curve("noise"), MOVING)
_row("noise_type", c.carry_noise_type, MOVING)
_row("contrast_schedule", c.curve("contrast"), MOVING)
_row("amount_schedule", c.curve("sharpen"), MOVING)
_row("color_coherence", c.carry_coherence, MOVING)
_row("color_coherence_image_path", guided.carry_color_image, lambda d, v: d.settings.get("color_coherence") == "Image")
_row("color_coherence_video_every_N_frames", guided.carry_color_every,
     lambda d, v: d.settings.get("color_coherence") == "Video Input")  # fmt: skip
_row("image_strength_schedule", guided.carry_image_strength, looped)
_row("blendFactorMax blendFactorSlope tweening_frames_schedule", guided.carry_share, looped)
_row("color_correction_factor", guided.carry_color_share, both(looped, differs(0)))
_row("video_mask_path", guided.carry_mask_file, on("use_mask_video"))
_row("use_mask_video", guided.carry_use_mask, on("use_mask_video"))
_row("mask_file", guided.carry_mask_file, both(on("use_mask"), lambda d, v: not d.on("use_mask_video"),
     lambda d, v: not (d.on("use_alpha_as_mask") and "init_image" in d.shot)))  # fmt: skip
_row("use_alpha_as_mask", guided.carry_alpha,
     both(on("use_mask", "use_alpha_as_mask"), lambda d, v: not d.on("use_mask_video")))  # fmt: skip
_row("mask_schedule", words.carry_where, both(masked, differs(*_OWN_MASK)))
_row("use_mask", words.carry_use_mask, on("use_mask"))
_row("noise_mask_schedule", words.carry_noise, on("use_noise_mask"))
_row("use_noise_mask", words.carry_noise_switch, on("use_noise_mask"))
_row("invert_mask", guided.carry_invert, both(masked, on("invert_mask")))
_row("mask_brightness_adjust", guided.carry_masking("brightness", 0.0, 100.0), both(masked, differs(1)))
_row("mask_contrast_adjust", guided.carry_masking("contrast", 0.0, 100.0), both(masked, differs(1)))
_row("mask_overlay_blur", guided.carry_masking("blur", 0.0, 256.0), both(masked, differs(0)))
_row("noise_mode", c.carry_noise_mode)
_row("noise_delta", c.carry_number("feedback", "noise_delta", 0.0, 1.0))
_row("noise_scale", c.carry_number("feedback", "noise_scale", 0.01, 2.0))
_row("cfg_scale_schedule", c.carry_guidance, lambda d, v: d.dialect.name != "forge" or differs(1)(d, v))
_row("distilled_cfg_scale_schedule", c.curve("guidance"))
_row("scale", c.curve("guidance"), lambda draft, value: "cfg_scale_schedule" not in draft.settings)
_row("steps", c.carry_steps, lambda draft, value: not draft.on("enable_steps_scheduling"))
_row("steps_schedule", c.carry_steps, on("enable_steps_scheduling"))
_row("enable_steps_scheduling", lambda draft, key, value: "steps", on("enable_steps_scheduling"))
_row("diffusion_cadence", carry_time.carry_cadence, both(MOVING, differs(0, 1), lambda d, v: not keyed_only(d)))
_row("keyframe_distribution", carry_time.carry_distribution, both(MOVING, differs("Off", None)))
_row("keyframe_strength_schedule", carry_time.carry_keyframe_strength, lambda d, v: "keyframes" in d.part("time"))
_row("optical_flow_cadence", carry_time.carry_inbetween, lambda d, v: "cadence" in d.shot["schedules"])
_row("frame_interpolation_x_amount", carry_time.carry_interpolation, on("frame_interpolation_engine"))
_row("frame_interpolation_engine", lambda draft, key, value: "time.interpolation",
     both(on("frame_interpolation_engine"), lambda d, v: "interpolation" in d.part("time")))  # fmt: skip
_row("soundtrack_path", carry_time.carry_sound, lambda d, v: str(d.settings.get("add_soundtrack")).lower() == "file")
_row("add_soundtrack", hybrid.carry_sound_of, hybrid.has_sound)
_row("hybrid_motion", c.carry_hybrid_motion, both(hybrid.is_hybrid, on("hybrid_motion")))
_row("video_init_path", c.carry_film, both(film, differs("", None)))
_row("extract_nth_frame", hybrid.carry_timing, both(film, differs(1)))
_row("extract_from_frame", hybrid.carry_timing, both(film, differs(0)))
_row("extract_to_frame", hybrid.carry_timing, both(film, differs(-1)))
_row("hybrid_flow_method", c.carry_flow_method, lambda d, v: d.part("motion").get("source") == "flow")
_row("hybrid_flow_factor_schedule", c.carry_flow_factor, lambda d, v: d.part("motion").get("source") == "flow")

# ---- what a shot cannot hold, and what helps

_left("cadence_flow_factor_schedule", both(cadenced, on("optical_flow_cadence"), differs(1)),
      "flow between frames counts as it is.")  # fmt: skip
_left("optical_flow_redo_generation", differs(None, "None"), "no frame is painted twice here.")
_left("redo_flow_factor_schedule", on("optical_flow_redo_generation"), "no frame is painted twice here.")
_left("diffusion_redo", differs(0, None), "no frame is painted twice here.")
_left("full_res_mask full_res_mask_padding", both(masked, on("full_res_mask")), "frames are painted whole.")
_left("overlay_mask", both(masked, lambda d, v: not d.on("overlay_mask")), "what a mask hides always stays.")
_left("fill", both(masked, differs(1, "original")), "what is painted begins with the picture that is there.")
_left("image_keyframe_strength_schedule", looped, "key schedules.strength where a guided picture begins.")
_left("hybrid_motion_use_prev_img", both(hybrid.is_hybrid, differs(False)),
      "flow is measured between the film's own frames.")  # fmt: skip
_left("hybrid_use_init_image", both(hybrid.is_hybrid, differs(False)),
      "one picture is mixed into all frames by guided_images, with the curve guided.")  # fmt: skip
_left("color_force_grayscale", differs(False), "ask for a black and white photo in the prompt.")
_left("legacy_colormatch", both(differs(False), on("color_coherence")), "colours are matched once, before painting.")
_left("kernel_schedule", both(MOVING, on("amount_schedule"), differs(5)), "the sharpening kernel is 5 wide here.")
_left("sigma_schedule", both(MOVING, on("amount_schedule"), differs(1)), "the sharpening radius is 1 here.")
_left("threshold_schedule", both(MOVING, on("amount_schedule"), differs(0)), "sharpening has no threshold here.")
_left("perlin_w perlin_h", both(lambda d, v: d.settings.get("noise_type") == "perlin", differs(8)), "8 cells here.")
_left("perlin_octaves", both(lambda d, v: d.settings.get("noise_type") == "perlin", differs(4)), "4 octaves here.")
_left("perlin_persistence", both(lambda d, v: d.settings.get("noise_type") == "perlin", differs(0.5)), ".5 here.")
_left("noise_multiplier_schedule", both(on("enable_noise_multiplier_scheduling"), differs(1)),
      "it makes up for Stable Diffusion's blur; feedback.noise_scale is its like, 1 is right for FLUX.")  # fmt: skip
_left("aspect_ratio_use_old_formula", both(DEEP, differs(False)), "Koshi has the new formula.")
_left("midas_weight", both(DEEP, lambda d, v: "(old)" in str(d.settings.get("depth_algorithm"))),
      "two depth models are not mixed.")  # fmt: skip
_left("sampling_mode", both(DEEP, differs("bicubic")), "moves are always bicubic, and sharper where they can be.")
_left("sampler", differs("", None), "FLUX is sampled by Euler's method.")
_left("scheduler", differs("", None, "Simple", "normal"), "FLUX has one schedule of steps.")
_left("sampler_schedule", on("enable_sampler_scheduling"), "FLUX is sampled by Euler's method.")
_left("scheduler_schedule", on("enable_scheduler_scheduling"), "FLUX has one schedule of steps.")
_left("sd_model_name model_checkpoint", differs("", None), "Koshi paints with FLUX: name its model in the shot.")
_left("checkpoint_schedule", on("enable_checkpoint_scheduling"), "a shot has one model.")
_left("clipskip_schedule", on("enable_clipskip_scheduling"), "FLUX's language models are read in full.")
_left("ddim_eta_schedule", on("enable_ddim_eta_scheduling"), "sampling is deterministic.")
_left("ancestral_eta_schedule", on("enable_ancestral_eta_scheduling"), "sampling is deterministic.")
_left("ddim_eta", differs(0), "sampling is deterministic.")
_left("tiling", differs(False), "pictures are not made to tile.")
_left("restore_faces", differs(False), "there is no face restoration.")
_left("seed_resize_from_w seed_resize_from_h", differs(0, -1), "seeds belong to one size.")
_left("reroll_blank_frames reroll_patience", lambda d, v: d.settings.get("reroll_blank_frames") not in
      (None, "ignore"), "Koshi refuses no picture.")  # fmt: skip
_left("strength_0_no_init", both(on("use_init"), differs(True)), "strength 1 forgets the picture wholly.")
_left("motion_preview_mode", differs(False), "koshi animate --motion-only shows the motion alone.")
_left("frame_interpolation_slow_mo_enabled frame_interpolation_slow_mo_amount",
      on("frame_interpolation_engine", "frame_interpolation_slow_mo_enabled"),
      "interpolation keeps the film's length; lower fps for slow motion.")  # fmt: skip
_left("r_upscale_video r_upscale_factor r_upscale_model", on("r_upscale_video"), "ask for a larger picture instead.")
_left("interpolate_key_frames interpolate_x_frames", both(modes("Interpolation"), differs(True)),
      "prompts stand at their own frames.")  # fmt: skip
_left("parseq_manifest", differs("", None), "one document inside another is not read.")
_left("n_batch n_samples", both(modes("None"), differs(1)), "a shot is one film.")
_left("slerp_strength", differs(0), "feedback.noise_mode slerp with noise_delta is its like.")
_left("feedback_mode", differs(True), "set feedback.carry to none for frames that do not follow each other.")
_left("dynamic_threshold static_threshold", differs(None, 0), "it is for Stable Diffusion's sampling.")
_left("texture_prompt", differs("", None), "write it into the prompts.")
_left("feedback_decay latent_ema cadence_skip burn_threshold blur_threshold adaptive_corrections", differs(0, False),
      "Koshi's feedback has no such correction.")  # fmt: skip

# ---- no picture depends on these

_row("""batch_name show_info_on_ui save_settings save_samples display_samples save_sample_per_step show_sample_per_step
    timestring outdir make_grid grid_rows filename_format precision resume_from_timestring resume_timestring
    init_image_box skip_video_creation make_gif delete_imgs delete_input_frames r_upscale_keep_imgs
    store_frames_in_ram frame_interpolation_keep_imgs frame_interpolation_use_upscaled overwrite_extracted_frames
    save_depth_maps
    hybrid_generate_inputframes hybrid_generate_human_masks
    hybrid_flow_consistency hybrid_consistency_blur hybrid_comp_save_extra_frames
    near_schedule far_schedule sd_model_hash deforum_git_commit_id parseq_use_deltas parseq_non_schedule_overrides
    enable_sampler_scheduling enable_scheduler_scheduling enable_checkpoint_scheduling enable_clipskip_scheduling
    enable_noise_multiplier_scheduling enable_ddim_eta_scheduling enable_ancestral_eta_scheduling
    pix2pix_img_cfg_scale_schedule pix2pix_img_cfg_scale histogram_matching prompt_weighting
    normalize_prompt_weights log_weighted_subprompts bit_depth_output bitdepth_extension image_path
    mp4_path device half_precision
    render_steps path_name_modifier max_video_frames use_manual_settings save_images class_type version mode
    output_path output_dir job_id created_at title name description""", counts=never)  # fmt: skip


def _pattern(text: str, counts: Counts, why: str) -> None:
    PATTERNS.append((re.compile(text), Row(counts, None, why)))


for _unit in range(1, 6):
    _pattern(rf"cn_{_unit}_\w+", on(f"cn_{_unit}_enabled"), "there is no ControlNet: guides.structure shows the model "
             "depth, edges or a picture.")  # fmt: skip
_pattern(r"wan_\w+", lambda d, v: "wan" in str(d.settings.get("animation_mode")).lower(), "Koshi has no Wan.")
_pattern(r"freeu_\w+", on("freeu_enabled"), "it is for Stable Diffusion's U-Net.")
_pattern(r"kohya_hrfix_\w+", on("kohya_hrfix_enabled"), "it is for Stable Diffusion's U-Net.")
_pattern(r"shake_\w+", both(DEEP, lambda d, v: d.on("shake_name") and d.settings.get("shake_name") != "None"),
         "key it in the schedules, or shake a camera in Blender and bake it.")  # fmt: skip

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every setting that sd-webui-deforum saves, with its default: what a settings file must hold to be loaded whole."""

from __future__ import annotations

from typing import Any

_RUN: dict[str, Any] = {
    "W": 512, "H": 512, "show_info_on_ui": True, "tiling": False, "restore_faces": False, "seed_resize_from_w": 0,
    "seed_resize_from_h": 0, "seed": -1, "sampler": "Euler a", "steps": 25, "batch_name": "Deforum_{timestring}",
    "seed_behavior": "iter", "seed_iter_N": 1, "use_init": False, "strength": 0.8, "strength_0_no_init": True,
    "init_image": None, "init_image_box": None, "use_mask": False, "use_alpha_as_mask": False, "mask_file": None,
    "invert_mask": False, "mask_contrast_adjust": 1.0, "mask_brightness_adjust": 1.0, "overlay_mask": True,
    "mask_overlay_blur": 4, "fill": 1, "full_res_mask": True, "full_res_mask_padding": 4,
    "reroll_blank_frames": "ignore", "reroll_patience": 10.0, "motion_preview_mode": False, "prompts": {},
    "positive_prompts": "", "negative_prompts": "",
}  # fmt: skip
_ANIMATION: dict[str, Any] = {
    "animation_mode": "2D", "max_frames": 120, "border": "replicate", "angle": "0: (0)", "zoom": "0: (1.0)",
    "translation_x": "0: (0)", "translation_y": "0: (0)", "translation_z": "0: (0)", "transform_center_x": "0: (0.5)",
    "transform_center_y": "0: (0.5)", "rotation_3d_x": "0: (0)", "rotation_3d_y": "0: (0)", "rotation_3d_z": "0: (0)",
    "enable_perspective_flip": False, "perspective_flip_theta": "0: (0)", "perspective_flip_phi": "0: (0)",
    "perspective_flip_gamma": "0: (0)", "perspective_flip_fv": "0: (53)", "noise_schedule": "0: (0)",
    "strength_schedule": "0: (0.65)", "contrast_schedule": "0: (1.0)", "cfg_scale_schedule": "0: (7)",
    "enable_steps_scheduling": False, "steps_schedule": "0: (25)", "fov_schedule": "0: (70)",
    "aspect_ratio_schedule": "0: (1)", "aspect_ratio_use_old_formula": False, "near_schedule": "0: (200)",
    "far_schedule": "0: (10000)", "seed_schedule": '0: (s), 1: (-1), "max_f-2": (-1), "max_f-1": (s)',
    "pix2pix_img_cfg_scale_schedule": "0: (1.5)", "enable_subseed_scheduling": False, "subseed_schedule": "0: (1)",
    "subseed_strength_schedule": "0: (0)", "enable_sampler_scheduling": False, "sampler_schedule": '0: ("Euler a")',
    "use_noise_mask": False, "mask_schedule": '0: ("{video_mask}")', "noise_mask_schedule": '0: ("{video_mask}")',
    "enable_checkpoint_scheduling": False,
    "checkpoint_schedule": '0: ("model1.ckpt"), 100: ("model2.safetensors")', "enable_clipskip_scheduling": False,
    "clipskip_schedule": "0: (2)", "enable_noise_multiplier_scheduling": False, "noise_multiplier_schedule": "0: (1)",
    "resume_from_timestring": False, "resume_timestring": "20230129210106", "enable_ddim_eta_scheduling": False,
    "ddim_eta_schedule": "0: (0)", "enable_ancestral_eta_scheduling": False, "ancestral_eta_schedule": "0: (1)",
    "amount_schedule": "0: (0)", "kernel_schedule": "0: (5)", "sigma_schedule": "0: (1)",
    "threshold_schedule": "0: (0)", "color_coherence": "None", "color_coherence_image_path": "",
    "color_coherence_video_every_N_frames": 1, "color_force_grayscale": False, "legacy_colormatch": False,
    "diffusion_cadence": 1, "optical_flow_cadence": "None", "cadence_flow_factor_schedule": "0: (1)",
    "optical_flow_redo_generation": "None", "redo_flow_factor_schedule": "0: (1)", "diffusion_redo": "0",
    "noise_type": "uniform", "perlin_w": 8, "perlin_h": 8, "perlin_octaves": 4, "perlin_persistence": 0.5,
    "use_depth_warping": True, "depth_algorithm": "Midas-3-Hybrid", "midas_weight": 0.2, "padding_mode": "border",
    "sampling_mode": "bicubic", "save_depth_maps": False,
}  # fmt: skip
_FILM: dict[str, Any] = {
    "video_init_path": "", "extract_nth_frame": 1, "extract_from_frame": 0, "extract_to_frame": -1,
    "overwrite_extracted_frames": False, "use_mask_video": False, "video_mask_path": "",
    "hybrid_comp_alpha_schedule": "0: (0.5)", "hybrid_comp_mask_blend_alpha_schedule": "0: (0.5)",
    "hybrid_comp_mask_contrast_schedule": "0: (1)", "hybrid_comp_mask_auto_contrast_cutoff_high_schedule": "0: (100)",
    "hybrid_comp_mask_auto_contrast_cutoff_low_schedule": "0: (0)", "hybrid_flow_factor_schedule": "0: (1)",
    "hybrid_generate_inputframes": False, "hybrid_generate_human_masks": "None",
    "hybrid_use_first_frame_as_init_image": False, "hybrid_motion": "None", "hybrid_motion_use_prev_img": False,
    "hybrid_flow_consistency": False, "hybrid_consistency_blur": 2, "hybrid_flow_method": "RAFT",
    "hybrid_composite": "None", "hybrid_use_init_image": False, "hybrid_comp_mask_type": "None",
    "hybrid_comp_mask_inverse": False, "hybrid_comp_mask_equalize": "None", "hybrid_comp_mask_auto_contrast": False,
    "hybrid_comp_save_extra_frames": False, "parseq_manifest": "", "parseq_use_deltas": True,
    "parseq_non_schedule_overrides": True, "use_looper": False, "init_images": "{}",
    "image_strength_schedule": "0: (0.75)", "blendFactorMax": "0: (0.35)", "blendFactorSlope": "0: (0.25)",
    "tweening_frames_schedule": "0: (20)", "color_correction_factor": "0: (0)",
}  # fmt: skip
_CONTROL: dict[str, Any] = {
    "overwrite_frames": True, "vid_path": "", "mask_vid_path": "", "enabled": False, "low_vram": False,
    "pixel_perfect": True, "module": "none", "model": "None", "weight": "0:(1)", "guidance_start": "0:(0.0)",
    "guidance_end": "0:(1.0)", "processor_res": 64, "threshold_a": 64, "threshold_b": 64,
    "resize_mode": "Inner Fit (Scale to Fit)", "control_mode": "Balanced", "loopback_mode": True,
}  # fmt: skip
_OUTPUT: dict[str, Any] = {
    "skip_video_creation": False, "fps": 15.0, "make_gif": False, "delete_imgs": False, "delete_input_frames": False,
    "add_soundtrack": "None", "soundtrack_path": "", "r_upscale_video": False, "r_upscale_factor": "x2",
    "r_upscale_model": "realesr-animevideov3", "r_upscale_keep_imgs": True, "store_frames_in_ram": False,
    "frame_interpolation_engine": "None", "frame_interpolation_x_amount": 2,
    "frame_interpolation_slow_mo_enabled": False, "frame_interpolation_slow_mo_amount": 2,
    "frame_interpolation_keep_imgs": True, "frame_interpolation_use_upscaled": False, "sd_model_name": "",
    "sd_model_hash": "", "deforum_git_commit_id": "",
}  # fmt: skip

# Where webui's own default does something that a shot does not ask for (grain, sharpening, a slow zoom, cadence, a
# noise multiplier of 1.05, guided images' colours), the neutral value stands here instead.
SETTINGS: dict[str, Any] = {
    **_RUN,
    **_ANIMATION,
    **_FILM,
    **{f"cn_{unit}_{name}": value for unit in range(1, 6) for name, value in _CONTROL.items()},
    **_OUTPUT,
}

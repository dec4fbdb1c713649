# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a scene that stand in a shot under the same words. No bpy.

Of each: where it stands in the shot, and its value where the shot is silent. Blender's shots name only what differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

FIELDS: dict[str, tuple[str, Any]] = {
    "border": ("feedback.border", "replicate"),
    "color_mode": ("feedback.color_mode", "LAB"),
    "color_reference": ("feedback.color_reference", "prompt"),
    "noise_type": ("feedback.noise_type", "gaussian"),
    "noise_mode": ("feedback.noise_mode", "incremental"),
    "noise_delta": ("feedback.noise_delta", 0.05),
    "noise_scale": ("feedback.noise_scale", 1.0),
    "inbetween": ("time.inbetween", "flow"),
    "rife": ("time.rife", None),
    "loop": ("time.loop", "none"),
    "seam": ("time.seam", 12),
    "interpolation": ("time.interpolation", 1),  # in Blender a choice, of words
    "keyframe_every": ("time.keyframes.every", 0),
    "keyframe_prompts": ("time.keyframes.prompts", False),
    "audio": ("audio", None),  # in Blender "" for none
    "depth_source": ("depth.source", "plane"),
    "depth_model": ("depth.model", "depth-anything/Depth-Anything-V2-Small-hf"),
    "depth_files": ("guides.depth", None),
    "depth_near": ("depth.near", "white"),
    "depth_spacing": ("depth.spacing", "inverse"),
    "depth_nearest": ("depth.nearest", 1.0),
    "depth_farthest": ("depth.farthest", 5.0),
    "carry": ("feedback.carry", "pixels"),
    "time_rounding": ("time_rounding", "exact"),
    "seed_behavior": ("seed_behavior", "fixed"),
    "seed_iter_n": ("seed_iter_n", 1),
    "video": ("guides.video", None),
    "video_first": ("guides.video_first", 0),
    "video_every": ("guides.video_every", 1),
    "video_last": ("guides.video_last", None),  # in Blender -1 for none
    "flow_method": ("motion.flow_method", "dis_medium"),
    "flow_factor": ("motion.flow_factor", 1.0),
    "hybrid_over": ("hybrid.over", "none"),
    "hybrid_composite": ("hybrid.composite", "none"),
    "hybrid_mask": ("hybrid.mask", "none"),
    "hybrid_inverse": ("hybrid.inverse", False),
    "hybrid_equalize": ("hybrid.equalize", "none"),
    "hybrid_auto_contrast": ("hybrid.auto_contrast", False),
    "init_image": ("init_image", None),
    "guided_as": ("guided_as", "mixed"),
    "color_image": ("color_image", None),
    "color_every": ("color_every", 1),
    "structure_file": ("guides.structure", None),
    "structure_as": ("guides.structure_as", "picture"),
    "mask_file": ("guides.mask", None),
    "mask_where": ("masking.where", None),
    "mask_noise": ("masking.noise", None),
    "mask_invert": ("masking.invert", False),
    "mask_blur": ("masking.blur", 0.0),
    "mask_contrast": ("masking.contrast", 1.0),
    "mask_brightness": ("masking.brightness", 1.0),
}
# The words that a scene knows for some of them; a shot may use others.
CHOICES: dict[str, tuple[str | int, ...]] = {
    "border": ("replicate", "wrap", "reflect"),
    "color_mode": ("LAB", "RGB", "HSV", "none"),
    "color_reference": ("prompt", "first", "previous", "image", "guided"),
    "noise_type": ("gaussian", "perlin"),
    "noise_mode": ("incremental", "fixed", "slerp", "subseed", "warped", "scaled"),
    "inbetween": ("flow", "rife", "blend"),
    "loop": ("none", "back", "seamless"),
    "interpolation": (1, 2, 4, 8),
    "depth_source": ("plane", "files", "model", "groups"),
    "depth_near": ("white", "black"),
    "depth_spacing": ("inverse", "linear"),
    "carry": ("pixels", "latent", "none"),
    "time_rounding": ("exact", "bfl", "diffusers"),
    "seed_behavior": ("fixed", "iter", "ladder", "alternate", "random"),
    "flow_method": ("dis_ultrafast", "dis_fast", "dis_medium", "dis_fine", "farneback", "raft"),
    "hybrid_over": ("none", "first", "every"),
    "hybrid_composite": ("none", "before_motion", "normal", "after_generation"),
    "hybrid_mask": ("none", "depth", "video_depth", "blend", "difference"),
    "hybrid_equalize": ("none", "before", "after", "both"),
    "guided_as": ("mixed", "shown", "both"),
    "structure_as": ("picture", "depth", "edges"),
}
# Which Blender may name relative to the .blend.
FILES = ("audio", "depth_files", "video", "init_image", "color_image", "structure_file", "mask_file", "rife")
WORDS = ("mask_where", "mask_noise")  # masks in words, with files in [ ]
MAY_BE_NONE = ("video_last",)  # numbers, in Blender -1
FOLLOWERS = {'FLOW': "flow", 'AFFINE': "affine", 'PERSPECTIVE': "perspective"}  # motion sources that follow the video
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".m4v", ".mpeg", ".mpg", ".webm")  # what the backend reads as one
# The curves that have another name in a scene, where a collection of objects is the mask.
_NAMES = {"mask": "mask_amount"}


def with_files(words: str, rename: Callable[[str], str]) -> str:
    """A mask in words with other names of its files."""
    return re.sub(r"\[([^\[\]]+)\]", lambda found: f"[{rename(found[1].strip())}]", words)


def property_of(schedule: str) -> str:
    """The name in a scene of a shot's schedule."""
    return _NAMES.get(schedule, schedule)


def video_is_used(settings: Any) -> bool:
    """Whether a scene's shot takes anything from its video."""
    taken = settings.hybrid_over != "none" or settings.hybrid_composite != "none"
    return settings.motion_source in FOLLOWERS or (taken and settings.video_source != 'NONE')


def is_painted_over(settings: Any) -> bool:
    """Whether frames begin in the video, and so in nothing else."""
    return settings.hybrid_over != "none" and settings.video_source != 'NONE'


def is_mixed(settings: Any) -> bool:
    """Whether the video is mixed in."""
    return settings.hybrid_composite != "none" and settings.video_source != 'NONE'


def needs_depth(settings: Any) -> bool:
    """Whether a depth says where the video is mixed in."""
    return is_mixed(settings) and settings.hybrid_mask in ("depth", "video_depth")


def is_masked(settings: Any) -> bool:
    """Whether only a part of each frame is painted."""
    if settings.mask_source == 'COLLECTION':
        return settings.mask is not None
    if settings.mask_source == 'WORDS':
        return bool(settings.mask_where.strip())
    return settings.mask_source == 'ALPHA' or bool(settings.mask_file.strip())


def is_named(settings: Any) -> bool:
    """Whether masks in words name the mask's file."""
    words = settings.mask_noise + (settings.mask_where if settings.mask_source == 'WORDS' else "")
    return settings.mask_source != 'COLLECTION' and "{video_mask}" in words


def counts(name: str, settings: Any) -> bool:
    """Whether a setting or a curve says something, as the others are; where it does not, a shot does not name it."""
    if name.startswith("depth_"):
        if name == "depth_files" and settings.depth_source != "files":
            return needs_depth(settings) and settings.depth_source == "plane" and settings.motion_source != 'EXACT'
        return settings.motion_source == '3D' or needs_depth(settings)
    if name in ("video_first", "video_every"):  # masks and colours may be films, too: which frame is asked for all
        return (settings.video_source == 'FILE' and video_is_used(settings)) or bool(_films(settings))
    if name in ("video", "video_last"):
        return settings.video_source == 'FILE' and video_is_used(settings)
    if name in ("flow_method", "flow_factor"):
        return settings.motion_source == 'FLOW'
    if name == "hybrid_over":
        return is_painted_over(settings)
    if name == "hybrid_composite" or name == "hybrid_alpha" or name == "hybrid_mask":
        return is_mixed(settings)
    if name == "hybrid_mask_alpha":
        return is_mixed(settings) and settings.hybrid_mask == "blend"
    if name.startswith("hybrid_cutoff_"):
        return is_mixed(settings) and settings.hybrid_mask != "none" and settings.hybrid_auto_contrast
    if name.startswith("hybrid_"):
        return is_mixed(settings) and settings.hybrid_mask != "none"
    if name == "init_image":
        return settings.start == 'IMAGE' and not is_painted_over(settings)
    if name in ("guided_as", "guided"):
        return len(settings.guided_images) > 0
    if name in ("color_image", "color_every"):
        return settings.color_mode != "none" and settings.color_reference == "image"
    if name in ("structure_file", "structure_as"):
        return settings.structure == 'FILE'
    if name == "mask_file":
        return settings.mask_source == 'FILE' or is_named(settings)
    if name == "mask_where":
        return settings.mask_source == 'WORDS'
    if name == "mask_noise":
        return True
    if name == "mask" or name.startswith("mask_"):
        return is_masked(settings)
    if name == "rife":
        return settings.inbetween == "rife"
    if name == "seed_iter_n":
        return settings.seed_behavior == "iter"
    return True


def _films(settings: Any) -> list[str]:
    """Masks and colour pictures that are films."""
    found = [name for name in ("mask_file", "color_image") if counts(name, settings)]
    return [name for name in found if getattr(settings, name).strip().lower().endswith(VIDEOS)]


def place(shot: dict[str, Any], field: str, value: Any) -> None:
    """Put a value where it stands in a shot."""
    *tables, last = field.split(".")
    for name in tables:
        shot = shot.setdefault(name, {})
    shot[last] = value


def find(shot: dict[str, Any], field: str) -> Any:
    """The value that stands there, or None."""
    value: Any = shot
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def fields(prefix: str = "") -> Iterator[str]:
    """The fields in one of a shot's tables, or in the shot itself, by their names there."""
    for field, _ in FIELDS.values():
        table, _, name = field.rpartition(".")
        if table == prefix:
            yield name

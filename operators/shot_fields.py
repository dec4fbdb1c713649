# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a scene that stand in a shot under the same words. No bpy.

Of each: where it stands in the shot, and its value where the shot is silent. Blender's shots name only what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
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
}
# The words that a scene knows for some of them; a shot may use others.
CHOICES: dict[str, tuple[str | int, ...]] = {
    "border": ("replicate", "wrap", "reflect"),
    "color_mode": ("LAB", "RGB", "HSV", "none"),
    "color_reference": ("prompt", "first", "previous"),
    "noise_type": ("gaussian", "perlin"),
    "noise_mode": ("incremental", "fixed", "slerp", "subseed", "warped", "scaled"),
    "inbetween": ("flow", "blend"),
    "loop": ("none", "back", "seamless"),
    "interpolation": (1, 2, 4, 8),
    "depth_source": ("plane", "files", "model", "groups"),
    "depth_near": ("white", "black"),
    "depth_spacing": ("inverse", "linear"),
}
FILES = ("audio", "depth_files")  # which Blender may name relative to the .blend


def in_3d(name: str) -> bool:
    """Whether a setting says something only where the curves move the picture in 3D."""
    return name.startswith("depth_")


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

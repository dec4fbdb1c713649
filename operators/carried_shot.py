# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Blender scene can hold of a shot. No bpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bridge_server.protocol import BridgeError
from .course import Knot

LARGEST_KEYED = 2**23  # Blender adds 0.5 to a whole number's curve in single precision: 15491923 becomes 15491924
AS_IT_IS = "Render the shot as it is with koshi animate, or change it."
# The schedules that a scene can hold, with what a shot means that does not name them.
DEFAULTS = {
    "zoom": 1.0,
    "angle": 0.0,
    "translation_x": 0.0,
    "translation_y": 0.0,
    "translation_z": 0.0,
    "strength": 0.5,
    "noise": 0.0,
    "guidance": 1.0,
    "transform_center_x": 0.5,
    "transform_center_y": 0.5,
    "perspective_flip_theta": 0.0,
    "perspective_flip_phi": 0.0,
    "perspective_flip_gamma": 0.0,
    "perspective_flip_fv": 53.0,
    "rotation_3d_x": 0.0,
    "rotation_3d_y": 0.0,
    "rotation_3d_z": 0.0,
    "fov": 70.0,
    "aspect_ratio": 1.0,
    "keyframe_strength": 1.0,
    "cadence": 1.0,
    "contrast": 1.0,
    "sharpen": 0.0,
    "color_match": 0.3,
    "subseed": 0.0,
    "subseed_strength": 0.0,
    "guided": 0.2,
    "mask": 1.0,
    "hybrid_alpha": 0.5,
    "hybrid_mask_alpha": 0.5,
    "hybrid_mask_contrast": 1.0,
    "hybrid_cutoff_low": 0.0,
    "hybrid_cutoff_high": 100.0,
}
WHOLE = ("cadence", "subseed")  # of these the whole part counts, and it is what a scene holds


@dataclass
class CarriedPrompt:
    """A prompt, counted from the shot's first frame. weights: of one that takes no turns, a number a frame; keys: as
    they were written, if that gives the weights."""

    frame: int
    text: str
    negative: str = ""
    ease: str = "hold"
    weights: list[float] | None = None
    keys: list[Knot] | None = None


@dataclass
class CarriedLora:
    """A LoRA, with a weight for each frame, and the keys that were written for it, if they give them."""

    file: str
    weights: list[float]
    keys: list[Knot] | None = None


@dataclass
class Carried:
    """What a scene can hold of a shot. values: per schedule and for `seed` one number a frame. keys: a schedule's as
    they were written, where those give the values. left: what is not carried, in words. choices: where
    pictures come from, in the scene's words. guided: pictures, by frames that are counted from the first."""

    model: str
    width: int
    height: int
    fps: float
    frame_start: int
    frames: int
    steps: int
    condition: str
    prompts: list[CarriedPrompt]
    source: str = 'CURVES'
    settings: dict[str, Any] = field(default_factory=dict)  # as in shot_fields, by the names in Blender
    values: dict[str, list[float]] = field(default_factory=dict)
    keys: dict[str, list[Knot]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    guided: list[tuple[int, str]] = field(default_factory=list)
    loras: list[CarriedLora] = field(default_factory=list)
    keyframes: list[float] = field(default_factory=list)  # 1 at keyframes that are named

    def check_limits(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Raises BridgeError "bad_shot" for a value that Blender's property would cut off."""
        for name, (low, high) in limits.items():
            for frame, value in enumerate(self.values.get(name) or [self.settings[name]]):
                if value is not None and not low <= value <= high:
                    told = f"The {name} at frame {frame} is {value:g}, and a scene holds {low:g} to {high:g}."
                    raise bad_shot(told, AS_IT_IS)
        for name in ("seed", "subseed"):
            seeds = self.values[name]
            if len(set(seeds)) > 1 and max(seeds) > LARGEST_KEYED:
                told = f"The {name}s change and go up to {max(seeds):.0f}; a keyframe holds them up to {LARGEST_KEYED}."
                raise bad_shot(told, AS_IT_IS)


def bad_shot(message: str, hint: str = "") -> BridgeError:
    """The error of a shot that says something impossible."""
    return BridgeError("bad_shot", message, hint)

# SPDX-License-Identifier: GPL-3.0-or-later
"""One call for an animation, as a Shot."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arguments import Picture, coherence_of, frame_number, kept_path, kind, plain, seed_or_random
from .errors import KoshiError
from .feedback import FeedbackConfig
from .lora.uses import lora_uses
from .models.registry import Traits
from .shot import Shot, load_shot

Schedules = dict[str, Any]


@dataclass(frozen=True)
class AnimationCall:
    """The arguments of `Pipeline.generate_animation`, which says what each means, that make the frames and the sound.

    carry: as feedback.carry of a shot; feedback_mode "none" goes before it.
    """

    prompts: str | dict[int, str]
    motion_params: Schedules | None = None
    num_frames: int = 48
    width: int = 512
    height: int = 512
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    noise_scale: float = 1.0
    noise_mode: str = "incremental"
    init_image: Picture | None = None
    color_coherence: str | None = "match_prompt"
    fps: float = 24.0
    seed: int | None = None
    feedback_mode: bool | str = True
    feedback_config: FeedbackConfig | None = None
    noise_delta: float = 0.05
    negative_prompt: str = ""
    loop: bool | str = False
    interpolation: int | None = None
    loras: Any = None
    audio: str | Path | None = None
    carry: str = "pixels"

    def shot(self, model: str, words: Callable[[str], str]) -> Shot:
        """The Shot, which checks all of them together. words: a prompt as the model shall read it."""
        schedules, feedback = self._schedules(), self._feedback()
        if self.color_coherence is not None and self.color_coherence != "match_prompt":
            schedules.setdefault("color_match", 1.0)  # Deforum matches wholly
        texts = {0: self.prompts} if isinstance(self.prompts, str) else self.prompts
        if not isinstance(texts, dict):
            raise KoshiError("bad_value", f"prompts is a {kind(texts)}.", "Give a text, or {frame: text}.")
        said = {frame_number(k): words(v) if isinstance(v, str) and v.strip() else v for k, v in texts.items()}
        return load_shot(
            {
                "model": model,
                "width": plain(self.width),
                "height": plain(self.height),
                "fps": plain(self.fps),
                "frames": plain(self.num_frames),
                "seed": seed_or_random(plain(self.seed)),
                "steps": plain(self.num_inference_steps),
                "prompts": [{"frame": k, "text": v, "negative": self.negative_prompt} for k, v in said.items()],
                "schedules": schedules,
                "feedback": feedback,
                "time": self._time(),
                "loras": lora_uses(self.loras),
                "init_image": None if self.init_image is None else kept_path(self.init_image),
                "audio": None if self.audio is None else str(self.audio),
            }
        )

    def _schedules(self) -> Schedules:
        motion = {} if self.motion_params is None else self.motion_params
        if not isinstance(motion, dict):
            raise KoshiError("bad_value", f"motion_params is a {kind(motion)}.", "Give a dict of schedules by name.")
        if "strength" in motion and "strength_schedule" in motion:
            text = "motion_params holds both strength and strength_schedule, which are the same."
            raise KoshiError("bad_value", text, "Keep one of them.")
        schedules = {} if self.feedback_config is None else _checked(self.feedback_config).schedules()
        if self.guidance_scale is not None:
            schedules["guidance"] = plain(self.guidance_scale)
        if self.strength is not None:
            schedules["strength"] = plain(self.strength)
        return schedules | {
            "strength" if name == "strength_schedule" else name: plain(value) for name, value in motion.items()
        }

    def _time(self) -> dict[str, Any]:
        loop = {True: "back", False: "none"}[self.loop] if isinstance(self.loop, bool) else self.loop
        return {"loop": loop, "interpolation": 1 if self.interpolation is None else plain(self.interpolation)}

    def _feedback(self) -> dict[str, Any]:
        color_mode, reference = coherence_of(self.color_coherence)
        feedback: dict[str, Any] = {
            "carry": self.carry,
            "noise_mode": self.noise_mode,
            "noise_scale": plain(self.noise_scale),
            "noise_delta": plain(self.noise_delta),
        }
        if self.feedback_config is not None:
            config = _checked(self.feedback_config)
            feedback["noise_type"] = config.noise_type.lower()
            color_mode = coherence_of(config.color_mode)[0]  # the space only; what is matched to, and how much, stays
        if self.feedback_mode is False:
            color_mode = "none"
        elif self.feedback_mode == "none":
            feedback["carry"] = "none"
        elif self.feedback_mode is not True:
            feedback["condition"] = self.feedback_mode
        return feedback | {"color_mode": color_mode, "color_reference": reference}


def warn_of_unused_negative(traits: Traits, negative: str, guidance: object) -> None:
    """A negative prompt counts only where guidance is a difference to it."""
    if not negative:
        return
    if not traits.contrasted:
        warnings.warn("this model has its guidance built in: the negative prompt has no effect", stacklevel=4)
    elif guidance == 1.0:
        warnings.warn("guidance 1 is no guidance: the negative prompt has no effect", stacklevel=4)


def _checked(config: object) -> FeedbackConfig:
    if not isinstance(config, FeedbackConfig):
        raise KoshiError("bad_value", f"feedback_config is a {kind(config)}.", "Use FeedbackConfig(...).")
    return config

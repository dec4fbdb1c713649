# SPDX-License-Identifier: GPL-3.0-or-later
"""The founding documents' other ways in: `create_flux1_pipeline`, `Flux1DeforumPipeline` and `KoshiFlux`.

All of them take every model that Koshi knows, by name or path; the names of the calls are history.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from .calls import named, refuse_unknown
from .models.budget import Wanted
from .models.registry import FluxVersion
from .pipeline import Pipeline, Version
from .quality import Quality
from .settings import SCHEDULES

# What KoshiFlux calls otherwise than generate_animation does.
_SHORT = {"frames": "num_frames", "steps": "num_inference_steps", "guidance": "guidance_scale", "output": "output_path"}


class Flux1DeforumPipeline(Pipeline):
    """A `Pipeline`, schnell by default. offload: whether parts leave the device while they are not needed ("model");
    also one of `Pipeline`'s words."""

    @named
    def __init__(
        self,
        model_name: Version = "flux-schnell",
        device: str | torch.device | None = None,
        offload: bool | Wanted = False,
        dtype: torch.dtype | None = None,
        quality: Quality = "normal",
    ) -> None:
        super().__init__(model_name, device, dtype, _policy(offload), quality)


@named
def create_flux1_pipeline(
    device: str | torch.device | None = None,
    offload: bool | Wanted = False,
    schnell: bool = True,
    dtype: torch.dtype | None = None,
    *,
    model: Version | None = None,
) -> Flux1DeforumPipeline:
    """FLUX.1 schnell, or dev with schnell=False; or `model`, a name or path. offload: as Flux1DeforumPipeline's."""
    version = FluxVersion.FLUX_1_SCHNELL if schnell else FluxVersion.FLUX_1_DEV
    return Flux1DeforumPipeline(version if model is None else model, device, offload, dtype)


class KoshiFlux:
    """The simplest way to an animation: every schedule is an argument. pipeline: the `Pipeline` behind it."""

    @named
    def __init__(
        self,
        model: Version = "flux-dev",
        device: str | torch.device | None = None,
        offload: bool | Wanted = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.pipeline = Pipeline(model, device, dtype, _policy(offload))

    @named
    def animate(self, prompt: str | dict[int, str], **options: Any) -> str:
        """Make a video and return its path.

        prompt: one text, or {frame: text}. options: any schedule by Deforum's name (zoom="0:(1.0), 59:(1.02)", angle=1,
        strength=.5, ...), and generate_animation's own arguments, of which four are short here: frames, steps,
        guidance, output. Raises KoshiError, naming unknown arguments and the nearest right ones.
        """
        taken = list(inspect.signature(Pipeline.generate_animation).parameters)[2:]
        known = dict.fromkeys([*_SHORT, *SCHEDULES, "strength_schedule", *taken])
        refuse_unknown("KoshiFlux.animate", options, list(known))
        motion = dict(options.pop("motion_params", None) or {})
        call: dict[str, Any] = {}
        for name, value in options.items():
            own = _SHORT.get(name, name)
            if own in taken and (name not in SCHEDULES or isinstance(value, (int, float, type(None)))):
                call[own] = value
            else:
                motion[name] = value
        return self.pipeline.generate_animation(prompt, motion, **call)


def _policy(offload: bool | Wanted | None) -> Wanted | None:
    return ("model" if offload else None) if isinstance(offload, bool) else offload

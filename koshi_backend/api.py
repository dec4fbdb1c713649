# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi from Python: `create_pipeline`, `generate_image`, `generate_animation`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .arguments import (
    Picture,
    as_picture,
    check_latents,
    check_picture,
    coherence_of,
    frame_number,
    kept_path,
    kind,
    plain,
    seed_or_random,
)
from .chain import Frame, Progress, render_shot
from .errors import KoshiError
from .feedback import FeedbackConfig
from .models.model import FluxModel, Reference
from .models.pool import load_model, pick_device, pick_dtype
from .models.registry import FluxVersion, find_model, find_traits
from .outputs import PICTURES, check_file, write_whole
from .pictures import read_picture, to_pil
from .shot import Shot, load_shot
from .store import FrameStore
from .video import SUFFIXES, write_video

log = logging.getLogger(__name__)

Schedules = dict[str, Any]


class Pipeline:
    """A model by name, loaded at the first picture and kept for the next ones.

    model: a registry name or a folder. device, dtype: as `pick_device` and `pick_dtype` choose when None.
    """

    def __init__(self, model: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        find_model(model)
        self.model = model
        self.device = pick_device(device)
        fell_back = str(device or "").startswith("cuda") and self.device.type == "cpu"
        self.dtype = pick_dtype(self.device, None if fell_back else dtype)

    def load(self) -> FluxModel:
        return load_model(self.model, self.device, self.dtype)

    def generate_image(
        self,
        prompt: str,
        output_path: str | Path | None = "output.png",
        input_image: Picture | Sequence[Picture] | None = None,
        width: int = 512,
        height: int = 512,
        num_steps: int = 4,
        guidance: float = 1.0,
        seed: int | None = None,
        latents: Tensor | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Image.Image:
        """One picture from text, or from text and references.

        output_path: where it is written as well; None writes nothing.
        input_image: references shown in context, each fitted to width x height.
        width, height: multiples of 16, 64 to 1792. num_steps: network evaluations; Klein is made for 4.
        guidance: for models that embed it; Klein's distilled models ignore it.
        seed: a random one when None. latents: the starting noise itself, packed, [1, 128 or 64, H/16, W/16].
        Raises KoshiError.
        """
        call = check_picture(
            prompt=prompt, width=width, height=height, num_steps=num_steps, guidance=guidance, seed=seed
        )
        if output_path is not None:
            check_file(Path(output_path), PICTURES)
        given: Sequence[Any] = input_image if isinstance(input_image, (list, tuple)) else [input_image]
        pictures = [read_picture(as_picture(r), call.width, call.height) for r in given if r is not None]
        channels = 64 if find_traits(self.model).family == "flux1" else 128
        if latents is not None:
            latents = check_latents(latents, call.width, call.height, channels)
        model = self.load()
        if latents is None:
            latents = model.noise(seed_or_random(call.seed), call.width, call.height)
        shown = [Reference(model.encode_picture(p)) for p in pictures]
        latent = model.denoise(
            prompt,
            latents.to(model.device),
            steps=call.num_steps,
            references=shown,
            guidance=call.guidance,
            on_step=on_step,
        )
        image = to_pil(model.decode(latent))
        if output_path is not None:
            write_whole(Path(output_path), image.save)
        return image

    def generate_animation(
        self,
        prompts: str | dict[int, str],
        motion_params: Schedules | None = None,
        num_frames: int = 48,
        width: int = 512,
        height: int = 512,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        strength: float | None = None,
        noise_scale: float = 1.0,
        noise_mode: str = "incremental",
        init_image: Picture | None = None,
        color_coherence: str | None = "match_prompt",
        loop: bool = False,
        interpolation: int | None = None,
        fps: float = 24.0,
        seed: int | None = None,
        feedback_mode: bool | str = True,
        feedback_config: FeedbackConfig | None = None,
        output_path: str | Path = "output.mp4",
        noise_delta: float = 0.05,
        store: FrameStore | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """An animation as a video file; returns its path.

        prompts: one text, or {frame: text}.
        motion_params: schedules (strings, numbers or lists) by Deforum's names; may hold `strength_schedule`.
        strength: how much each frame is made anew, 0..1, where motion_params does not say.
        color_coherence: match_prompt, match_first, match_frame, LAB, RGB, HSV or None.
        loop: the frames in reverse follow, without the two turning points twice.
        feedback_mode: True or "both", "start", "reference", "none"; False matches no colours.
        feedback_config: picture corrections; its colour mode goes before color_coherence.
        Finished frames are kept in the store: the same call again is a matter of seconds. Raises KoshiError.
        """
        if interpolation not in (None, 1):
            raise KoshiError("not_supported", f"interpolation={interpolation!r} is not supported yet.", "Leave it out.")
        path = Path(output_path)
        check_file(path, SUFFIXES)
        shot = self._shot(
            prompts, motion_params or {}, num_frames, width, height, num_inference_steps, guidance_scale, strength,
            noise_scale, noise_mode, noise_delta, init_image, color_coherence, fps, seed, feedback_mode,
            feedback_config,
        )  # fmt: skip
        rendered = render_shot(shot, store=store, device=self.device, dtype=self.dtype, progress=progress)
        pngs: Iterable[bytes] = (frame.png for frame in rendered)
        if loop:
            forth = list(pngs)
            pngs = forth + forth[-2:0:-1]
        write_video(path, pngs, shot.fps)
        return str(path)

    def render(self, shot: Shot, **options: Any) -> list[Frame]:
        """All frames of a shot with this pipeline's device and precision. options: as `chain.render_shot`."""
        return list(render_shot(shot, device=self.device, dtype=self.dtype, **options))

    def _shot(
        self,
        prompts: str | dict[int, str],
        motion: Schedules,
        frames: int,
        width: int,
        height: int,
        steps: int | None,
        guidance: float,
        strength: float | None,
        noise_scale: float,
        noise_mode: str,
        noise_delta: float,
        init_image: Picture | None,
        coherence: str | None,
        fps: float,
        seed: int | None,
        mode: bool | str,
        config: FeedbackConfig | None,
    ) -> Shot:
        """The call's arguments as a Shot, which checks them all together."""
        if not isinstance(motion, dict):
            raise KoshiError("bad_value", f"motion_params is a {kind(motion)}.", "Give a dict of schedules by name.")
        schedules: Schedules = {"guidance": plain(guidance)}
        if strength is not None:
            schedules["strength"] = plain(strength)
        schedules |= {{"strength_schedule": "strength"}.get(name, name): plain(value) for name, value in motion.items()}
        color_mode, reference = coherence_of(coherence)
        feedback: dict[str, Any] = {
            "noise_mode": noise_mode,
            "noise_scale": plain(noise_scale),
            "noise_delta": plain(noise_delta),
        }
        if coherence is not None and coherence != "match_prompt":
            schedules.setdefault("color_match", 1.0)  # Deforum matches wholly
        if config is not None and not isinstance(config, FeedbackConfig):
            raise KoshiError("bad_value", f"feedback_config is a {kind(config)}.", "Use FeedbackConfig(...).")
        if config is not None:
            schedules = config.schedules() | schedules
            feedback["noise_type"] = config.noise_type
            color_mode = coherence_of(config.color_mode)[0]  # the space only; what is matched to, and how much, stays
        if mode is False:
            color_mode = "none"
        elif mode == "none":
            feedback["carry"] = "none"
        elif mode is not True:
            feedback["condition"] = mode
        feedback |= {"color_mode": color_mode, "color_reference": reference}
        texts = {0: prompts} if isinstance(prompts, str) else prompts
        if not isinstance(texts, dict):
            raise KoshiError("bad_value", f"prompts is a {kind(prompts)}.", "Give a text, or {frame: text}.")
        return load_shot(
            {
                "model": self.model,
                "width": plain(width),
                "height": plain(height),
                "fps": plain(fps),
                "frames": plain(frames),
                "seed": seed_or_random(plain(seed)),
                "steps": plain(steps),
                "prompts": [{"frame": frame_number(k), "text": v} for k, v in texts.items()],
                "schedules": schedules,
                "feedback": feedback,
                "init_image": None if init_image is None else kept_path(init_image),
            }
        )


def create_pipeline(
    version: FluxVersion | str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    enable_cpu_offload: bool = False,
    enable_sequential_offload: bool = False,
) -> Pipeline:
    """A pipeline for a model. Nothing is loaded or downloaded before the first picture.

    version: a FluxVersion, a model's name or its folder. None: FLUX.2 Klein 4B on a CUDA machine, else koshi-tiny.
    device, dtype: chosen by what there is when None; "cuda" without CUDA becomes the processor, with a warning.
    Raises KoshiError("unknown_model").
    """
    if enable_cpu_offload or enable_sequential_offload:
        warnings.warn("offloading is not supported yet: the model is kept whole on its device", stacklevel=2)
    if version is None:
        version = FluxVersion.FLUX_2_KLEIN_4B if torch.cuda.is_available() else FluxVersion.KOSHI_TINY
    name = version.value if isinstance(version, FluxVersion) else str(version)
    return Pipeline(name, device, dtype)


def generate_image(
    prompt: str,
    output_path: str | Path | None = "output.png",
    input_image: Picture | Sequence[Picture] | None = None,
    width: int = 512,
    height: int = 512,
    num_steps: int = 4,
    guidance: float = 1.0,
    seed: int | None = None,
    latents: Tensor | None = None,
    *,
    model: FluxVersion | str | None = None,
) -> Image.Image:
    """`Pipeline.generate_image` with the default model, or `model`, which stays loaded between calls."""
    return create_pipeline(model).generate_image(
        prompt, output_path, input_image, width, height, num_steps, guidance, seed, latents
    )


def generate_animation(
    prompts: str | dict[int, str], *arguments: Any, model: FluxVersion | str | None = None, **options: Any
) -> str:
    """`Pipeline.generate_animation`, with the same arguments, on the default model or `model`."""
    return create_pipeline(model).generate_animation(prompts, *arguments, **options)

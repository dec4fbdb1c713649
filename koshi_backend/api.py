# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi from Python: `create_pipeline`, `generate_image`, `generate_animation`."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .chain import Frame, Progress, render_shot
from .errors import KoshiError
from .feedback import FeedbackConfig
from .models.klein import CELL, PACKED_CHANNELS, Klein, Reference
from .models.pool import load_model, pick_device, pick_dtype
from .models.registry import FluxVersion, default_steps, find_model
from .paths import cache_folder
from .pictures import read_picture, to_pil
from .shot import MAX_SIDE, Shot, load_shot
from .store import FrameStore
from .video import write_video

log = logging.getLogger(__name__)

Picture = str | Path | Image.Image
Schedules = dict[str, Any]

_COHERENCE = {
    "match_prompt": ("LAB", "prompt"),
    "match_first": ("LAB", "first"),
    "match_frame": ("LAB", "previous"),
    "match previous": ("LAB", "previous"),
    "lab": ("LAB", "first"),
    "rgb": ("RGB", "first"),
    "hsv": ("HSV", "first"),
    "match frame 0 lab": ("LAB", "first"),
    "match frame 0 rgb": ("RGB", "first"),
    "match frame 0 hsv": ("HSV", "first"),
    "match frame 0": ("LAB", "first"),
    "none": ("none", "first"),
}


class Pipeline:
    """A model by name, loaded at the first picture and kept for the next ones.

    model: a registry name or a folder. device, dtype: as `pick_device` and `pick_dtype` choose when None.
    """

    def __init__(self, model: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        find_model(model)
        self.model = model
        self.device = pick_device(device)
        fell_back = device is not None and torch.device(device).type == "cuda" and self.device.type == "cpu"
        self.dtype = pick_dtype(self.device, None if fell_back else dtype)

    def load(self) -> Klein:
        return load_model(self.model, self.device, self.dtype)

    def generate_image(
        self,
        prompt: str,
        output_path: str | Path | None = "output.png",
        input_image: Picture | Sequence[Picture] | None = None,
        width: int = 512,
        height: int = 512,
        num_steps: int | None = None,
        guidance: float = 1.0,
        seed: int | None = None,
        latents: Tensor | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Image.Image:
        """One picture from text, or from text and references.

        output_path: where it is written as well; None writes nothing.
        input_image: references shown in context, each fitted to width x height.
        width, height: multiples of 16, 64 to 1792. num_steps: default the model's own.
        guidance: for models that embed it; Klein's distilled models ignore it.
        seed: a random one when None. latents: the starting noise itself, packed, [1, 128, H/16, W/16].
        Raises KoshiError.
        """
        steps = default_steps(self.model) if num_steps is None else num_steps
        _check_picture(prompt, width, height, steps)
        references = (
            input_image
            if isinstance(input_image, Sequence) and not isinstance(input_image, str)
            else ([] if input_image is None else [input_image])
        )
        pictures = [read_picture(r, width, height) for r in references]
        model = self.load()
        shape = (1, PACKED_CHANNELS, height // CELL, width // CELL)
        if latents is None:
            latents = model.noise(_seed(seed), width, height)
        elif tuple(latents.shape) != shape:
            raise KoshiError(
                "bad_value",
                f"latents has shape {tuple(latents.shape)}.",
                f"For {width} x {height} it is {shape}.",
            )
        shown = [Reference(model.encode_picture(p)) for p in pictures]
        latent = model.denoise(
            prompt,
            latents.to(model.device, torch.float32),
            steps=steps,
            references=shown,
            guidance=guidance,
            on_step=on_step,
        )
        image = to_pil(model.decode(latent))
        if output_path is not None:
            _save(image, Path(output_path))
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
        shot = self._shot(
            prompts, motion_params or {}, num_frames, width, height, num_inference_steps, guidance_scale, strength,
            noise_scale, noise_mode, init_image, color_coherence, fps, seed, feedback_mode, feedback_config,
        )  # fmt: skip
        rendered = render_shot(shot, store=store, device=self.device, dtype=self.dtype, progress=progress)
        pngs: Iterable[bytes] = (frame.png for frame in rendered)
        if loop:
            forth = list(pngs)
            pngs = forth + forth[-2:0:-1]
        path = Path(output_path)
        write_video(path, pngs, fps)
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
        init_image: Picture | None,
        coherence: str | None,
        fps: float,
        seed: int | None,
        mode: bool | str,
        config: FeedbackConfig | None,
    ) -> Shot:
        """The call's arguments as a Shot, which checks them all together."""
        schedules: Schedules = {"guidance": guidance}
        if strength is not None:
            schedules["strength"] = strength
        schedules |= {{"strength_schedule": "strength"}.get(name, name): value for name, value in motion.items()}
        color_mode, reference = _coherence(coherence)
        feedback: dict[str, Any] = {"noise_mode": noise_mode, "noise_scale": noise_scale}
        if coherence is not None and coherence != "match_prompt":
            schedules.setdefault("color_match", 1.0)  # Deforum matches wholly
        if config is not None:
            schedules = config.schedules() | schedules
            feedback["noise_type"] = config.noise_type
            if (config.color_mode or "none") != color_mode:
                color_mode, reference = _coherence(config.color_mode)
        if mode is False:
            color_mode = "none"
        elif mode == "none":
            feedback["carry"] = "none"
        elif mode is not True:
            feedback["condition"] = mode
        feedback |= {"color_mode": color_mode, "color_reference": reference}
        texts = {0: prompts} if isinstance(prompts, str) else prompts
        return load_shot(
            {
                "model": self.model,
                "width": width,
                "height": height,
                "fps": float(fps),
                "frames": frames,
                "seed": _seed(seed),
                "steps": steps,
                "prompts": [{"frame": _frame(k), "text": v} for k, v in texts.items()],
                "schedules": schedules,
                "feedback": feedback,
                "init_image": None if init_image is None else _keep(init_image),
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
    num_steps: int | None = None,
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


def generate_animation(prompts: str | dict[int, str], *, model: FluxVersion | str | None = None, **options: Any) -> str:
    """`Pipeline.generate_animation` with the default model, or `model`."""
    return create_pipeline(model).generate_animation(prompts, **options)


def _coherence(text: str | None) -> tuple[str, str]:
    found = _COHERENCE.get((text or "none").lower())
    if found is None:
        raise KoshiError(
            "bad_value",
            f"color_coherence is {text!r}.",
            "Use match_prompt, match_first, match_frame, LAB, RGB, HSV or None.",
        )
    return found


def _check_picture(prompt: str, width: int, height: int, steps: int) -> None:
    if not prompt.strip():
        raise KoshiError("bad_value", "The prompt is empty.", "Write what the picture shows.")
    for name, side in (("width", width), ("height", height)):
        if side % CELL or not 64 <= side <= MAX_SIDE:
            raise KoshiError(
                "bad_value",
                f"{name} is {side}.",
                f"Use a multiple of {CELL} from 64 to {MAX_SIDE}, such as 512.",
            )
    if steps < 1:
        raise KoshiError("bad_value", f"num_steps is {steps}.", "Use 1 or more.")


def _seed(seed: int | None) -> int:
    if seed is not None:
        return seed
    drawn = secrets.randbelow(2**32)
    log.info("seed %d", drawn)
    return drawn


def _frame(key: int | str) -> int | str:
    """Prompt frames come as numbers, or as text from JSON."""
    return int(key) if isinstance(key, str) and key.strip().isdigit() else key


def _keep(image: Picture) -> str:
    """A picture's path. One from memory is written to the cache folder, under a name made from its content."""
    if not isinstance(image, Image.Image):
        return str(image)
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG")
    path = cache_folder() / "pictures" / f"{hashlib.sha256(data.getvalue()).hexdigest()}.png"
    if not path.exists():
        _save(image.convert("RGB"), path)
    return str(path)


def _save(image: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        image.save(aside)
        os.replace(aside, path)
    except (OSError, ValueError) as error:
        aside.unlink(missing_ok=True)
        raise KoshiError("bad_output", f"The picture {path} cannot be written: {error}.", "Use a .png path.") from error

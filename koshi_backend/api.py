# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi from Python: `create_pipeline`, `generate_image`, `generate_animation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .arguments import Picture
from .calls import named, passing
from .models.budget import Wanted
from .models.quantise import Quantise
from .models.registry import FluxVersion
from .pipeline import Pipeline, Version
from .quality import Quality


@named
def create_pipeline(
    version: Version | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    enable_cpu_offload: bool = False,
    enable_sequential_offload: bool = False,
    *,
    quality: Quality = "normal",
    offload: Wanted | None = None,
    vram: float | None = None,
    quantize: Quantise | None = None,
) -> Pipeline:
    """A pipeline for a model. Nothing is loaded or downloaded before the first picture.

    version: a FluxVersion, a model's name or its path. None: FLUX.2 Klein 4B on a CUDA machine, else koshi-tiny.
    device, dtype: chosen by what there is when None; "cuda" without CUDA becomes the processor, with a warning
        (only here: the command line and the server refuse it).
    enable_cpu_offload: a part of the model is on the device only while it works. enable_sequential_offload: so is each
        block of it; it goes before the other. offload: the same in a word, which goes before both: none, model, block,
        or auto, what the model's size and the free memory call for. vram: GB of the card that may be used.
    quantize: fp8, int8 or nf4, which the transformer's layers are made while they are loaded; or none.
    quality: draft, normal or final, where a call names no steps.
    Raises KoshiError("unknown_model").
    """
    if version is None:
        version = FluxVersion.FLUX_2_KLEIN_4B if torch.cuda.is_available() else FluxVersion.KOSHI_TINY
    if offload is None and (enable_sequential_offload or enable_cpu_offload):
        offload = "block" if enable_sequential_offload else "model"
    return Pipeline(version, device, dtype, offload, quality, vram, quantize)


@passing(Pipeline.generate_image)
def generate_image(
    prompt: str | Sequence[str],
    output_path: str | Path | Sequence[str | Path] | None = "output.png",
    input_image: Picture | Sequence[Any] | None = None,
    width: int | Sequence[int] = 512,
    height: int | Sequence[int] = 512,
    num_steps: int | None = None,
    guidance: float | None = None,
    seed: int | Sequence[int | None] | None = None,
    latents: Tensor | Sequence[Tensor] | None = None,
    *,
    model: Version | None = None,
    **options: Any,
) -> Any:
    """`Pipeline.generate_image` with the default model, or `model`, which stays loaded between calls.

    options: the method's others (negative_prompt, quality, template, on_step, on_picture, progress).
    """
    return create_pipeline(model).generate_image(
        prompt, output_path, input_image, width, height, num_steps, guidance, seed, latents, **options
    )


@passing(Pipeline.generate_animation)
def generate_animation(
    prompts: str | dict[int, str], *arguments: Any, model: Version | None = None, **options: Any
) -> str:
    """`Pipeline.generate_animation`, with the same arguments, on the default model or `model`."""
    return create_pipeline(model).generate_animation(prompts, *arguments, **options)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shot or a picture asks of the card beside the model's weights, as far as it can be told beforehand."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .depth.estimate import depth_model_folder
from .errors import KoshiError
from .images import PictureJob
from .lora.file import lora_identity, open_lora
from .models.budget import Job
from .models.checkpoint import read_header
from .motion.rife import layout
from .shot import Shot

_FLOAT32 = 4  # bytes of a number: depth models and RIFE compute in it everywhere


def shot_job(shot: Shot, dtype: torch.dtype) -> Job:
    """A shot's size, the most references that it shows at once, and what lies on the card with the model.

    dtype: that the model computes in. Headers alone are read. Raises KoshiError for a LoRA that cannot be read.
    """
    beside = lora_bytes(shot.lora_files, dtype) + _depth_bytes(shot)
    if shot.time.inbetween == "rife":
        beside += _FLOAT32 * sum(math.prod(shape) for _, shape in layout())
    return Job(shot.width, shot.height, _references(shot), beside)


def pictures_job(jobs: Sequence[PictureJob], loras: Iterable[str | Path], dtype: torch.dtype) -> Job:
    """The same of pictures that are drawn one after the other, by the largest of them. loras: their files."""
    largest = max(jobs, key=lambda one: one.call.width * one.call.height).call
    shown = max(len(one.references) for one in jobs)
    return Job(largest.width, largest.height, shown, lora_bytes(loras, dtype))


def lora_bytes(files: Iterable[str | Path], dtype: torch.dtype) -> int:
    """What LoRAs take beside a model that computes in `dtype`: their factors, as `fit` keeps them."""
    numbers = 0
    for file in {lora_identity(file): Path(file) for file in files}.values():
        lora = open_lora(file)
        for parts in lora.names.modules.values():
            shape = {part: lora.shapes[name] for part, name in parts.items() if part != "alpha"}
            for factor in ("lokr_w1", "lokr_w2"):  # one that is stored as two is kept as their product
                first, second = shape.pop(f"{factor}_a", ()), shape.pop(f"{factor}_b", ())
                if len(first) == len(second) == 2:
                    shape[factor] = (first[0], second[1])
            numbers += sum(map(math.prod, shape.values()))
    return numbers * dtype.itemsize


def _references(shot: Shot) -> int:
    carried = shot.feedback.condition != "start" and shot.feedback.carry != "none" and shot.frames > 1
    guided = shot.guided_as != "mixed" and bool(shot.guided_images)
    return int(carried) + int(shot.guides.structure is not None) + int(guided)


def _depth_bytes(shot: Shot) -> int:
    """Of the depth model, where one looks at the shot's pictures; what is wrong with it is said when it is loaded."""
    masked = shot.hybrid.composite != "none" and shot.hybrid.mask in ("depth", "video_depth")
    if shot.depth.source != "model" or not (shot.motion.source == "3d" or masked):
        return 0
    with contextlib.suppress(KoshiError):
        files = depth_model_folder(shot.depth.model).glob("*.safetensors")
        return _FLOAT32 * sum(math.prod(one.shape) for file in files for one in read_header(file).values())
    return 0

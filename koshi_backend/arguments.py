# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of the Python interface: brought into plain form, and refused in words where they are unfit."""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from .checks import explain
from .errors import KoshiError, raise_problems
from .models.model import CELL
from .outputs import write_whole
from .paths import cache_folder
from .settings import Side

log = logging.getLogger(__name__)

Picture = str | Path | Image.Image

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


def coherence_of(text: str | None) -> tuple[str, str]:
    found = _COHERENCE.get(text.lower() if isinstance(text, str) else "none" if text is None else "")
    if found is None:
        raise KoshiError(
            "bad_value",
            f"color_coherence is {text!r}.",
            "Use match_prompt, match_first, match_frame, LAB, RGB, HSV or None.",
        )
    return found


class PictureCall(BaseModel):
    """The arguments of generate_image that are plain values, with the ranges that a shot has."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prompt: Annotated[str, Field(pattern=r"\S")]
    width: Side
    height: Side
    num_steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=0, le=100)]
    seed: Annotated[int, Field(ge=0, le=2**53)] | None


def check_picture(**given: Any) -> PictureCall:
    """Raises KoshiError("bad_value") that lists every fault."""
    try:
        return PictureCall.model_validate({name: plain(value) for name, value in given.items()})
    except ValidationError as error:
        raise_problems("bad_value", "This call", [explain(fault, ()) for fault in error.errors()])
        raise  # not reached: there is at least one fault


def check_latents(latents: object, width: int, height: int, channels: int = 128) -> Tensor:
    if isinstance(latents, np.ndarray):
        latents = torch.from_numpy(latents)
    shape = (1, channels, height // CELL, width // CELL)
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        found = f"has shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else f"is a {kind(latents)}"
        raise KoshiError("bad_value", f"latents {found}.", f"For {width} x {height} it is a tensor {shape}.")
    if not bool(torch.isfinite(latents).all()):
        raise KoshiError("bad_value", "latents holds values that are not finite.", "Use Gaussian noise.")
    return latents.to(torch.float32)


def seed_or_random(seed: int | None) -> int:
    if seed is not None:
        return seed
    drawn = secrets.randbelow(2**32)
    log.info("seed %d", drawn)
    return drawn


def frame_number(key: object) -> Any:
    """Prompt frames come as numbers, or as text from JSON."""
    if isinstance(key, str) and key.strip().isascii() and key.strip().isdigit():
        return int(key)
    return plain(key)


def kept_path(image: object) -> str:
    """A picture's path. One from memory is written to the cache folder, under a name made from its content."""
    image = as_picture(image)
    if not isinstance(image, Image.Image):
        return str(image)
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG")
    path = cache_folder() / "pictures" / f"{hashlib.sha256(data.getvalue()).hexdigest()}.png"
    if not path.exists():
        write_whole(path, data.getvalue())
    return str(path)


def as_picture(value: object) -> Picture:
    """A path or a PIL image; arrays [H, W, 3] of bytes become one."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3:
        return Image.fromarray(value)
    if isinstance(value, (str, Path, Image.Image)):
        return value
    raise KoshiError(
        "bad_value", f"A picture is a path, a PIL image or an array [H, W, 3] of uint8, not {kind(value)}."
    )


def plain(value: Any) -> Any:
    """Numpy's numbers and arrays, tuples and tensors as Python's own, so that checks and JSON understand them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, Tensor)):
        return value.tolist()
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def kind(value: object) -> str:
    return type(value).__name__

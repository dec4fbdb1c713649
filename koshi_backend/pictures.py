# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures from files and from PIL, as tensors [1, 3, H, W] in 0..1, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import KoshiError


def read_picture(source: str | Path | Image.Image, width: int, height: int) -> Tensor:
    """A picture at exactly width x height.

    One of that size is taken as it is. Any other is scaled until it covers the frame and cut evenly at the edges:
    a reference of another size would sit at another place in the model's coordinates.
    Raises KoshiError("bad_image").
    """
    if not isinstance(source, Image.Image):
        try:
            source = Image.open(source)
            source.load()
        except FileNotFoundError as error:
            raise KoshiError("bad_image", f"There is no picture {source}.", "Check the path.") from error
        except (UnidentifiedImageError, OSError) as error:
            raise KoshiError("bad_image", f"The picture {source} cannot be read.", "Use PNG, JPEG or WebP.") from error
    picture = ImageOps.exif_transpose(source).convert("RGB")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)[None]


def to_pil(picture: Tensor) -> Image.Image:
    """[1, 3, H, W] in 0..1 -> an 8-bit PIL image."""
    pixels = (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    return Image.fromarray(pixels)

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
    a reference of another size would sit at another place in the model's coordinates. Transparent parts become black.
    Raises KoshiError("bad_image").
    """
    picture = _as_rgb(_open(source))
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)[None]


def read_alpha(source: str | Path, width: int, height: int) -> Tensor:
    """How opaque a picture is, [H, W] in 0..1, at exactly width x height, scaled and cut as `read_picture` does.

    Raises KoshiError("bad_image"), also for a picture without an alpha channel.
    """
    image = ImageOps.exif_transpose(_open(source))
    if not image.has_transparency_data:
        hint = "Save it as PNG or WebP with transparent parts, or name a mask in guides.mask."
        raise KoshiError("bad_image", f"The picture {source} has no alpha channel.", hint)
    alpha = image.convert("RGBA").getchannel("A")
    if alpha.size != (width, height):
        alpha = ImageOps.fit(alpha, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(alpha, dtype=np.float32) / 255.0)


def _open(source: str | Path | Image.Image) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    try:
        image = Image.open(source)
        image.load()
    except FileNotFoundError as error:
        raise KoshiError("bad_image", f"There is no picture {source}.", "Check the path.") from error
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise KoshiError("bad_image", f"The picture {source} cannot be read.", "Use PNG, JPEG or WebP.") from error
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion clips all but the darkest to white
        image = Image.fromarray(
            (np.asarray(image).astype(np.float64) / 65535 * 255).round().clip(0, 255).astype(np.uint8)
        )
    elif image.mode == "F":
        image = Image.fromarray((np.asarray(image) * 255.0).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return image.convert("RGB")


def to_pil(picture: Tensor) -> Image.Image:
    """[1, 3, H, W] in 0..1 -> an 8-bit PIL image."""
    pixels = (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    return Image.fromarray(pixels)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the previous frame did not show: disocclusion, and the pixels along silhouettes that mix two surfaces.

Places are planes here, [2, H, W] with x first: on a CPU work on [H, W, 2] takes three times as long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .field import MotionField

# Neighbours that part by more than this in one frame (pixels) lie on two surfaces that move against each other.
# Rendered with Blender's usual pixel filter, 0.1 leaves no error above 0.1 outside the mask in nine scenes of eleven,
# 0.25 leaves 5 pixels of 1,100 in another and 0.5 leaves 3 of 156 in the slowest.
PARTING = 0.1


def grid(x: Tensor, y: Tensor) -> Tensor:
    """The places [2, H, W] of the pixels at columns x [W] and rows y [H], float32."""
    out = torch.empty(2, len(y), len(x), device=x.device)
    out[0], out[1] = x.float()[None, :], y.float()[:, None]
    return out


def sample(picture: Tensor, place: Tensor) -> Tensor:
    """Bilinear values [C, H, W] of [C, h, w] at place [2, H, W] in pixels; edge values repeated outside."""
    where = torch.empty(*place.shape[1:], 2, device=place.device)
    for axis, size in enumerate((picture.shape[2], picture.shape[1])):
        torch.add(place.new_tensor(-1.0), place[axis], alpha=2.0 / max(size - 1, 1), out=where[..., axis])
    return F.grid_sample(picture[None], where[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def spread(mask: Tensor, pixels: int) -> Tensor:
    """A bool mask [H, W] grown by so many pixels in all eight directions."""
    for _ in range(pixels):
        for axis in (0, 1):
            size = mask.shape[axis] - 1
            grown = mask.clone()
            grown.narrow(axis, 1, size).logical_or_(mask.narrow(axis, 0, size))
            grown.narrow(axis, 0, size).logical_or_(mask.narrow(axis, 1, size))
            mask = grown
    return mask


def silhouettes(place: Tensor) -> Tensor:
    """Bool [H, W]: the pixels on both sides of every place where place [2, H, W] jumps by more than PARTING.

    A jump shows in the second difference as two neighbours of opposite sign, and only a jump does: a slope gives
    nothing and a crease a single sign. So a silhouette whose two sides move together, as under a mere pan, is not
    marked, nor the edge between two faces of one box.
    """
    out = torch.zeros(place.shape[1:], dtype=torch.bool, device=place.device)
    for axis, size in enumerate(out.shape):
        if size < 4:
            continue
        first = place.narrow(axis + 1, 1, size - 1) - place.narrow(axis + 1, 0, size - 1)
        second = first.narrow(axis + 1, 1, size - 2) - first.narrow(axis + 1, 0, size - 2)
        product = second.narrow(axis + 1, 0, size - 3) * second.narrow(axis + 1, 1, size - 3)
        apart = torch.minimum(product[0], product[1]) < -PARTING * PARTING  # between the pixels i + 1 and i + 2
        for offset in (1, 2):
            out.narrow(axis, offset, size - 3).logical_or_(apart)
    return out


def apart(a: Tensor, b: Tensor, pixels: float) -> Tensor:
    """Bool [H, W]: two places [2, H, W] differ by more in x or in y."""
    difference = (a - b).abs_()
    return torch.maximum(difference[0], difference[1]) > pixels


def field_from(place: Tensor, hidden: Tensor | None, margin: int) -> MotionField:
    """The field whose sources are place [2, H, W]; valid where these lie in the picture and are not hidden.

    hidden: bool [H, W], what the caller found covered. It and all silhouettes are taken `margin` pixels wide on each
    side; with 0 silhouettes do not count.
    """
    height, width = place.shape[1:]
    # Inside is from half a pixel before the first centre to half a pixel behind the last one, as everywhere.
    beyond_x = (place[0] - (width - 1) / 2).abs_().sub_(width / 2)
    beyond_y = (place[1] - (height - 1) / 2).abs_().sub_(height / 2)
    valid = torch.maximum(beyond_x, beyond_y) <= 0
    if hidden is not None:
        valid &= ~spread(hidden, margin)
    if margin > 0:
        valid &= ~spread(silhouettes(place), margin - 1)
    return MotionField(place.permute(1, 2, 0), valid)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: where each pixel of the new frame comes from, and the one resampler that follows it.

Pixel centres lie at whole numbers, x to the right and y down, as in OpenCV and hence in Deforum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MotionField:
    """source: float32 [H, W, 2], the (x, y) in the previous frame that each new pixel shows, in pixels.
    valid: bool [H, W], whether that place exists (lies inside the frame and was not hidden)."""

    source: Tensor
    valid: Tensor

    @staticmethod
    def identity(width: int, height: int, device: torch.device | None = None) -> MotionField:
        """Every pixel comes from its own place."""
        return MotionField(_grid(width, height, device), torch.ones(height, width, dtype=torch.bool, device=device))

    @staticmethod
    def affine(matrix: np.ndarray, width: int, height: int, device: torch.device | None = None) -> MotionField:
        """The field of a forward 3 x 3 matrix (previous pixel -> new pixel), exact to float32."""
        back = torch.from_numpy(np.linalg.inv(np.asarray(matrix, dtype=np.float64))).to(device)
        grid = _grid(width, height, device).double()
        x, y = grid[..., 0], grid[..., 1]
        source = torch.stack([back[k, 0] * x + back[k, 1] * y + back[k, 2] for k in (0, 1)], dim=-1).float()
        return MotionField(source, _inside(source, width, height))

    def then(self, later: MotionField) -> MotionField:
        """This motion followed by `later`, as one field: two moves, one resampling."""
        height, width = self.valid.shape
        shift = _extended((self.source - _grid(width, height, self.source.device)).permute(2, 0, 1)[None])
        # The extended displacement has one more row and column on each side.
        where = ((later.source + 1.0) * later.source.new_tensor([2.0 / (width + 1), 2.0 / (height + 1)]) - 1.0)[None]
        moved = F.grid_sample(shift, where, mode="bilinear", padding_mode="border", align_corners=True)
        valid = F.pad(self.valid.float()[None, None], [1] * 4, mode="replicate")
        seen = F.grid_sample(valid, where, mode="nearest", padding_mode="border", align_corners=True)
        return MotionField(later.source + moved[0].permute(1, 2, 0), later.valid & (seen[0, 0] > 0.5))


def resample(picture: Tensor, field: MotionField) -> Tensor:
    """Move a picture [1, C, H, W]: bicubic with a = -0.5, edge pixels repeated outside.

    Of the kernels measured this one neither blurs mid frequencies much nor amplifies any: amplitude left at half
    Nyquist after 30 rounds is 15 %, against 0.2 % for bilinear, while a = -0.75 (torch, OpenCV) and Lanczos ring.
    A field of whole-pixel shifts, the identity among them, returns the picture's own values.
    """
    channels, height, width = picture.shape[1:]
    flat = picture.reshape(channels, height * width)
    base = field.source.floor()
    fx, fy = (field.source - base).unbind(-1)
    x0, y0 = base.long().unbind(-1)
    columns = [(x0 + k - 1).clamp(0, width - 1) for k in range(4)]
    out = picture.new_zeros(channels, *field.valid.shape)
    for k, wy in enumerate(_catmull_rom(fy)):
        row = (y0 + k - 1).clamp(0, height - 1) * width
        line = torch.zeros_like(out)
        for column, wx in zip(columns, _catmull_rom(fx), strict=True):
            line += wx * flat[:, row + column]
        out += wy * line
    return out[None].clamp(0.0, 1.0)


def _catmull_rom(f: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the four neighbours at distances 1 + f, f, 1 - f, 2 - f."""
    f2, f3 = f * f, f * f * f
    return (
        -0.5 * f3 + f2 - 0.5 * f,
        1.5 * f3 - 2.5 * f2 + 1.0,
        -1.5 * f3 + 2.0 * f2 + 0.5 * f,
        0.5 * f3 - 0.5 * f2,
    )


def _grid(width: int, height: int, device: torch.device | None = None) -> Tensor:
    x = torch.arange(width, dtype=torch.float32, device=device)
    y = torch.arange(height, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _extended(field: Tensor) -> Tensor:
    """[1, C, H, W] with a border of one, continued straight: the outer half of an edge pixel lies beyond its centre."""
    field = torch.cat([2 * field[..., :1] - field[..., 1:2], field, 2 * field[..., -1:] - field[..., -2:-1]], dim=3)
    top, bottom = 2 * field[:, :, :1] - field[:, :, 1:2], 2 * field[:, :, -1:] - field[:, :, -2:-1]
    return torch.cat([top, field, bottom], dim=2)


def _inside(source: Tensor, width: int, height: int) -> Tensor:
    x, y = source.unbind(-1)
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)

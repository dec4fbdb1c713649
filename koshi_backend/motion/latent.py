# SPDX-License-Identifier: GPL-3.0-or-later
"""Latents moved as the picture would be: the /8 grid, its packing to /16, and what lies outside.

A cell of the /8 grid stands for 8 x 8 pixels and its centre lies at pixel 8 u + 3.5, so a move in pixels is carried
over exactly. What it does to the picture is another matter: a cell codes where things are inside its 8 pixels, which a
blend of neighbours does not. Only whole cells are exact (docs/feedback.md).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .deforum import deforum_matrix
from .field import MotionField
from .resample import resample

CELL = 8  # pixels to a cell, both in FLUX.1's and in FLUX.2's unpacked latents

Border = Literal["replicate", "reflect", "wrap", "blank", "noise"]
BORDERS: tuple[Border, ...] = get_args(Border)


def unpack(latent: Tensor) -> Tensor:
    """[B, 4 C, h, w] at /16 -> [B, C, 2 h, 2 w] at /8. Packed channel = 4 c + 2 row + column (FLUX.2's order)."""
    return rearrange(latent, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)


def pack(latent: Tensor) -> Tensor:
    """The inverse of `unpack`."""
    return rearrange(latent, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)


def latent_field(columns: int, rows: int, device: torch.device | None = None, **move: float) -> MotionField:
    """A Deforum move on a grid of rows x columns cells.

    move: as `deforum_matrix` takes it, in pixels of the picture, centre included.
    """
    half = (CELL - 1) / 2
    place = np.array([[CELL, 0.0, half], [0.0, CELL, half], [0.0, 0.0, 1.0]])  # cell -> pixel
    matrix = np.linalg.inv(place) @ deforum_matrix(columns * CELL, rows * CELL, **move) @ place
    return MotionField.affine(matrix, columns, rows, device)


def cells_of(field: MotionField) -> MotionField:
    """A field of pixels as one of cells, [H/8, W/8]: the mean move of a cell's 64 pixels, which is its centre's where
    the field is smooth. A cell is valid where all of them are.
    """
    source = F.avg_pool2d(field.source.permute(2, 0, 1)[None], CELL)[0].permute(1, 2, 0)
    hidden = F.max_pool2d((~field.valid).float()[None, None], CELL)[0, 0] > 0
    return MotionField((source - (CELL - 1) / 2) / CELL, ~hidden)


def move_latent(
    latent: Tensor,
    field: MotionField,
    kernel: str = "bicubic",
    border: Border = "replicate",
    keep_statistics: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Move [B, C, h, w] by a field of h x w cells, with the one resampler but without its limits.

    kernel: as `resample` takes it.
    border: what lies outside. blank is 0, in normalised latents the mean of all pictures; noise is Gaussian with
        deviation 1, drawn from `generator` (on the CPU), for a start that makes the uncovered parts anew.
    keep_statistics: give every channel of every latent its mean and deviation back.
    """
    around = "replicate" if border in ("blank", "noise") else border
    moved = torch.cat([resample(one[None], field, around, kernel=kernel, limits=None) for one in latent])
    if keep_statistics:
        moved = _with_statistics(moved, latent)
    if border in ("blank", "noise"):
        fill = torch.zeros(moved.shape)
        if border == "noise":
            fill.normal_(generator=generator)
        moved = torch.where(field.valid, moved, fill.to(moved))
    return moved


def _with_statistics(moved: Tensor, like: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(moved, dim=(2, 3), keepdim=True, correction=0)
    wanted, middle = torch.std_mean(like, dim=(2, 3), keepdim=True, correction=0)
    return (moved - mean) / deviation.clamp_min(1e-6) * wanted + middle

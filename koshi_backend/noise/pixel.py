# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise on the picture's pixels: white, or Perlin's clouds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Deforum's Perlin settings: cells over the picture, octaves, and the fall-off from one to the next.
PERLIN_CELLS, PERLIN_OCTAVES, PERLIN_PERSISTENCE = 8, 4, 0.5


def pixel_noise(kind: str, width: int, height: int, seed: int) -> Tensor:
    """[1, 3, H, W] with mean 0 and deviation 1. kind: gaussian (white) or perlin (clouds, the same in all channels)."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return torch.randn(1, 3, height, width, generator=generator)
    total = torch.zeros(height, width)
    for octave in range(PERLIN_OCTAVES):
        cells = PERLIN_CELLS * 2**octave
        total += PERLIN_PERSISTENCE**octave * _perlin(width, height, cells, generator)
    return ((total - total.mean()) / total.std()).expand(1, 3, -1, -1)


def _perlin(width: int, height: int, cells: int, generator: torch.Generator) -> Tensor:
    """One octave of gradient noise (Perlin 1985, with the smoother fade of 2002)."""
    angle = 2 * math.pi * torch.rand(cells + 1, cells + 1, generator=generator)
    x = (torch.arange(width) + 0.5) * cells / width
    y = (torch.arange(height) + 0.5) * cells / height
    column, row = x.long(), y.long()
    fx, fy = (x - column)[None, :], (y - row)[:, None]

    def corner(down: int, right: int) -> Tensor:
        a = angle[row + down][:, column + right]
        return a.cos() * (fx - right) + a.sin() * (fy - down)

    def fade(f: Tensor) -> Tensor:
        return f * f * f * (f * (f * 6 - 15) + 10)

    upper = torch.lerp(corner(0, 0), corner(0, 1), fade(fx).expand(height, -1))
    lower = torch.lerp(corner(1, 0), corner(1, 1), fade(fx).expand(height, -1))
    return torch.lerp(upper, lower, fade(fy).expand(-1, width))

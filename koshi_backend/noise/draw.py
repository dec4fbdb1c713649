# SPDX-License-Identifier: GPL-3.0-or-later
"""Where noise comes from: one stream of random numbers for each seed, frame and purpose."""

from __future__ import annotations

import hashlib

import torch
from einops import rearrange
from torch import Tensor

CELL = 8  # pixels of a latent cell; a token packs 2 x 2 of them


def frame_seed(seed: int, frame: int, purpose: str) -> int:
    """A seed of its own for each frame and purpose, so that streams never meet."""
    digest = hashlib.sha256(f"{seed}:{frame}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_latent(seed: int, width: int, height: int, channels: int = 128) -> Tensor:
    """Gaussian noise of a picture's packed latent, [1, channels, H/16, W/16], float32, on the CPU.

    width, height: of the picture, in pixels, multiples of 16. channels: 128 for FLUX.2, 64 for FLUX.1.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, channels, height // (2 * CELL), width // (2 * CELL)), generator=generator)


def unpack(packed: Tensor) -> Tensor:
    """[1, 4 C, H/16, W/16] -> [1, C, H/8, W/8]: the four cells of a token go back to their places."""
    return rearrange(packed, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)


def pack(cells: Tensor) -> Tensor:
    """[1, C, H/8, W/8] -> [1, 4 C, H/16, W/16], in the order that the FLUX.2 autoencoder packs its latents."""
    return rearrange(cells, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise, all of it drawn on the CPU from (seed, frame): a seed means the same on every device."""

from .draw import draw_latent, frame_seed, pack, unpack
from .latent import MODES, NoiseRecipe, frame_noise, noise_facts, slerp
from .pixel import pixel_noise
from .scaled import ScaledNoise
from .warped import WarpedNoise

__all__ = [
    "MODES",
    "NoiseRecipe",
    "ScaledNoise",
    "WarpedNoise",
    "draw_latent",
    "frame_noise",
    "frame_seed",
    "noise_facts",
    "pack",
    "pixel_noise",
    "slerp",
    "unpack",
]

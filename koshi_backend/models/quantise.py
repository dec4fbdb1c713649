# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights made narrow while a model is loaded: float8 or whole numbers of 8 bits, or nf4's 4 bits.

"fp8" and "int8" have a scale for each row, which is more exact than one for the whole matrix. "nf4" has one for each 64
numbers, and the 16 values at which as many weights of a normal distribution lie on either side (QLoRA,
https://arxiv.org/abs/2305.14314). Layers are quantised one by one, so that the model is never whole in memory.
"""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import KoshiError
from .packed import FLOAT8, Eight, Four, Packed

Quantise = Literal["none", "fp8", "int8", "nf4"]

# get_4bit_type("nf4") of bitsandbytes/functional.py.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_NF4_BLOCK = 64
_LARGEST = {"F8_E4M3": 448.0, "I8": 127.0}


def pick_quantise(wanted: str | None = None) -> Quantise:
    """What is asked for (argument, else KOSHI_QUANTIZE), else none. Raises KoshiError("bad_value")."""
    name = wanted or os.environ.get("KOSHI_QUANTIZE") or "none"
    for known in get_args(Quantise):
        if name == known:
            return known
    raise KoshiError("bad_value", f"quantize is {name!r}.", f"Use {', '.join(get_args(Quantise))}.")


def is_quantised_on_load(name: str, quantise: Quantise) -> bool:
    """Whether this weight is: those of the blocks, where nearly all are. What a network takes in and gives out, and
    what times are made into, stays as it is: it is small, and every picture hangs on it.
    """
    return quantise != "none" and "blocks." in name


def quantised(weight: Tensor, quantise: Quantise) -> Packed:
    """A matrix [rows, columns] in the form that is asked for. Rounded to nearest; 0 stays 0."""
    wide = weight.float()
    shape = tuple(weight.shape)
    if quantise == "nf4":
        return _four(wide, shape)
    kind = "I8" if quantise == "int8" else "F8_E4M3"
    scale = wide.abs().amax(1, keepdim=True) / _LARGEST[kind]
    # A row of zeros keeps a scale of 1: any would do, but for one that divides by nothing.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    narrow = wide / scale
    codes = narrow.round().to(torch.int8) if kind == "I8" else narrow.to(FLOAT8[kind])
    return Packed(Eight(kind), {"codes": codes.view(torch.uint8), "scale": scale}, shape)


def _four(wide: Tensor, shape: tuple[int, ...]) -> Packed:
    blocks = pad(wide.flatten(), (0, -wide.numel() % _NF4_BLOCK)).view(-1, _NF4_BLOCK)
    scale = blocks.abs().amax(1, keepdim=True)
    table = torch.tensor(NF4, device=wide.device)
    between = (table[1:] + table[:-1]) / 2
    places = torch.bucketize(blocks / torch.where(scale > 0, scale, torch.ones_like(scale)), between).to(torch.uint8)
    return Packed(Four(NF4), {"codes": (places[:, ::2] << 4) | places[:, 1::2], "scale": scale}, shape)

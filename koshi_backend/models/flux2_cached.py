# SPDX-License-Identifier: GPL-3.0-or-later
"""References as keys and values, for the FLUX.2 Klein model that was trained so (9B-KV).

There a reference attends to references alone and is modulated as if the time were 0. Its keys and values therefore
depend on nothing but the references themselves, and serve every step of every frame that shows the same ones.
With other Klein weights the result would be a different one: their references see the text and the picture.
Source of the scheme: diffusers transformer_flux2.py, `ref_fixed_timestep` and `_flux2_kv_causal_attention`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .flux2 import Flux2Transformer
from .layers import DoubleBlock, Kept, SingleBlock, attend, modulated, rotary, rotate, time_embedding


class CachedReferences(NamedTuple):
    """What each block's attention has to know: keys (turned) and values [1, H, M, D]."""

    double: list[Kept]
    single: list[Kept]


def cache_references(net: Flux2Transformer, tokens: Tensor, ids: Tensor) -> CachedReferences:
    """Run the references alone through the network.

    tokens: [1, M, 128], of all references. ids: [M, 4]. In Klein 9B a token takes 0.52 MB in bfloat16, so that a
    picture of 512 x 512 takes 0.54 GB.
    """
    vec = net.time_in(time_embedding(torch.zeros(len(tokens), device=tokens.device)).to(tokens.dtype))
    cos, sin = rotary(ids, net.config.axes, net.config.theta)
    x = net.img_in(tokens)
    double, single = [], []
    mod = net.double_stream_modulation_img(vec)
    for block in net.double_blocks:
        assert isinstance(block, DoubleBlock)
        x, kept = _double(block, x, mod, cos, sin)
        double.append(kept)
    mod = net.single_stream_modulation(vec)
    for block in net.single_blocks:
        assert isinstance(block, SingleBlock)
        single.append(_keys_and_values(block, x, mod, cos, sin))
        x = block(x, mod, cos, sin)
    return CachedReferences(double, single)


def _double(block: DoubleBlock, x: Tensor, mod: tuple[Tensor, ...], cos: Tensor, sin: Tensor) -> tuple[Tensor, Kept]:
    """The picture's stream of a block, without text."""
    q, k, v = block.img_attn.heads_of(modulated(x, mod[0], mod[1]))
    x = x + mod[2] * block.img_attn.proj(attend(q, k, v, cos, sin))
    x = x + mod[5] * block.img_mlp(modulated(x, mod[3], mod[4]))
    return x, (rotate(k, cos, sin), v)


def _keys_and_values(block: SingleBlock, x: Tensor, mod: tuple[Tensor, ...], cos: Tensor, sin: Tensor) -> Kept:
    k, v = block.heads_of(x, mod)[0][1:]
    return rotate(k, cos, sin), v

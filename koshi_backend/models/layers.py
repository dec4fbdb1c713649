# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers that FLUX.1 and FLUX.2 share, and FLUX.3 in part, under the names of black-forest-labs' own code.

A block's two streams, text and picture, have weights of their own and one attention. Both families turn queries and
keys by positions on several axes and take shift, scale and gate from the time vector. They differ in what a
`BlockShape` says, and in who owns the modulation: every FLUX.1 block has its own, FLUX.2 has one for the whole net.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..doubles import doubled

EPS = 1e-6
TIME_CHANNELS = 256
# Both families embed times and guidance multiplied by this.
TIME_FACTOR = 1000.0


@dataclass(frozen=True)
class BlockShape:
    """What fixes a block's tensors. gated: SwiGLU instead of GELU. bias: linear layers have one."""

    hidden: int
    heads: int
    mlp: int
    gated: bool
    bias: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def mlp_in(self) -> int:
        """Rows of the MLP's first layer: a gated one makes the gate beside the value."""
        return 2 * self.mlp if self.gated else self.mlp


def time_embedding(t: Tensor) -> Tensor:
    """[B] times in 0..1 -> [B, 256], cosines first, computed in float32."""
    half = TIME_CHANNELS // 2
    freqs = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (t.float() * TIME_FACTOR)[:, None] * freqs[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary(ids: Tensor, axes: tuple[int, ...], theta: float) -> tuple[Tensor, Tensor]:
    """Position ids [L, len(axes)] (fractions allowed) -> cosines and sines, each [L, sum(axes) / 2], float32.

    axes: channels of a head given to each position axis; their sum is the head's width.
    Frequencies in float64, as diffusers computes them, so that pictures agree.
    """
    places, parts = doubled(ids), []
    for axis, width in enumerate(axes):
        omega = theta ** (-doubled(torch.arange(0, width, 2, device=ids.device)) / width)
        parts.append(places[:, axis, None] * omega[None])
    angles = torch.cat(parts, dim=-1)
    return angles.cos().float().to(ids.device), angles.sin().float().to(ids.device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn interleaved pairs of x [B, H, L, D] by the rotary angles."""
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)


# Keys, turned already, and values of tokens that are not in the sequence: each [B, H, M, D].
Kept = tuple[Tensor, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, kept: Kept | None = None) -> Tensor:
    """Attention of all tokens to all, [B, H, L, D] -> [B, L, H * D], positions turned in. No mask.

    Queries and keys may be wider than values until they are turned. kept: further tokens that are attended to.
    """
    q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
    if kept is not None:
        k, v = torch.cat([k, kept[0]], 2), torch.cat([v, kept[1]], 2)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift."""
    return (1 + scale) * F.layer_norm(x, (x.shape[-1],), eps=EPS) + shift


class MLPEmbedder(nn.Module):
    """A vector's way into the time vector."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.in_layer = nn.Linear(channels, hidden, bias=bias)
        self.out_layer = nn.Linear(hidden, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Shift, scale and gate for `sets` branches, from the time vector."""

    def __init__(self, hidden: int, sets: int, bias: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden, 3 * sets * hidden, bias=bias)
        self.sets = sets

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None, :].chunk(3 * self.sets, dim=-1)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + EPS)
        return normed.to(x.dtype) * self.scale


class QKNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(width)
        self.key_norm = RMSNorm(width)


class SwiGLU(nn.Module):
    """The first half is the gate."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


def activation(shape: BlockShape) -> nn.Module:
    """Between an MLP's two layers."""
    return SwiGLU() if shape.gated else nn.GELU(approximate="tanh")


def feed_forward(shape: BlockShape) -> nn.Sequential:
    """The MLP of one stream."""
    return nn.Sequential(
        nn.Linear(shape.hidden, shape.mlp_in, bias=shape.bias),
        activation(shape),
        nn.Linear(shape.mlp, shape.hidden, bias=shape.bias),
    )


class StreamAttention(nn.Module):
    """Fused query, key and value of one stream; the attention itself spans both streams."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden, bias=shape.bias)
        self.norm = QKNorm(shape.head_dim)
        self.proj = nn.Linear(shape.hidden, shape.hidden, bias=shape.bias)
        self.heads = shape.heads

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "b l (k h d) -> k b h l d", k=3, h=self.heads)
        return self.norm.query_norm(q), self.norm.key_norm(k), v


class DoubleBlock(nn.Module):
    """Text and picture with weights of their own, attending to each other."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.img_attn = StreamAttention(shape)
        self.txt_attn = StreamAttention(shape)
        self.img_mlp = feed_forward(shape)
        self.txt_mlp = feed_forward(shape)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        img_mod: tuple[Tensor, ...],
        txt_mod: tuple[Tensor, ...],
        cos: Tensor,
        sin: Tensor,
        kept: Kept | None = None,
    ) -> tuple[Tensor, Tensor]:
        length = txt.shape[1]
        tq, tk, tv = self.txt_attn.heads_of(modulated(txt, txt_mod[0], txt_mod[1]))
        iq, ik, iv = self.img_attn.heads_of(modulated(img, img_mod[0], img_mod[1]))
        # Text comes first in the sequence; the rotary tables are laid out the same way.
        out = attend(torch.cat([tq, iq], 2), torch.cat([tk, ik], 2), torch.cat([tv, iv], 2), cos, sin, kept)
        txt = txt + txt_mod[2] * self.txt_attn.proj(out[:, :length])
        img = img + img_mod[2] * self.img_attn.proj(out[:, length:])
        txt = txt + txt_mod[5] * self.txt_mlp(modulated(txt, txt_mod[3], txt_mod[4]))
        img = img + img_mod[5] * self.img_mlp(modulated(img, img_mod[3], img_mod[4]))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and MLP side by side over the joint sequence."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.split = (3 * shape.hidden, shape.mlp_in)
        self.linear1 = nn.Linear(shape.hidden, sum(self.split), bias=shape.bias)
        self.linear2 = nn.Linear(shape.hidden + shape.mlp, shape.hidden, bias=shape.bias)
        self.norm = QKNorm(shape.head_dim)
        self.act = activation(shape)
        self.heads = shape.heads

    def heads_of(self, x: Tensor, mod: tuple[Tensor, ...]) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Query, key and value, and what goes into the MLP's activation."""
        qkv, mlp = self.linear1(modulated(x, mod[0], mod[1])).split(self.split, dim=-1)
        q, k, v = rearrange(qkv, "b l (k h d) -> k b h l d", k=3, h=self.heads)
        return (self.norm.query_norm(q), self.norm.key_norm(k), v), mlp

    def forward(self, x: Tensor, mod: tuple[Tensor, ...], cos: Tensor, sin: Tensor, kept: Kept | None = None) -> Tensor:
        (q, k, v), mlp = self.heads_of(x, mod)
        out = attend(q, k, v, cos, sin, kept)
        return x + mod[2] * self.linear2(torch.cat([out, self.act(mlp)], dim=-1))


class LastLayer(nn.Module):
    def __init__(self, hidden: int, channels: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, channels, bias=bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden, bias=bias))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None, :].chunk(2, dim=-1)
        return self.linear(modulated(x, shift, scale))

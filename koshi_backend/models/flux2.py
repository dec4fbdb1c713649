# SPDX-License-Identifier: GPL-3.0-or-later
"""The FLUX.2 transformer, in its native fused layout (module names are those of black-forest-labs/flux2).

What differs from FLUX.1: one modulation for the whole net and stream kind, no biases, SwiGLU, four rotary axes
(time, row, column, text position), 128-channel packed latents, and no pooled text vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

EPS = 1e-6
TIME_CHANNELS = 256
THETA = 2000.0
# The family embeds times and guidance multiplied by this.
TIME_FACTOR = 1000.0


@dataclass(frozen=True)
class Flux2Config:
    """Everything that fixes the shapes. Defaults are Klein 4B's."""

    hidden: int = 3072
    heads: int = 24
    context: int = 7680
    double_blocks: int = 5
    single_blocks: int = 20
    channels: int = 128
    mlp_ratio: float = 3.0
    guidance: bool = False
    theta: float = THETA

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def mlp(self) -> int:
        return int(self.hidden * self.mlp_ratio)

    @property
    def axes(self) -> tuple[int, int, int, int]:
        quarter = self.head_dim // 4
        return (quarter, quarter, quarter, quarter)


def time_embedding(t: Tensor) -> Tensor:
    """[B] times in 0..1 -> [B, 256], cosines first, computed in float32."""
    half = TIME_CHANNELS // 2
    freqs = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (t.float() * TIME_FACTOR)[:, None] * freqs[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary(ids: Tensor, config: Flux2Config) -> tuple[Tensor, Tensor]:
    """Position ids [L, 4] (fractions allowed) -> cosines and sines, each [L, head_dim / 2], float32.

    Frequencies in float64, as diffusers computes them, so that pictures agree.
    """
    parts = []
    for axis, width in enumerate(config.axes):
        omega = config.theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width)
        parts.append(ids[:, axis].double()[:, None] * omega[None])
    angles = torch.cat(parts, dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn interleaved pairs of x [B, H, L, D] by the rotary angles."""
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class MLPEmbedder(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(channels, hidden, bias=False)
        self.out_layer = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Shift, scale and gate for `sets` branches, from the time vector."""

    def __init__(self, hidden: int, sets: int) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden, 3 * sets * hidden, bias=False)
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


class StreamAttention(nn.Module):
    """Fused query, key and value of one stream; the attention itself spans both streams."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.norm = QKNorm(config.head_dim)
        self.proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.heads = config.heads

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "b l (k h d) -> k b h l d", k=3, h=self.heads)
        return self.norm.query_norm(q), self.norm.key_norm(k), v


def _norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift."""
    return (1 + scale) * F.layer_norm(x, (x.shape[-1],), eps=EPS) + shift


def _attend(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")


def _feed_forward(config: Flux2Config) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.hidden, 2 * config.mlp, bias=False),
        SwiGLU(),
        nn.Linear(config.mlp, config.hidden, bias=False),
    )


class DoubleBlock(nn.Module):
    """Text and picture with weights of their own, attending to each other."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.img_attn = StreamAttention(config)
        self.txt_attn = StreamAttention(config)
        self.img_mlp = _feed_forward(config)
        self.txt_mlp = _feed_forward(config)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        img_mod: tuple[Tensor, ...],
        txt_mod: tuple[Tensor, ...],
        cos: Tensor,
        sin: Tensor,
    ) -> tuple[Tensor, Tensor]:
        length = txt.shape[1]
        tq, tk, tv = self.txt_attn.heads_of(_norm(txt, txt_mod[0], txt_mod[1]))
        iq, ik, iv = self.img_attn.heads_of(_norm(img, img_mod[0], img_mod[1]))
        # Text comes first in the sequence; the rotary tables are laid out the same way.
        out = _attend(torch.cat([tq, iq], 2), torch.cat([tk, ik], 2), torch.cat([tv, iv], 2), cos, sin)
        txt = txt + txt_mod[2] * self.txt_attn.proj(out[:, :length])
        img = img + img_mod[2] * self.img_attn.proj(out[:, length:])
        txt = txt + txt_mod[5] * self.txt_mlp(_norm(txt, txt_mod[3], txt_mod[4]))
        img = img + img_mod[5] * self.img_mlp(_norm(img, img_mod[3], img_mod[4]))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and MLP side by side over the joint sequence."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.hidden, 3 * config.hidden + 2 * config.mlp, bias=False)
        self.linear2 = nn.Linear(config.hidden + config.mlp, config.hidden, bias=False)
        self.norm = QKNorm(config.head_dim)
        self.act = SwiGLU()
        self.split = (3 * config.hidden, 2 * config.mlp)
        self.heads = config.heads

    def forward(self, x: Tensor, mod: tuple[Tensor, ...], cos: Tensor, sin: Tensor) -> Tensor:
        qkv, mlp = self.linear1(_norm(x, mod[0], mod[1])).split(self.split, dim=-1)
        q, k, v = rearrange(qkv, "b l (k h d) -> k b h l d", k=3, h=self.heads)
        out = _attend(self.norm.query_norm(q), self.norm.key_norm(k), v, cos, sin)
        return x + mod[2] * self.linear2(torch.cat([out, self.act(mlp)], dim=-1))


class LastLayer(nn.Module):
    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden, config.channels, bias=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.hidden, 2 * config.hidden, bias=False))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None, :].chunk(2, dim=-1)
        return self.linear(_norm(x, shift, scale))


class Flux2Transformer(nn.Module):
    """Predicts the velocity noise - picture of packed latents."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.config = config
        self.img_in = nn.Linear(config.channels, config.hidden, bias=False)
        self.txt_in = nn.Linear(config.context, config.hidden, bias=False)
        self.time_in = MLPEmbedder(TIME_CHANNELS, config.hidden)
        if config.guidance:
            self.guidance_in = MLPEmbedder(TIME_CHANNELS, config.hidden)
        self.double_stream_modulation_img = Modulation(config.hidden, sets=2)
        self.double_stream_modulation_txt = Modulation(config.hidden, sets=2)
        self.single_stream_modulation = Modulation(config.hidden, sets=1)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.single_blocks))
        self.final_layer = LastLayer(config)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        t: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        img: packed latents [B, N, 128], references appended after the picture. txt: [B, L, context].
        t: flow times [B]. img_ids [N, 4], txt_ids [L, 4]: positions. guidance [B], where the model embeds it.
        Returns [B, N, 128].
        """
        vec = self.time_in(time_embedding(t).to(img.dtype))
        if self.config.guidance:
            if guidance is None:
                raise ValueError("this model needs a guidance value")
            vec = vec + self.guidance_in(time_embedding(guidance).to(img.dtype))
        cos, sin = rotary(torch.cat([txt_ids, img_ids]), self.config)
        img_mod, txt_mod = self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(vec)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, img_mod, txt_mod, cos, sin)
        x, mod, length = torch.cat([txt, img], 1), self.single_stream_modulation(vec), txt.shape[1]
        for block in self.single_blocks:
            x = block(x, mod, cos, sin)
        return self.final_layer(x[:, length:], vec)


def grid_ids(rows: int, columns: int, time: float = 0.0, device: torch.device | None = None) -> Tensor:
    """Positions [rows * columns, 4] of a picture's tokens in reading order; references have times 10, 20, ..."""
    ids = torch.zeros(rows, columns, 4, device=device)
    ids[..., 0] = time
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)[None, :]
    return ids.reshape(-1, 4)


def text_ids(length: int, device: torch.device | None = None) -> Tensor:
    """Positions [length, 4] of text tokens."""
    ids = torch.zeros(length, 4, device=device)
    ids[:, 3] = torch.arange(length, device=device)
    return ids

# SPDX-License-Identifier: GPL-3.0-or-later
"""The FLUX.2 transformer, in its native fused layout (module names are those of black-forest-labs/flux2).

What differs from FLUX.1: one modulation for the whole net and stream kind, no biases, SwiGLU, four rotary axes
(time, row, column, text position), 128-channel packed latents, and no pooled text vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import (
    TIME_CHANNELS,
    BlockShape,
    DoubleBlock,
    Kept,
    LastLayer,
    MLPEmbedder,
    Modulation,
    SingleBlock,
    rotary,
    time_embedding,
)

THETA = 2000.0


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
        return round(self.hidden * self.mlp_ratio)

    @property
    def axes(self) -> tuple[int, int, int, int]:
        quarter = self.head_dim // 4
        return (quarter, quarter, quarter, quarter)

    @property
    def block(self) -> BlockShape:
        return BlockShape(self.hidden, self.heads, self.mlp, gated=True, bias=False)


class Flux2Transformer(nn.Module):
    """Predicts the velocity noise - picture of packed latents."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.img_in = nn.Linear(config.channels, hidden, bias=False)
        self.txt_in = nn.Linear(config.context, hidden, bias=False)
        self.time_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=False)
        if config.guidance:
            self.guidance_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=False)
        self.double_stream_modulation_img = Modulation(hidden, sets=2, bias=False)
        self.double_stream_modulation_txt = Modulation(hidden, sets=2, bias=False)
        self.single_stream_modulation = Modulation(hidden, sets=1, bias=False)
        self.double_blocks = nn.ModuleList(DoubleBlock(config.block) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(config.block) for _ in range(config.single_blocks))
        self.final_layer = LastLayer(hidden, config.channels, bias=False)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        t: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
        kept: tuple[Sequence[Kept | None], Sequence[Kept | None]] | None = None,
    ) -> Tensor:
        """One evaluation.

        img: packed latents [B, N, 128], references appended after the picture. txt: [B, L, context].
        t: flow times [B]. img_ids [N, 4], txt_ids [L, 4]: positions. guidance [B], where the model embeds it.
        kept: keys and values that the double and the single blocks attend to as well (flux2_cached.py).
        Returns [B, N, 128].
        """
        vec = self.time_in(time_embedding(t).to(img.dtype))
        if self.config.guidance:
            if guidance is None:
                raise ValueError("this model needs a guidance value")
            vec = vec + self.guidance_in(time_embedding(guidance).to(img.dtype))
        cos, sin = rotary(torch.cat([txt_ids, img_ids]), self.config.axes, self.config.theta)
        img_mod, txt_mod = self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(vec)
        img, txt = self.img_in(img), self.txt_in(txt)
        double, single = kept or ([None] * len(self.double_blocks), [None] * len(self.single_blocks))
        for block, seen in zip(self.double_blocks, double, strict=True):
            img, txt = block(img, txt, img_mod, txt_mod, cos, sin, seen)
        x, mod, length = torch.cat([txt, img], 1), self.single_stream_modulation(vec), txt.shape[1]
        for block, seen in zip(self.single_blocks, single, strict=True):
            x = block(x, mod, cos, sin, seen)
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

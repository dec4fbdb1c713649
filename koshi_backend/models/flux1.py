# SPDX-License-Identifier: GPL-3.0-or-later
"""The FLUX.1 transformer, in its native fused layout (module names are those of black-forest-labs/flux).

schnell, dev, Krea-dev and Kontext-dev are one network; only schnell embeds no guidance. Canny-dev, Depth-dev and
Fill-dev take further channels beside the noise and are not built here.
Text comes as a sequence (T5) and as one pooled vector (CLIP), which is added to the time vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import (
    TIME_CHANNELS,
    BlockShape,
    DoubleBlock,
    LastLayer,
    MLPEmbedder,
    Modulation,
    SingleBlock,
    rotary,
    time_embedding,
)

THETA = 10_000.0
CHANNELS = 64  # 2 x 2 of the autoencoder's 16


@dataclass(frozen=True)
class Flux1Config:
    """Everything that fixes the shapes, and the rotary axes, which shapes do not show. Defaults are dev's.

    axes: channels of a head for (picture, row, column); their sum is the head's width.
    """

    hidden: int = 3072
    heads: int = 24
    context: int = 4096
    pooled: int = 768
    double_blocks: int = 19
    single_blocks: int = 38
    channels: int = CHANNELS
    mlp_ratio: float = 4.0
    guidance: bool = True
    axes: tuple[int, int, int] = (16, 56, 56)
    theta: float = THETA

    @property
    def mlp(self) -> int:
        return round(self.hidden * self.mlp_ratio)

    @property
    def block(self) -> BlockShape:
        return BlockShape(self.hidden, self.heads, self.mlp, gated=False, bias=True)


class Flux1DoubleBlock(DoubleBlock):
    """A double block with modulations of its own."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.img_mod = Modulation(shape.hidden, sets=2, bias=True)
        self.txt_mod = Modulation(shape.hidden, sets=2, bias=True)

    def forward(  # type: ignore[override]
        self, img: Tensor, txt: Tensor, vec: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().forward(img, txt, self.img_mod(vec), self.txt_mod(vec), cos, sin)


class Flux1SingleBlock(SingleBlock):
    """A single block with a modulation of its own."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.modulation = Modulation(shape.hidden, sets=1, bias=True)

    def forward(self, x: Tensor, vec: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.modulation(vec), cos, sin)


class Flux1Transformer(nn.Module):
    """Predicts the velocity noise - picture of packed latents."""

    def __init__(self, config: Flux1Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.img_in = nn.Linear(config.channels, hidden)
        self.txt_in = nn.Linear(config.context, hidden)
        self.time_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=True)
        self.vector_in = MLPEmbedder(config.pooled, hidden, bias=True)
        if config.guidance:
            self.guidance_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=True)
        self.double_blocks = nn.ModuleList(Flux1DoubleBlock(config.block) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(Flux1SingleBlock(config.block) for _ in range(config.single_blocks))
        self.final_layer = LastLayer(hidden, config.channels, bias=True)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        pooled: Tensor,
        t: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        img: packed latents [B, N, 64], Kontext's references appended after the picture. txt: T5's states
        [B, L, context]. pooled: CLIP's vector [B, pooled]. t: flow times [B].
        img_ids [N, 3], txt_ids [L, 3]: positions. guidance [B], where the model embeds it (3.5 suits dev).
        Returns [B, N, 64].
        """
        vec = self.time_in(time_embedding(t).to(img.dtype))
        if self.config.guidance:
            if guidance is None:
                raise ValueError("this model needs a guidance value")
            vec = vec + self.guidance_in(time_embedding(guidance).to(img.dtype))
        vec = vec + self.vector_in(pooled)
        cos, sin = rotary(torch.cat([txt_ids, img_ids]), self.config.axes, self.config.theta)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, cos, sin)
        x, length = torch.cat([txt, img], 1), txt.shape[1]
        for block in self.single_blocks:
            x = block(x, vec, cos, sin)
        return self.final_layer(x[:, length:], vec)


def grid_ids(rows: int, columns: int, picture: float = 0.0, device: torch.device | None = None) -> Tensor:
    """Positions [rows * columns, 3] of a picture's tokens in reading order; Kontext's reference is picture 1.

    rows, columns: of packed latents, so a sixteenth of the picture's sides.
    """
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 0] = picture
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)[None, :]
    return ids.reshape(-1, 3)


def text_ids(length: int, device: torch.device | None = None) -> Tensor:
    """Positions [length, 3] of text tokens: all at the origin, for T5 has told them apart already."""
    return torch.zeros(length, 3, device=device)

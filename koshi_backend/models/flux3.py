# SPDX-License-Identifier: GPL-3.0-or-later
"""The FLUX.3 Image Klein transformer, with the module names of its native files.

Text, picture and references first pass blocks of their own, in which each attends to itself alone, then joint blocks.
Only the picture is modulated by the flow time; text and references are told time 0. The distilled model is a flow map:
it is also told the time that the step leads to, and all three streams are modulated by that.
Facts and names: diffusers 0.42.1, transformer_flux3.py and single_file_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from .layers import (
    TIME_CHANNELS,
    BlockShape,
    LastLayer,
    MLPEmbedder,
    Modulation,
    QKNorm,
    SwiGLU,
    attend,
    modulated,
    rotary,
    time_embedding,
)

THETA = 10_000.0
GRID_SCALE = 0.5  # rows and columns are counted in halves
# The streams that are pictures have a dictionary of their own.
_PICTURES = ("image", "image_cond")
_STREAMS = (*_PICTURES, "txt")


@dataclass(frozen=True)
class Flux3Config:
    """Everything that fixes the shapes. own_blocks: of each stream. flow_map: whether it is the distilled model."""

    hidden: int = 3072
    heads: int = 24
    context: int = 20480
    own_blocks: int = 5
    single_blocks: int = 28
    channels: int = 128
    mlp_ratio: float = 3.0
    flow_map: bool = True
    theta: float = THETA

    @property
    def axes(self) -> tuple[int, int, int, int]:
        quarter = self.hidden // self.heads // 4
        return (quarter, quarter, quarter, quarter)

    @property
    def block(self) -> BlockShape:
        return BlockShape(self.hidden, self.heads, round(self.hidden * self.mlp_ratio), gated=True, bias=False)


@dataclass
class Still:
    """Text or references, which stay the same from step to step.

    tokens: [B, L, channels]. ids: positions [L, 4]. settled: the tokens after their own blocks, put here by the first
    evaluation of a base model, where they depend on no time, and taken from here by the following ones.
    """

    tokens: Tensor
    ids: Tensor
    settled: Tensor | None = None


class ParallelBlock(nn.Module):
    """Attention and MLP side by side, from the same modulated input: a stream's own block, and a joint one."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=shape.bias)
        self.k_proj = nn.Linear(shape.hidden, shape.hidden, bias=shape.bias)
        self.v_proj = nn.Linear(shape.hidden, shape.hidden, bias=shape.bias)
        self.norm = QKNorm(shape.head_dim)
        self.attn_out = nn.Linear(shape.hidden, shape.hidden, bias=shape.bias)
        self.mlp_in = nn.Linear(shape.hidden, shape.mlp_in, bias=shape.bias)
        self.act = SwiGLU()
        self.mlp_out = nn.Linear(shape.mlp, shape.hidden, bias=shape.bias)
        self.heads = shape.heads

    def forward(self, x: Tensor, mod: Sequence[Tensor], cos: Tensor, sin: Tensor) -> Tensor:
        inner = modulated(x, mod[0], mod[1])
        # Queries and keys stay in float32 from their norm until they are turned, as in Black Forest Labs' own code.
        q = self.norm.query_norm(self._heads(self.q_proj(inner)).float())
        k = self.norm.key_norm(self._heads(self.k_proj(inner)).float())
        out = attend(q, k, self._heads(self.v_proj(inner)), cos, sin)
        return x + mod[2] * (self.attn_out(out) + self.mlp_out(self.act(self.mlp_in(inner))))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (h d) -> b h l d", h=self.heads)


class Flux3Transformer(nn.Module):
    """Predicts the velocity noise - picture of packed latents; a flow map, its mean on the way to the next time."""

    FLOAT32 = (".query_norm.scale", ".key_norm.scale")  # as diffusers' _keep_in_fp32_modules

    def __init__(self, config: Flux3Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(ParallelBlock(config.block) for _ in range(count))

        def modulations() -> nn.ModuleDict:
            return nn.ModuleDict({stream: Modulation(hidden, sets=1, bias=False) for stream in _STREAMS})

        self.emb_in = nn.ModuleDict({name: nn.Linear(config.channels, hidden, bias=False) for name in _PICTURES})
        self.txt_in = nn.Linear(config.context, hidden, bias=False)
        self.time_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=False)
        if config.flow_map:
            self.ref_time_in = MLPEmbedder(TIME_CHANNELS, hidden, bias=False)
        self.early_stream_modulations = modulations()
        self.single_stream_modulations = modulations()
        self.content_mode_blocks = nn.ModuleDict({name: blocks(config.own_blocks) for name in _PICTURES})
        self.txt_mode_blocks = blocks(config.own_blocks)
        self.single_blocks = blocks(config.single_blocks)
        self.final_layer = nn.ModuleDict({"image": LastLayer(hidden, config.channels, bias=False)})

    @property
    def img_in(self) -> nn.Linear:
        """The picture's first layer, under the name that it has in the other families."""
        layer = self.emb_in["image"]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(
        self,
        img: Tensor,
        t: Tensor,
        img_ids: Tensor,
        text: Still,
        references: Still | None = None,
        after: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        img: packed latents [B, N, 128]. t: flow times [B]. img_ids: positions [N, 4]. text: channels are `context`.
        references: packed latents of pictures shown, one after the other. after: the times [B] that the step leads to;
        a flow map needs it, other models ignore it. Returns [B, N, 128].
        """
        now, still = self._time(t, img), self._time(torch.zeros_like(t), img)
        if self.config.flow_map:
            if after is None:
                raise ValueError("this model needs the time that the step leads to")
            jump = self.ref_time_in(time_embedding(after).to(img.dtype))
            now, still = now + jump, still + jump
        streams = [("txt", text.ids, still, self._settled("txt", text, still))]
        streams += [("image", img_ids, now, self._own_blocks("image", img, img_ids, now))]
        if references is not None:
            streams += [("image_cond", references.ids, still, self._settled("image_cond", references, still))]
        x = torch.cat([states for *_, states in streams], dim=1)
        mod = self._joint_modulation([(name, vec, states.shape[1]) for name, _, vec, states in streams])
        cos, sin = rotary(torch.cat([ids for _, ids, *_ in streams]), self.config.axes, self.config.theta)
        for block in self.single_blocks:
            x = block(x, mod, cos, sin)
        first = text.tokens.shape[1]
        out: Tensor = self.final_layer["image"](x[:, first : first + img.shape[1]], now)
        return out

    def _time(self, t: Tensor, img: Tensor) -> Tensor:
        vec: Tensor = self.time_in(time_embedding(t).to(img.dtype))
        return vec

    def _settled(self, stream: str, given: Still, vec: Tensor) -> Tensor:
        if given.settled is not None:
            return given.settled
        states = self._own_blocks(stream, given.tokens, given.ids, vec)
        if not self.config.flow_map:
            given.settled = states
        return states

    def _own_blocks(self, stream: str, tokens: Tensor, ids: Tensor, vec: Tensor) -> Tensor:
        """A stream up to where it meets the others."""
        words = stream == "txt"
        x = (self.txt_in if words else self.emb_in[stream])(tokens)
        mod = self.early_stream_modulations[stream](vec)
        cos, sin = rotary(ids, self.config.axes, self.config.theta)
        blocks = self.txt_mode_blocks if words else self.content_mode_blocks[stream]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = block(x, mod, cos, sin)
        return x

    def _joint_modulation(self, streams: Sequence[tuple[str, Tensor, int]]) -> list[Tensor]:
        """Shift, scale and gate of every token [B, L, hidden], from each stream's name, time vector and length."""
        parts = [
            [part.expand(-1, length, -1) for part in self.single_stream_modulations[name](vec)]
            for name, vec, length in streams
        ]
        return [torch.cat(same, dim=1) for same in zip(*parts, strict=True)]


def grid_ids(rows: int, columns: int, reference: int = 0, device: torch.device | None = None) -> Tensor:
    """Positions [rows * columns, 4] of a picture's tokens in reading order.

    reference: 0 for the picture that is made, 1, 2, ... for those that are shown, which stand at -1, -2, ... on the
    axis on which text advances.
    """
    ids = torch.zeros(rows, columns, 4, device=device)
    ids[..., 1] = GRID_SCALE * torch.arange(rows, device=device)[:, None]
    ids[..., 2] = GRID_SCALE * torch.arange(columns, device=device)[None, :]
    ids[..., 3] = -reference
    return ids.reshape(-1, 4)

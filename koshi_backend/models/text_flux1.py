# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.1's text encoding: the last states of T5 for the attention, one pooled vector of CLIP for the modulation.

Prompts go in as they are. Pads are attended to in both networks, as in training (flux/modules/conditioner.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .text_base import (
    PromptEncoder,
    TextSettings,
    TextState,
    Unread,
    check_vocabulary,
    load_tokenizer,
    read_settings,
    tokenize,
    warn_if_cut,
)
from .text_networks import build, prepare, read_config

log = logging.getLogger(__name__)


class Flux1TextEncoder(PromptEncoder):
    """Prompts -> states [B, length, 4096] of T5-XXL and pooled [B, 768] of CLIP-L, on `device` in `dtype`.

    folder: a model in diffusers layout, with text_encoder, text_encoder_2, tokenizer and tokenizer_2.
    length: T5's tokens, 256 for schnell and 512 for the others; koshi.json goes before it.
    weights: where the encoders' weights are, by the folders' names that they would be in; those not named are there.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        length: int = 512,
        weights: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        super().__init__(device, dtype)
        self.length = read_settings(folder, TextSettings(length=length)).length
        self.clip_tokenizer = load_tokenizer(folder / "tokenizer")
        self.t5_tokenizer = load_tokenizer(folder / "tokenizer_2")
        self.clip, clip = _open_clip(folder / "text_encoder", weights, device, dtype)
        self.t5, t5 = _open_t5(folder / "text_encoder_2", weights, dtype)
        self._unread = [clip, t5]
        check_vocabulary(self.clip_tokenizer, folder / "tokenizer", self.clip.config.vocab_size)
        check_vocabulary(self.t5_tokenizer, folder / "tokenizer_2", self.t5.config.vocab_size)

    def _tokens(self, prompt: str) -> list[Tensor]:
        tokens = tokenize(self.t5_tokenizer, prompt, prompt, self.length)
        warn_if_cut(tokens, prompt)
        most = min(self.clip_tokenizer.model_max_length, self.clip.config.max_position_embeddings)  # 77
        short = tokenize(self.clip_tokenizer, prompt, prompt, most)
        if short.cut:  # no warning: FLUX.1 is made for prompts longer than CLIP reads
            log.info("CLIP reads %d tokens; the last %d words reach the model through T5 alone", most, short.lost)
        return [tokens.ids, short.ids]

    def _run(self, given: list[Tensor]) -> TextState:
        long, short = given
        states = self.t5(input_ids=long.to(self.t5.shared.weight.device)).last_hidden_state
        return TextState(states, self.clip(input_ids=short.to(self.clip.device)).pooler_output)


def _open_clip(
    folder: Path, weights: Mapping[str, Path], device: torch.device, dtype: torch.dtype
) -> tuple[Any, Unread]:
    config = read_config(folder, CLIPTextConfig)
    model = build(CLIPTextModel, config, folder)
    unread = prepare(model, weights.get(folder.name, folder), "clip", _plain_clip, dtype)
    for module in model.modules():
        if hasattr(module, "position_ids"):  # counted, in no file
            module.position_ids = torch.arange(config.max_position_embeddings, device=device)[None]
    return model, unread


def _open_t5(folder: Path, weights: Mapping[str, Path], dtype: torch.dtype) -> tuple[Any, Unread]:
    config = read_config(folder, T5Config)
    model = build(T5EncoderModel, config, folder)
    # float16 does not hold what comes out of `wo` (https://github.com/huggingface/transformers/issues/20287).
    path, half = weights.get(folder.name, folder), dtype is torch.float16
    unread = prepare(model, path, "t5", _plain_t5, dtype, lambda name: half and name.endswith(".wo.weight"))

    def fill(device: torch.device) -> None:
        unread.fill(device)
        model.encoder.embed_tokens = model.shared

    return model, unread._replace(fill=fill)


def _plain_clip(name: str) -> str | None:
    """A tensor's name in CLIPTextModel; None for the rest of a whole CLIP."""
    if re.match(r"vision_model\.|visual_projection\.|text_projection\.|logit_scale$", name):
        return None
    name = name.removeprefix("text_model.")
    return None if name == "embeddings.position_ids" else name


def _plain_t5(name: str) -> str | None:
    """A tensor's name in T5EncoderModel, where the embedding has two; None for the decoder of a whole T5."""
    if re.match(r"decoder\.|lm_head\.", name):
        return None
    return "shared.weight" if name == "encoder.embed_tokens.weight" else name

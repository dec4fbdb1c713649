# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3's text encoding: hidden states of Qwen3-VL's language model, stacked.

Its eyes and the layers above the last used one are never read. A prompt is padded to the next multiple of 80 tokens,
so that its state is as long as it needs; the pads are masked here and attended to in the transformer, as in training.
Source: diffusers modular_pipelines/flux3/encoders.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLTextConfig, Qwen3VLTextModel

from .text_base import (
    PromptEncoder,
    TextSettings,
    TextState,
    check_vocabulary,
    load_language_model,
    load_tokenizer,
    read_config,
    read_settings,
    stacked_states,
    tokenize,
    warn_if_cut,
)

PAD_MULTIPLE = 80
DEFAULT = TextSettings(layers=(4, 8, 12, 16, 20, 24, 28, 32), length=8192)
# Where transformers 4.57, with which the transformer was trained, places every pad; later versions place them at 0.
_PAD_POSITION = 1


class QwenVLTextEncoder(PromptEncoder):
    """Prompts -> [B, length, layers * width] on `device` in `dtype`: 8 * 2560 = 20480 channels.

    Prompts that are encoded in one call have to come to the same length.
    folder: a model in diffusers layout, with text_encoder and tokenizer.
    weights: where the encoder's weights are, by the folder's name that they would be in; those not named are there.
    """

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, weights: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.settings = read_settings(folder, DEFAULT)
        self.tokenizer = load_tokenizer(folder / "tokenizer", _chat)
        self.tokenizer.padding_side = "right"  # whatever its file says
        self.model = _load_qwen_vl(folder / "text_encoder", weights, max(self.settings.layers), device, dtype)
        check_vocabulary(self.tokenizer, folder, self.model.embed_tokens.num_embeddings)

    def _encode(self, prompt: str) -> TextState:
        chat = _chat(self.tokenizer, prompt)
        needed = len(self.tokenizer(chat)["input_ids"])
        length = min(-(-needed // PAD_MULTIPLE) * PAD_MULTIPLE, self.settings.length)
        tokens = tokenize(self.tokenizer, chat, prompt, length)
        warn_if_cut(tokens, prompt)
        places = torch.arange(length)[None].masked_fill(tokens.mask == 0, _PAD_POSITION)
        return stacked_states(self.model, tokens, self.settings.layers, places)


def _chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's turn, with the answer begun."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return text


def _load_qwen_vl(
    folder: Path, weights: Mapping[str, Path], layers: int, device: torch.device, dtype: torch.dtype
) -> Any:
    """The first `layers` layers of the language model, without its final norm."""
    config = read_config(folder, Qwen3VLConfig, Qwen3VLTextConfig)
    if isinstance(config, Qwen3VLConfig):
        config = config.text_config
    return load_language_model(
        Qwen3VLTextModel, config, "vision_language", folder, weights, layers, device, dtype, "visual"
    )

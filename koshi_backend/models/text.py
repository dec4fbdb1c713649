# SPDX-License-Identifier: GPL-3.0-or-later
"""Klein's text encoding: hidden states of a Qwen3 language model, stacked.

The states after a few chosen layers are all that is used, so the layers above them are not even loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3Model

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

__all__ = ["TextEncoder", "TextSettings", "TextState", "read_settings"]


class TextEncoder(PromptEncoder):
    """Prompts -> [B, length, layers * width] on `device` in `dtype`. Qwen3-4B gives 7680 channels, Qwen3-8B 12288.

    folder: a model in diffusers layout, with text_encoder and tokenizer.
    weights: where the encoder's weights are, by the folder's name that they would be in; those not named are there.
    """

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, weights: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.settings = read_settings(folder)
        self.tokenizer = load_tokenizer(folder / "tokenizer", _chat)
        self.model = _load_qwen(folder / "text_encoder", weights, max(self.settings.layers), device, dtype)
        check_vocabulary(self.tokenizer, folder, self.model.embed_tokens.num_embeddings)

    def _encode(self, prompt: str) -> TextState:
        tokens = tokenize(self.tokenizer, _chat(self.tokenizer, prompt), prompt, self.settings.length)
        warn_if_cut(tokens, prompt)
        return stacked_states(self.model, tokens, self.settings.layers)


def _chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's turn, with the answer begun and its thinking, empty, done."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return text


def _load_qwen(folder: Path, weights: Mapping[str, Path], layers: int, device: torch.device, dtype: torch.dtype) -> Any:
    """The first `layers` layers, without the final norm that the used states never pass."""
    config = read_config(folder, Qwen3Config)
    return load_language_model(Qwen3Model, config, "language", folder, weights, layers, device, dtype)

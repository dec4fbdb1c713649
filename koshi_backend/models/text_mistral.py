# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.2 dev's text encoding: hidden states of Mistral-Small-3.2, stacked.

The published text encoder is a vision-language model. Only the lower layers of its language model are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import Mistral3Config, MistralConfig, MistralModel

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

# flux2/src/flux2/system_messages.py. The line break belongs to it: the transformer was trained on exactly this.
SYSTEM_MESSAGE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
_DEFAULT = TextSettings(layers=(10, 20, 30), length=512)
_EYES = "vision_tower|multi_modal_projector"


class MistralTextEncoder(PromptEncoder):
    """Prompts -> [B, length, layers * width] on `device` in `dtype`: 3 * 5120 = 15360 channels.

    folder: a model in diffusers layout, with text_encoder and tokenizer.
    weights: where the encoder's weights are, by the folder's name that they would be in; those not named are there.
    """

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, weights: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.settings = read_settings(folder, _DEFAULT)
        self.tokenizer = load_tokenizer(folder / "tokenizer", _chat)
        self.model = _load_mistral(folder / "text_encoder", weights, max(self.settings.layers), device, dtype)
        check_vocabulary(self.tokenizer, folder, self.model.embed_tokens.num_embeddings)

    def _encode(self, prompt: str) -> TextState:
        prompt = prompt.replace("[IMG]", "")  # the mark of a picture, of which there is none
        chat = _chat(self.tokenizer, prompt)
        bos = self.tokenizer.bos_token
        special = bos is None or not chat.startswith(bos)
        tokens = tokenize(self.tokenizer, chat, prompt, self.settings.length, special)
        warn_if_cut(tokens, prompt)
        return stacked_states(self.model, tokens, self.settings.layers)


def _chat(tokenizer: Any, prompt: str) -> str:
    """[SYSTEM_PROMPT]...[/SYSTEM_PROMPT][INST]prompt[/INST], by the tokenizer's own template where it has one.

    Some copies keep the template in the processor's files instead, which a tokenizer does not read.
    """
    if not tokenizer.chat_template:
        return f"{tokenizer.bos_token}[SYSTEM_PROMPT]{SYSTEM_MESSAGE}[/SYSTEM_PROMPT][INST]{prompt}[/INST]"
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("system", SYSTEM_MESSAGE), ("user", prompt))
    ]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
    return text


def _load_mistral(
    folder: Path, weights: Mapping[str, Path], layers: int, device: torch.device, dtype: torch.dtype
) -> Any:
    """The first `layers` layers of the language model, without its final norm."""
    config = read_config(folder, Mistral3Config, MistralConfig)
    if isinstance(config, Mistral3Config):
        config = config.text_config
    return load_language_model(MistralModel, config, "language", folder, weights, layers, device, dtype, _EYES)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Klein's text encoding: hidden states of a Qwen3 language model, stacked.

The states after a few chosen layers are all that is used, so the layers above them are not even loaded.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from .text_base import TextSettings, TextState, read_settings, tokenize, warn_if_cut
from .text_language import LanguageEncoder

__all__ = ["TextEncoder", "TextSettings", "TextState", "read_settings"]


class TextEncoder(LanguageEncoder):
    """Qwen3-4B gives 7680 channels, Qwen3-8B 12288."""

    kind, configs, default = Qwen3Model, (Qwen3Config,), TextSettings()

    @staticmethod
    def chat(tokenizer: Any, prompt: str) -> str:
        """The prompt as a user's turn, with the answer begun and its thinking, empty, done."""
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return text

    def _tokens(self, prompt: str) -> list[Tensor]:
        tokens = tokenize(self.tokenizer, self.chat(self.tokenizer, prompt), prompt, self.settings.length)
        warn_if_cut(tokens, prompt)
        return [tokens.ids, tokens.mask]

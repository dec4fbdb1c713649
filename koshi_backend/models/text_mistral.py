# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.2 dev's text encoding: hidden states of Mistral-Small-3.2, stacked.

The published text encoder is a vision-language model. Only the lower layers of its language model are loaded.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Mistral3Config, MistralConfig, MistralModel

from .text_base import TextSettings, tokenize, warn_if_cut
from .text_language import LanguageEncoder

# flux2/src/flux2/system_messages.py. The line break belongs to it: the transformer was trained on exactly this.
SYSTEM_MESSAGE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)


class MistralTextEncoder(LanguageEncoder):
    """3 * 5120 = 15360 channels."""

    kind, configs, eyes = MistralModel, (Mistral3Config, MistralConfig), "vision_tower|multi_modal_projector"
    default = TextSettings(layers=(10, 20, 30), length=512)

    @staticmethod
    def chat(tokenizer: Any, prompt: str) -> str:
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

    def _tokens(self, prompt: str) -> list[Tensor]:
        prompt = prompt.replace("[IMG]", "")  # the mark of a picture, of which there is none
        chat = self.chat(self.tokenizer, prompt)
        bos = self.tokenizer.bos_token
        special = bos is None or not chat.startswith(bos)
        tokens = tokenize(self.tokenizer, chat, prompt, self.settings.length, special)
        warn_if_cut(tokens, prompt)
        return [tokens.ids, tokens.mask]

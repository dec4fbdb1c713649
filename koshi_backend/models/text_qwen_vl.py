# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3's text encoding: hidden states of Qwen3-VL's language model, stacked.

Its eyes and the layers above the last used one are never read. A prompt is padded to the next multiple of 80 tokens,
so that its state is as long as it needs; the pads are masked here and attended to in the transformer, as in training.
Source: diffusers modular_pipelines/flux3/encoders.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLTextConfig, Qwen3VLTextModel

from .checkpoint import Part
from .text_base import TextSettings, tokenize, warn_if_cut
from .text_language import LanguageEncoder

PAD_MULTIPLE = 80
# Where transformers 4.57, with which the transformer was trained, places every pad; later versions place them at 0.
_PAD_POSITION = 1


class QwenVLTextEncoder(LanguageEncoder):
    """8 * 2560 = 20480 channels. Prompts that are encoded in one call have to come to the same length."""

    kind, configs, eyes = Qwen3VLTextModel, (Qwen3VLConfig, Qwen3VLTextConfig), "visual"
    part: ClassVar[Part] = "vision_language"
    default = TextSettings(layers=(4, 8, 12, 16, 20, 24, 28, 32), length=8192)

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.tokenizer.padding_side = "right"  # whatever its file says

    @staticmethod
    def chat(tokenizer: Any, prompt: str) -> str:
        """The prompt as a user's turn, with the answer begun."""
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return text

    def _tokens(self, prompt: str) -> list[Tensor]:
        chat = self.chat(self.tokenizer, prompt)
        needed = len(self.tokenizer(chat)["input_ids"])
        length = min(-(-needed // PAD_MULTIPLE) * PAD_MULTIPLE, self.settings.length)
        tokens = tokenize(self.tokenizer, chat, prompt, length)
        warn_if_cut(tokens, prompt)
        places = torch.arange(length)[None].masked_fill(tokens.mask == 0, _PAD_POSITION)
        return [tokens.ids, tokens.mask, places]

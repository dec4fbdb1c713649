# SPDX-License-Identifier: GPL-3.0-or-later
"""Small random text encoders of FLUX.1 and FLUX.2 in their own layouts, written by transformers and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from koshi_backend.models.text import TextEncoder
from koshi_backend.models.text_base import PromptEncoder
from koshi_backend.models.text_flux1 import Flux1TextEncoder
from koshi_backend.models.text_mistral import MistralTextEncoder

CPU = torch.device("cpu")
PROMPTS = ["a calm sea at dawn, photo", "", "Zwölf Boxkämpfer, ganz nah"]
LONG = "word " * 200
LAYERS, LENGTH = [1, 2, 4], 60  # of 6 layers
SYSTEM_LENGTH = 190  # the system message alone takes about 170 tokens where a letter is a token

# As published with Mistral-Small-3.2, less its branches for tools and pictures.
MISTRAL_TEMPLATE = (
    "{{- bos_token }}{%- for m in messages %}{%- if m['role'] == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + m['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}{%- else %}{{- '[INST]' }}"
    "{%- for block in m['content'] %}{{- block['text'] }}{%- endfor %}{{- '[/INST]' }}{%- endif %}{%- endfor %}"
)


def written(net: Any, folder: Path, seed: int = 1) -> Any:
    """Weights in which nothing is near zero or one, saved by transformers itself."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            scale = p.shape[1:].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + ("norm" in name and p.ndim == 1))
    net.eval().save_pretrained(folder)
    return net


def byte_vocabulary(first: list[str], last: list[str] | None = None) -> dict[str, int]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: k for k, token in enumerate([*first, *letters, *(last or [])])}


def byte_tokenizer(specials: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A letter is a token, and a few marks are tokens of their own."""
    inner = Tokenizer(BPE(byte_vocabulary(specials), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=specials[2:], **settings)


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8}


def write_settings(folder: Path, length: int = LENGTH) -> None:
    (folder / "koshi.json").write_text(json.dumps({"text_encoder_out_layers": LAYERS, "max_sequence_length": length}))


# --- the folders ------------------------------------------------------------------------------------------------


def make_qwen(folder: Path, tiny: Path) -> Any:
    template = (tiny / "tokenizer" / "chat_template.jinja").read_text(encoding="utf-8")
    marks = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    tokenizer = byte_tokenizer(marks, pad_token=marks[0], eos_token=marks[1], chat_template=template)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = Qwen3Config(**SIZES, num_hidden_layers=6, num_key_value_heads=2, vocab_size=300)
    write_settings(folder)
    return written(Qwen3ForCausalLM(config), folder / "text_encoder")


def make_mistral(folder: Path, side: str = "left", template: str | None = MISTRAL_TEMPLATE) -> Any:
    marks = ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "<pad>"]
    tokenizer = byte_tokenizer(
        marks, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side=side, chat_template=template
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    vision = {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"head_dim": 8, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
    words = {"model_type": "mistral", "num_hidden_layers": 6, "num_key_value_heads": 2, "vocab_size": 300}
    words |= {"sliding_window": None, **SIZES}
    config = Mistral3Config(vision_config=vision, text_config=words, image_token_index=6)
    write_settings(folder, SYSTEM_LENGTH + LENGTH)
    return written(Mistral3ForConditionalGeneration(config), folder / "text_encoder")


def make_flux1(folder: Path) -> tuple[Any, Any]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = byte_vocabulary(letters_with_ends := [c + "</w>" for c in letters], marks)
    assert len(vocabulary) == 2 * len(letters) + 2 and letters_with_ends
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁word", -3.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzABZ,ö"]
    T5TokenizerFast(vocab=pieces, extra_ids=5, model_max_length=512).save_pretrained(folder / "tokenizer_2")
    end = vocabulary["<|endoftext|>"]
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=24, intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=3, hidden_act="quick_gelu", bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=64, d_model=32, d_kv=8, num_heads=4, d_ff=48, num_layers=3, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    return written(clip, folder / "text_encoder"), written(t5, folder / "text_encoder_2", 2)


def encoder(family: str, folder: Path) -> tuple[PromptEncoder, int]:
    if family == "flux1":
        return Flux1TextEncoder(folder, CPU, torch.float32, LENGTH), LENGTH
    made = (TextEncoder if family == "qwen" else MistralTextEncoder)(folder, CPU, torch.float32)
    return made, made.settings.length

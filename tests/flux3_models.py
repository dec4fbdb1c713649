# SPDX-License-Identifier: GPL-3.0-or-later
"""Small random FLUX.3 models in diffusers' layout, and what diffusers makes of their text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    Flux3Transformer2DModel,
)
from diffusers.modular_pipelines.flux3 import encoders
from test_flux1 import randomise
from text_models import LAYERS, SIZES, byte_tokenizer, written
from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from koshi_backend.models.registry import folder_traits

KINDS = ("distilled", "base")
ROWS, COLUMNS, TEXT = 6, 4, 7
CONTEXT = len(LAYERS) * SIZES["hidden_size"]
LONG = "a long word " * 12
# As published with Qwen3-VL, less its branches for tools and pictures.
TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def small_transformer(kind: str, context: int = CONTEXT) -> Flux3Transformer2DModel:
    return randomise(
        Flux3Transformer2DModel(
            num_layers=2, num_single_layers=3, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=context, axes_dims_rope=(8, 8, 8, 8), flow_map=kind == "distilled",
        ),
        1,
    )  # fmt: skip


def make_qwen_vl(folder: Path, side: str = "left") -> Any:
    marks = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    tokenizer = byte_tokenizer(marks, pad_token=marks[0], eos_token=marks[1], chat_template=TEMPLATE, padding_side=side)
    tokenizer.save_pretrained(folder / "tokenizer")
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "out_hidden_size": 32,
    }
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    words: dict[str, Any] = {"num_hidden_layers": 6, "num_key_value_heads": 2, "vocab_size": 300, **SIZES}
    words |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [2, 1, 1]}}
    config = Qwen3VLConfig(text_config=words, vision_config=vision, tie_word_embeddings=True)
    (folder / "koshi.json").write_text(json.dumps({"text_encoder_out_layers": LAYERS, "max_sequence_length": 240}))
    return written(Qwen3VLForConditionalGeneration(config), folder / "text_encoder")


def make_model(folder: Path, kind: str) -> Path:
    make_qwen_vl(folder)
    vae = randomise(AutoencoderKLFlux2(block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=8), 3)
    with torch.no_grad():
        vae.bn.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(4))
        vae.bn.running_var.uniform_(0.7, 1.4, generator=torch.Generator().manual_seed(5))
    vae.save_pretrained(folder / "vae")
    small_transformer(kind).save_pretrained(folder / "transformer")
    return folder


def is_base(folder: Path) -> bool:
    return folder_traits(folder).contrasted


def their_embeds(whole: Any, folder: Path, prompt: str, length: int = 240) -> torch.Tensor:
    """diffusers' own. It reads a processor there, which passes text on to this tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    processor = SimpleNamespace(apply_chat_template=tokenizer.apply_chat_template, tokenizer=tokenizer)
    with torch.no_grad():
        return encoders.Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds(
            whole, processor, prompt, max_sequence_length=length, hidden_states_layers=LAYERS
        )

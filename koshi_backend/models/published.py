# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of the models known by name as they are published, without memory: for `koshi models describe`.

Sizes of the transformers: their families' modules. Of the text encoders: the configurations that their own
repositories publish (Qwen3-4B and -8B, Qwen3-VL-4B, Mistral-Small-3.2-24B, T5 v1.1 XXL, CLIP ViT-L/14). Tests compare
the parameters with the published numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLTextConfig,
    Qwen3VLTextModel,
    T5Config,
    T5EncoderModel,
)

from .autoencoder import Autoencoder, AutoencoderConfig
from .flux1 import Flux1Config, Flux1Transformer
from .flux2 import Flux2Config, Flux2Transformer
from .flux3 import Flux3Config, Flux3Transformer
from .registry import ModelInfo
from .text import TextEncoder
from .text_mistral import MistralTextEncoder
from .text_qwen_vl import QwenVLTextEncoder

_KLEIN_9B = Flux2Config(hidden=4096, heads=32, context=12288, double_blocks=8, single_blocks=24)
_DEV = Flux2Config(hidden=6144, heads=48, context=15360, double_blocks=8, single_blocks=48, guidance=True)
_QWEN: dict[str, Any] = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, "num_attention_heads": 32}
_QWEN_4B = {**_QWEN, "hidden_size": 2560, "intermediate_size": 9728}
_QWEN_8B = {**_QWEN, "hidden_size": 4096, "intermediate_size": 12288}
_MISTRAL: dict[str, Any] = {
    "vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
_T5: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
_CLIP: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "projection_dim": 768,
}  # fmt: skip


def published_networks(info: ModelInfo) -> dict[str, nn.Module]:
    """The parts of a model by the names of their folders, on the meta device; of text encoders the layers in use."""
    with torch.device("meta"):
        return {"transformer": _transformer(info), "vae": Autoencoder(_autoencoder(info)), **_texts(info)}


def _transformer(info: ModelInfo) -> nn.Module:
    traits = info.traits
    if traits.family == "flux1":
        return Flux1Transformer(Flux1Config(guidance=traits.embeds))
    if traits.family == "flux3":
        return Flux3Transformer(Flux3Config(flow_map=not traits.contrasted))
    if traits.embeds:
        return Flux2Transformer(_DEV)
    return Flux2Transformer(_KLEIN_9B if "9b" in info.name else Flux2Config())


def _autoencoder(info: ModelInfo) -> AutoencoderConfig:
    return AutoencoderConfig.flux1() if info.traits.family == "flux1" else AutoencoderConfig()


def _texts(info: ModelInfo) -> dict[str, nn.Module]:
    if info.traits.family == "flux1":
        return {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**_CLIP)),
            "text_encoder_2": T5EncoderModel(T5Config(**_T5)),
        }
    net: Any
    if info.traits.family == "flux3":
        layers = max(QwenVLTextEncoder.default.layers)
        net = Qwen3VLTextModel(Qwen3VLTextConfig(**_QWEN_4B, num_hidden_layers=layers))
    elif info.traits.embeds:
        layers = max(MistralTextEncoder.default.layers)
        net = MistralModel(MistralConfig(**_MISTRAL, num_hidden_layers=layers))
    else:
        layers = max(TextEncoder.default.layers)
        net = Qwen3Model(Qwen3Config(**(_QWEN_8B if "9b" in info.name else _QWEN_4B), num_hidden_layers=layers))
    net.norm = nn.Identity()  # after the layers that are used comes nothing
    return {"text_encoder": net}

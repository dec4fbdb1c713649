# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of a FLUX model a file or folder holds, and which other parts go with them: told by names and shapes.

Standard library only. Each fact has more than one witness, so that a single damaged tensor is found by the loader,
which names it, and does not make a whole part unrecognisable here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .checkpoint import Part, Stored, tensors_of

Family = Literal["flux1", "flux2", "flux3"]
FAMILY_NAMES: dict[Family, str] = {"flux1": "FLUX.1", "flux2": "FLUX.2", "flux3": "FLUX.3"}
# Autoencoder's channels behind a packed latent's: 2 x 2 of them are a token.
CELLS = 4

_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.", "time_guidance_embed.guidance_embedder.")
_FLUX3 = ("early_stream_modulations.", "txt_mode_blocks.", "content_mode_blocks.", "mode_blocks.")
_FLOW_MAP = ("ref_time_in.", "target_timestep_embedder.")
# Names of a language model: newer and older vision-language files, then a language model on its own.
LANGUAGE = re.compile(r"^(model\.language_model|language_model\.model|language_model|model)\.")
# Of other networks that are as wide as Qwen3: Qwen3-VL's eyes, and Gemma 3.
_NO_QWEN = re.compile(r"visual\.|vision|pre_feedforward")
_QWEN_EYES = re.compile(r"(model\.)?visual\.")


@dataclass(frozen=True)
class Contents:
    """What there is. Sizes are sets: what different tensors say, one number unless a tensor is damaged.

    family: of the transformer, None where there is none. guidance: whether it embeds guidance. flow_map: whether it
    embeds the time that a step leads to (FLUX.3, distilled).
    context, pooled: channels it takes of the text's states and, FLUX.1 only, of CLIP's vector; 0 where it is not told.
    latent: channels of an autoencoder's latent, 16 or 32. texts: widths of the text encoders that are there.
    """

    family: Family | None = None
    guidance: bool = False
    flow_map: bool = False
    channels: int = 0
    context: int = 0
    context_name: str = "txt_in.weight"
    pooled: int = 0
    latent: frozenset[int] = frozenset()
    texts: Mapping[Part, frozenset[int]] = field(default_factory=dict)


def family_of(names: Collection[str]) -> tuple[Family, bool] | None:
    """The transformer's family, and whether its names are native ones (else diffusers'). None: it is none of FLUX."""
    native = any(name.startswith(("double_blocks.", "single_blocks.")) for name in names)
    if any(name.startswith(_FLUX3) for name in names):
        return "flux3", native or any(name.startswith("content_mode_blocks.") for name in names)
    if any("stream_modulation" in name for name in names):
        return "flux2", native
    if native and any("_mod.lin." in name or name.startswith("vector_in.") for name in names):
        return "flux1", True
    if any(".norm1_context." in name or name.startswith("time_text_embed.") for name in names):
        return "flux1", False
    return None


def contents(path: Path) -> Contents:
    """What a safetensors file, or a folder of them, holds. Raises KoshiError("bad_model_file") as `tensors_of` does."""
    net = tensors_of(path, "transformer")
    family = family_of(net)
    kinds: tuple[Part, ...] = ("clip", "t5", "language", "vision_language")
    texts = {part: widths for part in kinds if (widths := _text(path, part))}
    latent = _latent(tensors_of(path, "autoencoder"))
    if family is None:
        return Contents(latent=latent, texts=texts)
    picture = "img_in.weight" if family[1] else "x_embedder.weight"
    if family[0] == "flux3":
        picture = "emb_in.image.weight" if family[1] else "x_embedders.image.weight"
    text = "txt_in.weight" if family[1] else "context_embedder.weight"
    vector = "vector_in.in_layer.weight" if family[1] else "time_text_embed.text_embedder.linear_1.weight"
    return Contents(
        family=family[0],
        guidance=any(name.startswith(_GUIDANCE) for name in net),
        flow_map=any(name.startswith(_FLOW_MAP) for name in net),
        channels=_size(net, picture, 1),
        context=_size(net, text, 1),
        context_name=text,
        pooled=_size(net, vector, 1),
        latent=latent,
        texts=texts,
    )


def _latent(tensors: Mapping[str, Stored]) -> frozenset[int]:
    """Empty unless both halves are there."""
    if not all(any(name.startswith(half) for name in tensors) for half in ("encoder.down", "decoder.up")):
        return frozenset()
    told = {_size(tensors, "decoder.conv_in.weight", 1), _size(tensors, "encoder.conv_out.weight", 0) // 2}
    return frozenset(told - {0})


def _text(path: Path, part: Part) -> frozenset[int]:
    tensors = tensors_of(path, part)
    if part == "clip":
        plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        witnesses = (("embeddings.token_embedding.weight", 1), ("final_layer_norm.weight", 0))
    elif part == "t5":
        plain = dict(tensors)
        witnesses = (("shared.weight", 1), ("encoder.final_layer_norm.weight", 0))
        if not any(".SelfAttention." in name for name in plain):
            return frozenset()
    else:
        plain = {LANGUAGE.sub("", name): tensor for name, tensor in tensors.items()}
        witnesses = (("embed_tokens.weight", 1), ("layers.0.input_layernorm.weight", 0))
        qwen, eyes = any(".q_norm." in name for name in plain), any(_QWEN_EYES.match(name) for name in tensors)
        if part == "vision_language" and not (qwen and eyes):
            return frozenset()
        if part == "language" and qwen and any(_NO_QWEN.search(name) for name in plain):
            return frozenset()
    return frozenset({_size(plain, name, axis) for name, axis in witnesses} - {0})


def _size(tensors: Mapping[str, Stored], name: str, axis: int) -> int:
    """0 where it is not told."""
    shape = tensors[name].shape if name in tensors else ()
    return shape[axis] if len(shape) > axis else 0

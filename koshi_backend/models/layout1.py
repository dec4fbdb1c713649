# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each native tensor of a FLUX.1 transformer is found in a diffusers folder.

Keys are native names without their last part; weight and bias go the same way, and a norm's scale is a weight there.
"""

from __future__ import annotations

from .layout import Source

_FIXED = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}


def flux1_transformer_source(name: str) -> Source:
    """The diffusers tensors behind a native FLUX.1 transformer tensor."""
    stem, kind = name.rsplit(".", 1)
    kind = "weight" if kind == "scale" else kind
    if stem == "final_layer.adaLN_modulation.1":
        return Source((f"norm_out.linear.{kind}",), "halves")  # native: shift | scale, diffusers: scale | shift
    if stem in _FIXED:
        return Source((f"{_FIXED[stem]}.{kind}",))
    place, block, rest = stem.split(".", 2)
    blocks, parts = ("", _DOUBLE[rest]) if place == "double_blocks" else ("single_", _SINGLE[rest])
    return Source(tuple(f"{blocks}transformer_blocks.{block}.{part}.{kind}" for part in parts))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each native tensor is found in a diffusers folder: names, concatenations and reshapes.

The native name is the key. Everything is a copy of rows, so the conversion is exact to the bit.
Here are FLUX.2's transformer and all families' autoencoders; layout1.py and layout3.py have the other transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, cat


@dataclass(frozen=True)
class Source:
    """The tensors to read, joined along dimension 0, and what is done to the result.

    halves: the two halves of dimension 0 change places (scale and shift of the last layer).
    conv: a linear weight becomes a 1 x 1 convolution.
    """

    names: tuple[str, ...]
    change: Literal["", "halves", "conv"] = ""

    def join(self, parts: list[Tensor]) -> Tensor:
        whole = parts[0] if len(parts) == 1 else cat(parts)
        if self.change == "halves":
            first, second = whole.chunk(2)
            return cat([second, first])
        if self.change == "conv" and whole.ndim == 2:
            return whole[:, :, None, None]
        return whole

    def shape(self, parts: list[tuple[int, ...]]) -> tuple[int, ...] | None:
        """The shape `join` gives; None where the parts cannot be joined."""
        first, *rest = parts
        if rest and (not first or any(not part or part[1:] != first[1:] for part in rest)):
            return None
        whole = (sum(part[0] for part in parts), *first[1:]) if rest else first
        return (*whole, 1, 1) if self.change == "conv" and len(whole) == 2 else whole


_TRANSFORMER_FIXED = {
    "img_in.weight": "x_embedder.weight",
    "txt_in.weight": "context_embedder.weight",
    "time_in.in_layer.weight": "time_guidance_embed.timestep_embedder.linear_1.weight",
    "time_in.out_layer.weight": "time_guidance_embed.timestep_embedder.linear_2.weight",
    "guidance_in.in_layer.weight": "time_guidance_embed.guidance_embedder.linear_1.weight",
    "guidance_in.out_layer.weight": "time_guidance_embed.guidance_embedder.linear_2.weight",
    "final_layer.linear.weight": "proj_out.weight",
}
_DOUBLE = {
    "img_attn.qkv.weight": ("attn.to_q.weight", "attn.to_k.weight", "attn.to_v.weight"),
    "txt_attn.qkv.weight": ("attn.add_q_proj.weight", "attn.add_k_proj.weight", "attn.add_v_proj.weight"),
    "img_attn.proj.weight": ("attn.to_out.0.weight",),
    "txt_attn.proj.weight": ("attn.to_add_out.weight",),
    "img_attn.norm.query_norm.scale": ("attn.norm_q.weight",),
    "img_attn.norm.key_norm.scale": ("attn.norm_k.weight",),
    "txt_attn.norm.query_norm.scale": ("attn.norm_added_q.weight",),
    "txt_attn.norm.key_norm.scale": ("attn.norm_added_k.weight",),
    "img_mlp.0.weight": ("ff.linear_in.weight",),
    "img_mlp.2.weight": ("ff.linear_out.weight",),
    "txt_mlp.0.weight": ("ff_context.linear_in.weight",),
    "txt_mlp.2.weight": ("ff_context.linear_out.weight",),
}
_SINGLE = {
    "linear1.weight": "attn.to_qkv_mlp_proj.weight",
    "linear2.weight": "attn.to_out.weight",
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
}


def transformer_source(name: str) -> Source:
    """The diffusers tensors behind a native FLUX.2 transformer tensor."""
    if name == "final_layer.adaLN_modulation.1.weight":
        return Source(("norm_out.linear.weight",), "halves")  # native: shift | scale, diffusers: scale | shift
    if name in _TRANSFORMER_FIXED:
        return Source((_TRANSFORMER_FIXED[name],))
    if "_modulation" in name:
        return Source((name.replace(".lin.", ".linear."),))
    kind, block, rest = name.split(".", 2)
    if kind == "double_blocks":
        return Source(tuple(f"transformer_blocks.{block}.{part}" for part in _DOUBLE[rest]))
    return Source((f"single_transformer_blocks.{block}.{_SINGLE[rest]}",))


def autoencoder_source(name: str, levels: int) -> Source:
    """The diffusers tensor behind a native autoencoder tensor. levels: resolutions, 4 in FLUX.1 and FLUX.2."""
    if name.startswith("bn."):
        return Source((name,))
    if ".quant_conv." in name or ".post_quant_conv." in name:
        return Source((name.split(".", 1)[1],))
    name = name.replace(".norm_out.", ".conv_norm_out.")
    name = re.sub(r"\.mid\.block_([12])\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    if ".mid.attn_1." in name:
        name = name.replace(".mid.attn_1.", ".mid_block.attentions.0.").replace(".norm.", ".group_norm.")
        name = name.replace(".proj_out.", ".to_out.0.")
        name = re.sub(r"\.([qkv])\.(weight|bias)$", r".to_\1.\2", name)
        return Source((name,), "conv" if name.endswith("weight") and "group_norm" not in name else "")
    name = re.sub(r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets.", name)
    name = re.sub(r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0.", name)
    # Native counts decoder levels from the finest, diffusers from the coarsest.
    name = re.sub(r"\.up\.(\d+)\.block\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets.", name)
    name = re.sub(r"\.up\.(\d+)\.upsample\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.", name)
    return Source((name.replace(".nin_shortcut.", ".conv_shortcut."),))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each native tensor of a FLUX.3 transformer is found in a diffusers folder.

Both keep queries, keys and values apart, so that all is renaming, but for the last layer's halves.
Source: diffusers single_file_utils.py, convert_flux3_transformer_checkpoint_to_diffusers.
"""

from __future__ import annotations

from .layout import Source

# Heads that were used in training only. Native files may still hold them.
TRAINING_ONLY = "repa_projectors."

_FIXED = {
    "txt_in": "context_embedder",
    "time_in.in_layer": "timestep_embedder.linear_1",
    "time_in.out_layer": "timestep_embedder.linear_2",
    "ref_time_in.in_layer": "target_timestep_embedder.linear_1",
    "ref_time_in.out_layer": "target_timestep_embedder.linear_2",
    "final_layer.image.linear": "proj_out",
}
_PLACES = {
    "emb_in.": "x_embedders.",
    "content_mode_blocks.": "mode_blocks.",
    "single_blocks.": "single_transformer_blocks.",
}
_BLOCK = {
    "q_proj": "attn.to_q",
    "k_proj": "attn.to_k",
    "v_proj": "attn.to_v",
    "attn_out": "attn.to_out.0",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "mlp_in": "ff.linear_in",
    "mlp_out": "ff.linear_out",
    "lin": "linear",  # of a modulation
}


def flux3_transformer_source(name: str) -> Source:
    """The diffusers tensor behind a native FLUX.3 transformer tensor."""
    stem = name.rsplit(".", 1)[0]  # weight, or scale of a norm, which is a weight there
    if stem == "final_layer.image.adaLN_modulation.1":
        return Source(("norm_out.linear.weight",), "halves")  # native: shift | scale, diffusers: scale | shift
    if stem in _FIXED:
        return Source((f"{_FIXED[stem]}.weight",))
    for native, theirs in _PLACES.items():
        if stem.startswith(native):
            stem = theirs + stem.removeprefix(native)
    for native, theirs in _BLOCK.items():
        if stem.endswith(f".{native}"):
            return Source((f"{stem.removesuffix(native)}{theirs}.weight",))
    return Source((f"{stem}.weight",))

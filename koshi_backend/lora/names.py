# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names in a LoRA's file mean: which module of the network each tensor changes, and as what.

Trainers write the same module in many ways. All are brought to one: prefixes go, and dots become underscores, as
kohya's trainers write them; no two modules of a network look alike then.

    transformer.transformer_blocks.0.attn.to_q.lora_A.weight      diffusers, peft (also base_model.model. before it)
    diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight    Black Forest Labs' names, ai-toolkit
    lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight       kohya, musubi, with .alpha beside it
    lycoris_transformer_blocks_0_attn_to_q.lokr_w1                LyCORIS
    double_blocks.0.processor.qkv_lora1.down.weight               XLabs

Standard library only: a shot is checked without loading torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..models.checkpoint_contents import FAMILY_NAMES, Family

_PREFIX = re.compile(
    r"base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_|lora_transformer_|lycoris_"
)
# Of text encoders, under the names of diffusers, kohya, ComfyUI and OneTrainer.
_TEXT = re.compile(
    r"(base_model\.model\.)?(lora_te\d*_|lycoris_te\d*_|text_encoders?(_\d+)?\.|te\d*\.|clip_[lg]\.|t5\w*\.)"
)
_LOW_RANK = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_down|lora_up|lora_mid|lora\.down|lora\.up|lora_linear_layer\.down|"
    r"lora_linear_layer\.up)(\.(?!weight$|bias$)\w+)?\.(?P<kind>weight|bias)"
)
_OTHER = re.compile(
    r"(?P<module>.+?)\.(?P<part>alpha|diff_b|diff|dora_scale|lora_magnitude_vector|lokr_(?:w[12](?:_[ab])?|t[12])|"
    r"hada_\w+|oft_\w+|w_norm|b_norm)(\.\w+)*"
)
_XLABS = re.compile(
    r"(?P<block>(double|single)_blocks\.\d+)\.processor\.(?P<what>qkv|proj)_lora(?P<stream>[12]?)\."
    r"(?P<part>down|up)\.weight"
)
_XLABS_MODULES = {
    ("qkv", "1"): "img_attn.qkv", ("proj", "1"): "img_attn.proj",
    ("qkv", "2"): "txt_attn.qkv", ("proj", "2"): "txt_attn.proj",
    ("qkv", ""): "linear1.qkv", ("proj", ""): "linear2",  # in a single block the first rows of linear1 are qkv
}  # fmt: skip
_DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down")
_UP = ("lora_B", "lora_up", "lora.up", "lora_linear_layer.up")


@dataclass
class Names:
    """The tensors of a file, by what they are.

    modules: by the module's one spelling, its parts ("down", "up", "up_bias", "alpha", "lokr_w1", ...) and the name
        that each has in the file. text: those of text encoders. unknown: those that nothing is known of.
    """

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def sort_names(names: Iterable[str]) -> Names:
    """What each of a file's tensors is. A part that a module has twice, under two spellings, is unknown."""
    found = Names()
    for name in names:
        if _TEXT.match(name):
            found.text.append(name)
            continue
        place = _place(name)
        if place is None or place[1] in found.modules.get(place[0], {}):
            found.unknown.append(name)
            continue
        found.modules.setdefault(place[0], {})[place[1]] = name
    return found


def one_spelling(module: str) -> str:
    """A module's name as the same for all trainers."""
    while match := _PREFIX.match(module):
        module = module[match.end() :]
    return re.sub(r"^sformer_blocks_", "transformer_blocks_", module.replace(".", "_"))


def _place(name: str) -> tuple[str, str] | None:
    """A tensor's module, and which of its parts it is."""
    bare = name
    while match := _PREFIX.match(bare):
        bare = bare[match.end() :]
    if (match := _XLABS.fullmatch(bare)) and (match["what"], match["stream"]) in _XLABS_MODULES:
        inner = _XLABS_MODULES[match["what"], match["stream"]]
        if match["block"].startswith("single") == (match["stream"] == ""):
            return one_spelling(f"{match['block']}.{inner}"), match["part"]
        return None
    if match := _LOW_RANK.fullmatch(name):
        part = "down" if match["part"] in _DOWN else "up" if match["part"] in _UP else "mid"
        return one_spelling(match["module"]), part if match["kind"] == "weight" else f"{part}_bias"
    if match := _OTHER.fullmatch(name):
        return one_spelling(match["module"]), match["part"]
    return None


def dotted(stored: str) -> str:
    """The module of a tensor under the name that it has in diffusers' files and peft's, whose settings name it so."""
    match = _LOW_RANK.fullmatch(stored) or _OTHER.fullmatch(stored)
    module = match["module"] if match else stored
    while prefix := _PREFIX.match(module):
        module = module[prefix.end() :]
    return module


def size_of(parts: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Rows and columns of the weight that a module's tensors change; None if they do not tell."""
    shape = {part: shapes[name] for part, name in parts.items()}
    if "down" in shape and "up" in shape and shape["down"] and shape["up"]:
        return shape["up"][0], math.prod(shape["down"][1:])
    if "diff" in shape and len(shape["diff"]) >= 2:
        return shape["diff"][0], math.prod(shape["diff"][1:])
    sides = []
    for factor in ("lokr_w1", "lokr_w2"):
        whole, a, b = (shape.get(factor + end, ()) for end in ("", "_a", "_b"))
        if len(whole) == 2:
            sides.append((whole[0], whole[1]))
        elif len(a) == len(b) == 2:
            sides.append((a[0], b[1]))
    return (sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]) if len(sides) == 2 else None


# Modules that only one family's networks have, in either layout. FLUX.2 has 8 double blocks at most, FLUX.1 38 single.
_FLUX: dict[Family, re.Pattern[str]] = {
    "flux3": re.compile(
        r"(content_|txt_)?mode_blocks_|(early|single)_stream_modulations_|emb_in_|x_embedders_|ref_time_in_|"
        r"target_timestep_|timestep_embedder_|single_blocks_\d+_([qkv]_proj|attn_out|mlp_in|mlp_out)$|"
        r"single_transformer_blocks_\d+_(attn_to_out_0|ff_linear_)"
    ),
    "flux1": re.compile(
        r"double_blocks_\d+_(img|txt)_mod_lin$|single_blocks_\d+_modulation_lin$|vector_in_|time_text_embed_|"
        r"transformer_blocks_\d+_(norm1(_context)?_linear$|ff(_context)?_net_)|(double|transformer)_blocks_(8|9|1\d)_|"
        r"single_transformer_blocks_\d+_(proj_mlp|proj_out|norm_linear)$|single_blocks_\d+_linear1_qkv$"
    ),
    "flux2": re.compile(
        r"(double|single)_stream_modulation(_img|_txt)?_lin|time_guidance_embed_|single_(transformer_)?blocks_(3[89]|4\d)_|"
        r"transformer_blocks_\d+_ff(_context)?_linear_|single_transformer_blocks_\d+_attn_(to_qkv_mlp_proj|to_out)$|"
        r"transformer_blocks_\d+_attn_to_(added_)?qkv$"
    ),
}  # fmt: skip
# And where both have the module, but at another ratio of rows to columns: FLUX.1's MLP has no gate and is wider.
_RATIOS: list[tuple[re.Pattern[str], dict[float, Family]]] = [
    (re.compile(r"single_blocks_\d+_linear1$"), {7.0: "flux1", 9.0: "flux2"}),
    (re.compile(r"single_blocks_\d+_linear2$"), {1 / 5: "flux1", 1 / 4: "flux2"}),
    (re.compile(r"double_blocks_\d+_(img|txt)_mlp_0$"), {4.0: "flux1", 6.0: "flux2"}),
    (re.compile(r"double_blocks_\d+_(img|txt)_mlp_2$"), {1 / 4: "flux1", 1 / 3: "flux2"}),
]
_OTHERS = {
    "Stable Diffusion": re.compile(
        r"(unet_)?(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_"
    ),
    "Stable Diffusion 3": re.compile(r"joint_blocks_"),
    "Wan": re.compile(r"blocks_\d+_(self|cross)_attn_"),
    "Qwen-Image": re.compile(r"transformer_blocks_\d+_(img|txt)_(mod_1|mlp_net)"),
    "Z-Image": re.compile(r"(layers|noise_refiner|context_refiner)_\d+_(attention|feed_forward)_"),
    "LTX-Video": re.compile(r"transformer_blocks_\d+_attn[12]_"),
    "HunyuanVideo": re.compile(r"(double|single)_blocks_\d+_\w*(mod_linear|mlp_fc[12])$"),
    "a family with more than 19 double blocks": re.compile(r"(double|transformer)_blocks_(19|[2-9]\d)_"),
}
_TOLD = re.compile(r"flux[ ._-]?([123])(?!\d)", re.IGNORECASE)


def told_family(
    names: Names, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[Family | None, str]:
    """Which family a LoRA is for, if it is one of FLUX, and its name; (None, "") where nothing tells.

    By modules that only one family has, then by the shapes of those that several have, then by what the trainer noted
    (kohya, musubi and ai-toolkit do). A few layers of FLUX.1 and of Klein 4B are alike in all of that.
    """
    for title, pattern in _OTHERS.items():
        if any(pattern.match(module) for module in names.modules):
            return None, title
    for family, pattern in _FLUX.items():
        if any(pattern.match(module) for module in names.modules):
            return family, FAMILY_NAMES[family]
    for module, parts in names.modules.items():
        size = size_of(parts, shapes)
        for pattern, ratios in _RATIOS:
            if size and size[1] and pattern.match(module) and size[0] / size[1] in ratios:
                family = ratios[size[0] / size[1]]
                return family, FAMILY_NAMES[family]
    for key in ("modelspec.architecture", "ss_base_model_version"):
        if told := _TOLD.search(str(metadata.get(key, ""))):
            families: dict[str, Family] = {"1": "flux1", "2": "flux2", "3": "flux3"}
            family = families[told[1]]
            return family, FAMILY_NAMES[family]
    return None, ""

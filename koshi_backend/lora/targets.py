# SPDX-License-Identifier: GPL-3.0-or-later
"""A network's linear layers under every name that a LoRA may give them.

The tables of both layouts (models/layout*.py) say which rows of a native layer are a layer of its own in diffusers.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from ..models.configurations import Finder
from ..models.flux1 import Flux1Transformer
from ..models.flux2 import Flux2Transformer
from ..models.flux3 import Flux3Transformer
from ..models.layout import transformer_source
from ..models.layout1 import flux1_transformer_source
from ..models.layout3 import flux3_transformer_source
from .names import one_spelling

Transformer = Flux1Transformer | Flux2Transformer | Flux3Transformer
SOURCES: dict[type[nn.Module], Finder] = {
    Flux1Transformer: flux1_transformer_source,
    Flux2Transformer: transformer_source,
    Flux3Transformer: flux3_transformer_source,
}
_FUSED = {"img_attn.qkv": "attn.to_qkv", "txt_attn.qkv": "attn.to_added_qkv"}  # diffusers' fused projections


class Target(NamedTuple):
    """A layer, and which rows of its output are meant. swapped: whether their halves have changed places there."""

    layer: nn.Module
    start: int
    stop: int
    columns: int
    swapped: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.stop - self.start, self.columns


def targets(net: Transformer) -> dict[str, Target]:
    """By `one_spelling` of every name."""
    source, hidden = SOURCES[type(net)], net.config.hidden
    found: dict[str, Target] = {}
    for name, layer in net.named_modules():
        # A quantised layer has these too, whatever its class is.
        rows, columns = getattr(layer, "out_features", None), getattr(layer, "in_features", None)
        if not isinstance(rows, int) or not isinstance(columns, int):
            continue
        whole = Target(layer, 0, rows, columns)
        found[one_spelling(name)] = whole
        origin = source(f"{name}.weight")
        theirs = [one_spelling(part.removesuffix(".weight")) for part in origin.names]
        if len(theirs) == 1:
            found[theirs[0]] = whole._replace(swapped=origin.change == "halves")
            continue
        ends = [*(hidden * k for k in range(1, len(theirs))), rows]  # all but the last are as wide as the network
        for k, (spelling, stop) in enumerate(zip(theirs, ends, strict=True)):
            found[spelling] = Target(layer, hidden * k, stop, columns)
        block, _, inner = name.removeprefix("double_blocks.").partition(".")
        if inner in _FUSED:
            found[one_spelling(f"transformer_blocks.{block}.{_FUSED[inner]}")] = whole
        elif len(theirs) == 4:
            found[one_spelling(f"{name}.qkv")] = Target(layer, 0, 3 * hidden, columns)  # XLabs
    return found

# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a model has to be on the device, and which policy of offloading follows from what is free."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from ..errors import KoshiError
from .autoencoder import Autoencoder, AutoencoderConfig
from .loader import Opened, OpenedTransformer
from .quantise import Quantise, is_quantised_on_load
from .shortage import limit_card, memory, size_text
from .text_base import PromptEncoder

log = logging.getLogger(__name__)

Offload = Literal["none", "model", "block"]
Wanted = Literal["auto", "none", "model", "block"]

# Of a card, what torch and its libraries take beside tensors.
CONTEXT = 600_000_000
# Between the weights: numbers of each token at the widest place of a block, in widths of the network; maps of the
# second level's width that decoding has at once at full size (2.5 GB for 1024 x 1024 in two bytes). From the shapes.
_WIDTHS, _MAPS, _WORDS, CELL = 40, 4.7, 512, 16
_CODES = {"fp8": 1.0, "int8": 1.0, "nf4": 0.5625}


@dataclass(frozen=True)
class Need:
    """Bytes of a model on the device: the transformer, all text networks but for their tables, the autoencoder, and
    what a picture takes in between."""

    transformer: int
    texts: int
    autoencoder: int
    work: int

    @property
    def whole(self) -> int:
        """With everything on the device."""
        return self.transformer + self.texts + self.autoencoder + self.work

    @property
    def in_turn(self) -> int:
        """With the networks taking turns."""
        return max(self.transformer, self.texts) + self.autoencoder + self.work


Choice = Callable[[Need], Offload]


def pick_offload(wanted: str | None = None) -> Wanted:
    """The policy asked for (argument, else KOSHI_OFFLOAD), else auto. Raises KoshiError("bad_value")."""
    name = wanted or os.environ.get("KOSHI_OFFLOAD") or "auto"
    for known in get_args(Wanted):
        if name == known:
            return known
    raise KoshiError("bad_value", f"offload is {name!r}.", "Use auto, none, model or block.")


def pick_vram(wanted: float | None = None) -> float | None:
    """GB (10^9 bytes) of the card that may be used (argument, else KOSHI_VRAM); None: all that is free.

    Raises KoshiError("bad_value") for less than 1.
    """
    text = os.environ.get("KOSHI_VRAM") or None if wanted is None else str(wanted)
    if text is None:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 1.0 <= limit < 1e6:
        raise KoshiError("bad_value", f"vram is {text}.", "Say how many GB of the card may be used, 1 or more.")
    return limit


def budget(device: torch.device, vram: float | None) -> int | None:
    """Bytes that a model may take, None if nobody knows. On a card, this process is held to `vram` GB from now on."""
    limit = None if vram is None else int(vram * 1e9)
    if device.type == "cuda":
        limit_card(device, None if limit is None else limit - CONTEXT)
        return memory(device)[0]
    free = memory(device)[0]
    return limit if free is None else free if limit is None else min(free, limit)


def choose(wanted: Wanted, need: Need, free: int | None) -> Offload:
    """The policy: the one asked for, else the first under which the model fits into what is free."""
    if wanted != "auto":
        return wanted
    if free is None:
        return "none"
    policy: Offload = "none" if need.whole <= free else "model" if need.in_turn <= free else "block"
    sizes = f"{size_text(need.whole)} for all of it, {size_text(need.in_turn)} in turn"
    log.info("offload %s: %s are free, and needed are %s", policy, size_text(free), sizes)
    return policy


def need_of(
    transformer: OpenedTransformer,
    autoencoder: Opened[Autoencoder],
    text: PromptEncoder,
    dtype: torch.dtype,
    side: int,
    quantise: Quantise = "none",
) -> Need:
    """What a model needs that has been opened. Computed from names and shapes: nothing has been read.

    side: in pixels, of the pictures that there has to be room for, with one reference.
    """
    layers = [layer for net in text.networks for layer in net.modules()]
    tables = sum(_dense(layer, dtype) for layer in layers if isinstance(layer, nn.Embedding))
    texts = sum(_dense(net, dtype) for net in text.networks) - tables
    pictures = _dense(autoencoder.net, dtype)
    work = work_of(transformer.net.config.hidden, autoencoder.net.config, side, dtype)
    return Need(_stored(transformer, dtype, quantise), texts, pictures, work)


def work_of(hidden: int, pictures: AutoencoderConfig, side: int, dtype: torch.dtype) -> int:
    """Bytes between the weights, with a network of this width. side: as `need_of` takes it."""
    tokens = _WORDS + 2 * (side // CELL) ** 2
    decoding = _MAPS * side * side * pictures.decoder_widths[1]
    return int(max(tokens * _WIDTHS * hidden, decoding) * dtype.itemsize)


def _dense(net: nn.Module, dtype: torch.dtype) -> int:
    return sum(tensor.numel() * dtype.itemsize for tensor in net.parameters())


def _stored(opened: OpenedTransformer, dtype: torch.dtype, quantise: Quantise) -> int:
    """Of weights that may be quantised, in their files or while they are loaded."""
    whole = 0.0
    for name, wanted in opened.net.state_dict().items():
        parts = opened.source(name).names
        if wanted.ndim == 2 and any(map(opened.files.is_packed, parts)):
            whole += sum(map(opened.files.size, parts))
        elif wanted.ndim == 2 and is_quantised_on_load(name, quantise):
            whole += wanted.numel() * _CODES[quantise]
        else:
            whole += wanted.numel() * dtype.itemsize
    return int(whole)

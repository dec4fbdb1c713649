# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a model has to be on the device, and which policy of offloading follows from what is free."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from ..errors import KoshiError
from .autoencoder import Autoencoder, AutoencoderConfig
from .flux2 import Flux2Config
from .flux2_model import REMEMBERED
from .loader import Opened, OpenedTransformer
from .quantise import Quantise, is_quantised_on_load
from .shortage import limit_card, memory, size_text
from .text_base import PromptEncoder
from .widening import held_as

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
class Job:
    """What a model shall do, as far as it is known, and what will lie on the device beside it.

    width, height: of the largest picture, in pixels; 0 where nobody knows. references: the most that are shown at once.
    beside: bytes of LoRAs, a depth model, RIFE.
    """

    width: int = 0
    height: int = 0
    references: int = 1
    beside: int = 0

    def at(self, side: int) -> Job:
        """The same with squares of this side, in pixels, where nobody knows the size."""
        return self if self.width and self.height else replace(self, width=side, height=side)


UNKNOWN = Job()


@dataclass(frozen=True)
class Need:
    """Bytes of a model on the device: the transformer, all text networks but for their tables of words, the
    autoencoder, what a picture takes in between, the tables, and what lies there beside the model."""

    transformer: int
    texts: int
    autoencoder: int
    work: int
    tables: int = 0
    beside: int = 0

    @property
    def whole(self) -> int:
        """With everything on the device."""
        return self.transformer + self.texts + self.tables + self.autoencoder + self.work + self.beside

    @property
    def in_turn(self) -> int:
        """With the networks taking turns. The tables then stay in memory."""
        return max(self.transformer, self.texts) + self.autoencoder + self.work + self.beside


@dataclass(frozen=True)
class Weights:
    """What of a model does not depend on its job.

    transformer, texts, tables, autoencoder: bytes, as in Need. hidden: the transformer's width. pictures: the
    autoencoder's sizes. widest: bytes of the largest weight that is decoded or widened while it computes, 0 if none is.
    kept: bytes of each token of a reference that are kept from step to step, 0 where none are. itemsize: bytes of a
    number between the weights.
    """

    transformer: int
    texts: int
    tables: int
    autoencoder: int
    hidden: int
    pictures: AutoencoderConfig
    widest: int
    kept: int
    itemsize: int

    def need(self, job: Job) -> Need:
        """What the model needs for a job whose size is known."""
        work = work_of(self.hidden, self.pictures, job, self.itemsize) + self.widest
        work += self.kept * job.references * _cells(job)
        return Need(self.transformer, self.texts, self.autoencoder, work, self.tables, job.beside)


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


def policy_for(wanted: Wanted, now: Offload, need: Need, room: int | None) -> Offload:
    """The policy of a model that is loaded, for its next job: it goes down where that calls for it, and never up again,
    which would take as long as to load it.

    now: its policy. room: bytes that are free, and that the model itself takes on the device; None if nobody knows.
    """
    return max(now, choose(wanted, need, room) if wanted == "auto" else now, key=get_args(Offload).index)


def weights_of(
    transformer: OpenedTransformer,
    autoencoder: Opened[Autoencoder],
    text: PromptEncoder,
    device: torch.device,
    dtype: torch.dtype,
    quantise: Quantise = "none",
    cached: bool = False,
) -> Weights:
    """What a model takes on a device that has been opened. Computed from names, shapes and types: nothing is read.

    cached: whether it keeps its references as keys and values (flux2_cached.py).
    """
    config = transformer.net.config
    tables, texts = text.sizes(device)
    narrow = _narrow(transformer, quantise)
    widened = device.type == "cpu" and dtype is torch.float32  # one after the other (widening.py)
    matrices = {name: one.numel() for name, one in transformer.net.state_dict().items() if one.ndim == 2}
    widest = max((count for name, count in matrices.items() if widened or name in narrow), default=0)
    kept = 0
    if cached and isinstance(config, Flux2Config):  # keys and values of all blocks, in each set that is remembered
        kept = REMEMBERED * 2 * (config.double_blocks + config.single_blocks) * config.hidden
    return Weights(
        _held(transformer, device, dtype, narrow),
        texts,
        tables,
        _held(autoencoder, device, dtype, {}),
        config.hidden,
        autoencoder.net.config,
        widest * dtype.itemsize,
        kept * dtype.itemsize,
        dtype.itemsize,
    )


def work_of(hidden: int, pictures: AutoencoderConfig, job: Job, itemsize: int) -> int:
    """Bytes between the weights: the more of what denoising and decoding take, with a network of this width."""
    tokens = _WORDS + (1 + job.references) * _cells(job)
    decoding = _MAPS * job.width * job.height * pictures.decoder_widths[1]
    return int(max(tokens * _WIDTHS * hidden, decoding) * itemsize)


def _cells(job: Job) -> int:
    """Tokens of a picture."""
    return (job.width // CELL) * (job.height // CELL)


def _narrow(opened: OpenedTransformer, quantise: Quantise) -> dict[str, float]:
    """Weights that stay quantised, as their files or `quantise` have them, and their bytes."""
    found: dict[str, float] = {}
    for name, wanted in opened.net.state_dict().items():
        parts = opened.source(name).names
        if wanted.ndim == 2 and any(map(opened.files.is_packed, parts)):
            found[name] = sum(map(opened.files.size, parts))
        elif wanted.ndim == 2 and is_quantised_on_load(name, quantise):
            found[name] = wanted.numel() * _CODES[quantise]
    return found


def _held(opened: Opened[Any], device: torch.device, dtype: torch.dtype, narrow: Mapping[str, float]) -> int:
    """Bytes of a network's weights, as they will lie on the device."""
    whole = 0.0
    for name, wanted in opened.net.state_dict().items():
        kinds = {held_as(opened.files.kind(part), device, dtype) for part in opened.source(name).names}
        kind = kinds.pop() if len(kinds) == 1 else dtype
        whole += narrow.get(name, wanted.numel() * kind.itemsize)
    return int(whole)

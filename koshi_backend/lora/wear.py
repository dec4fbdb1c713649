# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs put on a network for a while, each at a weight, and taken off again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from .branches import Branch


class Change(NamedTuple):
    """A branch at a layer. rows: those of the layer's output that it changes."""

    layer: nn.Module
    rows: slice
    branch: Branch


@dataclass(frozen=True)
class Lora:
    """One that fits a network. identity: as `lora_identity`."""

    identity: str
    changes: list[Change]

    def bytes(self) -> int:
        """Of memory that it takes beside the model."""
        return sum(change.branch.bytes() for change in self.changes)


Worn = Sequence[tuple[Lora, float]]


class _Now(threading.local):
    """What this thread's networks wear."""

    worn: tuple[tuple[str, float], ...] = ()


_now = _Now()


def worn() -> tuple[tuple[str, float], ...]:
    """The LoRAs in force, as identities and weights: what is kept of a network's results goes with them."""
    return _now.worn


@contextlib.contextmanager
def wearing(loras: Worn) -> Iterator[None]:
    """Let a network's layers add what these LoRAs add, each times its weight; a weight of 0 is no LoRA.

    Afterwards the network is what it was, to the bit, for nothing of it has changed. Only this thread sees the LoRAs:
    several may use a network at once.
    """
    added: dict[nn.Module, list[tuple[slice, Branch, float]]] = {}
    for lora, weight in loras:
        for layer, rows, branch in lora.changes if weight != 0.0 else ():
            added.setdefault(layer, []).append((rows, branch, weight))
    thread, before = threading.get_ident(), _now.worn

    def hook(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if threading.get_ident() != thread:
            return
        x, wide = args[0].flatten(0, -2), out.view(-1, out.shape[-1])
        for rows, branch, weight in added[layer]:
            branch.add_to(wide[:, rows], x, weight)

    hooks = [layer.register_forward_hook(hook) for layer in added]
    _now.worn = (*before, *((lora.identity, weight) for lora, weight in loras if weight != 0.0))
    try:
        yield
    finally:
        _now.worn = before
        for one in hooks:
            one.remove()

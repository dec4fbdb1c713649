# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights that lie in memory as their file has them and are made float32 for the moment in which a layer reads them.

Processors compute in float32, and published weights have two bytes: held in float32 they would take twice the memory.
Every bfloat16 and float16 number is a float32 number, so that the pictures are the same to the bit.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

# The 8-bit types are held as bfloat16, which has all of their numbers: torch widens them itself 30 times more slowly.
_HELD = {
    torch.bfloat16: torch.bfloat16, torch.float16: torch.float16,
    torch.float8_e4m3fn: torch.bfloat16, torch.float8_e5m2: torch.bfloat16,
}  # fmt: skip


def held_as(stored: torch.dtype, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type in which a weight lies in memory that is stored as `stored` and computed with in `dtype`."""
    return _HELD.get(stored, dtype) if device.type == "cpu" and dtype is torch.float32 else dtype


def widen_at_use(net: nn.Module) -> None:
    """Let every layer of a network see its own narrow weights in float32, whenever it reads them.

    `parameters()` and `state_dict()` go on giving them as they lie in memory. A layer reads by itself: several threads
    may use a network at once, and what asks for a weight's type from outside sees float32.
    """
    for layer in net.modules():
        narrow = tuple(name for name, weight in layer.named_parameters(recurse=False) if weight.dtype in _HELD)
        if narrow:
            layer.__class__ = _widening(type(layer), narrow)


def _widening(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The class of layers whose parameters of these names are narrow; one for all layers alike."""
    if (kind, names) not in _classes:
        changes = {"forward": _looked_up} if issubclass(kind, nn.Embedding) else {name: _reader(name) for name in names}
        _classes[kind, names] = type(kind.__name__, (kind,), changes)
    return _classes[kind, names]


_classes: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def _looked_up(layer: nn.Embedding, ids: Tensor) -> Tensor:
    """An embedding's rows; the table itself, which is large, is never widened."""
    return nn.Embedding.forward(layer, ids).to(torch.float32)


def _reader(name: str) -> property:
    return property(lambda layer: _widened(layer._parameters[name]))


class _Room(threading.local):
    """A thread's place for one widened weight, as large as the largest so far; and who has it.

    Fresh memory for each would cost more than the widening: the system hands it out page by page, and clears it.
    """

    place = torch.empty(0)
    lent: Callable[[], Tensor | None] = staticmethod(lambda: None)


_room = _Room()


def _widened(weight: Tensor) -> Tensor:
    """A copy in float32, which may lie in the thread's room; as long as it is held, the room is not lent again.

    Where gradients are wanted it never does: autograd keeps what it needs for the way back without a sign of it.
    """
    if weight.ndim < 2 or weight.device.type != "cpu":
        return weight.to(torch.float32)
    return room(tuple(weight.shape)).copy_(weight)


def room(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor with nothing in it yet, on the processor: the thread's room where it is free."""
    if torch.is_grad_enabled() or _room.lent() is not None:
        return torch.empty(shape)
    count = math.prod(shape)
    if len(_room.place) < count:
        with torch.inference_mode(False):  # or it could not be written to outside of that mode
            _room.place = torch.empty(0)  # the smaller one goes first
            _room.place = torch.empty(count)
    wide = _room.place[:count].view(shape)
    _room.lent = weakref.ref(wide)
    return wide

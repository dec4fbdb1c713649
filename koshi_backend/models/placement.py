# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model's weights lie when the graphics card is too small for all of them.

"none": everything stays on the card. "model": the transformer and the text networks lie in memory and take turns on
the card, so that the largest of them has to fit. "block": every layer comes for the moment it computes; little has to
fit, and each step moves all weights over the bus. The autoencoder stays on the card under each: it is used twice a
frame and takes .17 GB. The results are the same to the bit.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import KoshiError
from .model import FluxModel

log = logging.getLogger(__name__)

Offload = Literal["none", "model", "block"]


def pick_offload(wanted: str | None = None) -> Offload:
    """The policy asked for (argument, else KOSHI_OFFLOAD), else none. Raises KoshiError("bad_value")."""
    name = wanted or os.environ.get("KOSHI_OFFLOAD") or "none"
    for known in get_args(Offload):
        if name == known:
            return known
    raise KoshiError("bad_value", f"offload is {name!r}.", "Use none, model or block.")


def place(model: FluxModel, device: torch.device, offload: Offload) -> FluxModel:
    """Make a model whose parts lie in memory compute on `device`."""
    model.autoencoder.to(device)
    networks = [model.transformer, *(part for part in vars(model.text).values() if isinstance(part, nn.Module))]
    if offload == "none":
        for network in networks:
            network.to(device)
        return model
    model.device = device
    turn: list[Visitor] = []
    for network in networks:
        _pin(network, device)
        # Inputs are made where the weights are, which is not where they will be.
        network.register_forward_pre_hook(lambda _, *given: _to(given, device), with_kwargs=True)
        # Each layer sees to it, not the network alone: cached references run them one by one (flux2_cached.py).
        layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
        if offload == "model":
            visitor = Visitor(network, device)
            for module in (network, *layers):
                module.register_forward_pre_hook(lambda *_, visitor=visitor: _take_turns(turn, visitor))
            continue
        for name, buffer in list(network.named_buffers()):
            _set_buffer(network, name, buffer.to(device))
        for layer in layers:
            _visit_for_each_call(layer, device)
    return model


class Visitor:
    """A module whose weights lie in memory and can be on the device for a while. They never change there."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.device, self.there = device, False
        self._homes = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())]

    def come(self) -> None:
        if not self.there:
            for tensor, home in self._homes:
                tensor.data = home.to(self.device, non_blocking=True, copy=True)
            self.there = True

    def leave(self) -> None:
        if self.there:
            for tensor, home in self._homes:
                tensor.data = home
            self.there = False


def _take_turns(turn: list[Visitor], visitor: Visitor) -> None:
    """Let a network come, after the one that is there has left. `turn` holds who is there."""
    if turn != [visitor]:
        for other in turn:
            other.leave()
        turn[:] = [visitor]
        visitor.come()


def _visit_for_each_call(layer: nn.Module, device: torch.device) -> None:
    visitor = Visitor(layer, device)

    def come(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        visitor.come()
        return _to(args, device), _to(kwargs, device)

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        visitor.leave()

    layer.register_forward_pre_hook(come, with_kwargs=True)
    layer.register_forward_hook(leave, always_call=True)  # also when the card's memory ran out


def _pin(network: nn.Module, device: torch.device) -> None:
    """Lock the weights' pages, from which a card fetches two to three times as fast."""
    if device.type != "cuda":
        return
    try:
        for tensor in network.parameters():
            tensor.data = tensor.data.pin_memory()
    except RuntimeError as error:
        log.warning("the weights could not be locked in memory, so that they move more slowly: %s", error)


def _to(value: Any, device: torch.device) -> Any:
    """Tensors in tuples and dicts, on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    return tuple(_to(item, device) for item in value) if type(value) is tuple else value


def _set_buffer(network: nn.Module, name: str, value: Tensor) -> None:
    *path, last = name.split(".")
    setattr(network.get_submodule(".".join(path)), last, value)

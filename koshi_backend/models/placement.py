# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model's weights lie when the graphics card is too small for all of them.

"none": everything stays on the card. "model": the transformer and the text networks lie in memory and take turns on
the card, so that the largest of them has to fit. "block": of whoever's turn it is, there is what its blocks share, the
block that computes and the one after it, which is fetched meanwhile; each step moves all weights over the bus, and the
pictures are encoded and decoded with the card to themselves. The autoencoder stays on the card under each: it takes
.17 GB. The results are the same to the bit. On a processor what is not needed lies in a scratch file.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from ..paths import cache_folder
from .budget import Offload
from .residence import Guest, Ledger, Scratch, own_tensors

if TYPE_CHECKING:
    from .model import FluxModel

log = logging.getLogger(__name__)

POLICIES: tuple[Offload, ...] = get_args(Offload)


class Placement:
    """Who of a model's networks is on the device. ledger: bytes of theirs there, now and at most.

    under "none" nobody is a guest, and nothing is counted. sound: whether all weights lie where they should; not so if
    memory ran out, or somebody stopped it, while they were moved. Such a model is of no use any more.
    """

    def __init__(self, model: FluxModel, device: torch.device, policy: Offload) -> None:
        self._model, self._device, self.policy = model, device, policy
        self.ledger = Ledger()
        self.sound = True
        self._guests: list[Guest] = []
        self._scratch = Scratch(cache_folder() / "scratch") if device.type == "cpu" else None
        self._hooks_of_pictures = False

    def adopt(self, networks: list[nn.Module]) -> None:
        """Place networks that have their weights."""
        self.sound = False
        for network in networks:
            if self.policy == "none":
                network.to(self._device)
                continue
            guest = Guest(network, self._device, self.ledger, self.policy == "block")
            guest.pack(self._scratch)
            self._guests.append(guest)
            self._hook(network, guest)
        self.sound = True

    @property
    def held(self) -> int:
        """Bytes of weights that are on the device just now."""
        model = self._model
        there = [model.autoencoder, *(self._networks() if self.policy == "none" else ())]
        each = {tensor for net in there for tensor in (*net.parameters(), *net.buffers())}
        return self.ledger.now + sum(tensor.nbytes for tensor in each)

    def lower(self) -> Offload | None:
        """Go to the next policy, in place; None if there is none. LoRAs that have been fitted still fit.

        Raises MemoryError, OSError or torch's errors where memory cannot take the weights: it is not `sound` then.
        """
        if self.policy == POLICIES[-1]:
            return None
        self.clear()
        before, self.policy = self.policy, POLICIES[POLICIES.index(self.policy) + 1]
        if before == "none":
            self._model.text.reads_to = torch.device("cpu")
            self.adopt(self._networks())
        for guest in self._guests:
            guest.streamed = self.policy == "block"
        self._watch_pictures()
        return self.policy

    def clear(self) -> None:
        """Let all guests leave."""
        for guest in self._guests:
            guest.leave()

    def start(self) -> None:
        """Place all that is there, and what will be read later when it is."""
        self._model.autoencoder.to(self._device)
        self._model.device = self._model.text.device = self._device
        self._model.text.on_read = self.adopt
        self.adopt(self._networks())
        self._watch_pictures()

    def _networks(self) -> list[nn.Module]:
        text = self._model.text
        return [self._model.transformer, *(text.networks if text.is_read else ())]

    def _take_turn(self, guest: Guest) -> None:
        if not guest.there:
            self.clear()
            guest.come()

    def _hook(self, network: nn.Module, guest: Guest) -> None:
        """Let layers see to it that their weights are there.

        Each layer does, not the network alone: cached references run them one by one (flux2_cached.py).
        """
        device = self._device

        def enter(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            # Inputs are made where the weights are, which is not where they will be.
            self._take_turn(guest)
            return _to(args, device), _to(kwargs, device)

        def arrive(layer: nn.Module, _: Any) -> None:
            self._take_turn(guest)
            if guest.streamed and layer in guest.block_of:
                guest.stream.need(guest.block_of[layer])

        network.register_forward_pre_hook(enter, with_kwargs=True)
        for layer in network.modules():
            if layer in guest.tables:
                home = next(layer.parameters()).device
                layer.register_forward_pre_hook(lambda _, args, home=home: _to(args, home))
                layer.register_forward_hook(lambda _, args, out: out.to(device))
            elif own_tensors(layer):
                layer.register_forward_pre_hook(arrive)

    def _watch_pictures(self) -> None:
        """Under "block" pictures are encoded and decoded alone: what they need in between is more than the weights."""
        if self.policy == "block" and not self._hooks_of_pictures:
            self._hooks_of_pictures = True
            for half in (self._model.autoencoder.encoder, self._model.autoencoder.decoder):
                half.register_forward_pre_hook(lambda *_: self.clear())


def place(model: FluxModel, device: torch.device, policy: Offload) -> FluxModel:
    """Make a model compute on `device`. Under "none" its parts may be there already, else they lie in memory.

    model.placement says from then on who is there, and goes to the next policy.
    """
    model.placement = Placement(model, device, policy)
    model.placement.start()
    return model


def _to(value: Any, device: torch.device) -> Any:
    """Tensors in tuples and dicts, on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    return tuple(_to(item, device) for item in value) if type(value) is tuple else value

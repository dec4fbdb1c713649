# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights that lie away from the device and come to it while a network computes.

A network's weights are packed into runs of bytes: one for what all of it shares, and one for each block. Away, they lie
in memory that the card fetches from by itself (locked pages); where the device is the processor, whose memory is what
is short, in a scratch file. Copies on the device are dropped, never written back: weights do not change.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

_ALIGNED = 256  # bytes, as torch's own allocator on cards: kernels may be chosen by it


class Run:
    """Tensors that come and go together.

    tensors: parameters and buffers, on any device; their `data` is a view of where they are at the time. size: bytes.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self._places: list[int] = []
        self.size = 0
        for tensor in self.tensors:
            self._places.append(self.size)
            self.size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        self.home = torch.empty(0, dtype=torch.uint8)

    def pack(self, scratch: Scratch | None, pinned: bool) -> None:
        """Let them lie in memory, locked where `pinned`, or in the scratch file."""
        home = None if scratch is None else scratch.take(self.size, self._bytes)
        if home is None:
            locked = pinned and self.size > 0
            # With pages of their own: of two neighbours that share one, only the first could be locked.
            home = (
                torch.frombuffer(mmap.mmap(-1, self.size), dtype=torch.uint8)
                if locked
                else torch.empty(self.size, dtype=torch.uint8)
            )
            for begin, part in self._bytes():
                home[begin : begin + len(part)] = part
            if locked:
                _pin(home)
        self.home = home
        self.go_home()

    def _bytes(self) -> Iterable[tuple[int, Tensor]]:
        """Each tensor's place in the run, and its bytes in memory."""
        for begin, tensor in zip(self._places, self.tensors, strict=True):
            if tensor.numel():
                yield begin, tensor.data.cpu().contiguous().flatten().view(torch.uint8)

    def stand(self, flat: Tensor) -> None:
        """Let the tensors be views of these bytes, which hold a copy of `home`."""
        for begin, tensor in zip(self._places, self.tensors, strict=True):
            if tensor.numel():
                tensor.data = flat[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    def go_home(self) -> None:
        self.stand(self.home)


class Scratch:
    """A file of our own that nobody else can see, in `folder`; it is gone with the last who uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, size: int, parts: Callable[[], Iterable[tuple[int, Tensor]]]) -> Tensor | None:
        """Bytes that lie in a file, from the parts and their places; None where the disk cannot take them."""
        if not size:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder, prefix="koshi-weights-") as file:
                file.truncate(size)
                for begin, part in parts():
                    file.seek(begin)
                    file.write(part.numpy().data)
                file.flush()
                # Private, because torch takes only memory that may be written to. Nothing writes to it.
                return torch.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY), dtype=torch.uint8)
        except OSError as error:
            log.warning("weights stay in memory: %s cannot take them (%s)", self._folder, error.strerror)
            return None


class Ledger:
    """Bytes of weights on the device. most: at any time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


class Stream:
    """Blocks that come one after the other into two places on the device, each copied while the one before computes.

    Which block is fetched ahead is learned from the last time: networks skip blocks, and begin again with every step.
    """

    def __init__(self, runs: list[Run], device: torch.device, ledger: Ledger) -> None:
        self.runs, self._device, self._ledger = runs, device, ledger
        self._places: list[Tensor] = []
        self._where: dict[int, int] = {}  # which block is in which place, there or on its way
        self._now: int | None = None
        self._following: dict[int, int] = {}
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied: list[torch.cuda.Event] = []

    def open(self) -> None:
        """Make room for two blocks."""
        size, count = max((run.size for run in self.runs), default=0), min(2, len(self.runs))
        with torch.inference_mode(False):
            self._places = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(count)]
        self._ledger.add(size * count)
        if self._copying is not None:
            self._copied = [torch.cuda.Event() for _ in range(count)]

    def need(self, block: int) -> None:
        """Have a block on the device, and the one that will follow it on its way."""
        if block == self._now:
            return
        before, place = self._now, self._where.get(block)
        if place is None:
            place = 0 if before is None else 1 - self._where[before]
            self._fetch(block, place)
        if self._copying is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied[place])
        if before is not None:
            self.runs[before].go_home()
            self._following[before] = block
        self.runs[block].stand(self._places[place])
        self._now = block
        ahead = self._following.get(block, (block + 1) % len(self.runs))
        if ahead != block and self._where.get(ahead) is None:
            self._fetch(ahead, 1 - place)

    def close(self) -> None:
        """Let all blocks go."""
        if self._now is not None:
            self.runs[self._now].go_home()
        if self._copying is not None and self._places:  # nobody may be given memory into which is still being copied
            torch.cuda.current_stream(self._device).wait_stream(self._copying)
        self._ledger.add(-sum(place.nbytes for place in self._places))
        self._places, self._where, self._now = [], {}, None

    def _fetch(self, block: int, place: int) -> None:
        self._where = {other: at for other, at in self._where.items() if at != place} | {block: place}
        home = self.runs[block].home
        target = self._places[place][: len(home)]
        if self._copying is None:
            target.copy_(home)
            return
        # Whoever computes with what is in that place has been queued before.
        self._copying.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._copying):
            target.copy_(home, non_blocking=True)
            self._copied[place].record(self._copying)


class Guest:
    """A network that is on the device only while it is its turn.

    streamed: whether its blocks come one by one (`Stream`), or all of them with the rest. Word embeddings never come:
    of their hundreds of megabytes a prompt reads a few rows, in memory.
    """

    def __init__(self, network: nn.Module, device: torch.device, ledger: Ledger, streamed: bool) -> None:
        self.device, self.streamed, self._ledger = device, streamed, ledger
        blocks = blocks_of(network)
        inside = {layer for block in blocks for layer in block.modules()}
        outside = [layer for layer in network.modules() if layer not in inside]
        self.tables = [layer for layer in outside if isinstance(layer, nn.Embedding)]
        taken: set[int] = set()

        def run(layers: Iterable[nn.Module]) -> Run:
            found = [tensor for layer in layers for tensor in own_tensors(layer) if id(tensor) not in taken]
            found = list({id(tensor): tensor for tensor in found}.values())
            taken.update(map(id, found))
            return Run(found)

        self.stay = run(self.tables)
        self.shared = run(layer for layer in outside if layer not in self.tables)
        self.stream = Stream([run(block.modules()) for block in blocks], device, ledger)
        self.block_of = {layer: k for k, block in enumerate(blocks) for layer in block.modules()}
        self._flats: list[Tensor] = []
        self.there = False

    @property
    def runs(self) -> list[Run]:
        """All that comes and goes: what is shared, then the blocks."""
        return [self.shared, *self.stream.runs]

    def pack(self, scratch: Scratch | None) -> None:
        """Let all weights lie away from the device."""
        self.stay.pack(None, pinned=False)
        locked = self.device.type == "cuda"
        # Pages are locked for the card in force, which may be another one of several.
        with torch.cuda.device(self.device) if locked else contextlib.nullcontext():
            for run in self.runs:
                run.pack(scratch, pinned=locked)

    def come(self) -> None:
        """Raises torch.OutOfMemoryError where there is no room; then nothing of it is there."""
        if self.there:
            return
        self.there = True
        try:
            for run in [self.shared] if self.streamed else self.runs:
                with torch.inference_mode(False):
                    flat = torch.empty(run.size, dtype=torch.uint8, device=self.device)
                self._ledger.add(run.size)
                self._flats.append(flat)
                flat.copy_(run.home, non_blocking=True)
                run.stand(flat)
            if self.streamed:
                self.stream.open()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        if not self.there:
            return
        for run in self.runs:
            run.go_home()
        self._ledger.add(-sum(flat.nbytes for flat in self._flats))
        self._flats = []
        self.stream.close()
        self.there = False


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The members of a network's outermost lists of modules, in their order."""
    found: list[nn.Module] = []
    for child in network.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found


def own_tensors(layer: nn.Module) -> list[Tensor]:
    """A layer's own parameters and buffers, without those of the layers in it."""
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def _pin(home: Tensor) -> None:
    """Lock its pages, from which a card fetches two to three times as fast.

    They are locked where they are: torch's own locked memory is handed out in powers of two, up to twice as much.
    """
    if int(torch.cuda.cudart().cudaHostRegister(home.data_ptr(), home.nbytes, 0)) != 0:
        log.warning("weights could not be locked in memory, so that they move more slowly")
        with contextlib.suppress(RuntimeError):  # the runtime tells the failure once more, to whoever comes next
            torch.zeros(1, device="cuda").add_(1)
        return
    weakref.finalize(home, _unpin, home.data_ptr(), torch.cuda.current_device())


def _unpin(address: int, device: int) -> None:
    torch.cuda.synchronize(device)  # a block may still be on its way
    torch.cuda.cudart().cudaHostUnregister(address)

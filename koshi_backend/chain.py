# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame chain: a frame's key is a hash of the previous frame's key and of all that this frame depends on.

A key that is in the store is a frame that need not be made. That one rule is resume after a crash, re-rendering
only what an edit changed, and any frame on demand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from .betweens import Betweens
from .errors import Cancelled
from .footage import check_footage
from .frame import Maker
from .keys import Painter, frame_key
from .models.budget import Wanted
from .models.model import FluxModel
from .models.pool import load_model, loaded_on, model_files, pick_device, pick_dtype
from .models.quantise import Quantise, pick_quantise
from .models.shortage import OutOfMemory, out_of_memory_explained, release
from .models.surviving import once_more, surviving
from .moves import Moves
from .room import shot_job
from .shot import Shot
from .store import Entry, FrameStore
from .timing import Spot


@dataclass(frozen=True)
class Frame:
    """A finished picture of the film. index counts from 0; number is its number in file names; stored: it came from the
    store."""

    index: int
    number: int
    key: str
    png: bytes
    stored: bool


@dataclass(frozen=True)
class Progress:
    """Where a render stands: denoising step `step` of `steps` in frame `index`."""

    index: int
    step: int
    steps: int
    message: str


def render_shot(
    shot: Shot,
    *,
    store: FrameStore | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    offload: Wanted | None = None,
    vram: float | None = None,
    quantize: Quantise | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Frame]:
    """All that comes out of the shot, in order, from the store where it is there, else made and stored.

    The model is loaded when the first frame has to be made, and stays loaded. device, dtype, offload, vram,
    quantize: as `pick_device`, `pick_dtype`, `pick_offload`, `pick_vram` and `pick_quantise` choose when None. A frame
    for which memory runs out is made once more at the next policy of offloading; nothing is stored of the first try.
    Raises KoshiError, and Cancelled when cancelled() turns true; frames yielded before are kept.
    """
    check_footage(shot)
    store = store if store is not None else FrameStore()
    where = pick_device(device)
    kind, narrow = pick_dtype(where, dtype), pick_quantise(quantize)
    tell, stop = progress or (lambda _: None), cancelled or (lambda: False)
    loaded: Maker | None = None

    def maker(at: int) -> Maker:
        nonlocal loaded
        if loaded is None:
            tell(Progress(at, 0, shot.steps, f"loading {shot.model}"))
            model = load_model(shot.model, where, kind, offload, vram, narrow, shot_job(shot, kind))
            loaded = Maker(shot, model, moves)
        return loaded

    def there() -> FluxModel | None:
        """The model that takes room, also where it has been loaded for another shot."""
        return loaded_on(where) if loaded is None else loaded.model

    def policy() -> str:  # the model itself is not held meanwhile: work may put another in its place
        model = there()
        return "none" if model is None else model.policy

    def between(work: Callable[[], tuple[str, bytes, bool]]) -> tuple[str, bytes, bool]:
        """Make a picture between two frames. A model that is there, be it for a lost frame, makes room for it."""
        doing = "making a picture between two frames"
        try:
            with out_of_memory_explained(doing, where, policy()):
                return work()
        except OutOfMemory as error:
            first = error.with_traceback(None)
        model = there()
        if model is not None:
            return once_more(model, doing, work, first)
        if first.final:
            raise first
        release(where)
        with out_of_memory_explained(doing, where):
            return work()

    # Depth may be read from the model's latents, also where every frame that it makes is there.
    moves = Moves(shot, where, lambda picture: maker(0).model.encode_picture(picture))
    model_files(shot.model, stop)  # which may have to be fetched: that can be cancelled, too
    made = _Made(shot, store, Painter.of(shot, where, kind, narrow), maker, tell, stop)
    betweens = Betweens(shot, store, moves, where)
    for index, spot in enumerate(shot.film):
        if stop():
            raise Cancelled
        if spot.first == spot.second:
            key, png, stored = made.frame(spot.first)
        else:
            key, png, stored = between(partial(betweens.picture, spot, made.ends(spot), made.entry))
        yield Frame(index, shot.film_number(index), key, png, stored)


class _Made:
    """The frames that the model makes, each from the one before it."""

    def __init__(
        self,
        shot: Shot,
        store: FrameStore,
        painter: Painter,
        maker: Callable[[int], Maker],
        tell: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> None:
        self._shot, self._store, self._painter = shot, store, painter
        self._maker, self._tell, self._stop = maker, tell, stop
        self._keys: dict[int, str] = {}
        self._there: set[int] = set()  # in the store, as far as is known
        self._new: set[int] = set()  # made, and not handed out yet
        self._held: dict[int, Entry] = {}  # the newest ones that were made or read, in memory

    def frame(self, at: int) -> tuple[str, bytes, bool]:
        """A made frame: its key, its PNG and whether it was in the store. It is made if it was not."""
        key = self.key(at)
        png = self._store.png(key)
        stored = png is not None and at not in self._new
        if png is None:
            png = self.entry(at).png
        self._new.discard(at)
        self._there.add(at)
        return key, png, stored

    def ends(self, spot: Spot) -> tuple[str, str]:
        """The keys of the two frames that a picture lies between, both of which are then there."""
        first, second = spot.first, spot.second % self._shot.frames
        if second not in self._there and self._store.png(self.key(second)) is None:
            self.entry(second)
            self._new.add(second)
        self._there.add(second)
        return self.key(first), self.key(second)

    def key(self, at: int) -> str:
        """The key of a made frame."""
        made = self._shot.made
        while at not in self._keys:
            index = made[len(self._keys)]
            before = self._keys[self._shot.before(index)] if index else ""
            first = self._keys[0] if index else ""
            self._keys[index] = frame_key(self._shot, index, before, self._painter, first)
        return self._keys[at]

    def entry(self, at: int) -> Entry:
        """A made frame whole. Where it is lost or damaged it is made again, from the last sound one before it."""
        at %= self._shot.frames
        if at in self._held:
            return self._held[at]
        made, shot = self._shot.made, self._shot
        entry, place = self._store.get(self.key(at)), bisect_left(made, at)
        lost = [at] if entry is None else []
        while entry is None and not shot.begins(lost[-1]) and shot.feedback.carry != "none":
            place -= 1
            entry = self._held.get(made[place]) or self._store.get(self.key(made[place]))
            if entry is None:
                lost.append(made[place])
        for index in reversed(lost):
            entry = self._make(index, entry)
        assert entry is not None  # it was there, or has been made
        self._hold(at, entry)
        return entry

    def _make(self, index: int, previous: Entry | None) -> Entry:
        def step(k: int, n: int) -> None:
            self._tell(Progress(index, k, n, f"frame {self._shot.number(index)}"))

        first = self.entry(0) if index >= self._shot.seam else None
        maker = self._maker(index)
        doing = f"making frame {self._shot.number(index)}"
        entry = surviving(
            maker.model, doing, lambda: maker.make(index, previous, on_step=step, cancelled=self._stop, first=first)
        )
        self._store.put(self.key(index), entry)
        return entry

    def _hold(self, at: int, entry: Entry) -> None:
        self._held[at] = entry
        while len(self._held) > 2:
            del self._held[next(iter(self._held))]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures between the frames that a shot's model makes: for cadence, interpolation and the end of a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .entries import FULL, encode_png, to_tensor
from .inbetween import Ways, between, on_the_way
from .keys import between_key, move_facts
from .motion import MotionField
from .motion.invert import inverse, part_way
from .motion.rife import Rife, load_rife
from .moves import Moves
from .shot import Shot
from .store import Entry, FrameStore
from .timing import Spot


class Betweens:
    """Makes them, one after the other, from the two made frames around each. None is ever gone on from: only its PNG is
    kept. Raises KoshiError("rife_unavailable") before there is anything to make."""

    def __init__(self, shot: Shot, store: FrameStore, moves: Moves, device: torch.device) -> None:
        self.shot, self.store, self.moves, self.device = shot, store, moves, device
        file = shot.time.rife if shot.time.inbetween == "rife" else None
        self._rife = None if file is None else load_rife(file, device)
        self._facts: tuple[tuple[int, int], list[dict[str, Any]]] | None = None
        self._span: _Span | None = None

    def picture(
        self, spot: Spot, ends: tuple[str, str], entry: Callable[[int], Entry]
    ) -> tuple[str, bytes, bool]:
        """The picture at `spot`: its key, its PNG and whether it was in the store.

        ends: the keys of the frames around it. entry: a made frame whole, by its index.
        """
        between_them = spot.first, spot.second
        if self._facts is None or self._facts[0] != between_them:
            self._facts = between_them, move_facts(self.shot, *between_them)
        key = between_key(self.shot, spot, ends, self._facts[1])
        png = self.store.png(key)
        if png is not None:
            return key, png, True
        if self._span is None or self._span.ends != between_them:
            pair = entry(spot.first), entry(spot.second)
            self._span = _Span(self.shot, self.moves, between_them, *pair, self.device, self._rife)
        picture = self._span.at(spot)
        whole = (picture[0].permute(1, 2, 0) * FULL).round().cpu().numpy().astype(np.uint16)
        made = Entry(np.zeros((0, 0, 3), np.uint16), encode_png(whole), np.zeros(0))
        self.store.put(key, made)
        return key, made.png, False


class _Span:
    """Two made frames, and the moves from the first to the second."""

    def __init__(
        self,
        shot: Shot,
        moves: Moves,
        ends: tuple[int, int],
        first: Entry,
        second: Entry,
        device: torch.device,
        rife: Rife | None = None,
    ) -> None:
        self.ends, self._border, self._follow = ends, shot.feedback.border, shot.time.inbetween != "blend"
        self._rife = rife
        self._first, self._second = (to_tensor(entry.picture).to(device) for entry in (first, second))
        self._steps: list[MotionField] = []
        if shot.feedback.carry != "none":
            self._steps, _ = moves.through(*ends, self._first, first.state)
        # From the first frame to each one up to the second's neighbour, and from each one after it to the second.
        still = MotionField.identity(shot.width, shot.height, device)
        self._there, self._onward = [still], [still]
        for step in self._steps[:-1]:
            self._there.append(self._there[-1].then(step, self._border))
        for step in reversed(self._steps[1:]):
            self._onward.insert(0, step.then(self._onward[0], self._border))

    def at(self, spot: Spot) -> Tensor:
        """The picture there, [1, 3, H, W] in 0..1."""
        if not self._steps:
            return next(between(self._first, self._second, [spot.share], self._rife))
        ways = self._ways(int(spot.place - spot.first), float(spot.place % 1))
        return on_the_way(
            self._first, self._second, spot.share, ways, self._border, flow=self._follow, rife=self._rife
        )

    def _ways(self, step: int, part: float) -> Ways:
        """The motion from both ends to `part` of the way from one frame to the next, `step` frames after the first."""
        there, onward, border = self._there[step], self._onward[step], self._border
        if part == 0.0:
            return Ways(there, inverse(self._steps[step].then(onward, border), border))
        before, after = part_way(self._steps[step], part, border)
        # The last frame comes first: back to the next frame, and from there to this moment.
        return Ways(there.then(before, border), inverse(onward, border).then(after, border))

# SPDX-License-Identifier: GPL-3.0-or-later
"""A quick film of a shot's motion alone, without a model: its first picture, or a checkerboard, moved, with as much of
the shot's film in it as a composite mixes in."""

from __future__ import annotations

import colorsys
import hashlib
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from .chain import Frame
from .entries import FULL, encode_png
from .errors import Cancelled
from .footage import check_footage
from .hybrid import Mix
from .motion import MotionField
from .motion.anchor import Anchored
from .motion.invert import part_way
from .moves import Moves
from .pictures import read_picture
from .shot import Shot
from .store import Entry, FrameStore
from .timing import film

_HIDDEN = 0.22  # grey of what a model would paint
_SQUARES = 8  # of the checkerboard, along the shorter side
_HUES = 0.38  # turn of the colour wheel between one checkerboard and the next
_OVERLAY = 0.35  # of a new checkerboard over a picture that has grown too large or too small


def motion_frames(shot: Shot, cancelled: Callable[[], bool] | None = None) -> Iterator[Frame]:
    """All that comes out of the shot, loop and pictures between frames included, without painting. Grey is what the
    motion uncovers.

    Every frame is resampled once from the picture that the motion began in. When little of that is left to see, or it
    has become too large or too small, or at a cut, a checkerboard of another colour comes in. Each frame is there,
    whatever the cadence: without painting there is nothing to wait for. A film is mixed into the frames that would be
    made, unless its mask needs a model.
    Raises KoshiError for guides that do not serve, and Cancelled.
    """
    check_footage(shot)
    course, time = _Course(shot), shot.time
    with tempfile.TemporaryFile() as aside:
        shown: dict[Fraction, tuple[int, int]] = {}  # where in that file a picture lies; a loop shows them again
        spots = film(shot.frames, range(shot.frames), shot.motion.cuts, time.loop, time.interpolation)
        for index, spot in enumerate(spots):
            if cancelled is not None and cancelled():
                raise Cancelled
            if spot.place in shown:
                start, size = shown[spot.place]
                aside.seek(start)
                png = aside.read(size)
            else:
                whole = (course.at(spot.place)[0].permute(1, 2, 0) * FULL).round().numpy().astype(np.uint16)
                png = encode_png(whole)
                shown[spot.place] = aside.seek(0, os.SEEK_END), len(png)
                aside.write(png)
            # No frame of the chain has such a key: nothing is ever painted on top of these.
            yield Frame(index, shot.film_number(index), hashlib.sha256(b"motion " + png).hexdigest(), png, False)


class _Course:
    """The picture at any time of the shot, asked for in order."""

    def __init__(self, shot: Shot) -> None:
        self._shot, self._moves, self._border = shot, Moves(shot, torch.device("cpu")), shot.feedback.border
        self._index, self._boards = -1, -1  # the frame that was reached; the newest checkerboard
        self._mixes, self._made = composite_needs_no_model(shot), shot.made
        self._anchored: Anchored | None = None
        self._shown = torch.zeros(0)
        self._memory: dict[str, np.ndarray] = {}
        self._onward: tuple[MotionField, dict[str, np.ndarray]] | None = None  # the move into the next frame

    def at(self, place: Fraction) -> Tensor:
        """[1, 3, H, W] in 0..1. place: in frames."""
        while self._index < int(place):
            self._go_on()
        part, following = float(place % 1), (self._index + 1) % self._shot.frames
        if part == 0.0 or self._anchored is None or self._shot.begins_in_video(following):
            return self._shown
        before, _ = part_way(self._move(following)[0], part, self._border)
        between = self._anchored.moved(before)
        return torch.where(between.field.valid, between.shown(), _HIDDEN)

    def _move(self, index: int) -> tuple[MotionField, dict[str, np.ndarray]]:
        if self._onward is None:
            self._onward = self._moves.into(index, self._shown, self._memory)
        return self._onward

    def _go_on(self) -> None:
        """To the next frame."""
        self._mix_in("before_motion", self._index + 1)
        self._index += 1
        shot, index = self._shot, self._index
        if self._anchored is None or shot.begins(index) or shot.begins_in_video(index):
            self._boards += 1
            self._shown = checkerboard(shot.width, shot.height, self._boards)
            if shot.begins_in_video(index):
                self._shown = self._moves.video(index)
            elif file := shot.start_of(index):
                self._shown = read_picture(file, shot.width, shot.height)
            self._anchored, self._memory = Anchored.at(self._shown, self._border), {}
        else:
            field, self._memory = self._move(index)
            self._anchored = self._anchored.moved(field)
            self._shown = torch.where(self._anchored.field.valid, self._anchored.shown(), _HIDDEN)
            if reason := self._anchored.worn():
                self._renew(reason)
            self._mix_in("normal", index)
        self._mix_in("after_generation", index)
        self._onward = None

    def _mix_in(self, composite: str, index: int) -> None:
        """Mix the film into what is shown now, at the moment of frame `index` that `composite` names. That picture is
        then what the motion goes on from."""
        if not self._mixes or self._anchored is None or index >= self._shot.frames:
            return
        if composite == "before_motion":  # into the made frame before, once it is left
            index = self._made[min(bisect_left(self._made, index), len(self._made) - 1)]
        elif index not in self._made:
            return
        mix = Mix.of(self._shot, self._moves, index, composite)
        if mix is None or (composite == "before_motion" and mix.at != self._index):
            return
        valid = self._anchored.field.valid if composite == "normal" else None
        self._shown = mix.into(self._shown, valid)
        self._anchored, self._onward = Anchored.at(self._shown, self._border), None

    def _renew(self, reason: str) -> None:
        """Bring in a new checkerboard. reason: why the old picture no longer serves."""
        assert self._anchored is not None
        self._boards += 1
        fresh = checkerboard(self._shot.width, self._shot.height, self._boards)
        self._shown = torch.where(self._anchored.field.valid, self._anchored.shown(), fresh)
        if reason != "hidden":
            self._shown = torch.lerp(self._shown, fresh, _OVERLAY)
        self._anchored = Anchored.at(self._shown, self._border)


def composite_needs_no_model(shot: Shot) -> bool:
    """Whether the shot mixes a film in, by a mask that no model has to find: not by depth that is estimated."""
    estimated = shot.hybrid.mask in ("depth", "video_depth") and shot.depth.source in ("model", "groups")
    return shot.hybrid.composite != "none" and not estimated


def kept_motion_frames(shot: Shot, store: FrameStore, cancelled: Callable[[], bool] | None = None) -> Iterator[Frame]:
    """The same, each frame put into `store` before it is yielded: for readers that come later. Only the PNG is kept.

    Raises what `motion_frames` does, and KoshiError("store_write").
    """
    for frame in motion_frames(shot, cancelled):
        if not store.path(frame.key).exists():
            store.put(frame.key, Entry(np.zeros((0, 0, 3), np.uint16), frame.png, np.zeros(0)))
        yield frame


def checkerboard(width: int, height: int, count: int) -> Tensor:
    """[1, 3, H, W]: squares of two shades, each shaded across, so that turns and flips are seen. count: of the hue."""
    side = max(min(width, height) // _SQUARES, 4)
    x, y = torch.arange(width)[None] / side, torch.arange(height)[:, None] / side
    light = ((x.floor() + y.floor()) % 2)[None]
    across = 0.5 * (x - x.floor() + y - y.floor())[None]
    tint = torch.tensor(colorsys.hsv_to_rgb(0.58 + _HUES * count, 0.55, 1.0))[:, None, None]
    return ((0.25 + 0.55 * light + 0.2 * across) * (0.4 * light + (1 - 0.4 * light) * tint))[None].clamp(0.0, 1.0)

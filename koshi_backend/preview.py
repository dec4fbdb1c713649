# SPDX-License-Identifier: GPL-3.0-or-later
"""A quick film of a shot's motion alone, without a model: its first picture, or a checkerboard, moved."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .chain import Frame
from .errors import Cancelled
from .frame import FULL, encode_png
from .motion.anchor import Anchored
from .moves import Moves
from .pictures import read_picture
from .shot import Shot
from .store import Entry, FrameStore

_HIDDEN = 0.22  # grey of what a model would paint
_SQUARES = 8  # of the checkerboard, along the shorter side
_HUES = 0.38  # turn of the colour wheel between one checkerboard and the next
_OVERLAY = 0.35  # of a new checkerboard over a picture that has grown too large or too small


def motion_frames(shot: Shot, cancelled: Callable[[], bool] | None = None) -> Iterator[Frame]:
    """The shot's frames without painting. Grey is what the motion uncovers.

    Every frame is resampled once from the picture that the motion began in. When little of that is left to see, or it
    has become too large or too small, or at a cut, a checkerboard of another colour comes in.
    Raises KoshiError for guides that do not serve, and Cancelled.
    """
    moves, border = Moves(shot, torch.device("cpu")), shot.feedback.border
    anchored: Anchored | None = None
    boards = -1
    memory: dict[str, np.ndarray] = {}
    for index in range(shot.frames):
        if cancelled is not None and cancelled():
            raise Cancelled
        if anchored is None or shot.begins(index):
            boards += 1
            shown = checkerboard(shot.width, shot.height, boards)
            if file := shot.start_of(index):
                shown = read_picture(file, shot.width, shot.height)
            anchored, memory = Anchored.at(shown, border), {}
        else:
            field, memory = moves.into(index, shown, memory)
            anchored = anchored.moved(field)
            shown = torch.where(anchored.field.valid, anchored.shown(), _HIDDEN)
            if reason := anchored.worn():
                boards += 1
                fresh = checkerboard(shot.width, shot.height, boards)
                shown = torch.where(anchored.field.valid, anchored.shown(), fresh)
                if reason != "hidden":
                    shown = torch.lerp(shown, fresh, _OVERLAY)
                anchored = Anchored.at(shown, border)
        whole = (shown[0].permute(1, 2, 0) * FULL).round().numpy().astype(np.uint16)
        png = encode_png(whole)
        # No frame of the chain has such a key: nothing is ever painted on top of these.
        yield Frame(index, shot.number(index), hashlib.sha256(b"motion " + png).hexdigest(), png, False)


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

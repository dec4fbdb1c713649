# SPDX-License-Identifier: GPL-3.0-or-later
"""Optical flow over long ways: first the one move that most of the picture makes, then the flow of what is left.

DIS and Farneback look for a pixel near its own place, and from some 7 % of the picture's width on they may lose their
way. Points that are matched all over the picture, and the phases of its spectrum, do not care how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from ..doubles import doubled
from ..errors import KoshiError
from .field import MotionField, grid
from .resample import resample

Flow = Callable[[Tensor, Tensor], Tensor]

_MODELS = ("similarity", "perspective")
_LEAST_PEAK = 0.03  # of the phases' correlation; below it, noise


def far_flow(first: Tensor, second: Tensor, flow: Flow) -> Iterator[tuple[Tensor, Tensor]]:
    """Flows from `first` to `second` and back, [H, W, 2] each, by way of each move that the whole picture may make.

    first, second: [1, 3, H, W] in 0..1. flow: measures what is left over, as flow.optical_flow does.
    """
    height, width = first.shape[2:]
    for matrix in _moves(first, second):
        there = np.linalg.inv(matrix)
        # What `second` looks like from where `first` was seen, and what of the way that leaves over; and back.
        yield (
            _whole(flow(first, _seen(second, matrix)), there, width, height),
            _whole(flow(second, _seen(first, there)), matrix, width, height),
        )


def _moves(first: Tensor, second: Tensor) -> Iterator[np.ndarray]:
    """Matrices [3, 3], second's pixels -> first's."""
    from .ransac import ransac_move

    for model in _MODELS:
        try:
            yield ransac_move(second, first, model).matrix
        except KoshiError:  # too few points agree on one
            continue
    shift = _shift(first, second)
    if shift is not None:
        yield np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]], [0.0, 0.0, 1.0]])


def _shift(first: Tensor, second: Tensor) -> tuple[float, float] | None:
    """How far `second` has to be shifted to lie on `first`, from the phases of both spectra; None if that is unsure."""
    from .flow import grey

    height, width = first.shape[2:]
    pair = [grey(picture).astype(np.float32) for picture in (second, first)]
    (x, y), peak = cv2.phaseCorrelate(pair[0], pair[1], cv2.createHanningWindow((width, height), cv2.CV_32F))
    return (x, y) if peak >= _LEAST_PEAK else None


def _seen(picture: Tensor, matrix: np.ndarray) -> Tensor:
    """The picture after the move `matrix`."""
    height, width = picture.shape[2:]
    return resample(picture, MotionField.homography(matrix, width, height, picture.device))


def _whole(left: Tensor, matrix: np.ndarray, width: int, height: int) -> Tensor:
    """Flow to a moved picture as flow to the picture itself. matrix: from the moved one to it."""
    here = grid(width, height, left.device).permute(1, 2, 0)
    place = doubled(here + left)
    line = torch.from_numpy(matrix).to(place)
    moved = torch.cat([place, torch.ones_like(place[..., :1])], -1) @ line.T
    return (moved[..., :2] / moved[..., 2:]).float().to(here.device) - here

# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion of a guide video as one move of the whole picture, found by matching points and outvoting wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import KoshiError
from .field import MotionField
from .flow import check_pair, grey

MoveModel = Literal["similarity", "affine", "perspective"]
MODELS: tuple[str, ...] = get_args(MoveModel)

# Points that must agree. The model itself needs 2, 3 or 4; of so few any would agree by chance.
_FEWEST = {"similarity": 8, "affine": 10, "perspective": 12}
_FEATURES = 4000  # strongest points of a picture
_RATIO = 0.75  # a match must be this much nearer than the second best (Lowe 2004, section 7.1)
_REACH = 1.5  # pixels by which an agreeing point may miss
_LARGEST_ZOOM = 8.0  # between two pictures; beyond it the fit is a fluke


@dataclass(frozen=True)
class PictureMove:
    """matrix: float64 [3, 3], previous pixel -> new pixel. matches: points compared. agreeing: those that fit it."""

    matrix: np.ndarray
    matches: int
    agreeing: int

    def field(self, width: int, height: int, device: torch.device | None = None) -> MotionField:
        """The move as a MotionField."""
        return MotionField.homography(self.matrix, width, height, device)


def ransac_move(previous: Tensor, new: Tensor, model: str = "affine", *, frame: int | None = None) -> PictureMove:
    """The one move that most points of two guide pictures agree on: SIFT points, matched, fitted by RANSAC.

    previous, new: [1, 3, H, W] in 0..1. model: "similarity" (shift, turn, zoom), "affine" (and shear) or
    "perspective" (a plane seen from another place). frame: the new picture's number, for messages.
    Raises KoshiError("bad_value" | "bad_guide"), and KoshiError("too_few_matches") when too few points agree: at a cut,
    in a picture without detail, or when the guide does not move as one. The caller may then hold still.
    """
    if model not in MODELS:
        raise KoshiError("bad_value", f"The guide's move is {model!r}.", f"Choose one of {', '.join(MODELS)}.")
    check_pair(previous, new)
    before, after = _matches(grey(previous), grey(new))
    matrix, agreeing = _fit(before, after, model)
    height, width = new.shape[2:]
    if matrix is None or agreeing < _FEWEST[model] or not _plausible(matrix, width, height):
        where = "The guide pictures" if frame is None else f"Frame {frame} of the guide and the one before it"
        raise KoshiError(
            "too_few_matches",
            f"{where} share {len(before)} points, of which {agreeing} agree on a move; {model} needs {_FEWEST[model]}.",
            "Use the optical flow dis_medium there, or a guide with more detail; at a cut there is no motion to find.",
        )
    return PictureMove(matrix, len(before), agreeing)


def _matches(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the same point in both pictures, each [N, 2] float32."""
    # Below OpenCV's 0.04: generated pictures have soft detail.
    finder = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.02)
    points_a, words_a = finder.detectAndCompute(first, None)
    points_b, words_b = finder.detectAndCompute(second, None)
    none = np.empty((0, 2), np.float32)
    if words_a is None or words_b is None or len(points_b) < 2:
        return none, none
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_a, words_b, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
    if not good:
        return none, none
    before = np.array([points_a[match.queryIdx].pt for match in good], np.float32)
    after = np.array([points_b[match.trainIdx].pt for match in good], np.float32)
    # SIFT gives a point one entry per direction it may be read in; each place has one vote.
    _, once = np.unique(np.round(np.concatenate([before, after], axis=1), 2), axis=0, return_index=True)
    return before[once], after[once]


def _fit(before: np.ndarray, after: np.ndarray, model: str) -> tuple[np.ndarray | None, int]:
    if len(before) < 4:
        return None, 0
    if model == "perspective":
        matrix, chosen = cv2.findHomography(before, after, cv2.RANSAC, _REACH, maxIters=5000, confidence=0.999)
        if matrix is None:
            return None, 0
    else:
        find = cv2.estimateAffinePartial2D if model == "similarity" else cv2.estimateAffine2D
        rows, chosen = find(
            before, after, method=cv2.RANSAC, ransacReprojThreshold=_REACH, maxIters=5000, confidence=0.999
        )
        if rows is None:
            return None, 0
        matrix = np.vstack([rows, [0.0, 0.0, 1.0]])
    return np.asarray(matrix, np.float64), int(chosen.sum())


def _plausible(matrix: np.ndarray, width: int, height: int) -> bool:
    """The frame's corners stay in front of the camera, are not mirrored, and the zoom is one that a camera makes."""
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64).T
    x, y, w = matrix @ corners
    if not np.isfinite(matrix).all() or w.min() <= 0.05 * w.max():
        return False
    x, y = x / w, y / w
    area = 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    return 1 / _LARGEST_ZOOM**2 < area / (width * height) < _LARGEST_ZOOM**2

# SPDX-License-Identifier: GPL-3.0-or-later
"""Guides that are pictures: what the model is shown for where things are."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .depth import GreyScale, read_depth
from .depth.maps import FAR
from .errors import KoshiError
from .guides import frame_file
from .pictures import read_picture
from .shot import Shot

_DEPTHS = (".exr", ".npy")
# Percentiles that are darkest and lightest: one leaf before the lens must not darken the rest.
_ENDS = (2.0, 98.0)
# A bend of 1 / depth by this part of itself from pixel to pixel is a full line. A right angle seen from 5 units away
# bends by some .01 at 256 pixels.
_BEND = 0.01
_CANNY = (80.0, 180.0)  # on greys of 0..255, after a blur of one pixel


def structure_picture(shot: Shot, index: int) -> Tensor | None:
    """The picture [1, 3, H, W] in 0..1 that guides.structure shows at a frame; None if the shot has none.

    Raises KoshiError for a file that does not serve.
    """
    if shot.guides.structure is None:
        return None
    file, kind = frame_file(shot.guides.structure, shot.number(index)), shot.guides.structure_as
    scene = file.suffix.lower() in _DEPTHS
    if kind == "picture" and scene:
        hint = 'Say "structure_as": "depth" or "edges", or give pictures.'
        raise KoshiError("bad_guide", f"{file} is a depth map, no picture to show.", hint)
    if kind == "picture" or (kind == "edges" and not scene):
        picture = read_picture(file, shot.width, shot.height)
        return picture if kind == "picture" else _grey(outlines_of_picture(picture))
    depth = read_depth(file, shot.width, shot.height, grey=_greys(shot)).values
    nearness = torch.where(depth < FAR, 1.0 / depth, 0.0).numpy()
    return _grey(lightness(nearness) if kind == "depth" else outlines_of_depth(nearness))


def lightness(nearness: np.ndarray) -> np.ndarray:
    """float32 [H, W] in 0..1: how near things are, as greys. nearness: 1 / depth, 0 where there is nothing."""
    there = nearness[nearness > 0.0]
    if not there.size:
        return np.zeros_like(nearness, dtype=np.float32)
    low, high = np.percentile(there, _ENDS)
    grey = (nearness - low) / max(high - low, 1e-6 * high)
    # What is farthest stays lighter than what is not there.
    return np.where(nearness > 0.0, 0.1 + 0.9 * grey.clip(0.0, 1.0), 0.0).astype(np.float32)


def outlines_of_depth(nearness: np.ndarray) -> np.ndarray:
    """float32 [H, W] in 0..1: outlines and creases. 1 / depth is affine over the picture on anything flat, so it bends
    only where surfaces meet or end."""
    padded = np.pad(nearness.astype(np.float64), 1, mode="reflect", reflect_type="odd")  # goes straight on
    middle = padded[1:-1, 1:-1]
    across = np.abs(padded[1:-1, :-2] - 2.0 * middle + padded[1:-1, 2:])
    along = np.abs(padded[:-2, 1:-1] - 2.0 * middle + padded[2:, 1:-1])
    largest = cv2.dilate(nearness.astype(np.float32), np.ones((3, 3), np.uint8))
    return (np.maximum(across, along) / np.maximum(_BEND * largest, 1e-9)).clip(0.0, 1.0).astype(np.float32)


def outlines_of_picture(picture: Tensor) -> np.ndarray:
    """float32 [H, W], 0 or 1: Canny's edges of a picture [1, 3, H, W]."""
    grey = (picture[0].mean(0).numpy() * 255.0).round().astype(np.uint8)
    return cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.0), *_CANNY).astype(np.float32) / 255.0


def _grey(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).expand(1, 3, -1, -1).contiguous()


def _greys(shot: Shot) -> GreyScale:
    settings = shot.depth
    return GreyScale(settings.near, settings.spacing, settings.nearest, settings.farthest)

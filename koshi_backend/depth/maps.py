# SPDX-License-Identifier: GPL-3.0-or-later
"""A depth map, and how it is brought to another size without bending edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

FAR = 1e10  # what Blender writes where a ray hits nothing
# Neighbours whose depths differ by more than this factor belong to different things.
_EDGE = 1.1

Kind = Literal["scene", "relative"]


@dataclass(frozen=True)
class DepthMap:
    """values: float32 [H, W], the distance along the camera's axis, above 0, larger is farther, FAR for nothing.

    kind: "scene" for the scene's own units (Blender's, or metres), "relative" where the unit means nothing.
    """

    values: Tensor
    kind: Kind

    @property
    def background(self) -> Tensor:
        """bool [H, W], where there is nothing. A tenth of FAR: halves of a float or a resized file are not exact."""
        return self.values >= FAR / 10


def plane(width: int, height: int, distance: float = 1.0, device: torch.device | None = None) -> DepthMap:
    """A wall straight ahead: every pixel has the same depth."""
    return DepthMap(torch.full((height, width), distance, dtype=torch.float32, device=device), "relative")


def resize_depth(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Depth [h, w] at another size: scaled until it covers the frame and cut evenly, as pictures are.

    In between pixels 1 / depth is interpolated (exact for planes, which are what pictures mostly show), but never
    over an edge: there the nearest pixel counts, because a mean of near and far is a place where nothing is.
    """
    rows, columns = values.shape
    if (rows, columns) == (height, width):
        return values.astype(np.float32)
    scale = max(width / columns, height / rows)
    x = (np.arange(width) + 0.5 - width / 2) / scale + columns / 2 - 0.5
    y = (np.arange(height) + 0.5 - height / 2) / scale + rows / 2 - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[None, :], (y - y0)[:, None]

    def at(down: int, right: int) -> np.ndarray:
        line, column = (y0 + down).clip(0, rows - 1), (x0 + right).clip(0, columns - 1)
        return 1.0 / values[np.ix_(line, column)].astype(np.float64)

    corners = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)]
    top = corners[0] * (1 - fx) + corners[1] * fx
    bottom = corners[2] * (1 - fx) + corners[3] * fx
    smooth = top * (1 - fy) + bottom * fy
    nearest = np.where(fy < 0.5, np.where(fx < 0.5, corners[0], corners[1]), np.where(fx < 0.5, corners[2], corners[3]))
    low = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    high = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    return (1.0 / np.where(high > low * _EDGE, nearest, smooth)).astype(np.float32)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Points and pictures to hold motion fields against."""

from __future__ import annotations

import numpy as np
import torch

from koshi_backend.motion import MotionField


def grid_points(width: int, height: int, step: int = 16) -> np.ndarray:
    """Pixels [N, 2] as (x, y), the first and last ones among them."""
    columns = sorted({*range(0, width, step), width - 1})
    rows = sorted({*range(0, height, step), height - 1})
    return np.array([(x, y) for y in rows for x in columns], dtype=np.float64)


def sources(field: MotionField, points: np.ndarray) -> np.ndarray:
    """The field's own answer at some pixels, [N, 2]."""
    x, y = points.astype(int).T
    return field.source[y, x].double().numpy()


def mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 2] through a 3 x 3 matrix."""
    whole = np.c_[points, np.ones(len(points))] @ matrix.T
    return whole[:, :2] / whole[:, 2:]


def blob(width: int, height: int, x: float, y: float) -> torch.Tensor:
    rows, columns = np.mgrid[0:height, 0:width]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return torch.from_numpy(spot.astype(np.float32)).expand(1, 3, -1, -1).contiguous()


def centroid(picture: torch.Tensor) -> tuple[float, float]:
    light = picture[0, 0].double().numpy()
    rows, columns = np.mgrid[0 : light.shape[0], 0 : light.shape[1]]
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def without_matrix(field: MotionField) -> MotionField:
    """The same field as one that is no matrix."""
    return MotionField(field.source, field.valid)

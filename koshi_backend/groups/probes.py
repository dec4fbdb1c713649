# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be read from a group of channels alone, by linear probes that are judged on pictures they have not seen."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..motion.latent import CELL

CELL_PROBES = ("luma", "chroma", "contrast", "slope")
PROBES = (*CELL_PROBES, "scene")
_TARGETS = (0, 1, 1, 2, 3, 3)  # luma; two chromas; contrast; slopes along x and y -> CELL_PROBES
RIDGE = 1e-3  # of a channel's variance


def cell_readings(grid: Tensor, pictures: Tensor, scenes: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """R^2 of linear probes from a group's channels to properties of the same 8 x 8 pixels: [sets, groups, 4].

    grid: [N, C, h, w]. pictures: luma and chroma [N, 3, H, W]. sets: [sets, groups, k] of channel numbers.
    Each scene in turn is left out of the fit and predicted. Below 0 a probe is worse than the mean.
    """
    targets = _cell_targets(pictures).permute(0, 2, 3, 1).flatten(1, 2).cpu().double().numpy()
    scores = _scores(grid, targets, [np.flatnonzero(scenes == s) for s in np.unique(scenes)], sets)
    return np.stack([scores[..., [t == k for t in _TARGETS]].mean(axis=-1) for k in range(len(CELL_PROBES))], axis=-1)


def scene_readings(grid: Tensor, scenes: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """R^2 of linear probes from a group's channels at one cell to the scene: [sets, groups], a mean over scenes.

    Each picture of every scene in turn is left out of the fit and predicted. NaN with one picture a scene.
    """
    kinds, counts = np.unique(scenes, return_counts=True)
    if len(kinds) < 2 or counts.min() < 2:
        return np.full(sets.shape[:2], np.nan)
    rounds = np.array([(scenes[:k] == scene).sum() for k, scene in enumerate(scenes)])
    one_of = (scenes[:, None] == kinds).astype(np.float64)
    cells = grid.shape[2] * grid.shape[3]
    targets = np.repeat(one_of[:, None], cells, axis=1)
    return _scores(grid, targets, [np.flatnonzero(rounds == r) for r in np.unique(rounds)], sets).mean(axis=-1)


def _scores(grid: Tensor, targets: np.ndarray, folds: list[np.ndarray], sets: np.ndarray) -> np.ndarray:
    """[sets, groups, targets]: R^2 on held-out folds of pictures. targets: [N, cells, targets]."""
    x = grid.permute(0, 2, 3, 1).flatten(1, 2).cpu().double().numpy()
    x, y = x - x.mean(axis=(0, 1)), targets - targets.mean(axis=(0, 1))
    x = np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=-1)
    xx = np.stack([np.einsum("nai,naj->ij", x[f], x[f]) for f in folds])
    xy = np.stack([np.einsum("nai,nat->it", x[f], y[f]) for f in folds])
    yy = np.stack([np.einsum("nat,nat->t", y[f], y[f]) for f in folds])
    ones = np.full((*sets.shape[:2], 1), x.shape[-1] - 1)
    chosen = np.concatenate([sets, ones], axis=-1)
    rows, columns = chosen[..., :, None], chosen[..., None, :]
    weight = np.eye(chosen.shape[-1]) * RIDGE * len(x) * x.shape[1]
    errors = np.zeros((*sets.shape[:2], y.shape[-1]))
    for k in range(len(folds)):
        seen, known = xx.sum(axis=0) - xx[k], xy.sum(axis=0) - xy[k]
        fit = np.linalg.solve(seen[rows, columns] + weight, known[chosen])
        held = np.einsum("...it,...ij,...jt->...t", fit, xx[k][rows, columns], fit)
        errors += yy[k] - 2 * np.einsum("...it,...it->...t", fit, xy[k][chosen]) + held
    return 1.0 - errors / np.maximum(yy.sum(axis=0), 1e-12)


def _cell_targets(pictures: Tensor) -> Tensor:
    """[N, 6, h, w]: mean luma, mean chromas, luma's deviation, and its slopes, of every cell of 8 x 8 pixels."""
    mean = F.avg_pool2d(pictures, CELL)
    luma = pictures[:, :1]
    contrast = (F.avg_pool2d(luma**2, CELL) - mean[:, :1] ** 2).clamp_min(0.0).sqrt()
    halves = F.avg_pool2d(luma, (CELL, CELL // 2)), F.avg_pool2d(luma, (CELL // 2, CELL))
    across = halves[0][..., 1::2] - halves[0][..., ::2]
    down = halves[1][:, :, 1::2] - halves[1][:, :, ::2]
    return torch.cat([mean, contrast, across, down], dim=1)

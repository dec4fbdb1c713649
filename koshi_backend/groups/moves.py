# SPDX-License-Identifier: GPL-3.0-or-later
"""Move channel groups, and see what moves in the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.flux2_model import Flux2Model
from ..motion import MotionField, deforum_matrix, resample
from ..motion.engines import Depth, Flux2MotionEngine
from ..motion.latent import CELL
from .measure import GROUPS, PROMPTS, SHOWN, Sample, decode_grid, luma_chroma

PUSH = 20.0  # translation_z, as in the founding documents' call; the flat push by it magnifies 1.19 times
WAYS: tuple[Depth, ...] = ("push", "gain", "layers")


@dataclass(frozen=True)
class Moves:
    """along: [8], how much of the picture goes with a group that is moved by one cell; 1 is all of it.
    depth: for "picture" (the picture itself, pushed) and each of WAYS the row (magnification, its deviation between
        places, share of the change that is no motion at all), mean over pictures. errors: their standard errors.
    shown: picture SHOWN in all ways, for the sheet."""

    along: np.ndarray
    depth: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    shown: dict[str, Tensor]


def measure_moves(model: Flux2Model, sample: Sample, progress: Callable[[str], None] = lambda text: None) -> Moves:
    """Move groups on one picture of each scene."""
    engine = Flux2MotionEngine(None, normalisation=model.autoencoder.bn)
    height, width = sample.pictures.shape[2:]
    shifted = MotionField.affine(deforum_matrix(width, height, translation_x=CELL), width, height, model.device)
    pushed = MotionField.affine(deforum_matrix(width, height, translation_z=PUSH), width, height, model.device)
    inner, whole = np.zeros(GROUPS), 0.0
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ("picture", *WAYS)}
    shown: dict[str, Tensor] = {}
    count = min(len(PROMPTS), len(sample.grid))
    for k in range(count):
        progress(f"moving groups, picture {k + 1} of {count}")
        grid = sample.grid[k : k + 1]
        base = decode_grid(model, [grid[0]])
        singles = [engine.apply_group_motion(grid, {g: {"translation_x": CELL}})[0] for g in range(GROUPS)]
        changes = (luma_chroma(decode_grid(model, singles)) - luma_chroma(base))[..., shifted.valid]
        true = (luma_chroma(resample(base, shifted)) - luma_chroma(base))[..., shifted.valid]
        products = (changes * true).sum(dim=(1, 2)).cpu().numpy()
        inner, whole = inner + products, whole + float((true**2).sum())
        moved = {"picture": resample(base, pushed)}
        for way in WAYS:
            engine.depth = way
            moved[way] = decode_grid(model, [engine.apply_motion(grid, {"translation_z": PUSH})[0]])
        for name, picture in moved.items():
            rows[name].append(_motion(base, picture))
        if k == min(SHOWN, count - 1):
            shown = {"as drawn": base, **moved}
    found = {name: np.array(values) for name, values in rows.items()}
    return Moves(
        inner / max(whole, 1e-12),
        {name: values.mean(axis=0) for name, values in found.items()},
        {name: values.std(axis=0, ddof=1) / count**0.5 for name, values in found.items()},
        shown,
    )


def _motion(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Magnification, its deviation between the eight outer ninths, and the share of the change that is no motion.

    Measured by dense inverse search, which is free to find any motion at all.
    """
    greys = [(luma_chroma(p)[0, 0].clamp(0, 1) * 255).round().byte().cpu().numpy() for p in (before, after)]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    flow = torch.from_numpy(method.calc(greys[1], greys[0], None))  # from each new pixel to its place before
    height, width = greys[0].shape
    still = MotionField.identity(width, height)
    arm = still.source - torch.tensor([(width - 1) / 2, (height - 1) / 2])
    along, length = (flow * arm).sum(dim=-1), (arm**2).sum(dim=-1)
    ninths = [
        (slice(r * height // 3, (r + 1) * height // 3), slice(c * width // 3, (c + 1) * width // 3))
        for r in range(3)
        for c in range(3)
        if (r, c) != (1, 1)
    ]
    sizes = [1.0 / (1.0 + float(along[n].sum() / length[n].sum())) for n in ninths]
    found = MotionField(still.source + flow, still.valid)
    left = ((after.cpu() - resample(before.cpu(), found)) ** 2).sum()
    change = ((after - before) ** 2).sum().cpu()
    return float(np.mean(sizes)), float(np.std(sizes)), float(left / change.clamp_min(1e-9))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured motion between two pictures, to hold against the motion that was asked for."""

from __future__ import annotations

import cv2
import numpy as np


def flow_error(before: np.ndarray, after: np.ndarray, matrix: np.ndarray) -> float:
    """Median distance in pixels between measured and commanded motion, where the picture has something to follow.

    before, after: uint8 [H, W, 3]. matrix: forward 3 x 3, previous pixel -> new pixel.
    The flow (dense inverse search) knows nothing of the command. Only pixels that have structure in both directions
    count: in a flat sky no method could tell the motion.
    """
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, after)]
    height, width = grey[0].shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    moved = np.stack([matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] for k in (0, 1)], axis=-1)
    commanded = (moved - np.stack([x, y], axis=-1)).astype(np.float32)
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    method.setPatchSize(12)
    # No initial flow: the measurement must be able to disagree with the command.
    measured = method.calc(grey[0], grey[1], None)
    structure = cv2.cornerMinEigenVal(grey[0].astype(np.float32) / 255.0, 9)
    margin = np.zeros_like(structure, dtype=bool)
    margin[16:-16, 16:-16] = True
    chosen = margin & (structure > np.quantile(structure[margin], 0.7))
    return float(np.median(np.linalg.norm(measured - commanded, axis=-1)[chosen]))

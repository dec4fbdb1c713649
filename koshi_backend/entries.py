# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures as the store keeps them, in 16 bits, and as they are worked on and handed out."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

FULL = 65535.0


def whole(picture: Tensor) -> np.ndarray:
    """[1, 3, H, W] in 0..1 as an entry's picture, uint16 [H, W, 3]."""
    return (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * FULL).round().cpu().numpy().astype(np.uint16)


def to_tensor(picture: np.ndarray) -> Tensor:
    """An entry's picture as [1, 3, H, W] in 0..1."""
    return torch.from_numpy(picture.astype(np.float32) / np.float32(FULL)).permute(2, 0, 1)[None]


def encode_png(picture: np.ndarray) -> bytes:
    """uint16 [H, W, 3] -> an 8-bit PNG file, rounded to nearest."""
    small = ((picture.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    done, data = cv2.imencode(".png", small[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return data.tobytes()

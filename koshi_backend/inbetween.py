# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames between finished frames: each pixel goes part of its way along the measured flow, from both sides.

For films at a higher rate. It knows nothing of the commanded motion and paints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import KoshiError
from .frame import FULL, encode_png
from .motion import MotionField, resample
from .motion.field import grid, inside
from .motion.flow import consistent, optical_flow

FACTORS = (1, 2, 4, 8)
_METHOD = "dis_medium"


def check_factor(interpolation: object) -> int:
    """None, 1, 2, 4 or 8 -> how many frames come out for each but the last. Raises KoshiError("bad_value")."""
    factor = 1 if interpolation is None else interpolation
    if isinstance(factor, bool) or not isinstance(factor, int) or factor not in FACTORS:
        raise KoshiError("bad_value", f"interpolation is {interpolation!r}.", "Use None, 2, 4 or 8.")
    return factor


def smoothed(pngs: Iterable[bytes], factor: int) -> Iterator[bytes]:
    """PNG frames with factor - 1 new ones between each two: n become (n - 1) * factor + 1. The given ones stay."""
    before: bytes | None = None
    for png in pngs:
        if before is not None and factor > 1:
            pictures = _decoded(before), _decoded(png)
            for picture in between(*pictures, [k / factor for k in range(1, factor)]):
                whole = (picture[0].permute(1, 2, 0) * FULL).round().numpy().astype(np.uint16)
                yield encode_png(whole)
        yield png
        before = png


def between(first: Tensor, second: Tensor, shares: list[float]) -> Iterator[Tensor]:
    """Pictures at `shares` (above 0, below 1) of the way from first to second, [1, 3, H, W] in 0..1.

    The flow from a middle picture is taken from the flows between the given ones, as in Super SloMo (Jiang and others,
    2018, equation 4), and both given pictures are looked up along it. Where the flow says that something is seen in one
    of them only, that one counts alone.
    """
    if torch.equal(first, second):
        yield from (first.clone() for _ in shares)
        return
    there, back = optical_flow(first, second, _METHOD), optical_flow(second, first, _METHOD)
    only_first, only_second = ~consistent(there, back), ~consistent(back, there)
    for t in shares:
        to_first = t * t * back - (1 - t) * t * there
        to_second = (1 - t) * (1 - t) * there - t * (1 - t) * back
        old, gone, was = _looked_up(first, only_first, to_first)
        new, come, will = _looked_up(second, only_second, to_second)
        of_old, of_new = (1 - t) * (1 - come) * was + 1e-3, t * (1 - gone) * will + 1e-3
        yield (of_old * old + of_new * new) / (of_old + of_new)


def _looked_up(picture: Tensor, hidden: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The picture where the flow points, how surely that is hidden in the other one, 0..1 [1, 1, H, W], and whether
    the flow points into it at all, bool [H, W]."""
    height, width = flow.shape[:2]
    source = grid(width, height, flow.device).permute(1, 2, 0) + flow
    valid = inside(source, width, height)
    mark = F.avg_pool2d(F.pad(hidden.float()[None, None], [1] * 4, mode="replicate"), 3, stride=1)
    field = MotionField(source, valid)
    return resample(picture, field, kernel="spline"), resample(mark, field) * valid, valid


def _decoded(png: bytes) -> Tensor:
    pixels = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.float32)
    return torch.from_numpy(pixels[..., ::-1] / np.float32(255.0)).permute(2, 0, 1)[None]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth that is estimated from each of a shot's pictures and kept steady from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..motion.field import MotionField
from .maps import DepthMap, Kind
from .stabilise import Alignment, align, carry_depth, first_alignment

_ALIGNMENT, _EXPECTED, _KNOWN = "depth.alignment", "depth.expected", "depth.known"


class SteadyDepth:
    """Estimates depth with `nearness`, a picture [1, 3, H, W] to inverse depth [H, W] up to scale and shift.

    kind: "scene" if it gives real distances. What one frame has to know of the one before travels as plain arrays, so
    that a chain that goes on from a stored frame does not differ from one that was never stopped.
    """

    def __init__(self, nearness: Callable[[Tensor], Tensor], kind: Kind = "relative") -> None:
        self.nearness, self.kind = nearness, kind
        self._depth: DepthMap | None = None
        self._alignment: Alignment | None = None

    def of(self, picture: Tensor, memory: Mapping[str, np.ndarray]) -> DepthMap:
        """The depth of a picture; memory: what `remember` gave when the picture was made, or nothing."""
        raw = self.nearness(picture)
        if _ALIGNMENT in memory:
            scale, shift = memory[_ALIGNMENT].tolist()
            expected = torch.from_numpy(memory[_EXPECTED].astype(np.float32)).to(raw.device)
            bits = np.unpackbits(memory[_KNOWN], count=raw.numel()).astype(bool).reshape(raw.shape)
            known = torch.from_numpy(bits).to(raw.device)
            self._alignment = align(raw, expected, known, Alignment(scale, shift, self.kind))
        else:
            self._alignment = first_alignment(raw, self.kind)
        self._depth = self._alignment.depth(raw)
        return self._depth

    def remember(self, field: MotionField, advance: float) -> dict[str, np.ndarray]:
        """What the next frame has to know of this depth: what it looks like after the move, and its alignment.

        advance: how far the camera goes forward, in units of depth.
        """
        if self._depth is None or self._alignment is None:
            return {}
        expected, known = carry_depth(self._depth, field, advance)
        return {
            _ALIGNMENT: np.array([self._alignment.scale, self._alignment.shift]),
            _EXPECTED: expected.clamp_max(6e4).cpu().numpy().astype(np.float16),
            _KNOWN: np.packbits(known.cpu().numpy()),
        }

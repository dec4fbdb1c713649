# SPDX-License-Identifier: GPL-3.0-or-later
"""One noise field that is scaled and shifted with the picture, as one would a texture. An experiment: it is not white.

Between cells the field is interpolated and brought back to variance 1. Whole-cell pans and zooms out stay white; a
zoom in makes blotches as large as the zoom, and half a cell's pan correlates neighbours by a half
(benchmarks/noise.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..motion import MotionField
from .cells import reduce_field
from .draw import pack, unpack


@dataclass(frozen=True)
class ScaledNoise:
    """source: float32 [h, w, 2], the place (x, y) in the first frame's noise that each cell shows, in cells."""

    source: Tensor

    @staticmethod
    def start(width: int, height: int) -> ScaledNoise:
        """Of the first frame: every cell shows its own place. width, height: of the grid, in cells."""
        return ScaledNoise(MotionField.identity(width, height).source)

    @staticmethod
    def from_array(array: np.ndarray) -> ScaledNoise:
        """The inverse of `as_array`."""
        return ScaledNoise(torch.from_numpy(array))

    def as_array(self) -> np.ndarray:
        """float32 [h, w, 2]. What has to be stored with a frame."""
        return self.source.numpy()

    def moved(self, field: MotionField) -> ScaledNoise:
        """Carried along by the picture's motion [H, W]."""
        motion = reduce_field(field)
        everywhere = torch.ones_like(motion.valid)
        return ScaledNoise(MotionField(self.source, everywhere).then(motion).source)

    def packed(self, base: Tensor) -> Tensor:
        """The noise as the model takes it. base: the first frame's, [1, 4 C, H/16, W/16]; it repeats outside."""
        cells = unpack(base)[0]
        rows, columns = cells.shape[1:]
        corner = self.source.floor()
        (fx, fy), (x, y) = (self.source - corner).unbind(-1), corner.long().unbind(-1)
        out = torch.zeros_like(cells)
        for down, wy in enumerate((1 - fy, fy)):
            for right, wx in enumerate((1 - fx, fx)):
                out += wy * wx * cells[:, (y + down) % rows, (x + right) % columns]
        spread = ((1 - fx) ** 2 + fx**2) * ((1 - fy) ** 2 + fy**2)
        return pack((out / spread.sqrt())[None])

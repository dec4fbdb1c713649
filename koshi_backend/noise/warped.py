# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaussian noise that is carried along by a motion and stays white.

Interpolating noise makes it smooth: thirty moves of a third of a pixel leave a tenth of its variance. Here a particle
of noise belongs to each latent cell and moves with the picture (`matching`). What happens to its value keeps the field
independent and normal, exactly and for any motion:

- a particle with a cell to itself keeps its value;
- one that spreads over n cells is refined: q / sqrt(n) + z - mean(z) with fresh normal z, which are the increments of
  a Brownian bridge from 0 to q, normalised. They are independent of each other and add up to q again;
- particles that meet in a cell are added, weighted by the roots of their areas, and divided by the root of the sum;
- a cell that nothing moves into is drawn anew.

The ideas are those of Chang et al., "How I Warped Your Noise" (ICLR 2024: noise as an integral over areas, and its
conditional refinement), Deng et al., "Infinite-Resolution Integral Noise Warping" (2024: the Brownian bridge), and
Burgert et al., "Go-with-the-Flow" (CVPR 2025: expansion and contraction apart, with a density and a sub-cell place).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..motion import MotionField
from .cells import reduce_field
from .draw import frame_seed, pack, unpack
from .matching import REACH, match

# Of a part of a split particle, how far it may lie from its cell's centre. The parts stay close together, so that they
# give the whole value again should they meet: set back to the centre, a turn loses twice as much in 30 frames.
PART_REACH = 0.5
AREAS = (1 / 16, 16.0)


@dataclass(frozen=True)
class WarpedNoise:
    """The noise of one frame and what the next one needs to go on from it.

    values: float32 [C, h, w], one cell for 8 x 8 pixels; C is 32 for FLUX.2, 16 for FLUX.1.
    place: float32 [2, h, w], where each cell's particle lies from its centre: (x, y) in cells, at most 1.5.
    area: float32 [h, w], how many cells the particle covers.
    """

    values: np.ndarray
    place: np.ndarray
    area: np.ndarray

    @staticmethod
    def start(packed: Tensor) -> WarpedNoise:
        """From white noise [1, 4 C, H/16, W/16]: the first frame's."""
        values = unpack(packed)[0].float().cpu().numpy()
        shape = values.shape[1:]
        return WarpedNoise(values, np.zeros((2, *shape), dtype=np.float32), np.ones(shape, dtype=np.float32))

    @staticmethod
    def from_array(array: np.ndarray) -> WarpedNoise:
        """The inverse of `as_array`."""
        return WarpedNoise(array[:-3], array[-3:-1], array[-1])

    def as_array(self) -> np.ndarray:
        """float32 [C + 3, h, w]: values, place, area. What has to be stored with a frame."""
        return np.concatenate([self.values, self.place, self.area[None]])

    def packed(self) -> Tensor:
        """The noise as the model takes it, float32 [1, 4 C, H/16, W/16], on the CPU."""
        return pack(torch.from_numpy(np.ascontiguousarray(self.values))[None])

    def moved(self, field: MotionField, seed: int, frame: int) -> WarpedNoise:
        """Carried into frame `frame`. field: the picture's motion, [H, W]; new noise comes from (seed, frame)."""
        return self.moved_cells(reduce_field(field), seed, frame)

    def moved_cells(self, motion: MotionField, seed: int, frame: int) -> WarpedNoise:
        """The same with a motion that is already on the cells' grid."""
        channels, rows, columns = self.values.shape
        count = rows * columns
        generator = torch.Generator().manual_seed(frame_seed(seed, frame, "warped"))
        fresh = torch.randn(count, channels, generator=generator).numpy()
        old = self.values.reshape(channels, count).T
        m = match(self.place[0], self.place[1], motion)
        value = old[m.particle]
        shared = m.parts > 1
        if shared.any():
            value[shared] = _refined(value[shared], fresh[m.cell[shared]], m.particle[shared], m.parts[shared])
        dx, dy = (np.where(shared, d.clip(-PART_REACH, PART_REACH), d) for d in (m.dx, m.dy))
        area = self.area.ravel()[m.particle] / m.parts * m.growth

        out, place, areas = fresh, np.zeros((2, count), dtype=np.float32), np.ones(count, dtype=np.float32)
        if len(m.cell):
            first = np.flatnonzero(np.diff(m.cell, prepend=-1))  # of each cell's particles
            cells, total = m.cell[first], np.add.reduceat(area, first)
            weight = np.sqrt(area / np.repeat(total, np.diff(first, append=len(area))))
            value *= weight.astype(np.float32)[:, None]
            out[cells] = np.add.reduceat(value, first)
            for axis, d in enumerate((dx, dy)):
                place[axis, cells] = (np.add.reduceat(d * area, first) / total).clip(-REACH, REACH)
            areas[cells] = total.clip(*AREAS)
        values = np.ascontiguousarray(out.T).reshape(self.values.shape)
        return WarpedNoise(values, place.reshape(2, rows, columns), areas.reshape(rows, columns))


def _refined(value: np.ndarray, fresh: np.ndarray, particle: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The parts of split particles, [N, C]: each normal, independent of the others, and together the whole again.

    value: that of the part's particle. fresh: a normal draw for each part. parts: how many the particle has.
    """
    order = np.argsort(particle, kind="stable")
    first = np.flatnonzero(np.diff(particle[order], prepend=-1))
    mean = np.add.reduceat(fresh[order], first) / parts[order][first, None].astype(np.float32)
    centred = np.empty_like(fresh)
    centred[order] = fresh[order] - np.repeat(mean, parts[order][first], axis=0)
    return value / np.sqrt(parts)[:, None].astype(np.float32) + centred

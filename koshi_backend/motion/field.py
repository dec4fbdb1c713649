# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: where each pixel of the new frame comes from.

Pixel centres lie at whole numbers, x to the right and y down, as in OpenCV and hence in Deforum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import KoshiError
from . import sampling

# Positions are kept within this: far outside of every picture, and what OpenCV can count to.
FAR = 30000.0
# Displacements of neighbours that differ by more than twice this belong to two things: they are not blended.
TORN = 2.0
# Between displacements that bend by no more than this at a look-up, in pixels, the cubic counts, else the line.
BENT = 0.05
BEYOND = 32


@dataclass(frozen=True)
class MotionField:
    """source: float32 [H, W, 2], the (x, y) in the previous frame that each new pixel shows, in pixels.
    valid: bool [H, W], whether that place exists (lies inside the frame and was not hidden).
    matrix: float64 [3, 3], the whole motion as a forward matrix (previous pixel -> new pixel) where it is one.
        Such fields are composed without loss and moved faster; `source` says the same to float32."""

    source: Tensor
    valid: Tensor
    matrix: np.ndarray | None = None

    @staticmethod
    def identity(width: int, height: int, device: torch.device | None = None) -> MotionField:
        """Every pixel comes from its own place."""
        return MotionField.homography(np.eye(3), width, height, device)

    @staticmethod
    def affine(
        matrix: np.ndarray, width: int, height: int, device: torch.device | None = None, border: str = "replicate"
    ) -> MotionField:
        """The field of a forward 3 x 3 matrix (previous pixel -> new pixel). `homography` under its older name."""
        return MotionField.homography(matrix, width, height, device, border)

    @staticmethod
    def homography(
        matrix: np.ndarray, width: int, height: int, device: torch.device | None = None, border: str = "replicate"
    ) -> MotionField:
        """The field of a forward 3 x 3 matrix (previous pixel -> new pixel), affine or perspective, to 1e-4 px.

        Its third row has to be positive for what lies in front of the eye; what lies behind it is not valid.
        border: with "wrap" and "reflect" there is something everywhere, so that all in front is valid.
        Raises KoshiError("bad_motion") for a matrix that has no inverse.
        """
        sampling.check_border(border)
        matrix = _scaled(matrix)
        places, front = positions(inverse(matrix), np.arange(width), np.arange(height))
        source = places.to(device).permute(1, 2, 0)
        valid = torch.ones(height, width, dtype=torch.bool, device=device) if front is None else front.to(device)
        if border == "replicate":
            # What has its four corners inside lies inside.
            corners = source[:: max(1, height - 1), :: max(1, width - 1)]
            if front is not None or not bool(inside(corners, width, height).all()):
                valid = valid & inside(source, width, height)
        return MotionField(source, valid, matrix)

    @property
    def is_identity(self) -> bool:
        """Whether this is known to be no motion at all."""
        return self.matrix is not None and np.array_equal(self.matrix, np.eye(3))

    def then(self, later: MotionField, border: str = "replicate") -> MotionField:
        """This motion followed by `later`, as one field: two moves, one resampling.

        Exact for two matrices, else cubic between this field's displacements (linear where they have a crease, and
        across a tear the nearest counts: linear all over, 2,000 waves of 0.1 px levelled one another to 1.2 px of
        error, and this leaves 0.002). A pixel is valid if it is in both steps. border: what the picture is moved with;
        a "wrap" of two matrices is that of the endless plane.
        """
        height, width = self.valid.shape
        seen = later.valid & self.seen_at(later.source, border)
        if self.matrix is not None and later.matrix is not None:
            both = MotionField.homography(later.matrix @ self.matrix, width, height, seen.device, border)
            return MotionField(both.source, both.valid & seen, both.matrix)
        x, y = later.source.unbind(-1)
        if border != "replicate":
            x, y = sampling.fold(x, width, border), sampling.fold(y, height, border)
        shift = _extended(self.source.permute(2, 0, 1) - grid(width, height, seen.device))
        x, y = x + BEYOND, y + BEYOND
        moved = sampling.linear(shift, x, y)
        smooth = sampling.catmull_rom_at(shift, x, y, "replicate")
        moved = torch.where((smooth - moved).abs().amax(dim=0) > BENT, moved, smooth)
        nearest = sampling.linear(shift, x.round(), y.round())
        moved = torch.where((moved - nearest).abs().amax(dim=0) > TORN, nearest, moved)
        source = torch.stack([x - BEYOND, y - BEYOND]) + moved
        return MotionField(source.permute(1, 2, 0), seen)

    def seen_at(self, source: Tensor, border: str) -> Tensor:
        """bool [H, W]: whether the pixel nearest to each place is valid; outside, that at the edge."""
        height, width = self.valid.shape
        if bool(self.valid.all()):
            return torch.ones_like(self.valid)
        x, y = (
            sampling.fold(place, size, border).round().long().clamp(0, size - 1)
            for place, size in zip(source.unbind(-1), (width, height), strict=True)
        )
        return self.valid[y, x]


def positions(back: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Where a backward matrix takes the pixels of some columns and rows.

    Returns x and y, float32 [2, rows, columns], and whether they lie in front of the eye (None: all of them).
    """
    places = sampling.empty(2, len(rows), len(columns))
    if back[2, 0] == 0.0 and back[2, 1] == 0.0:
        for plane, (a, b, c) in zip(places, back[:2] / back[2, 2], strict=True):
            across, down = np.float32(a * columns), np.float32(b * rows + c)
            torch.add(torch.from_numpy(across)[None], torch.from_numpy(down)[:, None], out=plane)
            if np.abs(across).max() + np.abs(down).max() > FAR:
                plane.clamp_(-FAR, FAR)
        return places, None
    first, second, depth = (torch.from_numpy((a * columns)[None] + (b * rows + c)[:, None]) for a, b, c in back)
    front = depth > 0.0
    depth = torch.where(front, depth, torch.inf)  # what is behind comes from the corner: it is not valid anyway
    for plane, place in zip(places, (first, second), strict=True):
        plane.copy_((place / depth).clamp_(-FAR, FAR))
    return places, None if bool(front.all()) else front


def grid(width: int, height: int, device: torch.device | None = None) -> Tensor:
    """The pixels' own places, float32 [2, H, W]."""
    x = torch.arange(width, dtype=torch.float32, device=device)
    y = torch.arange(height, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def inside(source: Tensor, width: int, height: int) -> Tensor:
    """bool [H, W]: which places [H, W, 2] lie on a pixel of the frame."""
    x, y = source.unbind(-1)
    # One comparison in place of four: they cost more than all the rest.
    beyond = (x - (width - 1) / 2).abs_().sub_(width / 2)
    return torch.maximum(beyond, (y - (height - 1) / 2).abs_().sub_(height / 2)) <= 0.0


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The backward matrix of a forward one. Raises KoshiError("bad_motion") if there is none."""
    size = np.abs(matrix[:2, :2]).max()
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) <= 1e-12 * size * size:
        raise KoshiError(
            "bad_motion",
            "The motion's matrix squeezes the picture to a line or a point.",
            "Keep zoom above 0 and the camera off the plane.",
        )
    return np.linalg.inv(matrix)


def _scaled(matrix: np.ndarray) -> np.ndarray:
    """The same matrix, in a size that thousands of products do not run away from; an affine one ends in 0 0 1."""
    matrix = np.array(matrix, dtype=np.float64)
    affine = matrix[2, 0] == 0.0 and matrix[2, 1] == 0.0
    size = matrix[2, 2] if affine else abs(matrix[2, 2])
    return matrix / size if size > 1e-9 * np.abs(matrix[:, :2]).max() else matrix


def _extended(planes: Tensor) -> Tensor:
    """[C, H, W] continued straight for BEYOND pixels on each side.

    With one pixel only, what is repeated outside of that creeps in: 2,000 small random moves left 0.13 px of error on
    valid pixels, and this leaves 1e-4. A slope above 1 is the edge of some thing: it does not go on.
    """
    for axis in (1, 2):
        size = planes.shape[axis]
        steps = torch.arange(1, BEYOND + 1, dtype=planes.dtype, device=planes.device)
        steps = steps.view(-1, 1) if axis == 1 else steps
        ends = []
        for edge, inner in ((0, min(1, size - 1)), (size - 1, max(0, size - 2))):
            here, there = planes.narrow(axis, edge, 1), planes.narrow(axis, inner, 1)
            ends.append(here + (here - there).clamp(-1.0, 1.0) * steps)
        planes = torch.cat([ends[0].flip(axis), planes, ends[1]], dim=axis)
    return planes

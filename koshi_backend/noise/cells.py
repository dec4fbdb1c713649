# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture's motion, brought down to its latent cells of 8 x 8 pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..motion import MotionField
from .draw import CELL

# A cell's pixels that disagree by more than half a cell (standard deviation) lie on two surfaces.
TORN = CELL / 2


def reduce_field(field: MotionField) -> MotionField:
    """The field in units of cells, on the CPU: source [H/8, W/8, 2], cell centres at whole numbers.

    A cell's motion is the mean of its valid pixels' displacements: for an affine move exactly the one at its centre.
    Across the edge of a moving object the mean would belong to neither side; there the pixel nearest to the mean
    decides. A cell is valid when half of its pixels are.
    """
    rows, columns = (side // CELL for side in field.valid.shape)
    device = field.source.device
    seen = field.valid[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    blocks = field.source[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 2)
    down = torch.arange(rows * CELL, device=device).reshape(rows, CELL, 1, 1)
    right = torch.arange(columns * CELL, device=device).reshape(1, 1, columns, CELL)
    shift = blocks - torch.stack(torch.broadcast_tensors(right, down), dim=-1)
    if bool(seen.all()):
        count = torch.full((rows, columns), float(CELL**2), device=device)
        valid = torch.ones(rows, columns, dtype=torch.bool, device=device)
    else:
        valid = seen.sum(dim=(1, 3)) >= CELL**2 / 2
        # Where a cell is lost, the move outside the frame is better than none.
        used = (seen | ~valid[:, None, :, None]) & shift.isfinite().all(dim=-1)
        shift = torch.where(used[..., None], shift, 0.0)
        count = used.sum(dim=(1, 3)).float()
    many = count.clamp(min=1.0)[..., None]
    mean = shift.sum(dim=(1, 3)) / many
    spread = (shift * shift).sum(dim=(1, 3)) / many - mean * mean
    torn = valid & (spread.sum(dim=-1) > TORN**2)
    if bool(torn.any()):
        mean[torn] = _nearest_to_mean(shift.transpose(1, 2)[torn], seen.transpose(1, 2)[torn], mean[torn])
    source = MotionField.identity(columns, rows).source + mean.cpu() / CELL
    return MotionField(source, valid.cpu())


def _nearest_to_mean(shift: Tensor, seen: Tensor, mean: Tensor) -> Tensor:
    """[N, 2]: of each cell [N, 8, 8, 2] the displacement of the seen pixel that comes nearest to its mean [N, 2]."""
    pixels = shift.flatten(1, 2)
    distance = ((pixels - mean[:, None]) ** 2).sum(dim=-1).masked_fill(~seen.flatten(1), torch.inf)
    return pixels[torch.arange(len(pixels), device=pixels.device), distance.argmin(dim=1)]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Experimental: a guess at depth from the channels of a FLUX latent, with no model.

The project's founding papers supposed that groups of latent channels carry structure, layout, palette, light, texture,
detail, meaning and transitions, and that weighting them imitates depth. That is a hypothesis, not a fact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..errors import KoshiError

# Eight groups of 16 channels (FLUX.2's packed latent), as the founding papers give them.
GROUP_WEIGHTS = (0.35, 0.28, 0.18, 0.08, -0.05, -0.15, -0.25, -0.30)


def group_nearness(latent: Tensor, width: int, height: int, weights: Sequence[float] = GROUP_WEIGHTS) -> Tensor:
    """How near each pixel might be, float32 [height, width], up to an unknown scale and shift (see `stabilise`).

    latent: [1, C, h, w], C a multiple of len(weights). Each group counts with its activity, the root mean square of
    its channels, in units of the group's own median over the picture, so that a loud group does not drown the others.
    The papers leave the measure of activity open; this one is ours.
    Raises KoshiError("bad_value").
    """
    channels = latent.shape[1] if latent.ndim == 4 and latent.shape[0] == 1 else 0
    if not weights or not channels or channels % len(weights):
        raise KoshiError(
            "bad_value",
            f"A latent of shape {list(latent.shape)} cannot be split into {len(weights)} channel groups.",
            "Give a latent [1, C, h, w] and as many weights as divide C.",
        )
    activity = latent[0].float().unflatten(0, (len(weights), -1)).square().mean(1).sqrt()
    typical = activity.flatten(1).median(dim=1).values.clamp_min(1e-6)
    nearness = (activity / typical[:, None, None] * activity.new_tensor(list(weights))[:, None, None]).sum(0)
    # Twice a box of 3 cells: single cells are noise at this stage.
    smooth = nearness[None, None]
    for _ in range(2):
        smooth = F.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    return F.interpolate(smooth, (height, width), mode="bilinear", align_corners=False)[0, 0]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a seamless loop: frames that are drawn towards the one that follows the last of them, frame 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .inbetween import soft
from .models.model import FluxModel
from .motion import MotionField, resample
from .motion.invert import inverse
from .motion.latent import pack
from .moves import Moves
from .shot import Shot
from .timing import seam_share


@dataclass(frozen=True)
class Seam:
    """picture: frame 0 as it will have been at this frame, [1, 3, H, W]. share: how much of it counts, [1, 1, H, W]."""

    picture: Tensor
    share: Tensor

    @staticmethod
    def at(
        shot: Shot, moves: Moves, index: int, shown: Tensor, memory: Mapping[str, np.ndarray], first: Tensor
    ) -> Seam:
        """Of frame `index`. shown: the frame before it, moved into it; memory: as `Moves.into` returned it.

        The moves that are left, the one into frame 0 included, are gone back. What frame 0 does not show of this frame
        (the outer part, when the camera goes in) stays what it is.
        """
        border = shot.feedback.border
        steps, _ = moves.through(index, shot.frames, shown, memory)
        onward = steps[0]
        for step in steps[1:]:
            onward = onward.then(step, border)
        back: MotionField = inverse(onward, border)
        share = seam_share(index, shot.before(index), shot.seam, shot.frames)
        return Seam(resample(first, back, border, kernel="spline"), share * soft(back.valid))

    def into(self, picture: Tensor) -> Tensor:
        """The picture with as much of frame 0 in it as there shall be."""
        return torch.lerp(picture, self.picture, self.share)

    def into_latent(self, latent: Tensor, model: FluxModel) -> Tensor:
        """The same of a packed latent, by cells of 8 pixels."""
        share = pack(F.avg_pool2d(self.share, 8).expand(1, model.channels // 4, -1, -1))
        return torch.lerp(latent, model.encode_picture(self.picture), share)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The video mixed into the picture, as sd-webui-deforum's hybrid composites do: picture + alpha * (1 - mask) * (video -
picture). There in 8 bits and stretched; here in full precision and cut to size as all pictures are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .hybrid_checks import mixed_from
from .moves import Moves
from .settings import Hybrid
from .shot import Shot

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's greys
_ALONE = 0.5  # from this alpha on the video alone fills what a move has uncovered


@dataclass(frozen=True)
class Mix:
    """The video in one frame of a shot. at: the frame whose picture of the video it is."""

    shot: Shot
    moves: Moves
    index: int
    at: int

    @staticmethod
    def of(shot: Shot, moves: Moves, index: int, composite: str) -> Mix | None:
        """What is mixed into frame `index` at the moment that `composite` names; None for nothing."""
        at = mixed_from(shot, index) if shot.hybrid.composite == composite else None
        return None if at is None else Mix(shot, moves, index, at)

    @property
    def fills(self) -> bool:
        """Whether the video alone is shown where a move has uncovered something, which is then not painted anew."""
        return self.shot.hybrid.mask == "none" and self.shot.values["hybrid_alpha"][self.index] >= _ALONE

    def into(self, picture: Tensor, valid: Tensor | None = None) -> Tensor:
        """A picture [1, 3, H, W] with the video in it. valid: bool [H, W], where it shows something."""
        row = {name: values[self.index] for name, values in self.shot.values.items()}
        settings, video = self.shot.hybrid, self.moves.video(self.at).to(picture)
        near: Tensor | None = None
        if settings.mask in ("depth", "video_depth"):
            near = self.moves.nearness(picture if settings.mask == "depth" else video, self.at)
        kept = mask(settings, row, picture, video, near)
        share: Tensor | float = row["hybrid_alpha"]
        if kept is not None:
            share = share * (1.0 - kept)[None, None]
        mixed = picture + share * (video - picture)
        return torch.where(valid, mixed, video) if valid is not None and self.fills else mixed


def mask(settings: Hybrid, row: dict[str, float], picture: Tensor, video: Tensor, near: Tensor | None) -> Tensor | None:
    """Where the picture stays, [H, W] in 0..1: 1 keeps it, 0 shows the video. None without a mask.

    picture, video: [1, 3, H, W] in 0..1. near: [H, W], of the depth masks. The steps and their order are Deforum's.
    """
    if settings.mask == "none":
        return None
    if near is not None:
        grey = near
    elif settings.mask == "blend":
        grey = torch.lerp(_grey(picture), _grey(video), row["hybrid_mask_alpha"])
    else:
        grey = (_grey(picture) - _grey(video)).abs()
    if settings.inverse:
        grey = 1.0 - grey
    if settings.equalize in ("before", "both"):
        grey = equalized(grey)
    mean = grey.mean()
    grey = (mean + row["hybrid_mask_contrast"] * (grey - mean)).clamp(0.0, 1.0)
    if settings.auto_contrast:
        ends = [row["hybrid_cutoff_low"], row["hybrid_cutoff_high"]]
        low, high = np.percentile(grey.cpu().numpy(), ends)
        if high > low:  # a mask of one grey stays what it is; Deforum divides by nothing
            grey = ((grey - float(low)) / float(high - low)).clamp(0.0, 1.0)
    return equalized(grey) if settings.equalize in ("after", "both") else grey


def equalized(grey: Tensor) -> Tensor:
    """[H, W] in 0..1 with each of 256 greys about equally frequent."""
    levels = Image.fromarray((grey.clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy())
    return torch.from_numpy(np.asarray(ImageOps.equalize(levels), np.float32) / 255.0).to(grey)


def _grey(picture: Tensor) -> Tensor:
    return (picture[0] * picture.new_tensor(_LUMA)[:, None, None]).sum(0)

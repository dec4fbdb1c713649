# SPDX-License-Identifier: GPL-3.0-or-later
"""Guided pictures: what a shot's frames are drawn towards, each from its frame on until the next one.

Deforum's guided images. They are mixed into the moved and corrected picture before it is painted over: what the mixture
leaves undecided, the model decides. docs/time.md shows this beside showing them to the model as references.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import color
from .footage import Footage
from .models.model import FluxModel, Reference
from .motion.latent import pack
from .pictures import read_picture
from .shot import Shot


@dataclass(frozen=True)
class Guided:
    """picture: [1, 3, H, W] in 0..1. share: how much of it is mixed in, a number or [H, W]; 0 where it is only shown.
    shown: whether the model is shown it as a reference."""

    picture: Tensor
    share: float | Tensor
    shown: bool

    @property
    def covers(self) -> bool:
        """Whether nothing is left of what it is mixed into, holes included."""
        return not isinstance(self.share, Tensor) and self.share == 1.0

    @property
    def mixed(self) -> bool:
        return isinstance(self.share, Tensor) or self.share > 0.0

    def into(self, picture: Tensor) -> Tensor:
        """The picture with as much of the guided one in it as there shall be."""
        return self.picture if self.covers else torch.lerp(picture, self.picture, self.share)

    def into_latent(self, latent: Tensor, model: FluxModel) -> Tensor:
        """The same of a latent, by cells of 8 pixels."""
        own = model.encode_picture(self.picture)
        if not isinstance(self.share, Tensor):
            return own if self.covers else torch.lerp(latent, own, self.share)
        cells = F.avg_pool2d(self.share[None, None], 8).expand(1, model.channels // 4, -1, -1)
        return torch.lerp(latent, own, pack(cells))

    def references(self, model: FluxModel) -> list[Reference]:
        """What the model is shown of it."""
        return [Reference(model.encode_picture(self.picture))] if self.shown else []


class GuidedPictures:
    """Reads a shot's guided pictures, and the picture that colours are matched to."""

    def __init__(self, shot: Shot, device: torch.device) -> None:
        self._shot, self._device = shot, device
        self._read: tuple[str, Tensor] | None = None
        self._colors = None if shot.color_image is None else Footage(shot, shot.color_image)

    def at(self, index: int, mask: Tensor | None) -> Guided | None:
        """What a frame is drawn towards; None if nothing is. mask: where it is painted, or None.

        What a mask keeps is kept from guided pictures, too.
        Raises KoshiError("bad_image").
        """
        shot = self._shot
        name, counts = shot.guided_at(index), shot.values["guided"][index]
        if name is None or counts == 0.0:
            return None
        share: float | Tensor = 0.0 if shot.guided_as == "shown" else counts
        if mask is not None and share:
            share = share * mask
        return Guided(self._picture(name), share, shot.guided_as != "mixed")

    def colors(self, index: int) -> np.ndarray | None:
        """The colours of the shot's `color_image`, or of the guided picture in force at a frame, where color_reference
        asks for them; None if there is none yet."""
        shot, reference = self._shot, self._shot.feedback.color_reference
        if reference == "image" and self._colors is not None:
            picture = self._colors.picture(color_frame(shot, index))
        elif reference == "guided" and (name := shot.guided_at(index)) is not None:
            picture = self._picture(name)
        else:
            return None
        return color.statistics(picture.to(self._device), shot.feedback.color_mode)

    def _picture(self, name: str) -> Tensor:
        if self._read is None or self._read[0] != name:
            self._read = name, read_picture(Path(name), self._shot.width, self._shot.height).to(self._device)
        return self._read[1]


def color_frame(shot: Shot, index: int) -> int:
    """The frame whose colours a frame is matched to."""
    return index // shot.color_every * shot.color_every

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a frame is painted, and how much: masks as strength maps."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .errors import KoshiError
from .exr import exr_pass, read_exr
from .footage import Footage
from .guides import frame_file
from .mask_words import Place
from .pictures import read_alpha
from .settings import Masking
from .shot import Shot

_INDEX = ("IndexOB", "Object Index")  # the pass, up to Blender 4.5 and from 5.0 on
_LEVELS = 255.0  # greys that are told apart; below half of one nothing is painted
_FULL = 0.25  # from here on pixels are taken as painted: strength says how much that is


class Masks:
    """The masks of a shot's frames, as they count: `masking` and the schedule `mask` in them."""

    def __init__(self, shot: Shot) -> None:
        self._shot = shot
        self._files: dict[str, Footage] = {}

    def at(self, index: int) -> Tensor | None:
        """Float [H, W] in 0..1: how much of its strength a frame is painted with; None if it is painted everywhere.

        Raises KoshiError for a file that does not serve.
        """
        counts, place = self._shot.values["mask"][index], self._shot.mask_at(index)
        if counts == 0.0 or place is None or (place.op == "init_mask" and self._start(index) is None):
            return None
        mask = adjusted(self._greys(place, index), self._shot.masking)
        return mask if counts == 1.0 else 1.0 - counts * (1.0 - mask)

    def noise_at(self, index: int) -> Tensor | None:
        """Float [H, W] in 0..1: how much of the noise is added where; None if it is all, everywhere."""
        place = self._shot.noise_mask_at(index)
        return None if place is None else self._greys(place, index)

    def _greys(self, place: Place, index: int) -> Tensor:
        """A mask in words, [H, W] in 0..1. Greys are less of a place: & is the darker of two, | the lighter one."""
        parts = [self._greys(part, index) for part in place.parts]
        match place.op:
            case "!":
                return 1.0 - parts[0]
            case "&":
                return torch.minimum(*parts)
            case "|":
                return torch.maximum(*parts)
            case "^":
                return torch.maximum(torch.minimum(parts[0], 1.0 - parts[1]), torch.minimum(1.0 - parts[0], parts[1]))
            case "\\":
                return torch.minimum(parts[0], 1.0 - parts[1])
            case "file":
                return self._of_file(place.file, index)
            case "video_mask":
                return self._of_file(self._shot.guides.mask or "", index)
        start = self._start(index) if place.op == "init_mask" else None
        shot = self._shot
        return torch.ones(shot.height, shot.width) if start is None else read_alpha(start, shot.width, shot.height)

    def _start(self, index: int) -> str | None:
        """The picture in which the scene of a frame begins."""
        return self._shot.start_of(self._shot.scene_of(index))

    def _of_file(self, name: str, index: int) -> Tensor:
        shot = self._shot
        file = frame_file(name, shot.number(index))
        if file.suffix.lower() != ".exr":
            return self._files.setdefault(name, Footage(shot, name)).picture(index)[0].mean(0)
        channels = read_exr(file, lambda channel: any(f".{name}." in f".{channel}" for name in _INDEX))
        name = next((name for name in _INDEX if any(f".{name}." in f".{channel}" for channel in channels)), _INDEX[0])
        marks = exr_pass(channels, name) > 0.5
        if marks.shape != (shot.height, shot.width):
            found = f"{marks.shape[1]} x {marks.shape[0]}"
            hint = "Render the guides in the shot's size."
            raise KoshiError("bad_guide", f"{file} is {found}, the shot {shot.width} x {shot.height}.", hint)
        return torch.from_numpy(marks.astype(np.float32))


def adjusted(greys: Tensor, masking: Masking) -> Tensor:
    """A mask [H, W] in 0..1, as `masking` has it, in 255 steps: what is left of black by a blur stays black."""
    if masking.brightness != 1.0:
        greys = (greys * masking.brightness).clamp(0.0, 1.0)
    if masking.contrast != 1.0:
        mean = greys.mean()
        greys = (mean + masking.contrast * (greys - mean)).clamp(0.0, 1.0)
    if masking.invert:
        greys = 1.0 - greys
    if masking.blur > 0.0:
        soft = cv2.GaussianBlur(greys.numpy(), (0, 0), masking.blur, borderType=cv2.BORDER_REPLICATE)
        greys = torch.from_numpy(soft)
    return (greys * _LEVELS).round() / _LEVELS


def painted_share(mask: Tensor) -> Tensor:
    """How much of each pixel is taken from what was painted by a strength that the mask has weakened already, [H, W].

    Black is kept to the bit. From a quarter on it is all painted, since the strength makes the difference: taking a
    grey's share of it once more would weaken it twice, and show two pictures at once.
    """
    return (mask / _FULL).clamp(max=1.0)

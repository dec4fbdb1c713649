# SPDX-License-Identifier: GPL-3.0-or-later
"""Anchors: a picture that is moved again and again is made from its source each time, so that it is resampled once.

Every resampling loses some of the finest detail (bicubic, half of Nyquist: 6 % a round). Kept instead are the picture
in which the motion began, the anchor, and the one field from there to now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .field import MotionField
from .resample import resample

# When the way from the anchor has become too long. See Anchored.worn.
LEAST_SHOWN = 0.5
MOST_ENLARGED = 1.75
MOST_SHRUNK = 1.5
_SAMPLES = 4  # every so manieth pixel is looked at for the scale


@dataclass(frozen=True)
class Anchored:
    """picture: float [1, C, H, W], the anchor. field: the motion from it to now. border: what lies outside of it."""

    picture: Tensor
    field: MotionField
    border: str = "replicate"

    @staticmethod
    def at(picture: Tensor, border: str = "replicate") -> Anchored:
        """Begin here: with a picture that was just painted."""
        height, width = picture.shape[-2:]
        return Anchored(picture, MotionField.identity(width, height, picture.device), border)

    def moved(self, field: MotionField) -> Anchored:
        """One more move. The picture itself is not touched."""
        return Anchored(self.picture, self.field.then(field, self.border), self.border)

    def shown(self, limits: tuple[float, float] | None = (0.0, 1.0)) -> Tensor:
        """The picture as it is now, resampled once and with the sharper kernel; invalid pixels as the border has it."""
        return resample(self.picture, self.field, self.border, kernel="spline", limits=limits)

    def worn(self) -> str | None:
        """Why it is time for a new anchor, or None.

        "hidden": less than half of the frame still comes from it. "enlarged": a tenth of that is more than 1.75 times
        as large as it was, so that the model has to add detail. "shrunk": a tenth is less than 1/1.5 of what it was,
        where single look-ups begin to skip pixels. Whoever paints into the picture begins anew at once: `Anchored.at`.
        """
        valid = self.field.valid
        if float(valid.float().mean()) < LEAST_SHOWN:
            return "hidden"
        scale = enlargement(self.field)
        if scale.numel() == 0:
            return None
        low, high = np.quantile(scale.cpu().numpy(), (0.1, 0.9))
        if high > MOST_ENLARGED:
            return "enlarged"
        return "shrunk" if low < 1.0 / MOST_SHRUNK else None

    def to_arrays(self, *, picture: bool = True) -> dict[str, np.ndarray]:
        """All of it as plain arrays. picture: False where the anchor's picture is kept elsewhere already."""
        arrays = {"border": np.array(self.border), "valid": np.packbits(self.field.valid.cpu().numpy())}
        if self.field.matrix is not None:
            arrays["matrix"] = self.field.matrix
        else:
            arrays["source"] = self.field.source.contiguous().cpu().numpy()
        if picture:
            arrays["picture"] = self.picture.contiguous().cpu().numpy()
        return arrays

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, np.ndarray], picture: Tensor | None = None, device: torch.device | None = None
    ) -> Anchored:
        """The inverse of to_arrays, bit for bit. picture: the anchor's, where it was kept elsewhere."""
        if picture is None:
            picture = torch.from_numpy(arrays["picture"].copy())
        picture, border = picture.to(device), str(arrays["border"])
        height, width = picture.shape[-2:]
        bits = np.unpackbits(arrays["valid"], count=height * width).astype(bool).reshape(height, width)
        valid = torch.from_numpy(bits).to(device)
        if "matrix" in arrays:
            field = MotionField.homography(arrays["matrix"], width, height, device, border)
            return Anchored(picture, MotionField(field.source, valid, field.matrix), border)
        source = torch.from_numpy(arrays["source"].copy()).to(device)
        return Anchored(picture, MotionField(source, valid), border)


def enlargement(field: MotionField) -> Tensor:
    """How many times as large as in the source the picture is, at some of the valid pixels: float [N]."""
    here = field.source[:-1:_SAMPLES, :-1:_SAMPLES]
    right = field.source[:-1:_SAMPLES, 1::_SAMPLES] - here
    down = field.source[1::_SAMPLES, :-1:_SAMPLES] - here
    area = (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).abs()
    return area[field.valid[:-1:_SAMPLES, :-1:_SAMPLES]].clamp_min(1e-12).rsqrt()

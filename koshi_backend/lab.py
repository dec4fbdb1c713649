# SPDX-License-Identifier: GPL-3.0-or-later
"""sRGB to CIE L*a*b* and back on the processor, some pixels at a time so that they stay in the cache.

The same numbers as color.rgb_to_lab and lab_to_rgb to 1e-5, 15 times faster at 1024 x 1024 on one core. Powers are
OpenCV's log and exp, which are vectorised on every processor. L*, a* and b* differ from the cube roots in between by a
matrix alone, so a gain and an offset in L*a*b* are one more matrix; the three pieces where a curve is straight are
added as curve(max(x, edge)) + slope * min(x - edge, 0), which needs no choice per pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)  # D65, IEC 61966-2-1
EDGE = 6.0 / 29.0
PIXELS = 80_000  # worked on at a time; above 83,333 OpenBLAS leaves its quick way with small products

# ((x + 0.055) / 1.055)^2.4: the divisor goes into the matrices.
_SCALE = 1.055**2.4
_IN = np.array(TO_XYZ) / np.array(WHITE)[:, None] / _SCALE
_OUT = np.linalg.inv(np.array(TO_XYZ)) * np.array(WHITE) * _SCALE
_DARK, _DARK_LINEAR = 0.04045, 0.0031308 * _SCALE
# Slopes of the straight pieces, in the same order as the curves: to light, its root, the root's cube, to sRGB.
_RISE, _ROOT_RISE, _CUBE_RISE, _FALL = _SCALE / 12.92, 1.0 / (3.0 * EDGE**2), 3.0 * EDGE**2, 12.92 / _SCALE
# L*, a*, b* from the cube roots of x, y, z, but for the constant.
_MIX = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_SHIFT = np.array([-16.0, 0.0, 0.0])


class Moments:
    """Mean and standard deviation of three channels that come piece by piece.

    about: [3], numbers near the means, which the values that come are given less of already; no digits are lost in the
    squares then. None: they come as they are, and the first piece tells.
    """

    def __init__(self, about: np.ndarray | None = None) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(3), np.zeros(3)
        self._given = about is not None
        self._about = about

    def add(self, values: np.ndarray, valid: np.ndarray | None) -> None:
        """Some more values, float32 [3, N], of which those marked in `valid` [N] count; overwrites them."""
        if not self._given:
            if self._about is None:
                self._about = values.mean(axis=1)
            values -= self._about[:, None]
        self._count += values.shape[1]
        if valid is not None and not valid.all():
            values *= valid.astype(np.float32)
            self._count += int(valid.sum()) - len(valid)
        self._sum += torch.from_numpy(values).sum(dim=1).numpy()  # three times as fast as numpy's
        self._squares += [np.dot(channel, channel) for channel in values]

    def result(self) -> np.ndarray:
        """Three means and three deviations, float64 [6]."""
        mean = self._sum / max(1, self._count)
        variance = self._squares / max(1, self._count) - mean**2
        about = 0.0 if self._about is None else self._about
        return np.concatenate([mean + about, np.sqrt(np.maximum(variance, 0.0))])


class LabPicture:
    """A picture [1, 3, H, W] on its way through L*a*b*. valid: bool [H, W], the pixels that count in `statistics`."""

    def __init__(self, picture: Tensor, valid: Tensor | None = None) -> None:
        self._shape = picture.shape
        self._pixels = picture[0].reshape(3, -1).contiguous()  # as OpenCV needs them
        mask = None if valid is None or not bool(valid.any()) else valid.reshape(-1).numpy()
        to_roots = _matrix(_IN, _IN @ np.full(3, -_RISE * _DARK))
        after_roots = _MIX @ np.full(3, -_ROOT_RISE * EDGE**3)  # what the stored roots lack, in L*a*b*
        self._roots = []
        moments: Moments | None = None
        for start in range(0, self._pixels.shape[1], PIXELS):
            some = self._pixels[:, start : start + PIXELS]
            if start == 0 or some.shape[1] != PIXELS:
                whole, straight = _with_ones(some), torch.empty_like(some)
                light = whole[:3]
            torch.clamp(some, min=_DARK, out=light)
            _power(light.add_(0.055), 2.4)
            torch.clamp(some, max=_DARK, out=straight)
            light.add_(straight, alpha=_RISE)
            xyz, roots = straight, _with_ones(some)
            np.matmul(to_roots, whole.numpy(), out=xyz.numpy())
            _power(torch.clamp(xyz, min=EDGE**3, out=roots[:3]), 1.0 / 3.0)
            roots[:3].add_(xyz.clamp_max_(EDGE**3), alpha=_ROOT_RISE)
            self._roots.append(roots)
            if moments is None:
                about = _MIX @ roots[:3].mean(dim=1).double().numpy()
                to_lab, moments = _matrix(_MIX, -about), Moments(about)
            np.matmul(to_lab, roots.numpy(), out=light.numpy())
            moments.add(light.numpy(), None if mask is None else mask[start : start + PIXELS])
        self.statistics = (moments or Moments()).result()
        self.statistics[:3] += _SHIFT + after_roots

    def changed(self, gain: np.ndarray, offset: np.ndarray, amount: float) -> Tensor:
        """The picture with gain * (L*, a*, b*) + offset, blended in by `amount`, within 0..1."""
        back = np.linalg.inv(_MIX)
        mix = back @ np.diag(gain) @ _MIX
        shift = back @ (gain * _SHIFT + offset - _SHIFT) + mix @ np.full(3, -_ROOT_RISE * EDGE**3)
        to_new = _matrix(mix, shift)
        to_light = _matrix(_OUT * _CUBE_RISE, _OUT @ np.full(3, -_CUBE_RISE * EDGE))
        # Of numpy, as `motion.sampling.empty` has it: fresh memory costs less so.
        out = torch.from_numpy(np.empty(self._pixels.shape, np.float32))
        for roots, start in zip(self._roots, range(0, self._pixels.shape[1], PIXELS), strict=True):
            if start == 0 or roots.shape[1] != PIXELS:
                new, colour = torch.empty_like(roots[:3]), torch.empty_like(roots[:3])
                whole = _with_ones(roots)
                xyz = whole[:3]
            np.matmul(to_new, roots.numpy(), out=new.numpy())
            torch.clamp(new, min=EDGE, out=xyz)
            square = torch.mul(xyz, xyz, out=colour)
            torch.addcmul(new.clamp_max_(EDGE), square, xyz, value=1.0 / _CUBE_RISE, out=xyz)
            light = new
            np.matmul(to_light, whole.numpy(), out=light.numpy())
            # A millionth inside of 0..1, so that rounding stays there and no last pass is needed.
            _power(torch.clamp(light, _DARK_LINEAR, _SCALE * (1 - 2e-6), out=colour), 1.0 / 2.4)
            light.clamp_(0.0, _DARK_LINEAR)
            wanted = out[:, start : start + PIXELS] if amount == 1.0 else colour
            shift = 2e-7 - 0.055 - _FALL * _DARK_LINEAR
            cv2.addWeighted(colour.numpy(), 1.0, light.numpy(), _FALL, shift, wanted.numpy())
            if amount != 1.0:
                torch.lerp(self._pixels[:, start : start + PIXELS], colour, amount, out=out[:, start : start + PIXELS])
        return out.view(self._shape)


def _matrix(numbers: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """[3, 4]: the last column meets a row of ones. numpy's product takes half as long as torch's addmm here."""
    return np.column_stack([numbers, shift]).astype(np.float32)


def _with_ones(like: Tensor) -> Tensor:
    """[4, N] for three channels and a row of ones."""
    made = torch.empty(4, like.shape[1])
    made[3] = 1.0
    return made


def _power(values: Tensor, exponent: float) -> Tensor:
    """values ** exponent, in place, for values above 0."""
    array = values.numpy()
    cv2.log(array, array)
    values.mul_(exponent)
    cv2.exp(array, array)
    return values

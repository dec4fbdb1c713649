# SPDX-License-Identifier: GPL-3.0-or-later
"""Colour match: bring a picture's mean and spread, channel by channel, to those of a reference.

Mean and deviation rather than histograms: a histogram match flickers by itself (measured by others, see
docs/feedback.md) and cannot be blended in.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .doubles import doubled
from .lab import EDGE, PIXELS, TO_XYZ, WHITE, LabPicture, Moments

# How far one match may stretch or squeeze a channel. A nearly flat channel would otherwise be blown up to noise.
MAX_GAIN = 2.0


def statistics(picture: Tensor, mode: str, valid: Tensor | None = None) -> np.ndarray:
    """Mean and standard deviation of the three channels, float64 [6], over the valid pixels.

    picture: [1, 3, H, W], sRGB in 0..1. mode: LAB, RGB or HSV. valid: bool [H, W].
    """
    if _is_quick(picture, mode):
        return LabPicture(picture, valid).statistics
    return _moments(_to(picture, mode), valid)


def match(picture: Tensor, anchor: np.ndarray, mode: str, amount: float, valid: Tensor | None = None) -> Tensor:
    """Match `picture` to the statistics `anchor`, by `amount` in 0..1. Hue is left alone in HSV: it wraps."""
    if amount <= 0.0:
        return picture
    if _is_quick(picture, mode):
        lab = LabPicture(picture, valid)
        return lab.changed(*_line(lab.statistics, anchor), amount)
    values = _to(picture, mode)
    gain, offset = _line(_moments(values, valid), anchor)
    if mode == "HSV":
        gain[0], offset[0] = 1.0, 0.0
    scale = torch.tensor(gain, dtype=values.dtype, device=values.device).view(1, 3, 1, 1)
    shift = torch.tensor(offset, dtype=values.dtype, device=values.device).view(1, 3, 1, 1)
    matched = _from(torch.addcmul(shift, values, scale), mode)
    return torch.lerp(picture, matched, amount).clamp_(0.0, 1.0)


def _is_quick(picture: Tensor, mode: str) -> bool:
    return mode == "LAB" and picture.device.type == "cpu" and picture.dtype == torch.float32


def _line(own: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset, per channel, that bring the statistics `own` to `anchor`."""
    gain = np.clip(anchor[3:] / np.maximum(own[3:], 1e-6), 1.0 / MAX_GAIN, MAX_GAIN)
    return gain, anchor[:3] - own[:3] * gain


def _moments(values: Tensor, valid: Tensor | None) -> np.ndarray:
    """Mean and deviation of the three channels [1, 3, H, W] over the valid pixels, or over all if none is."""
    values = values[0].flatten(1)
    mask = None if valid is None or not bool(valid.any()) else valid.flatten()
    if values.device.type == "cpu":
        moments = Moments()
        for start in range(0, values.shape[1], PIXELS):
            some = slice(start, start + PIXELS)
            moments.add(values[:, some].float().numpy().copy(), None if mask is None else mask[some].numpy())
        return moments.result()
    values = doubled(values if mask is None else values[:, mask])
    return torch.cat([values.mean(dim=1), values.std(dim=1, unbiased=False)]).cpu().numpy()


def _to(picture: Tensor, mode: str) -> Tensor:
    return {"LAB": rgb_to_lab, "RGB": lambda p: p, "HSV": rgb_to_hsv}[mode](picture)


def _from(values: Tensor, mode: str) -> Tensor:
    return {"LAB": lab_to_rgb, "RGB": lambda v: v, "HSV": hsv_to_rgb}[mode](values)


def rgb_to_lab(picture: Tensor) -> Tensor:
    """sRGB [1, 3, H, W] in 0..1 -> CIE L*a*b* under D65, L in 0..100."""
    linear = torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    xyz = _mix(linear, TO_XYZ) / linear.new_tensor(WHITE).view(1, 3, 1, 1)
    f = torch.where(xyz > EDGE**3, xyz.clamp_min(1e-12) ** (1 / 3), xyz / (3 * EDGE**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse, clamped to sRGB's gamut."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(f > EDGE, f**3, 3 * EDGE**2 * (f - 4 / 29)) * lab.new_tensor(WHITE).view(1, 3, 1, 1)
    inverse = tuple(map(tuple, np.linalg.inv(np.array(TO_XYZ)).tolist()))
    linear = _mix(xyz, inverse).clamp(0.0, 1.0)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-12) ** (1 / 2.4) - 0.055)


def rgb_to_hsv(picture: Tensor) -> Tensor:
    """Hue in 0..6, saturation and value in 0..1."""
    r, g, b = picture.unbind(1)
    value, low = picture.amax(dim=1), picture.amin(dim=1)
    spread = value - low
    safe = spread.clamp_min(1e-8)
    hue = torch.where(value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    return torch.stack([hue, spread / value.clamp_min(1e-8), value], dim=1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """The inverse; saturation and value are clamped to 0..1."""
    hue, saturation, value = hsv.unbind(1)
    saturation, value = saturation.clamp(0.0, 1.0), value.clamp(0.0, 1.0)
    parts = []
    for corner in (5.0, 3.0, 1.0):
        k = (corner + hue) % 6
        parts.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0.0, 1.0))
    return torch.stack(parts, dim=1)


def _mix(channels: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", channels.new_tensor(matrix), channels)

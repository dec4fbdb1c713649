# SPDX-License-Identifier: GPL-3.0-or-later
"""What pictures are measured by: error, energy of detail, combs, distances between sets, motion, drift."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

WINDOW = 64  # pixels of the windows in which combs are looked for
ROUNDING = 1 / 255**2 / 12  # power of rounding to 8 bits, which every picture goes through
TEXTURED = 0.3  # of all pixels, the part with the most structure, on which motion is measured
MARGIN = 16  # pixels at the border where motion is not measured


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of -1..1, in dB."""
    error = (a.clamp(-1, 1) - b).square().mean((1, 2, 3)) / 4
    return float(-10 * error.clamp_min(1e-10).log10().mean())


def psnr_bytes(a: np.ndarray, b: np.ndarray) -> float:
    """Of two 8-bit pictures, in dB; 99 when they are equal."""
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two sets of features [N, F]."""
    a, b = a.double(), b.double()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots)


def spread(v: Tensor) -> float:
    """Mean distance between all pairs of rows."""
    return float(torch.pdist(v.flatten(1)).mean())


def octave(x: Tensor) -> Tensor:
    """Energy of each picture [B, C, H, W] at more than half of the highest frequency, per pixel, [B].

    Under a Hann window: without one the jump from a picture's right edge to its left counts as detail.
    """
    height, width = x.shape[-2:]
    window = torch.hann_window(height, device=x.device)[:, None] * torch.hann_window(width, device=x.device)
    power = torch.fft.fft2((x - x.mean((2, 3), keepdim=True)) * window).abs().square().mean(1)
    fy, fx = (torch.fft.fftfreq(n, device=x.device).abs() for n in (height, width))
    fine = torch.maximum(fy[:, None], fx[None]) > 0.25
    return (power * fine).sum((1, 2)) / (height * width * window.square().sum())


def top_octave(x: Tensor) -> float:
    """The mean of `octave` over pictures."""
    return float(octave(x).mean())


def comb(x: Tensor, period: int, overtones: bool = False) -> Tensor:
    """How far rows and columns of this period (8 or 16 pixels) stand out, per picture [B], as a logarithm.

    x: [B, 3, H, W] of 0..1. The energy at the period, upright or lying and slowly changing along the line, over that
    of the neighbouring frequencies; in overlapping windows of 64 pixels, of which the logarithms' mean is taken, so
    that a faint grid in a flat sky counts as much as one in a busy street. (Of photos with a grid of 1/255 in them,
    this gives 1.8 times as much as without; the ratio of whole pictures' mean energies 1.0.)
    overtones: of the frequencies 3, 5 and 7 (period 16) or 2 and 3 (period 8) times as high instead: sharp lines.
    """
    step, k = WINDOW // 2, WINDOW // period
    tiles = x.mean(1).unfold(1, WINDOW, step).unfold(2, WINDOW, step).flatten(1, 2)
    window = torch.hann_window(WINDOW, device=x.device)
    window = window[:, None] * window
    tiles = (tiles - tiles.mean((2, 3), keepdim=True)) * window
    power = torch.fft.fft2(tiles).abs().square() / window.square().sum() + ROUNDING
    slow = [0, 1, 2, -1, -2]

    def line(at: int) -> Tensor:
        return power[..., at, slow].sum(-1) + power[..., slow, at].sum(-1)

    # Two and three away: the window spreads a frequency over its direct neighbours.
    away, orders = (2,) if k < 5 else (2, 3), ((2, 3) if period == 8 else (3, 5, 7)) if overtones else (1,)
    found = []
    for n in orders:
        around = torch.stack([line(n * k + s * d) for d in away for s in (1, -1) if n * k + s * d <= WINDOW // 2])
        found.append(line(n * k).log() - around.log().mean(0))
    return torch.stack(found).mean(0).mean(1)


class Flow(NamedTuple):
    """Medians in pixels over textured places: distance of measured and commanded motion, and the motion itself."""

    error: float
    moved: float


def flow_error(before: np.ndarray, after: np.ndarray, matrix: np.ndarray) -> Flow:
    """The motion seen between two 8-bit pictures [H, W, 3], against the commanded one.

    matrix: forward 3 x 3, pixel before -> pixel after. Dense inverse search knows nothing of the command. Only places
    with structure in both directions count, at which the command does not lead out of the picture.
    """
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, after)]
    height, width = grey[0].shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    at = np.stack([matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] for k in (0, 1)], axis=-1)
    commanded = at - np.stack([x, y], axis=-1)
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    method.setPatchSize(12)
    measured = method.calc(grey[0], grey[1], None)
    structure = cv2.cornerMinEigenVal(grey[0].astype(np.float32) / 255.0, 9)
    inside = np.ones(grey[0].shape, bool)
    for axis, end in ((0, width), (1, height)):
        for place in (at[..., axis], (x, y)[axis]):
            inside &= (place >= MARGIN) & (place <= end - 1 - MARGIN)
    chosen = inside & (structure > np.quantile(structure[inside], 1 - TEXTURED))
    return Flow(
        float(np.median(np.linalg.norm(measured - commanded, axis=-1)[chosen])),
        float(np.median(np.linalg.norm(commanded, axis=-1)[chosen])),
    )


class Drift(NamedTuple):
    """Contrast and mean colour of a picture against a first one, as shares of the first one's."""

    contrast: float
    colour: float


def drift(first: Tensor, later: Tensor) -> Drift:
    """How far a picture [3, H, W] of 0..1 has gone from the first one.

    Contrast: the standard deviation of all values. Colour: the largest change of a channel's mean, over the first
    picture's mean brightness.
    """
    contrast = float(later.std() / first.std() - 1)
    return Drift(abs(contrast), float((later.mean((1, 2)) - first.mean((1, 2))).abs().max() / first.mean()))


class LinearInverse:
    """The best linear way back from latents to patches of 8 x 8 pixels, found by least squares.

    For koshi-tiny's own encoder, which is linear, it is the inverse of its projection.
    """

    def __init__(self, latents: Tensor, pictures: Tensor) -> None:
        """latents [N, C, H/8, W/8] of pictures [N, 3, H, W]."""
        z, p = latents.permute(0, 2, 3, 1).flatten(0, 2).double(), _patches(pictures).flatten(0, 2).double()
        self.z_mean, self.p_mean = z.mean(0), p.mean(0)
        z, p = z - self.z_mean, p - self.p_mean
        ridge = 1e-9 * (z.T @ z).trace() / z.shape[1] * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        self.matrix = torch.linalg.solve(z.T @ z + ridge, z.T @ p)

    def __call__(self, latents: Tensor) -> Tensor:
        """Pictures [N, 3, H, W], float32."""
        n, _, h, w = latents.shape
        p = (latents.permute(0, 2, 3, 1).double() - self.z_mean) @ self.matrix + self.p_mean
        return p.reshape(n, h, w, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, 8 * h, 8 * w).float()


def _patches(x: Tensor) -> Tensor:
    """[N, 3, H, W] to [N, H/8, W/8, 192]."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(n, h // 8, w // 8, -1)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What pictures are measured by: error, energy of detail, combs, distances between sets."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of -1..1, in dB."""
    error = (a.clamp(-1, 1) - b).square().mean((1, 2, 3)) / 4
    return float(-10 * error.clamp_min(1e-10).log10().mean())


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two sets of features [N, F]."""
    a, b = a.double(), b.double()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots)


def spread(v: Tensor) -> float:
    """Mean distance between all pairs of rows."""
    return float(torch.pdist(v.flatten(1)).mean())


def top_octave(x: Tensor) -> float:
    """Energy of pictures [B, 3, N, N] at more than half of the highest frequency, per pixel."""
    power = torch.fft.fft2(x - x.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    f = torch.fft.fftfreq(x.shape[-1]).abs()
    return float(power[torch.maximum(f[:, None], f[None]) > 0.25].sum() / x.shape[-1] ** 4)


def comb(x: Tensor, period: int) -> float:
    """Energy at exactly this period along rows and columns, next to that of the neighbouring frequencies."""
    power = torch.fft.fft2(x).abs().square().mean((0, 1))
    n, k = x.shape[-1], x.shape[-1] // period
    lines = power[k, : n // 32].sum() + power[: n // 32, k].sum()
    around = sum(power[k + d, : n // 32].sum() + power[: n // 32, k + d].sum() for d in (-3, -2, 2, 3)) / 4
    return float(lines / around)

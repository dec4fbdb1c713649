# SPDX-License-Identifier: GPL-3.0-or-later
"""The analytic encoder: a PCA of 8 x 8 pixel patches, written exactly into the FLUX.2 encoder's weights.

192 values of a patch become 32 coefficients, partly whitened and rotated so that all channels have equal variance
while strong components stay stronger. In the convolutional encoder every residual branch is zero; the strided
convolutions move pixels into channels, and the third computes +p and -p of each coefficient beside large constants,
so that GroupNorm is a fixed scale and silu(p) - silu(-p) = p makes the last activation linear again.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig

from .captions import draw_spec
from .world import render

WIDTHS, GROUPS = (24, 48, 96, 96), 8
CHANNELS, PATCH = 32, 192
CONSTANT, POWER = 32.0, 0.30


def new_autoencoder() -> Autoencoder:
    """koshi-tiny's autoencoder with fresh weights."""
    return Autoencoder(AutoencoderConfig(WIDTHS, WIDTHS, blocks=1, groups=GROUPS))


def patches(x: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] to patches [B, H/8, W/8, 192], values ordered (row, column, colour)."""
    b, _, h, w = x.shape
    return x.reshape(b, 3, h // 8, 8, w // 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(b, h // 8, w // 8, PATCH)


def fit(pictures: int = 640, seed: int = 1) -> dict[str, Tensor]:
    """The PCA over rendered pictures, a third of them at half size, half of them shifted."""
    rng = np.random.default_rng(seed)
    second, first, count = np.zeros((PATCH, PATCH)), np.zeros(PATCH), 0
    for i in range(pictures):
        img = torch.from_numpy(render(10_000_000 + i, draw_spec(rng))).permute(2, 0, 1)[None] * 2 - 1
        if i % 3 == 2:
            img = F.avg_pool2d(img, 2)
        if i % 2:
            img = torch.roll(img, tuple(rng.integers(8, size=2).tolist()), (2, 3))
        p = patches(img).reshape(-1, PATCH).double().numpy()
        second, first, count = second + p.T @ p, first + p.sum(0), count + len(p)
    mean = first / count
    covariance = second / count - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1][:CHANNELS], 1e-12), vectors[:, ::-1][:, :CHANNELS]
    deviation = np.sqrt(values)
    gain = deviation**POWER
    gain = gain / np.sqrt((gain**2).mean())
    hadamard = np.ones((1, 1))
    while len(hadamard) < CHANNELS:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rotation = hadamard / CHANNELS**0.5 @ np.diag(gain)
    kept = values.sum() / np.trace(covariance)
    found = {"basis": vectors.T, "mean": mean, "deviation": deviation, "rotation": rotation, "kept": np.array(kept)}
    return {name: torch.tensor(np.ascontiguousarray(v)).float() for name, v in found.items()}


class LinearEncoder(nn.Module):
    """The same encoder as one matrix product: pictures [B, 3, H, W] of -1..1 to raw latents [B, 32, H/8, W/8]."""

    def __init__(self, pca: dict[str, Tensor]) -> None:
        super().__init__()
        forward = pca["rotation"] @ (pca["basis"] / pca["deviation"][:, None])
        inverse = pca["basis"].T @ torch.diag(pca["deviation"]) @ torch.linalg.inv(pca["rotation"])
        for name, value in (
            ("matrix", forward),
            ("bias", -forward @ pca["mean"]),
            ("inverse", inverse),
            ("mean", pca["mean"]),
        ):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return (patches(x.float()) @ self.matrix.T + self.bias).permute(0, 3, 1, 2)

    def decode(self, z: Tensor) -> Tensor:
        """The linear inverse, a blocky picture; what a trained decoder must beat."""
        p = z.permute(0, 2, 3, 1) @ self.inverse.T + self.mean
        b, h, w, _ = p.shape
        return p.reshape(b, h, w, 8, 8, 3).permute(0, 5, 1, 3, 2, 4).reshape(b, 3, h * 8, w * 8)


def place(k: int, sign: int) -> int:
    """The channel that carries +coefficient k or -coefficient k; four of each per group of 12."""
    return k // 4 * 12 + k % 4 + (0 if sign > 0 else 4)


@torch.no_grad()
def write_encoder(net: Autoencoder, pca: dict[str, Tensor]) -> Autoencoder:
    """Set net.encoder so that its mean equals LinearEncoder's latents."""
    e = net.encoder
    for module in e.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            module.bias.zero_()
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(1)
            module.bias.zero_()
    steps = [e.down[k].downsample.conv for k in range(3)]
    for c in range(3):
        e.conv_in.weight[c, c, 1, 1] = 1
    for dy in range(2):
        for dx in range(2):
            for k, width in ((0, 3), (1, 12)):
                for c in range(width):
                    steps[k].weight[(dy * 2 + dx) * width + c, c, dy, dx] = 1
    for level, width in ((1, 24), (2, 48)):
        for c in range(width):
            e.down[level].block[0].nin_shortcut.weight[c, c] = 1
    w = pca["basis"] / pca["deviation"][:, None]
    bias = -w @ pca["mean"]
    for py in range(8):
        for px in range(8):
            channel = ((py // 2 % 2) * 2 + px // 2 % 2) * 12 + ((py % 2) * 2 + px % 2) * 3
            column = w[:, (py * 8 + px) * 3 : (py * 8 + px) * 3 + 3]
            for k in range(CHANNELS):
                for sign in (1, -1):
                    steps[2].weight[place(k, sign), channel : channel + 3, py // 4, px // 4] = sign * column[k]
    for k in range(CHANNELS):
        for sign in (1, -1):
            steps[2].bias[place(k, sign)] = sign * bias[k]
            e.conv_out.weight[k, place(k, sign), 1, 1] = sign
    for g in range(GROUPS):
        steps[2].bias[g * 12 + 8 : g * 12 + 10], steps[2].bias[g * 12 + 10 : g * 12 + 12] = CONSTANT, -CONSTANT
    # Four large constants and eight unit coefficients make up a group's variance.
    e.norm_out.weight.fill_(((4 * CONSTANT**2 + 8) / 12) ** 0.5)
    e.conv_out.bias[CHANNELS:] = -12.0  # the posterior's log-variance: next to nothing
    e.quant_conv.weight[:CHANNELS, :CHANNELS, 0, 0] = pca["rotation"]
    for k in range(CHANNELS):
        e.quant_conv.weight[CHANNELS + k, CHANNELS + k] = 1
    return net

# SPDX-License-Identifier: GPL-3.0-or-later
"""The encoder's correction: what makes encoding and decoding again and again a fixed point.

The trained decoder D errs a little: the analytic encoder E finds E(D(z)) = z + e(z), and in a loop e adds up. Were the
encoder E' = (E D)^-1 E instead, E'(D(z)) would be z to the bit, and D(E'(x)) would look like x to E. e is a smooth
function of the neighbourhood, so the residual blocks at the encoder's last resolution, which the analytic encoder
leaves at zero, can learn that inverse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koshi_backend.models.autoencoder import Autoencoder

from .encoder import CHANNELS, CONSTANT, GROUPS, patches, place

LEARNED = ("block.", "mid.block_1.", "mid.block_2.")  # of CorrectedEncoder


class CorrectedEncoder(nn.Module):
    """net.encoder with all that is fixed as one matrix product: pictures [B, 3, H, W] of -1..1 to [B, 32, H/8, W/8].

    Shares the modules of the last resolution with `net`.
    """

    def __init__(self, net: Autoencoder, parts: dict[str, Tensor]) -> None:
        super().__init__()
        basis = parts["basis"] / parts["deviation"][:, None]
        matrix, bias = torch.zeros(len(net.encoder.norm_out.weight), basis.shape[1]), torch.zeros(12 * GROUPS)
        for k in range(CHANNELS):
            for sign in (1, -1):
                matrix[place(k, sign)], bias[place(k, sign)] = sign * basis[k], -sign * (basis[k] @ parts["mean"])
        for g in range(GROUPS):
            bias[g * 12 + 8 : g * 12 + 10], bias[g * 12 + 10 : g * 12 + 12] = CONSTANT, -CONSTANT
        self.register_buffer("matrix", matrix)
        self.register_buffer("bias", bias)
        encoder = net.encoder
        self.block, self.mid = encoder.down[-1].block[0], encoder.mid
        self.norm_out, self.conv_out, self.quant_conv = encoder.norm_out, encoder.conv_out, encoder.quant_conv

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous: with channels last the backward pass of a frozen GroupNorm crashes (torch 2.13, CPU).
        front = (patches(x.float()) @ self.matrix.T + self.bias).permute(0, 3, 1, 2).contiguous()
        h = self.block(front.to(self.conv_out.weight.dtype))
        h = self.mid.block_2(self.mid.block_1(h))  # the attention between them adds exactly nothing
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(h))))[:, :CHANNELS].float()


@torch.no_grad()
def open_correction(net: Autoencoder, seed: int) -> None:
    """Give the residual blocks of the last resolution a start: ready to learn, still adding nothing."""
    generator = torch.Generator().manual_seed(seed)
    scale = net.encoder.norm_out.weight
    for block in (net.encoder.down[-1].block[0], net.encoder.mid.block_1, net.encoder.mid.block_2):
        weight = block.conv1.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * (weight.shape[1] * 9) ** -0.5)
        block.norm1.weight.copy_(scale)  # the large constants shrink everything else to a twentieth

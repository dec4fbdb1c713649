# SPDX-License-Identifier: GPL-3.0-or-later
"""The autoencoders of FLUX.1 and FLUX.2, in their native layouts (module names are those of black-forest-labs).

Pictures go to 16 (FLUX.1) or 32 (FLUX.2) channels at an eighth of the size, 2 x 2 of which are packed to 64 or 128
channels at a sixteenth and normalised: FLUX.1 by two fixed numbers, FLUX.2 by running statistics. Noise belongs into
the normalised space: there it has the picture's scale. FLUX.2 has a 1 x 1 convolution on either side of the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

EPS = 1e-6
LATENT_CHANNELS = 32  # FLUX.2's, before packing
FLUX1_CHANNELS = 16


class FixedNormalisation(NamedTuple):
    """One shift and one scale for all channels: normalised = (latent - shift) * scale. Defaults are FLUX.1's.

    Source: black-forest-labs/flux util.py, shift_factor and scale_factor.
    """

    shift: float = 0.1159
    scale: float = 0.3611


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that fixes the shapes, and the group count, which shapes do not show. Defaults are FLUX.2's.

    decoder_widths: (96, 192, 384, 384) in FLUX.2's small decoder.
    fixed: FLUX.1's normalisation; None is FLUX.2's, with running statistics and the 1 x 1 convolutions.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    decoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    groups: int = 32
    statistics_eps: float = 1e-4
    channels: int = LATENT_CHANNELS
    fixed: FixedNormalisation | None = None

    @classmethod
    def flux1(cls) -> AutoencoderConfig:
        """FLUX.1's, at full size."""
        return cls(channels=FLUX1_CHANNELS, fixed=FixedNormalisation())


def pack(latent: Tensor) -> Tensor:
    """[B, C, H/8, W/8] -> [B, 4 C, H/16, W/16]. Packed channel = 4 c + 2 row + column, in both families."""
    return rearrange(latent, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)


def unpack(latent: Tensor) -> Tensor:
    """The inverse of `pack`."""
    return rearrange(latent, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)


class ResnetBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=EPS)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width_out, eps=EPS)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """One head over all positions."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPS)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, h = x.shape[2], self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=rows))


class Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width, groups)
        self.attn_1 = AttnBlock(width, groups)
        self.block_2 = ResnetBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # padded on the right and below only


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, with the step to the next one."""

    def __init__(self, width_in: int, width: int, blocks: int, groups: int, step: type[nn.Module] | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width_in if k == 0 else width, width, groups) for k in range(blocks))
        self.downsample = Downsample(width) if step is Downsample else None
        self.upsample = Upsample(width) if step is Upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.downsample is not None:
            return self.downsample(x)
        return x if self.upsample is None else self.upsample(x)


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                widths[max(k - 1, 0)],
                widths[k],
                config.blocks,
                groups,
                Downsample if k < len(widths) - 1 else None,
            )
            for k in range(len(widths))
        )
        self.mid = Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.channels, 3, padding=1)
        self.quant_conv = _one_by_one(config, 2 * config.channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(x)))))


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = config.decoder_widths, config.groups
        last = len(widths) - 1
        self.post_quant_conv = _one_by_one(config, config.channels)
        self.conv_in = nn.Conv2d(config.channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        # up[0] is the finest level and comes last; the list is walked backwards.
        self.up = nn.ModuleList(
            Level(widths[min(k + 1, last)], widths[k], config.blocks + 1, groups, Upsample if k > 0 else None)
            for k in range(len(widths))
        )
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=EPS)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(self.post_quant_conv(z)))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


def _one_by_one(config: AutoencoderConfig, channels: int) -> nn.Module:
    return nn.Identity() if config.fixed else nn.Conv2d(channels, channels, 1)


class Autoencoder(nn.Module):
    """Pictures [B, 3, H, W] in 0..1 <-> packed, normalised latents [B, 64 or 128, H/16, W/16].

    bn: FLUX.2's statistics; FLUX.1 has none. `normalisation` answers for both.
    """

    FLOAT32 = ("bn.running_mean", "bn.running_var")

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.fixed is None:
            self.bn = nn.BatchNorm2d(4 * config.channels, eps=config.statistics_eps, affine=False)

    def encode(self, picture: Tensor) -> Tensor:
        """The posterior's mean, never a sample: sampling would flicker. Sides are multiples of 16. float32 out."""
        mean = self.encoder(picture.to(self.encoder.conv_in.weight) * 2.0 - 1.0).chunk(2, dim=1)[0]
        middle, deviation = self.normalisation()
        return (pack(mean.float()) - middle) / deviation

    def decode(self, latent: Tensor) -> Tensor:
        """Float32 pictures, clamped to 0..1."""
        middle, deviation = self.normalisation()
        z = unpack(latent.float() * deviation + middle)
        picture = self.decoder(z.to(self.decoder.conv_in.weight))
        return (picture.float() * 0.5 + 0.5).clamp(0.0, 1.0)

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of packed channels before normalisation, each [1, channels or 1, 1, 1], float32."""
        if self.config.fixed is not None:
            shift, scale = self.config.fixed
            one = torch.ones(1, 1, 1, 1, device=self.decoder.conv_in.weight.device)
            return one * shift, one / scale
        variance = self._statistic("running_var")
        return self._statistic("running_mean"), torch.sqrt(variance + self.config.statistics_eps)

    def _statistic(self, name: str) -> Tensor:
        return self.bn.get_buffer(name).float().view(1, -1, 1, 1)

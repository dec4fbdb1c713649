# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to the previous frame's picture, once it has been moved, before the model sees it, always in this
order: colour match, contrast, sharpen, pixel noise.

Noise comes after the colour match, which would take it out again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import color
from .calls import named
from .errors import problem, raise_problems
from .motion.latent import pack
from .noise import frame_seed, pixel_noise
from .settings import SCHEDULES, Feedback

log = logging.getLogger(__name__)

SHARPEN_SIGMA, SHARPEN_REACH = 1.0, 2  # Deforum's anti-blur defaults: kernel 5, sigma 1
NOISE_SCALE = 30.0 / 255.0  # from Koshi-Flux's amount to the `noise` schedule
# Of FeedbackConfig: the words that are allowed; usual from, usual to, and highest amount (that of the schedule).
_WORDS = {"color_mode": ("LAB", "RGB", "HSV", "None"), "noise_type": ("perlin", "gaussian")}
_USUAL = {
    "noise_amount": (0.005, 0.03, SCHEDULES["noise"].high / NOISE_SCALE),
    "sharpen_amount": (0.05, 0.25, SCHEDULES["sharpen"].high),
    "contrast_boost": (0.9, 1.1, SCHEDULES["contrast"].high),
}


@dataclass(frozen=True)
class FeedbackConfig:
    """Picture corrections of the Python interface, by the names Koshi-Flux gave them.

    color_mode: LAB, RGB, HSV or None. noise_amount: 0 to 8.5, usually .005 to .03. noise_type: perlin or gaussian.
    sharpen_amount: 0 to 4, usually .05 to .25. contrast_boost: 0 to 4, usually .9 to 1.1.
    Raises KoshiError("bad_value") that lists every fault. Amounts beyond the usual are only warned of, since they act
    anew in every frame; noise and sharpening of 0 are off.
    """

    color_mode: str | None = "LAB"
    noise_amount: float = 0.02
    noise_type: str = "perlin"
    sharpen_amount: float = 0.1
    contrast_boost: float = 1.0

    def __post_init__(self) -> None:
        faults = [self._fault(name, allowed) for name, allowed in _WORDS.items()]
        faults += [self._out_of_range(name, high) for name, (_, _, high) in _USUAL.items()]
        raise_problems("bad_value", "This FeedbackConfig", [fault for fault in faults if fault])
        for name, (low, most, _) in _USUAL.items():
            amount = getattr(self, name)
            off = amount == 0 and name != "contrast_boost"
            if not off and not low <= amount <= most:
                log.warning("FeedbackConfig: %s is %g, usual are %g to %g", name, amount, low, most)

    def _fault(self, name: str, allowed: tuple[str, ...]) -> dict[str, Any] | None:
        given = getattr(self, name)
        word = "none" if given is None else given
        if isinstance(word, str) and word.lower() in (name.lower() for name in allowed):
            return None
        return problem(f"FeedbackConfig.{name}", f"it is {given!r}.", f"Use {', '.join(allowed)}.", value=given)

    def _out_of_range(self, name: str, high: float) -> dict[str, Any] | None:
        given = getattr(self, name)
        number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
        if number and 0.0 <= given <= high:
            return None
        return problem(f"FeedbackConfig.{name}", f"it is {given!r}.", f"Keep it between 0 and {high:g}.", value=given)

    def schedules(self) -> dict[str, float]:
        """The same as Koshi schedules. Koshi-Flux adds noise of amount * 15 on the 0..255 scale; the `noise` schedule
        is a deviation on the -1..1 scale."""
        return {
            "noise": float(self.noise_amount) * NOISE_SCALE,
            "sharpen": float(self.sharpen_amount),
            "contrast": float(self.contrast_boost),
        }


setattr(FeedbackConfig, "__init__", named(FeedbackConfig.__init__))  # noqa: B010 so that wrong names are named


def correct(
    picture: Tensor,
    valid: Tensor,
    row: dict[str, float],
    settings: Feedback,
    anchor: np.ndarray,
    frame: int,
    noisy: Tensor | None = None,
) -> Tensor:
    """The moved picture [1, 3, H, W], corrected for frame `frame`. valid: bool [H, W], where it shows something.
    noisy: [H, W] in 0..1, how much of the noise is added where; None for all of it."""
    if settings.color_mode != "none":
        picture = color.match(picture, anchor, settings.color_mode, row["color_match"], valid)
    if row["contrast"] != 1.0:
        picture = (picture * row["contrast"]).clamp(0.0, 1.0)  # a gain, as in Deforum, but it does not wrap
    if row["sharpen"] > 0.0:
        picture = sharpen(picture, row["sharpen"])
    if row["noise"] > 0.0:
        height, width = picture.shape[-2:]
        seed = frame_seed(int(row["seed"]), frame, "pixels")
        grain = pixel_noise(settings.noise_type, width, height, seed).to(picture)
        grain = grain if noisy is None else grain * noisy.to(grain)
        # `noise` is the deviation on the -1..1 scale that the autoencoder sees; pictures are 0..1 here.
        picture = (picture + 0.5 * row["noise"] * grain).clamp(0.0, 1.0)
    return picture


def sharpen(picture: Tensor, amount: float) -> Tensor:
    """Unsharp mask: (1 + amount) * picture - amount * blurred."""
    offsets = torch.arange(-SHARPEN_REACH, SHARPEN_REACH + 1, dtype=picture.dtype, device=picture.device)
    kernel = torch.exp(-(offsets**2) / (2 * SHARPEN_SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    blurred = F.pad(picture, [SHARPEN_REACH] * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(blurred, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return ((1 + amount) * picture - amount * blurred).clamp(0.0, 1.0)


def shown(valid: Tensor) -> Tensor:
    """bool [H, W]: `valid` without its finest lines, up to two pixels wide, inside of the picture.

    A field marks both sides of every silhouette that moves against what lies behind it, since pixels there mix two
    things. What is uncovered for real is wider by that much; painting every outline anew in every frame makes it boil.
    """
    holes = F.pad((~valid).float()[None, None], (2, 2, 2, 2), value=1.0)  # a single row at the edge is uncovered
    cores = 1.0 - F.max_pool2d(1.0 - holes, 3, stride=1)
    return F.max_pool2d(F.pad(cores, (1, 1, 1, 1)), 3, stride=1)[0, 0, 1:-1, 1:-1] < 0.5


def strength_map(
    strength: float, valid: Tensor | None, channels: int = 128, mask: Tensor | None = None
) -> float | Tensor:
    """The scheduled strength, raised to 1 where the moved picture has nothing to show (valid: bool [H, W]; None: it
    shows something everywhere), and times the mask (0..1, [H, W]): what is lightest in a cell counts for it.

    By latent cells of 8 x 8 pixels. A map costs extra steps, yet without it a slow move out repeats the border again
    and again until it is a field of streaks. Returns the number itself when there are no holes.
    """
    given = mask if valid is None else valid
    if given is None or (strength >= 1.0 and mask is None):
        return strength
    cells = torch.full_like(given[None, None, ::8, ::8], strength, dtype=torch.float32)
    if mask is not None:
        cells = cells * F.max_pool2d(mask[None, None].clamp(max=1.0), 8)
    if valid is not None:
        cells = cells.masked_fill(_holes(valid, 8), 1.0)
    one = float(cells.flatten()[0])
    if bool((cells == one).all()):
        scheduled = mask is None or bool((mask >= 1.0).all())
        return strength if scheduled and one not in (0.0, 1.0) else one
    return pack(cells.expand(1, channels // 4, -1, -1))


def new_share(valid: Tensor, channels: int, mask: Tensor | None = None) -> Tensor:
    """How much of each latent value [1, channels, H/16, W/16] a frame takes from what is painted, 0..1, where the rest
    stays as it was moved: all where the moved picture has nothing to show, else the mask's mean over the cell.

    valid, mask: as `strength_map` takes them; without a mask nothing else is new.
    """
    share = torch.zeros_like(valid, dtype=torch.float32) if mask is None else mask
    cells = F.avg_pool2d(share[None, None], 8).masked_fill(_holes(valid, 8), 1.0)
    return pack(cells.expand(1, channels // 4, -1, -1))


def shown_tokens(valid: Tensor) -> Tensor | None:
    """Which tokens (16 x 16 pixels) of the moved picture are worth showing as a reference; None for all.

    A reference with repeated borders would be copied as faithfully as one without.
    """
    holes = _holes(valid, 16)
    return ~holes[0, 0] if bool(holes.any()) else None


def _holes(valid: Tensor, size: int) -> Tensor:
    """bool [1, 1, H/size, W/size]: cells of which at least a row or column of pixels is invalid."""
    return F.avg_pool2d((~valid).float()[None, None], size) > 0.9 / size

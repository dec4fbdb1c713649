# SPDX-License-Identifier: GPL-3.0-or-later
"""The latent noise of a frame, in every mode, and what it depends on.

| mode | noise of frame k |
|---|---|
| fixed | that of the seed |
| incremental | one of its own for every frame |
| slerp | the seed's, turned by the share `delta` towards the frame's own |
| subseed | the seed's, turned by `subseed_strength` towards the subseed's: slow change under full control |
| warped | the frame before's, carried along by the motion; new where nothing moves in |
| scaled | the seed's, scaled and shifted with the motion like a texture: not white, an experiment |

In frame 0, and where nothing is carried over from a frame before, every mode but subseed has the seed's own noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..motion import MotionField
from .draw import CELL, draw_latent, frame_seed
from .scaled import ScaledNoise
from .warped import WarpedNoise

MODES = ("fixed", "incremental", "slerp", "subseed", "warped", "scaled")
CARRIED = ("warped", "scaled")  # modes that go on from the frame before


@dataclass(frozen=True)
class NoiseRecipe:
    """What says which noise a frame has.

    mode: one of MODES. seed, frame: of the frame; frame counts from 0. width, height: of the picture, in pixels.
    delta: slerp's share, 0..1. subseed, subseed_strength: subseed's second seed and its share, 0..1.
    channels: of the packed latent.
    """

    mode: str
    seed: int
    frame: int
    width: int
    height: int
    delta: float = 0.05
    subseed: int = 0
    subseed_strength: float = 0.0
    channels: int = 128

    def draw(self, seed: int) -> Tensor:
        """White noise of this size."""
        return draw_latent(seed, self.width, self.height, self.channels)


def frame_noise(
    recipe: NoiseRecipe, motion: MotionField | None = None, state: np.ndarray | None = None
) -> tuple[Tensor, np.ndarray | None]:
    """The noise [1, channels, H/16, W/16], float32 on the CPU, and the state that the next frame goes on from.

    motion: the move into this frame. state: what the frame before returned; None where nothing is carried.
    The state is None but for the modes in CARRIED; it is float32 and comes back from a file as it went in.
    """
    mode, seed = recipe.mode, recipe.seed
    if mode == "warped":
        if state is None or motion is None:
            warped = WarpedNoise.start(recipe.draw(seed))
        else:
            warped = WarpedNoise.from_array(state).moved(motion, seed, recipe.frame)
        return warped.packed(), warped.as_array()
    if mode == "scaled":
        scaled = ScaledNoise.start(recipe.width // CELL, recipe.height // CELL)
        if state is not None and motion is not None:
            scaled = ScaledNoise.from_array(state).moved(motion)
        return scaled.packed(recipe.draw(seed)), scaled.as_array()
    if mode == "subseed":
        return _subseed(recipe), None
    if mode == "fixed" or recipe.frame == 0:
        return recipe.draw(seed), None
    # A stream of its own for each frame: with seed + frame a keyed seed, or the next seed, would meet this one.
    own = recipe.draw(frame_seed(seed, recipe.frame, "latent"))
    return (own if mode == "incremental" else slerp(recipe.draw(seed), own, recipe.delta)), None


def noise_facts(recipe: NoiseRecipe, carried: bool) -> list[str | int | float]:
    """What the noise depends on besides the seed and the size: equal facts, equal noise. For a frame's key.

    carried: whether a frame before is gone on from. In the modes of CARRIED the noise then also depends on the move
    into this frame and on everything the frame before depends on.
    """
    mode, frame = recipe.mode, recipe.frame
    if mode == "subseed":
        plain = recipe.subseed_strength == 0.0 or recipe.subseed == recipe.seed
        return [] if plain else ["subseed", recipe.subseed, recipe.subseed_strength]
    if mode in CARRIED:
        # Even where the noise is the seed's own, the entry holds a state that one of another mode lacks.
        return [mode, frame] if carried and mode == "warped" else [mode]
    if mode == "fixed" or frame == 0:
        return []
    return [mode, frame, recipe.delta] if mode == "slerp" else [mode, frame]


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """On the great circle from `first` to `second`: a mixture of Gaussian noises keeps its variance."""
    cosine = torch.dot(first.flatten(), second.flatten()) / (first.norm() * second.norm())
    angle = torch.arccos(cosine.clamp(-1.0, 1.0))
    if float(angle) < 1e-4:
        return torch.lerp(first, second, share)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def _subseed(recipe: NoiseRecipe) -> Tensor:
    """A1111's variation seed: from the seed's noise (share 0, exactly) to the subseed's (share 1, exactly)."""
    share = recipe.subseed_strength
    if share == 0.0 or recipe.subseed == recipe.seed:
        return recipe.draw(recipe.seed)
    second = recipe.draw(recipe.subseed)
    return second if share == 1.0 else slerp(recipe.draw(recipe.seed), second, share)

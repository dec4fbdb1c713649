# SPDX-License-Identifier: GPL-3.0-or-later
"""A FLUX model as one object: prompt, pictures and noise in, latents and pictures out. The families fill in how.

Latents are packed and normalised, [1, channels, H/16, W/16], float32 between steps: bfloat16 there would add rounding
that a feedback loop accumulates.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..errors import KoshiError
from ..lora.wear import Lora, Worn, wearing
from .autoencoder import Autoencoder
from .flux1 import Flux1Transformer
from .flux2 import Flux2Transformer
from .flux3 import Flux3Transformer
from .sampling import Mu, Rounding, euler, flow_times, rounded
from .shortage import out_of_memory_explained
from .text_base import PromptEncoder

if TYPE_CHECKING:
    from .budget import Need, Weights
    from .placement import Placement

CELL = 16  # pixels per token

# A picture's tokens [1, N, channels], the flow time [1] and the one that the step leads to [1] -> the tokens' velocity,
# float32.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


# Texts with shares that sum to 1, whose conditionings are mixed.
Mix = Sequence[tuple[str, float]]


class Reference(NamedTuple):
    """A picture shown in context. shown: bool [H/16, W/16], the tokens that are shown; None shows all."""

    latent: Tensor
    shown: Tensor | None = None


class Shown(NamedTuple):
    """References as tokens [1, M, channels] and their positions [M, axes]."""

    tokens: Tensor
    ids: Tensor


class FluxModel(ABC):
    """A loaded model.

    transformer, autoencoder, text: the parts. identity: hash of the weights; part of every frame's key.
    references: whether pictures can be shown in context. contrasted: whether guidance is an evaluation against the
    negative prompt (base models), where distilled ones have it built in or embed it.
    """

    def __init__(
        self,
        transformer: Flux1Transformer | Flux2Transformer | Flux3Transformer,
        autoencoder: Autoencoder,
        text: PromptEncoder,
        identity: str,
        *,
        references: bool = True,
        contrasted: bool = False,
    ) -> None:
        self.transformer, self.autoencoder, self.text, self.identity = transformer, autoencoder, text, identity
        self.references, self.contrasted = references, contrasted
        self.placement: Placement | None = None  # where the weights are, once that has been said (placement.py)
        self.weights: Weights | None = None  # what they take, where they have come from files (family.py)
        self.need: Need | None = None  # the largest that its policy has been chosen for (pool.py)
        self.loras: dict[str, Lora] = {}  # that have been fitted to it, by identity (lora/fit.py)
        first = transformer.img_in.weight
        self.device, self.dtype = first.device, first.dtype  # of computing; the weights may lie elsewhere, and narrower

    @property
    def channels(self) -> int:
        """Of packed latents: 64 in FLUX.1, 128 in the others."""
        return self.transformer.config.channels

    @property
    @abstractmethod
    def mu(self) -> Mu:
        """How far flow times are shifted."""

    @property
    def policy(self) -> str:
        """Of offloading."""
        return "none" if self.placement is None else self.placement.policy

    def release(self) -> None:
        """Let go of what can be made again, and of weights on the device that lie elsewhere, too."""
        self.text.forget()
        if self.placement is not None:
            self.placement.clear()

    @torch.inference_mode()
    def encode_picture(self, picture: Tensor) -> Tensor:
        """[1, 3, H, W] in 0..1, sides multiples of 16 -> latent."""
        with out_of_memory_explained("encoding a picture", self.device, self.policy):
            return self.autoencoder.encode(picture.to(self.device))

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Latent -> [1, 3, H, W] in 0..1, float32."""
        with out_of_memory_explained("decoding a picture", self.device, self.policy):
            return self.autoencoder.decode(latent)

    def noise(self, seed: int, width: int, height: int) -> Tensor:
        """Gaussian noise of a picture's latent. Drawn on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.channels, height // CELL, width // CELL)
        return torch.randn(shape, generator=generator).to(self.device)

    @torch.inference_mode()
    def denoise(
        self,
        prompt: str | Mix,
        noise: Tensor,
        *,
        steps: int,
        picture: Tensor | None = None,
        strength: float | Tensor = 1.0,
        references: Sequence[Reference] = (),
        guidance: float = 1.0,
        negative: str | Mix = "",
        loras: Worn = (),
        rounding: Rounding = "exact",
        on_step: Callable[[int, int], None] | None = None,
        on_prediction: Callable[[int, int, Tensor], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """A latent from noise, from a picture, or from a picture with references.

        prompt, negative: a text, or several with shares that sum to 1.
        noise: starting noise, a latent. steps: network evaluations, twice as many where guidance contrasts.
        picture: latent to start from; needed when strength is below 1 anywhere.
        strength: the flow time at which the picture enters, in (0, 1]; a number, or a map [1, 1 or channels, H/16,
            W/16]. Parts below the largest strength join when the time has come down to theirs.
        references: pictures shown in context, for models that have learned to look at them.
        guidance, negative: see `contrasted`; a model that has guidance built in ignores both.
        loras: that this latent is made with, each with its weight. Without them it is made with the model alone.
        rounding: of the times that the network is told (sampling.py).
        on_step(k, n): called before step k of n, from 0. on_prediction(k, n, latent): called with the picture that
            step k points to, as a latent; the last one's is what is returned.
        Raises KoshiError("no_references") for a model that cannot be shown any.
        """
        if references and not self.references:
            raise KoshiError(
                "no_references",
                "This model cannot be shown reference pictures.",
                "Use feedback.condition 'start', or a model of FLUX.2 or FLUX.3, or FLUX.1 Kontext.",
            )
        rows, columns = noise.shape[-2:]
        times, held, x = self._start(noise, picture, strength, steps)
        with wearing(loras), out_of_memory_explained("making a picture", self.device, self.policy):
            shown = self._shown(references)
            predict = self._prediction(_mix(prompt), rows, columns, shown, guidance)
            against = None
            if self.contrasted and guidance != 1.0:
                against = self._prediction(_mix(negative), rows, columns, shown, guidance)

            following = dict(itertools.pairwise(times))

            def velocity(latent: Tensor, t: float) -> Tensor:
                tokens = tokens_of(latent).to(self.dtype)
                told, after = (
                    torch.full((1,), self._told(time, rounding), device=self.device) for time in (t, following[t])
                )
                out = predict(tokens, told, after)
                if against is not None:
                    other = against(tokens, told, after)
                    out = other + guidance * (out - other)
                return rearrange(out, "b (h w) c -> b c h w", h=rows)

            return euler(
                velocity, x, times, held=held, on_step=on_step, on_prediction=on_prediction, cancelled=cancelled
            )

    def _told(self, t: float, rounding: Rounding) -> float:
        """The flow time that the network is told at flow time t."""
        return rounded(t, rounding)

    @abstractmethod
    def _prediction(self, prompt: Mix, rows: int, columns: int, shown: Shown | None, guidance: float) -> Predict:
        """The network as a function of a picture's tokens and times.

        References are constants: only the picture's own tokens come back.
        """

    @abstractmethod
    def _places(self, k: int, rows: int, columns: int) -> Tensor:
        """Positions of the k-th reference's tokens."""

    def _shown(self, references: Sequence[Reference]) -> Shown | None:
        tokens, ids = [], []
        for k, reference in enumerate(references):
            place, token = self._places(k, *reference.latent.shape[-2:]), tokens_of(reference.latent)
            if reference.shown is not None:
                kept = reference.shown.flatten().to(self.device)
                place, token = place[kept], token[:, kept]
            tokens.append(token)
            ids.append(place)
        return Shown(torch.cat(tokens, dim=1).to(self.dtype), torch.cat(ids)) if tokens else None

    def _start(
        self, noise: Tensor, picture: Tensor | None, strength: float | Tensor, steps: int
    ) -> tuple[list[float], tuple[Tensor, Tensor, Tensor] | None, Tensor]:
        """Times, what is held back, and the first latent."""
        tokens = noise.shape[-2] * noise.shape[-1]
        if picture is None:
            return flow_times(tokens, steps, mu=self.mu), None, noise
        if isinstance(strength, (int, float)):
            times = flow_times(tokens, steps, float(strength), self.mu)
            return times, None, times[0] * noise + (1.0 - times[0]) * picture
        release = strength.to(noise)
        low, high = float(release.min()), float(release.max())
        times = flow_times(tokens, steps, low, self.mu) if low > 0.0 else [0.0]
        if high > low:
            # First the parts that are made anew come down to the time where the rest joins, then all go on together.
            descent = [t for t in flow_times(tokens, steps, high, self.mu) if t > low]
            times = descent + times
        first = times[0]
        x = first * noise + (1.0 - first) * picture
        return times, (picture, noise, release), x


def tokens_of(latent: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h w, C], in reading order."""
    return rearrange(latent, "b c h w -> b (h w) c")


def _mix(prompt: str | Mix) -> Mix:
    return [(prompt, 1.0)] if isinstance(prompt, str) else prompt

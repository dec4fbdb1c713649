# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.2 Klein as one object: prompt, pictures and noise in, latents and pictures out.

Latents are packed and normalised, [1, 128, H/16, W/16], float32 between steps: bfloat16 there would add rounding
that a feedback loop accumulates.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..errors import KoshiError
from .autoencoder import Autoencoder
from .flux2 import Flux2Transformer, grid_ids, text_ids
from .loader import load_autoencoder, load_transformer
from .sampling import euler, flow_times
from .text import TextEncoder

log = logging.getLogger(__name__)

PACKED_CHANNELS = 128
CELL = 16  # pixels per token


class Reference(NamedTuple):
    """A picture shown in context. shown: bool [H/16, W/16], the tokens that are shown; None shows all."""

    latent: Tensor
    shown: Tensor | None = None


class Klein:
    """A loaded model.

    transformer, autoencoder, text: the parts. identity: hash of the weights; part of every frame's key.
    """

    def __init__(
        self, transformer: Flux2Transformer, autoencoder: Autoencoder, text: TextEncoder, identity: str
    ) -> None:
        self.transformer = transformer
        self.autoencoder = autoencoder
        self.text = text
        self.identity = identity

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, identity: str) -> Klein:
        """Load a diffusers folder. Raises KoshiError for missing or unfit files and for too little memory."""
        begin = time.monotonic()
        with out_of_memory_explained("loading the model"):
            model = cls(
                load_transformer(folder / "transformer", device, dtype),
                load_autoencoder(folder / "vae", device, dtype),
                TextEncoder(folder, device, dtype),
                identity,
            )
        log.info("loaded %s in %.1f s on %s as %s", folder, time.monotonic() - begin, device, dtype)
        return model

    @property
    def device(self) -> torch.device:
        return self.transformer.img_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.img_in.weight.dtype

    @torch.inference_mode()
    def encode_picture(self, picture: Tensor) -> Tensor:
        """[1, 3, H, W] in 0..1, sides multiples of 16 -> latent."""
        return self.autoencoder.encode(picture.to(self.device))

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Latent -> [1, 3, H, W] in 0..1, float32."""
        return self.autoencoder.decode(latent)

    def noise(self, seed: int, width: int, height: int) -> Tensor:
        """Gaussian noise of a picture's latent. Drawn on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, PACKED_CHANNELS, height // CELL, width // CELL)
        return torch.randn(shape, generator=generator).to(self.device)

    @torch.inference_mode()
    def denoise(
        self,
        prompt: str,
        noise: Tensor,
        *,
        steps: int,
        picture: Tensor | None = None,
        strength: float | Tensor = 1.0,
        references: Sequence[Reference] = (),
        guidance: float = 1.0,
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """A latent from noise, from a picture, or from a picture with references.

        noise: starting noise, a latent. steps: network evaluations.
        picture: latent to start from; needed when strength is below 1 anywhere.
        strength: the flow time at which the picture enters, in (0, 1]; a number, or a map [1, 1 or 128, H/16, W/16].
            Parts below the largest strength join when the time has come down to theirs.
        references: pictures shown in context, at times 10, 20, ...
        guidance: only for models that embed it; Klein's distilled models have it built in.
        """
        rows, columns = noise.shape[-2:]
        times, held, x = self._start(noise, picture, strength, steps)
        context = self.text.encode(prompt).to(self.dtype)
        ids = [grid_ids(rows, columns, device=self.device)]
        shown = []
        for k, reference in enumerate(references):
            high, wide = reference.latent.shape[-2:]
            place, tokens = grid_ids(high, wide, time=10.0 + 10.0 * k, device=self.device), _tokens(reference.latent)
            if reference.shown is not None:
                kept = reference.shown.flatten().to(self.device)
                place, tokens = place[kept], tokens[:, kept]
            ids.append(place)
            shown.append(tokens)
        img_ids, txt_ids = torch.cat(ids), text_ids(context.shape[1], device=self.device)
        embedded = None
        if self.transformer.config.guidance:
            embedded = torch.full((1,), guidance, device=self.device)

        def velocity(latent: Tensor, t: float) -> Tensor:
            sequence = torch.cat([_tokens(latent), *shown], dim=1).to(self.dtype)
            when = torch.full((1,), t, device=self.device)
            out = self.transformer(sequence, context, when, img_ids, txt_ids, embedded)
            # References are constants: only the picture's own tokens are stepped.
            return rearrange(out[:, : rows * columns].float(), "b (h w) c -> b c h w", h=rows)

        with out_of_memory_explained("making a picture"):
            return euler(velocity, x, times, held=held, on_step=on_step, cancelled=cancelled)

    def _start(
        self, noise: Tensor, picture: Tensor | None, strength: float | Tensor, steps: int
    ) -> tuple[list[float], tuple[Tensor, Tensor, Tensor] | None, Tensor]:
        """Times, what is held back, and the first latent."""
        tokens = noise.shape[-2] * noise.shape[-1]
        if picture is None:
            return flow_times(tokens, steps), None, noise
        if isinstance(strength, (int, float)):
            times = flow_times(tokens, steps, float(strength))
            return times, None, times[0] * noise + (1.0 - times[0]) * picture
        release = strength.to(noise)
        low, high = float(release.min()), float(release.max())
        times = flow_times(tokens, steps, low) if low > 0.0 else [0.0]
        if high > low:
            # First the parts that are made anew come down to the time where the rest joins, then all go on together.
            descent = [t for t in flow_times(tokens, steps, high) if t > low]
            times = descent + times
        first = times[0]
        x = first * noise + (1.0 - first) * picture
        return times, (picture, noise, release), x


def _tokens(latent: Tensor) -> Tensor:
    return rearrange(latent, "b c h w -> b (h w) c")


@contextlib.contextmanager
def out_of_memory_explained(doing: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into Koshi's."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free = total = 0
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info()
        raise KoshiError(
            "out_of_memory",
            f"The graphics card ran out of memory while {doing} ({free / 1e9:.1f} of {total / 1e9:.1f} GB are free).",
            "Render at a smaller size, choose a smaller model, or close other programs that use the card.",
        ) from error

# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws many pictures at once with an exported model, or with the teacher it was distilled from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import grid_ids, text_ids
from koshi_backend.models.identity import model_identity
from koshi_backend.models.model import FluxModel
from koshi_backend.models.sampling import euler, flow_times

from .distill import GUIDANCE
from .net import Net, load_net
from .reality import Wish

BATCH = 8  # pictures of 256 x 256 that are drawn at once
TEACHER_STEPS = 24


class Painter:
    """An exported model that draws batches: `FluxModel.denoise` and `decode`, for several captions of one size."""

    def __init__(self, model: FluxModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Painter:
        """The painter of a model folder, in float32. Raises FileNotFoundError when it is none."""
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{folder} is no model: run `python -m training export` first, or name another folder"
            )
        return cls(load_family(folder, device, torch.float32, model_identity(folder)))

    @torch.inference_mode()
    def draw(
        self, wished: Sequence[Wish], steps: int = 4, reference: Tensor | None = None, shown: Tensor | None = None
    ) -> Tensor:
        """Pictures [B, 3, H, W] of 0..1 on the CPU. All of one size.

        reference: pictures [B, 3, H, W] of 0..1, shown in context at time 10. shown: bool [H/16, W/16], their tokens
        that are shown, the same for all.
        """
        model = self.model
        noise = self.noise(wished)
        rows, columns = noise.shape[-2:]
        text = model.text.encode([w.words for w in wished]).states.to(model.dtype)
        ids, known = [grid_ids(rows, columns, device=model.device)], []
        if reference is not None:
            chosen = torch.ones(rows * columns, dtype=torch.bool) if shown is None else shown.flatten().cpu()
            chosen = chosen.to(model.device)
            ids.append(grid_ids(rows, columns, time=10.0, device=model.device)[chosen])
            known.append(rearrange(model.encode_picture(reference), "b c h w -> b (h w) c")[:, chosen])
        img_ids, txt_ids = torch.cat(ids), text_ids(text.shape[1], device=model.device)

        def velocity(x: Tensor, t: float) -> Tensor:
            tokens = torch.cat([rearrange(x, "b c h w -> b (h w) c"), *known], 1).to(model.dtype)
            when = torch.full((len(x),), t, device=model.device)
            out = model.transformer(tokens, text, when, img_ids, txt_ids)
            return rearrange(out[:, : rows * columns].float(), "b (h w) c -> b c h w", h=rows)

        return model.decode(euler(velocity, noise, flow_times(rows * columns, steps))).cpu()

    def noise(self, wished: Sequence[Wish]) -> Tensor:
        """The starting noise of each wish's own seed."""
        return torch.cat([self.model.noise(w.seed, *w.size) for w in wished])

    def rebuilt(self, pictures: Tensor) -> Tensor:
        """Pictures of 0..1, once through the autoencoder."""
        return self.model.decode(self.model.encode_picture(pictures)).cpu()


class TeacherPainter:
    """The undistilled net of a run, guided as it was for its student, behind the exported model's decoder."""

    def __init__(self, run: Path, model: FluxModel) -> None:
        self.painter, self.net = Painter(model), load_net(run, "transformer", model.device, torch.float32)

    @torch.inference_mode()
    def draw(self, wished: Sequence[Wish], steps: int = TEACHER_STEPS) -> Tensor:
        """Pictures [B, 3, H, W] of 0..1 on the CPU, from the same noise as `Painter.draw`."""
        noise = self.painter.noise(wished)
        velocity = guided(self.net, [w.words for w in wished])
        times = flow_times(noise.shape[2] * noise.shape[3], steps)
        return self.painter.model.decode(euler(velocity, noise, times)).cpu()


def guided(net: Net, words: list[str]) -> Callable[[Tensor, float], Tensor]:
    """The teacher's guided velocity for these captions."""
    text, nothing = net.embed(words), net.embed([""] * len(words))

    def velocity(x: Tensor, t: float) -> Tensor:
        at = torch.full((len(x),), t, device=x.device)
        plain = net(x, at, nothing)
        return plain + GUIDANCE * (net(x, at, text) - plain)

    return velocity


def batches(wished: Sequence[Wish], most: int = BATCH) -> list[list[int]]:
    """Places in a list of wishes, in batches of one size each; fewer at once of large pictures."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for k, wish in enumerate(wished):
        by_size.setdefault(wish.size, []).append(k)
    found = []
    for (width, height), places in by_size.items():
        many = max(1, round(most * 256 * 256 / (width * height)))
        found += [places[k : k + many] for k in range(0, len(places), many)]
    return found

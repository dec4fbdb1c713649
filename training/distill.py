# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 4, the distillation: four steps on Klein's own times, guidance built in.

For one of the four intervals the frozen teacher solves the way with several small guided Euler steps; the student
learns to make it in one. Half of the starting points are noised pictures, half come from the student's own steps from
pure noise, so that it learns to correct itself. Some steps train other intervals (from t to a part of it), which other
step counts and picture-to-picture use with a start of one's own need.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from koshi_backend.models.sampling import flow_times

from .net import Net, load_net, plain_attention_on_cpu, trainable
from .optim import Masters, Muon
from .stage import Room, Stage, warm_up
from .transformer import Examples

STEPS = 4
# The teacher's small steps in each of the four intervals, and in any other. With three everywhere photos and
# watercolors have a fifth less detail than with six, which have as much as 24 even ones.
SUBSTEPS = (3, 3, 4, 6, 5)
# Of guidance 1, 2 and 3, photos keep 0.39, 0.73 and 1.09 of the top octave that real ones have after the same decoder,
# mosaics 1.00, 1.21 and 1.28.
GUIDANCE, REFERENCE_GUIDANCE = 2.6, 1.4
RATE = 6e-4
FREE = 4  # the name of the intervals that are not one of the four


class Teacher:
    """The frozen net, guided."""

    def __init__(self, net: Net) -> None:
        self.net = net

    @torch.no_grad()
    def solve(
        self, x: Tensor, start: float, end: float, words: list[str], references: tuple[Tensor, ...], steps: int
    ) -> Tensor:
        """The mean velocity from `start` to `end`, by so many Euler steps."""
        text, nothing = self.net.embed(words), self.net.embed([""] * len(words))
        guidance = REFERENCE_GUIDANCE if references else GUIDANCE
        y = x
        for t, after in itertools.pairwise(np.linspace(start, end, steps + 1).tolist()):
            at = torch.full((len(x),), t, device=x.device)
            plain = self.net(y, at, nothing, references)
            y = y + (after - t) * (plain + guidance * (self.net(y, at, text, references) - plain))
        return (y - x) / (end - start)


def train_distilled(room: Room) -> None:
    """Distil the transformer of `room.folder`, or go on with it."""
    if room.device.type == "cpu":
        plain_attention_on_cpu()
    examples = Examples(room)
    teacher = Teacher(load_net(room.folder, "transformer", room.device, room.dtype, room.compile))
    net = load_net(room.folder, "transformer", room.device, torch.float32, room.compile)
    masters = Masters(net, room.dtype, trainable)
    optimiser = Muon(
        masters.master.items(), RATE, adam=("embed_tokens", "final_layer.linear", "img_in"), dtype=room.dtype
    )

    def load(state: dict) -> None:
        masters.load(state["net"])
        optimiser.load_state_dict(state["optimiser"])

    stage = Stage(
        room, "distill", lambda: {"net": masters.state(), "optimiser": optimiser.state_dict()}, load,
        rate=RATE, guidance=GUIDANCE, reference_guidance=REFERENCE_GUIDANCE, substeps=SUBSTEPS,
    )  # fmt: skip
    for step, part in stage:
        rng = stage.rng()
        _, picture, words, references, start_picture = examples.draw(rng, False, 0.0)
        times = flow_times(picture.shape[2] * picture.shape[3], STEPS)
        k = int(rng.choice(5, p=[0.26, 0.17, 0.17, 0.25, 0.15]))
        start, end = (times[k], times[k + 1]) if k < FREE else (float(rng.uniform(0.25, 0.97)), 0.0)
        if k == FREE and rng.random() < 0.5:
            end = start * float(rng.uniform(0.3, 0.7))
        noise = torch.randn_like(picture)
        if start_picture is picture and 0 < k < FREE and rng.random() < 0.5:
            x = own_path(net, noise, times[: k + 1], words, references)
        else:
            x = start * noise + (1 - start) * start_picture
        target = teacher.solve(x, start, end, words, references, SUBSTEPS[k])
        v = net(x, torch.full((len(x),), start, device=x.device), net.embed(words), references)
        loss = (v - target).square().mean()
        loss.backward()
        masters.pull()
        optimiser.step(warm_up(step, part, 20, 0.7))
        masters.push(keep=min(0.98, (step + 1) / (step + 10)))
        stage.note(**{"free" if k == FREE else f"interval {k + 1}": loss})


@torch.no_grad()
def own_path(net: Net, x: Tensor, times: list[float], words: list[str], references: tuple[Tensor, ...]) -> Tensor:
    """Where the student itself comes to from noise."""
    text = net.embed(words)
    for t, after in itertools.pairwise(times):
        x = x + (after - t) * net(x, torch.full((len(x),), t, device=x.device), text, references)
    return x

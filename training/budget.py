# SPDX-License-Identifier: GPL-3.0-or-later
"""How a number of minutes is shared out among the steps, and what may be expected of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CPU_MINUTES, CUDA_MINUTES = 360.0, 45.0  # the full recipe
CUDA_FACTOR = 8.0  # CPU minutes that a CUDA minute is worth at the least, for `expected`
PICTURES_A_MINUTE = 900  # of one processor, a careful figure
MOST_PICTURES = 60_000


@dataclass(frozen=True)
class Budget:
    """Minutes of each step and the number of pictures."""

    pictures: int
    autoencoder: float
    settle: float
    transformer: float
    distill: float
    judge: float


def default_minutes(device: torch.device) -> float:
    """What the full recipe takes."""
    return CUDA_MINUTES if device.type == "cuda" else CPU_MINUTES


def share_out(minutes: float, processors: int) -> Budget:
    """10 % pictures, 20 % autoencoder (a fifth of that to settle its loop), 52 % transformer, 12 % distillation, 2 %
    judge (30 s at least); some is left."""
    count = round(min(minutes * 0.10 * PICTURES_A_MINUTE * processors, MOST_PICTURES, 3000 + 100 * minutes))
    learning = (0.16 * minutes, 0.04 * minutes, 0.52 * minutes, 0.12 * minutes)
    return Budget(max(count, 24), *learning, judge=max(0.02 * minutes, 0.5))


def expected(minutes: float, device: torch.device) -> str:
    """In plain words what pictures to expect. Estimates, but for the one that is named as measured."""
    worth = minutes * (CUDA_FACTOR if device.type == "cuda" else 1)
    for limit, words in (
        (10, "Expect colours and a horizon at best: this shows that everything runs, not what it can do."),
        (45, "Expect the scene to be guessable in most pictures, blurred, with wrong details; ink and neon weak."),
        (120, "Expect scenes and times of day that can be told, soft shapes, few details."),
        (
            300,
            "Expect about what an earlier recipe reached in 150 minutes on two processors (measured: scene right "
            "in 100 %, time in 99 % of photos): clear scenes, painterly edges, a faint grid in flat skies.",
        ),
    ):
        if worth < limit:
            return words
    return "Expect the full quality of the recipe; the judge's figures say what that is."

# SPDX-License-Identifier: GPL-3.0-or-later
"""Held-out pictures to measure against: real ones of the world, and lists of what to ask a model for.

What is asked for goes evenly through all scenes, times and styles, those never seen together in training among them;
adjectives and weather fall as they fall in training, and so does the camera that looks at the real pictures.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from .captions import ADJECTIVES, OUTDOORS, SCENES, STYLES, TIMES, Spec, caption
from .pictures import random_camera
from .world import Camera, render

SQUARE = (256, 256)
SHAPES = ((320, 176), (176, 320), (256, 192))  # 16:9, 9:16, 4:3
FIRST = 2**41  # the first seed of the places shown here; training has those below 2^31


class Wish(NamedTuple):
    """A picture to be drawn: what is in it, the caption for that, a seed and a size in pixels."""

    spec: Spec
    words: str
    seed: int
    size: tuple[int, int] = SQUARE


def even_specs(count: int, rng: np.random.Generator) -> list[Spec]:
    """So many specs; every 160 in a row hold each combination of scene, time and style once, in random order."""
    every = list(itertools.product(SCENES, TIMES, STYLES))
    found = []
    for k in range(count):
        if k % len(every) == 0:
            order = rng.permutation(len(every))
        scene, time, style = every[order[k % len(every)]]
        skies = OUTDOORS.get(scene, ("clear",))
        sky = skies[rng.integers(len(skies))] if rng.random() < 0.35 else "clear"
        found.append(Spec(scene, time, style, ADJECTIVES[scene][rng.integers(2)], sky))
    return found


def wishes(count: int, seed: int, shaped: float = 0.0) -> list[Wish]:
    """What to ask for. shaped: the share that is 16:9 (half of it), 9:16 or 4:3 (a quarter each)."""
    rng = np.random.default_rng([seed, 5])
    found = []
    for k, spec in enumerate(even_specs(count, rng)):
        other = SHAPES[rng.choice(3, p=[0.5, 0.25, 0.25])]
        size = other if rng.random() < shaped else SQUARE
        found.append(Wish(spec, caption(rng, spec), seed * 1_000_003 + k, size))
    return found


def classes(wished: Sequence[Wish]) -> Tensor:
    """Numbers of scene, time and style, [count, 3]."""
    return torch.tensor([w.spec.numbers()[:3] for w in wished], dtype=torch.long).view(-1, 3)


def real_picture(wish: Wish, moved: bool = True) -> np.ndarray:
    """What was wished for, as the world has it, uint8 [H, W, 3]; under one of training's cameras, or unmoved."""
    camera = random_camera(np.random.default_rng([wish.seed, 23])) if moved else Camera()
    return (render(FIRST + wish.seed, wish.spec, *wish.size, camera) * 255 + 0.5).astype(np.uint8)


def _unmoved(wish: Wish) -> np.ndarray:
    return real_picture(wish, moved=False)


def real_pictures(wished: Sequence[Wish], moved: bool = True, workers: int | None = None) -> Iterator[np.ndarray]:
    """The real pictures of a list, in order, drawn by several processes when there are many."""
    draw = real_picture if moved else _unmoved
    workers = min(workers or os.cpu_count() or 1, len(wished) // 50)
    if workers < 2:
        yield from map(draw, wished)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(draw, wished, chunksize=8)


def as_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures [H, W, 3] to floats [count, 3, H, W] of 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255

# SPDX-License-Identifier: GPL-3.0-or-later
"""Guided pictures and a film mixed in, both at once: which comes first, where, and which frames an edit makes again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_guided import smooth
from test_hybrid import SIDE, apart, document, made, render, seen, store, true, video  # noqa: F401 - two are fixtures
from torch import Tensor

from koshi_backend.store import FrameStore

ALPHA, SHARE = 0.3, 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("both")
    for name, seed in (("goal", 1), ("start", 2)):
        cv2.imwrite(str(where / f"{name}.png"), smooth(seed, SIDE))
    half = np.zeros((SIDE, SIDE), np.uint8)
    half[:, SIDE // 2 :] = 255
    cv2.imwrite(str(where / "half.png"), half)
    return where


def picture(file: Path) -> Tensor:
    pixels = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255.0


def both(video: str, folder: Path, composite: str, **parts: Any) -> dict[str, Any]:  # noqa: F811
    schedules = {"hybrid_alpha": ALPHA, "guided": SHARE} | parts.pop("schedules", {})
    return document(
        video, {"composite": composite, **parts.pop("hybrid", {})}, schedules=schedules,
        guided_images=[{"frame": 1, "image": str(folder / "goal.png")}], init_image=str(folder / "start.png"),
        **parts,
    )  # fmt: skip


@pytest.mark.parametrize("composite", ["before_motion", "normal", "after_generation"])
def test_the_order_is_film_guide_and_film_after(
    video: str, folder: Path, store: FrameStore, composite: str  # noqa: F811
) -> None:
    """Unpainted and unmoved, so that all is arithmetic: the film that comes in before the motion or with it lies under
    the guided picture; the one that comes in after the painting lies over it."""
    frames = [seen(f) for f in render(both(video, folder, composite, frames=3), store)]
    goal = picture(folder / "goal.png")
    shown = picture(folder / "start.png")
    if composite == "after_generation":
        shown = torch.lerp(shown, true(0), ALPHA)
    assert apart(frames[0], shown) < 2.0
    for k in (1, 2):
        if composite == "after_generation":
            shown = torch.lerp(torch.lerp(shown, goal, SHARE), true(k), ALPHA)
        else:
            film = true(k - 1 if composite == "before_motion" else k)
            shown = torch.lerp(torch.lerp(shown, film, ALPHA), goal, SHARE)
        assert apart(frames[k], shown) < 2.5  # observed 1.0: the film's own rounding


def test_a_guide_alone_hides_the_film_but_not_one_that_comes_after(
    video: str, folder: Path, store: FrameStore  # noqa: F811
) -> None:
    whole = {"schedules": {"guided": 1.0}, "frames": 2}
    goal = picture(folder / "goal.png")
    assert torch.equal(seen(render(both(video, folder, "normal", **whole), store)[1]), goal)
    after = seen(render(both(video, folder, "after_generation", **whole), store)[1])
    assert apart(after, torch.lerp(goal, true(1), ALPHA)) < 2.0


def test_a_mask_keeps_the_guide_out_and_lets_the_film_in(
    video: str, folder: Path, store: FrameStore  # noqa: F811
) -> None:
    """Masks say where is painted and drawn towards guides; the film has masks of its own."""
    data = both(video, folder, "normal", frames=2, guides={"mask": str(folder / "half.png")})
    before, after = (seen(f) for f in render(data, store))
    film = torch.lerp(before, true(1), ALPHA)
    half = SIDE // 2
    assert apart(after[..., :half], film[..., :half]) < 2.0
    assert apart(after[..., half:], torch.lerp(film, picture(folder / "goal.png"), SHARE)[..., half:]) < 2.0


def test_where_a_move_uncovers_something_both_are_seen(
    video: str, folder: Path, store: FrameStore  # noqa: F811
) -> None:
    """From alpha .5 on the film fills the strip, and the guide is mixed into that."""
    data = both(video, folder, "normal", frames=2, schedules={"hybrid_alpha": 0.5, "translation_x": 16.0})
    strip = seen(render(data, store)[1])[..., :16]
    assert apart(strip, torch.lerp(true(1), picture(folder / "goal.png"), SHARE)[..., :16]) < 2.0


@pytest.mark.parametrize("carry", ["pixels", "latent"])
def test_an_edit_of_either_makes_the_frames_from_there_on(
    video: str, folder: Path, store: FrameStore, carry: str  # noqa: F811
) -> None:
    feedback, strength = {"carry": carry}, {"strength": 0.5}
    data = both(video, folder, "normal", frames=4, feedback=feedback, schedules=strength, seed=8)
    assert made(render(data, store)) == [0, 1, 2, 3]
    for name, words, again in (
        ("guided", f"0:({SHARE}), 1:({SHARE}), 2:(0.9)", [2, 3]),
        ("hybrid_alpha", f"0:({ALPHA}), 2:({ALPHA}), 3:(0.9)", [3]),
    ):
        edited = copy.deepcopy(data)
        edited["schedules"][name] = words
        assert made(render(edited, store)) == again
    assert made(render(data, store)) == []

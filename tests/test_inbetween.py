# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames between frames: a known motion is met half way, and what one picture hides comes from the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from koshi_backend.inbetween import Ways, between, on_the_way
from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.invert import part_way

SIDE = 128


def texture(seed: int, size: int = 400) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, size, 3)).astype(np.float32), (0, 0), 3)
    return (noise - noise.min()) / (noise.max() - noise.min())


def seen(matrix: np.ndarray) -> Tensor:
    """A window on a large picture, its content moved by a forward matrix."""
    inside = np.array([[1, 0, 136], [0, 1, 136], [0, 0, 1]], float) @ np.linalg.inv(matrix)
    found = cv2.warpPerspective(texture(0), inside, (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return torch.from_numpy(found.clip(0, 1)).permute(2, 0, 1)[None]


def view(x: float, y: float) -> Tensor:
    return seen(np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]))


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().clamp_min(1e-12).log10())


@pytest.mark.parametrize("shift", [(6.0, 2.0), (1.5, -0.5), (-12.0, 7.0)])
def test_a_shift_is_met_part_of_its_way(shift: tuple[float, float]) -> None:
    first, second = view(0, 0), view(*shift)
    shares = [0.25, 0.5, 0.75]
    for share, picture in zip(shares, between(first, second, shares), strict=True):
        truth = view(shift[0] * share, shift[1] * share)
        inner = (..., slice(16, -16), slice(16, -16))
        # 57 dB and more, over the whole picture 35; a cross-fade has 21 to 55
        assert psnr(picture[inner], truth[inner]) > 50
        assert psnr(picture, truth) > max(psnr(torch.lerp(first, second, share), truth), 30)


MOVES = [{"zoom": 1.06}, {"zoom": 0.95, "angle": 3.0}, {"translation_x": 12.0}, {"zoom": 1.3, "angle": -6.0}]


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("flow", [True, False])
def test_a_known_motion_is_followed_exactly(move: dict[str, Any], flow: bool) -> None:
    """Also at the edges, where a flow knows nothing. Observed: 50 dB and more; a cross-fade has 22 to 42."""
    matrix = deforum_matrix(SIDE, SIDE, **move)
    first, second, field = seen(np.eye(3)), seen(matrix), MotionField.affine(matrix, SIDE, SIDE)
    for share in (0.25, 0.5, 0.875):
        onward = share * np.eye(3) + (1 - share) * np.linalg.inv(matrix)
        truth = seen(onward @ matrix)
        picture = on_the_way(first, second, share, Ways(*part_way(field, share)), flow=flow)
        assert psnr(picture, truth) > max(45, psnr(torch.lerp(first, second, share), truth) + 8)


def test_what_the_motion_leaves_over_is_followed_by_flow() -> None:
    """The command says 6 pixels, the picture has gone 10: at half the way it is 5 from where it was."""
    first, second = view(0, 0), view(10, 0)
    ways = Ways(*part_way(MotionField.affine(deforum_matrix(SIDE, SIDE, translation_x=6.0), SIDE, SIDE), 0.5))
    inner = (..., slice(16, -16), slice(16, -16))
    followed, faded = (on_the_way(first, second, 0.5, ways, flow=flow)[inner] for flow in (True, False))
    assert psnr(followed, view(5, 0)[inner]) > 45  # observed 56, and 36 where it is faded
    assert psnr(faded, view(5, 0)[inner]) < 40


@pytest.mark.parametrize("shift", [(26.0, 0.0), (-24.0, 20.0)])
@pytest.mark.parametrize("commanded", [False, True])
def test_pictures_far_apart_are_looked_at_again(
    shift: tuple[float, float], commanded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the width and more, of which the motion knows nothing. Observed: 70 dB and more, and 19 without."""
    first, second, truth = view(0, 0), view(*shift), view(shift[0] / 2, shift[1] / 2)
    inner, still = (..., slice(32, -32), slice(32, -32)), MotionField.identity(SIDE, SIDE)

    def middle() -> float:
        if commanded:
            return psnr(on_the_way(first, second, 0.5, Ways(still, still))[inner], truth[inner])
        return psnr(next(between(first, second, [0.5]))[inner], truth[inner])

    found = middle()
    monkeypatch.setattr("koshi_backend.motion.flow.far_flow", lambda *given: iter(()))
    assert found > 40 and found > middle() + 15


def test_a_thing_before_a_background_is_not_seen_twice() -> None:
    ground, thing = texture(1, SIDE), texture(2, 40)

    def scene(x: int) -> Tensor:
        whole = 0.4 * ground
        whole[40:80, x : x + 40] = 0.4 + 0.6 * thing
        return torch.from_numpy(whole).permute(2, 0, 1)[None]

    (middle,) = between(scene(30), scene(42), [0.5])
    fade = (scene(30) + scene(42)) / 2
    assert psnr(middle, scene(36)) > psnr(fade, scene(36)) + 6  # 39 against 24 dB


def test_pictures_that_are_alike_have_the_same_between_them() -> None:
    assert all(torch.equal(picture, view(0, 0)) for picture in between(view(0, 0), view(0, 0), [0.25, 0.5]))


def test_a_picture_that_shows_nothing_does_not_count() -> None:
    """Zooming out, the ring that comes in is the second picture's alone, however near the first one is."""
    matrix = deforum_matrix(SIDE, SIDE, zoom=0.7)
    field = MotionField.affine(matrix, SIDE, SIDE)
    first, second = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)
    ways = Ways(*part_way(field, 0.2))
    picture = on_the_way(first, second, 0.2, ways, flow=False)
    assert float(picture[..., ~ways.first.valid].min()) > 0.99
    assert float(picture[..., 60:68, 60:68].max()) == pytest.approx(0.2, abs=1e-3)

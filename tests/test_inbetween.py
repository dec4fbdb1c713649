# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames between frames: a known motion is met half way, and what one picture hides comes from the other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from koshi_backend.errors import KoshiError
from koshi_backend.frame import encode_png
from koshi_backend.inbetween import between, check_factor, smoothed

SIDE = 128


def texture(seed: int, size: int = 400) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, size, 3)).astype(np.float32), (0, 0), 3)
    return (noise - noise.min()) / (noise.max() - noise.min())


def view(x: float, y: float) -> Tensor:
    """A window on a large picture, its content moved by x to the right and y down."""
    matrix = np.array([[1, 0, 100 - x], [0, 1, 100 - y]], np.float32)
    seen = cv2.warpAffine(texture(0), matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return torch.from_numpy(seen.clip(0, 1)).permute(2, 0, 1)[None]


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


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_given_frames_stay_what_they_are(factor: int) -> None:
    pngs = [encode_png((view(3 * k, 0)[0].permute(1, 2, 0) * 65535).numpy().astype(np.uint16)) for k in range(3)]
    out = list(smoothed(pngs, factor))
    assert len(out) == 2 * factor + 1
    assert out[::factor] == pngs
    assert len(set(out)) == len(out)
    assert list(smoothed(pngs[:1], factor)) == pngs[:1]
    assert not list(smoothed([], factor))


@pytest.mark.parametrize("value", [0, 3, 16, 2.0, "2", True])
def test_other_factors_are_refused(value: object) -> None:
    with pytest.raises(KoshiError, match="interpolation"):
        check_factor(value)

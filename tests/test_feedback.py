# SPDX-License-Identifier: GPL-3.0-or-later
"""Colour match, sharpening, noise and the strength map."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend import color
from koshi_backend.feedback import correct, sharpen, shown, shown_tokens, strength_map
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.noise import frame_seed, pixel_noise, slerp
from koshi_backend.settings import SCHEDULES, Feedback


def picture(seed: int, low: float = 0.0, high: float = 1.0, size: int = 64) -> torch.Tensor:
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * noise


def test_a_picture_s_place_in_memory_does_not_matter() -> None:
    """Pictures from files lie there pixel by pixel."""
    image, anchor = picture(2), color.statistics(picture(3, 0.2, 0.7), "LAB")
    other = image.to(memory_format=torch.channels_last)
    assert np.array_equal(color.statistics(other, "LAB"), color.statistics(image, "LAB"))
    assert torch.equal(color.match(other, anchor, "LAB", 0.5), color.match(image, anchor, "LAB", 0.5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_colour_spaces_come_back(seed: int) -> None:
    image = picture(seed)
    assert torch.allclose(color.lab_to_rgb(color.rgb_to_lab(image)), image, atol=2e-4)
    assert torch.allclose(color.hsv_to_rgb(color.rgb_to_hsv(image)), image, atol=1e-5)


def test_lab_agrees_with_opencv() -> None:
    image = picture(1)
    theirs = cv2.cvtColor(image[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
    ours = color.rgb_to_lab(image)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 0.6  # OpenCV interpolates a table; observed 0.4


@pytest.mark.parametrize("mode", ["LAB", "RGB"])
def test_a_match_reaches_the_reference_s_statistics(mode: str) -> None:
    anchor = color.statistics(picture(1, 0.3, 0.6), mode)
    matched = color.match(picture(2, 0.35, 0.75), anchor, mode, 1.0)
    assert color.statistics(matched, mode) == pytest.approx(anchor, abs=0.6 if mode == "LAB" else 0.005)


def test_amount_0_changes_nothing_and_a_match_to_itself_neither() -> None:
    image = picture(3, 0.2, 0.8)
    anchor = color.statistics(image, "LAB")
    assert color.match(image, anchor, "LAB", 0.0) is image
    assert torch.allclose(color.match(image, anchor, "LAB", 1.0), image, atol=1e-3)


def test_a_flat_picture_is_not_blown_up() -> None:
    flat = picture(4, 0.5, 0.502)
    matched = color.match(flat, color.statistics(picture(5), "RGB"), "RGB", 1.0)
    assert float(matched.std(dim=(2, 3)).max()) < 2.1 * float(flat.std(dim=(2, 3)).max())


def test_sharpening_agrees_with_opencv() -> None:
    image = picture(6)
    array = image[0].permute(1, 2, 0).numpy()
    blurred = cv2.GaussianBlur(array, (5, 5), 1.0, borderType=cv2.BORDER_REPLICATE)
    expected = np.clip(1.3 * array - 0.3 * blurred, 0, 1)
    assert np.abs(sharpen(image, 0.3)[0].permute(1, 2, 0).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("kind", ["gaussian", "perlin"])
def test_pixel_noise_is_normal_and_the_same_for_the_same_seed(kind: str) -> None:
    noise = pixel_noise(kind, 128, 96, 7)
    assert noise.shape == (1, 3, 96, 128)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(noise, pixel_noise(kind, 128, 96, 7))
    assert not torch.equal(noise, pixel_noise(kind, 128, 96, 8))


def test_frame_seeds_do_not_meet() -> None:
    seeds = {frame_seed(s, f, p) for s in range(20) for f in range(50) for p in ("pixels", "latent")}
    assert len(seeds) == 2000


def test_slerp_keeps_the_variance() -> None:
    a, b = (torch.randn(1, 128, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    assert float(slerp(a, b, 0.3).var()) == pytest.approx(1.0, abs=0.02)
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-5)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-5)


def row(**changes: float) -> dict[str, float]:
    return {name: spec.default for name, spec in SCHEDULES.items()} | changes


def test_noise_is_added_after_the_colour_match() -> None:
    """Before it, the match would take it out again."""
    image, field = picture(8, 0.4, 0.6), MotionField.identity(64, 64)
    anchor = color.statistics(image, "LAB")
    plain = correct(image, field.valid, row(color_match=1.0), Feedback(), anchor, 1)
    noisy = correct(image, field.valid, row(color_match=1.0, noise=0.1), Feedback(), anchor, 1)
    assert float((noisy - plain).std()) == pytest.approx(0.05, rel=0.05)  # 0.1 on the -1..1 scale


def test_the_order_is_colour_contrast_sharpen_noise() -> None:
    """Against the four steps written out, each at a value that changes the picture."""
    image = picture(10, 0.2, 0.7)
    field = MotionField.affine(deforum_matrix(64, 64, zoom=1.1, angle=4), 64, 64)
    anchor = color.statistics(picture(11, 0.3, 0.9), "LAB")
    values = row(color_match=0.6, contrast=1.15, sharpen=0.4, noise=0.06, seed=9)
    moved = resample(image, field)
    step = color.match(moved, anchor, "LAB", 0.6, field.valid)
    step = sharpen((step * 1.15).clamp(0, 1), 0.4)
    step = (step + 0.03 * pixel_noise("perlin", 64, 64, frame_seed(9, 5, "pixels"))).clamp(0, 1)
    out = correct(moved, field.valid, values, Feedback(noise_type="perlin"), anchor, 5)
    assert torch.allclose(out, step, atol=1e-6)


def test_an_hsv_match_leaves_the_hue_alone() -> None:
    image = picture(12, 0.3, 0.6)
    matched = color.match(image, color.statistics(picture(13, 0.1, 0.9), "HSV"), "HSV", 1.0)
    before, after = color.rgb_to_hsv(image), color.rgb_to_hsv(matched)
    coloured = (after[:, 1] > 0.05) & (after[:, 2] < 0.99) & (before[:, 1] > 0.05)
    turn = (before[:, 0] - after[:, 0])[coloured].abs()
    assert float(torch.minimum(turn, 6 - turn).max()) < 1e-2
    assert float(after[:, 2].mean()) > float(before[:, 2].mean()) + 0.02


def test_contrast_does_not_wrap() -> None:
    out = correct(
        picture(9, 0.7, 0.9),
        torch.ones(64, 64, dtype=torch.bool),
        row(contrast=1.5, color_match=0),
        Feedback(),
        np.zeros(6),
        1,
    )
    assert float(out.min()) == 1.0


def test_outlines_are_no_holes_but_edges_are() -> None:
    valid = torch.ones(40, 56, dtype=torch.bool)
    valid[10:12, 5:50] = valid[20:30, 30:32] = False  # outlines
    assert bool(shown(valid).all())
    uncovered = valid.clone()
    uncovered[0] = uncovered[:, -1] = uncovered[15:18, 8:20] = False
    expected = torch.ones_like(valid)
    expected[0] = expected[:, -1] = expected[15:18, 8:20] = False
    assert torch.equal(shown(uncovered), expected)
    assert not bool(shown(torch.zeros_like(valid)).any())


def test_holes_are_made_wholly_anew() -> None:
    valid = torch.ones(64, 64, dtype=torch.bool)
    assert strength_map(0.4, valid) == 0.4
    assert shown_tokens(valid) is None
    valid[0, :3] = False
    assert strength_map(0.4, valid) == 0.4  # a corner of three pixels is not worth the extra steps
    valid[:, :24] = False
    shown = shown_tokens(valid)
    assert shown is not None
    assert shown.shape == (4, 4)
    assert not shown[:, :2].any()
    assert shown[:, 2:].all()
    cells = strength_map(0.4, valid)
    assert isinstance(cells, torch.Tensor)
    assert cells.shape == (1, 128, 4, 4)
    assert torch.all(cells[..., 0] == 1.0)
    assert torch.allclose(cells[..., 2:], torch.tensor(0.4))
    # The second column of tokens is half hole: within each group of four sub-cells the left two.
    half = cells[0, :, 0, 1].reshape(32, 2, 2)
    assert torch.all(half[:, :, 0] == 1.0)
    assert torch.allclose(half[:, :, 1], torch.tensor(0.4))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick colour match against the one that follows the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from koshi_backend import color, lab

H, W = 300, 471  # more than one piece of lab.PIXELS, and a last one that is not full


def picture(power: float, seed: int = 0) -> Tensor:
    """Noise; the higher the power, the more of it lies where the curves are straight."""
    return torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(seed)) ** power


def by_definition(given: Tensor, anchor: np.ndarray, amount: float, valid: Tensor | None) -> tuple[np.ndarray, Tensor]:
    """Statistics and match in double precision, all at once."""
    values = color.rgb_to_lab(given.double())
    counted = values[0].flatten(1) if valid is None else values[0][:, valid]
    own = torch.cat([counted.mean(dim=1), counted.std(dim=1, unbiased=False)]).numpy()
    gain = np.clip(anchor[3:] / np.maximum(own[3:], 1e-6), 1.0 / color.MAX_GAIN, color.MAX_GAIN)
    offset = anchor[:3] - own[:3] * gain
    line = [torch.from_numpy(part).view(1, 3, 1, 1) for part in (gain, offset)]
    matched = color.lab_to_rgb(values * line[0] + line[1])
    return own, torch.lerp(given.double(), matched, amount).clamp(0.0, 1.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 6.0])
@pytest.mark.parametrize("amount", [1.0, 0.4])
@pytest.mark.parametrize("part", [False, True])
def test_lab_in_pieces_is_lab(power: float, amount: float, part: bool) -> None:
    assert lab.PIXELS < H * W
    given = picture(power)
    valid = torch.rand(H, W, generator=torch.Generator().manual_seed(1)) > 0.3 if part else None
    anchor = np.array([60.0, 5.0, -3.0, 20.0, 10.0, 14.0])
    own, matched = by_definition(given, anchor, amount, valid)
    assert np.abs(color.statistics(given, "LAB", valid) - own).max() < 1e-4  # observed: 5e-6
    assert float((color.match(given, anchor, "LAB", amount, valid) - matched).abs().max()) < 1e-5  # observed: 1e-6


def test_every_colour_of_eight_bits_comes_back() -> None:
    """A match to its own statistics changes nothing, black, white and the straight pieces included."""
    levels = torch.arange(256) / 255.0
    across = levels.repeat(256, 1)
    given = torch.stack([across, across.T, across.flip(1)])[None].contiguous()
    same = color.match(given, color.statistics(given, "LAB"), "LAB", 1.0)
    assert float((same - given).abs().max()) < 1e-4  # observed: 1e-5
    assert torch.equal((same * 255).round(), (given * 255).round())
    assert float(same.min()) >= 0.0 and float(same.max()) <= 1.0


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(0.0, 1.0)] * 3), st.sampled_from(["LAB", "RGB", "HSV"]))
def test_one_colour_all_over_is_no_trouble(colour: tuple[float, float, float], mode: str) -> None:
    given = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 8, 8).contiguous()
    matched = color.match(given, color.statistics(given, mode), mode, 1.0)
    assert bool(matched.isfinite().all())
    assert float((matched - given).abs().max()) < 2e-4


@pytest.mark.parametrize("mode", ["LAB", "RGB"])
def test_what_was_matched_has_the_statistics(mode: str) -> None:
    given = 0.3 + 0.4 * picture(1.0)
    anchor = color.statistics(0.35 + 0.3 * picture(1.0, seed=2), mode)
    anchor[:3] += 0.02 * anchor[0]
    found = color.statistics(color.match(given, anchor, mode, 1.0), mode)
    assert found == pytest.approx(anchor, rel=2e-3, abs=2e-3)


def test_nothing_valid_means_everything_counts() -> None:
    given = picture(1.0)
    nothing = torch.zeros(H, W, dtype=torch.bool)
    for mode in ("LAB", "RGB", "HSV"):
        assert np.array_equal(color.statistics(given, mode, nothing), color.statistics(given, mode))


def test_moments_lose_no_digits_far_from_zero() -> None:
    values = (1000.0 + np.random.default_rng(0).random((3, 5000))).astype(np.float32)
    exact = np.concatenate([values.astype(np.float64).mean(axis=1), values.astype(np.float64).std(axis=1)])
    moments = lab.Moments()
    for start in range(0, 5000, 700):
        moments.add(values[:, start : start + 700].copy(), None)
    assert moments.result() == pytest.approx(exact, rel=1e-6)

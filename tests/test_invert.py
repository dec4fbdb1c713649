# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion backwards and part of its way: laws that hold for every field."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.field import grid, inside
from koshi_backend.motion.invert import inverse, part_way

WIDTH, HEIGHT = 96, 80
HERE = grid(WIDTH, HEIGHT, torch.device("cpu")).permute(1, 2, 0)

matrices = st.builds(
    lambda zoom, angle, x, y: deforum_matrix(WIDTH, HEIGHT, zoom=zoom, angle=angle, translation_x=x, translation_y=y),
    st.floats(0.4, 3.0), st.floats(-60.0, 60.0), st.floats(-20.0, 20.0), st.floats(-20.0, 20.0),
)  # fmt: skip
seeds = st.integers(0, 2**31)


def waves(seed: int, height: float, width: float) -> Tensor:
    """Smooth displacements of up to `height` pixels, [H, W, 2]."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 2)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), width)
    return torch.from_numpy((noise * height / np.abs(noise).max()).astype(np.float32))


def bent(matrix: np.ndarray, seed: int, height: float = 4.0) -> MotionField:
    """A matrix with waves on it that do not fold the picture over, and that does not know its matrix."""
    lower = height / max(1.0, np.abs(np.linalg.det(matrix)) ** 0.5)
    source = MotionField.affine(matrix, WIDTH, HEIGHT).source + waves(seed, lower, 12.0)
    return MotionField(source, inside(source, WIDTH, HEIGHT))


def apart(field: MotionField, truth: Tensor = HERE) -> Tensor:
    """How far the valid pixels of a field are from `truth`."""
    found = (field.source - truth).norm(dim=-1)[field.valid]
    return found if found.numel() else torch.zeros(1)


@given(matrices, seeds)
@settings(max_examples=25, deadline=None)
def test_there_and_back_is_no_motion(matrix: np.ndarray, seed: int) -> None:
    """Observed over 300 fields: at most .085 and .036 pixels, in the median .008 and .006."""
    field = bent(matrix, seed)
    assert float(apart(field.then(inverse(field))).max()) < 0.1
    # The other way round: the look-up is of the inverse, which is not known beyond what the frame shows.
    assert float(apart(inverse(field).then(field)).quantile(0.99)) < 0.1


@given(matrices)
@settings(max_examples=25, deadline=None)
def test_a_matrix_and_the_field_it_makes_have_the_same_inverse(matrix: np.ndarray) -> None:
    """Observed: at most 1e-3 pixels, and the same pixels but for some on the edge."""
    exact = MotionField.affine(matrix, WIDTH, HEIGHT)
    known, found = inverse(exact), inverse(MotionField(exact.source, exact.valid))
    both = known.valid & found.valid
    assert float((known.source - found.source).abs()[both].max() if both.any() else 0.0) < 0.01
    assert float((known.valid ^ found.valid).float().mean()) < 0.02


@given(matrices, seeds, st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_part_of_a_way_lies_on_the_straight_line(matrix: np.ndarray, seed: int, share: float) -> None:
    """A pixel of the new frame at x was at x + (1 - share) (s(x) - x). Observed over 300 fields: at
    most .073 pixels off it."""
    field = bent(matrix, seed, 3.0)
    first, second = part_way(field, share)
    # What the second way points at, looked up in the field, is where the first way points.
    both = first.valid & second.valid
    whole = field.then(MotionField(second.source, both))
    assert float((whole.source - first.source).norm(dim=-1)[both].max()) < 0.1
    straight = share * second.source + (1 - share) * first.source
    assert float((straight - HERE).norm(dim=-1)[both].max()) < 0.1
    assert float(both.float().mean()) > 0.1  # observed .17 to .94


def test_the_ends_of_a_way_are_the_frames_themselves() -> None:
    field = MotionField.affine(deforum_matrix(WIDTH, HEIGHT, zoom=1.1, angle=5, translation_x=4), WIDTH, HEIGHT)
    for given_as in (field, MotionField(field.source, field.valid)):
        assert float((part_way(given_as, 0.0)[0].source - HERE).abs().max()) < 1e-3
        first, second = part_way(given_as, 1.0)
        assert float((second.source - HERE).abs().max()) < 1e-3
        assert float((first.source - field.source).abs().max()) < 1e-3


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_turn_and_its_field_agree_part_of_the_way(share: float) -> None:
    field = MotionField.affine(deforum_matrix(WIDTH, HEIGHT, zoom=1.1, angle=5, translation_x=4), WIDTH, HEIGHT)
    without = part_way(MotionField(field.source, field.valid), share)
    for exact, found in zip(part_way(field, share), without, strict=True):
        both = exact.valid & found.valid
        assert float((exact.source - found.source).abs()[both].max()) < 0.01  # observed 2e-4
        assert float((exact.valid ^ found.valid).float().mean()) < 0.01


def test_what_is_hidden_has_no_way_back() -> None:
    field = MotionField.affine(deforum_matrix(WIDTH, HEIGHT, translation_x=10), WIDTH, HEIGHT)
    valid = field.valid.clone()
    valid[20:40, 40:60] = False
    for one in (MotionField(field.source, valid, field.matrix), MotionField(field.source, valid)):
        back = inverse(one)
        assert not back.valid[22:38, 32:48].any()
        assert back.valid[50:70, 10:80].all()


def test_a_tear_is_not_followed() -> None:
    """The left half stands still, the right half goes on by 12: between them nothing is known."""
    source = HERE.clone()
    source[:, 60:, 0] -= 12.0
    back = inverse(MotionField(source, inside(source, WIDTH, HEIGHT)))
    sure = back.valid
    found = back.source[..., 0] - HERE[..., 0]
    assert bool(((found.abs() < 0.1) | ((found - 12).abs() < 0.1))[sure].all())
    assert float(sure.float().mean()) > 0.7

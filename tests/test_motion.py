# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion fields: matrices, what is valid, and one move after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from warps import grid_points, mapped, sources, without_matrix

from koshi_backend.errors import KoshiError
from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.field import FAR

W, H = 96, 72


def test_the_identity_is_known_to_be_one() -> None:
    still = MotionField.identity(W, H)
    assert still.is_identity
    assert bool(still.valid.all())
    assert np.array_equal(sources(still, grid_points(W, H)), grid_points(W, H))
    assert not MotionField.affine(deforum_matrix(W, H, translation_x=1e-9), W, H).is_identity
    assert still.then(still).is_identity


def test_valid_is_what_lies_on_a_pixel_of_the_frame() -> None:
    """A pixel reaches half a pixel to each side of its centre."""
    for shift, columns in ((20.0, 20), (20.4, 20), (20.6, 21), (-3.0, 3)):
        field = MotionField.affine(deforum_matrix(W, H, translation_x=shift), W, H)
        empty = field.valid[:, :columns] if shift > 0 else field.valid[:, W - columns :]
        assert not empty.any()
        assert int(field.valid.sum()) == (W - columns) * H


@pytest.mark.parametrize("border", ["wrap", "reflect"])
def test_with_these_borders_everything_is_valid(border: str) -> None:
    field = MotionField.affine(deforum_matrix(W, H, translation_x=300, zoom=0.3), W, H, border=border)
    assert bool(field.valid.all())


def test_what_lies_behind_the_eye_is_not_valid() -> None:
    """The third row of the backward matrix is the depth: here it is 0 at x = 80 of the new frame."""
    back = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1 / 80, 0.0, 1.0]])
    for border in ("replicate", "wrap"):
        field = MotionField.homography(np.linalg.inv(back), W, H, border=border)
        assert not field.valid[:, 80:].any()
        assert bool(field.valid[:30, :40].all())  # y comes from twice as far down at x = 40
        assert bool(field.source.isfinite().all()) and float(field.source.abs().max()) <= FAR


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 3)), np.diag([1.0, 0.0, 1.0]), np.full((3, 3), np.nan), np.diag([np.inf, 1.0, 1.0])]
)
def test_a_matrix_without_an_inverse_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(KoshiError) as caught:
        MotionField.homography(matrix, W, H)
    assert caught.value.code == "bad_motion" and "squeezes" in caught.value.message


def test_a_border_that_there_is_not_is_refused() -> None:
    with pytest.raises(KoshiError, match="'mirror'"):
        MotionField.homography(np.eye(3), W, H, border="mirror")


_small = st.floats(-4, 4, allow_nan=False)
_zoom = st.floats(0.9, 1.1)
_bend = st.floats(-2e-4, 2e-4)


@st.composite
def moves(draw: st.DrawFn) -> np.ndarray:
    bent = np.eye(3)
    bent[2, :2] = draw(_bend), draw(_bend)
    zoom, angle, x, y = draw(_zoom), draw(_small), draw(_small), draw(_small)
    return bent @ deforum_matrix(W, H, zoom=zoom, angle=angle, translation_x=x, translation_y=y)


@settings(max_examples=60, deadline=None)
@given(moves(), st.floats(0.1, 10.0))
def test_a_field_is_its_matrix_backwards_whatever_its_scale(matrix: np.ndarray, scale: float) -> None:
    field = MotionField.homography(scale * matrix, W, H)
    points = grid_points(W, H)
    # Observed: at most 2e-5.
    assert np.abs(mapped(matrix, sources(field, points)) - points).max() < 1e-3
    assert np.abs(sources(field, points) - mapped(np.linalg.inv(matrix), points)).max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(moves(), moves(), st.booleans(), st.booleans())
def test_fields_compose_like_their_matrices(first: np.ndarray, second: np.ndarray, one: bool, other: bool) -> None:
    """Matrices exactly, other fields by looking displacements up."""
    a, b = MotionField.homography(first, W, H), MotionField.homography(second, W, H)
    both = (without_matrix(a) if one else a).then(without_matrix(b) if other else b)
    exact = MotionField.homography(second @ first, W, H)
    seen = both.valid & exact.valid
    error = (both.source - exact.source).norm(dim=-1)[seen]
    assert float(error.max()) < 0.01  # observed: at most 2e-4
    assert (both.matrix is None) == (one or other)
    # Valid in both steps is valid in the whole, to the pixel at the frame's edge that is nearest to where it was.
    x, y = both.source[both.valid].unbind(-1)
    assert float(x.min()) > -1.5 and float(x.max()) < W + 0.5 and float(y.min()) > -1.5 and float(y.max()) < H + 0.5


@settings(max_examples=25, deadline=None)
@given(moves())
def test_a_move_and_its_inverse_are_none(matrix: np.ndarray) -> None:
    there = without_matrix(MotionField.homography(matrix, W, H))
    back = without_matrix(MotionField.homography(np.linalg.inv(matrix), W, H))
    points = grid_points(W, H)
    both = there.then(back)
    seen = both.valid.numpy()[tuple(points.astype(int).T[::-1])]
    assert np.abs(sources(both, points) - points)[seen].max() < 0.01


@settings(max_examples=25, deadline=None)
@given(moves(), moves(), moves())
def test_it_does_not_matter_which_two_are_joined_first(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    first, second, third = (without_matrix(MotionField.homography(m, W, H)) for m in (a, b, c))
    one, other = first.then(second).then(third), first.then(second.then(third))
    seen = one.valid & other.valid
    assert float((one.source - other.source).norm(dim=-1)[seen].max()) < 0.02


def wandering(total: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A small random move in all eight ways, drawn back a little towards where it all began."""
    middle = np.array([[(W - 1) / 2, (H - 1) / 2]])
    off = (mapped(total, middle) - middle)[0]
    size = math.sqrt(abs(np.linalg.det(total[:2, :2] / total[2, 2])))
    angle = math.degrees(math.atan2(-total[1, 0], total[0, 0]))
    step = deforum_matrix(
        W,
        H,
        zoom=1 + random.normal(0, 0.01) - 0.05 * math.log(size),
        angle=random.normal(0, 0.5) - 0.05 * angle,
        translation_x=random.normal(0, 0.6) - 0.05 * off[0],
        translation_y=random.normal(0, 0.6) - 0.05 * off[1],
    )
    bent = np.eye(3)
    bent[2, :2] = random.normal(0, 2e-5, 2) - 0.05 * total[2, :2] / total[2, 2]
    return step @ bent


def test_two_thousand_composed_warps_stay_in_place() -> None:
    """Random pans, zooms, turns and tilts: as matrices, and as fields that nothing is known of."""
    random = np.random.default_rng(3)
    total, exact = np.eye(3), MotionField.identity(W, H)
    looked_up = without_matrix(exact)
    for _ in range(2000):
        matrix = wandering(total, random)
        field = MotionField.homography(matrix, W, H)
        exact, looked_up = exact.then(field), looked_up.then(without_matrix(field))
        total = matrix @ total
        total /= total[2, 2]
    points = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).reshape(-1, 2).astype(np.float64)
    wanted = mapped(np.linalg.inv(total), points)
    for field, limit in ((exact, 1e-3), (looked_up, 0.1)):
        seen = field.valid.numpy().ravel()
        assert seen.mean() > 0.3
        error = np.linalg.norm(sources(field, points) - wanted, axis=1)[seen]
        assert error.max() < limit  # observed: 4e-6 and 0.0025


def test_two_thousand_waves_stay_in_place() -> None:
    """Warps that are no matrix, against points that go through the 2,000 formulas one by one."""
    random = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(W, dtype=np.float64), np.arange(H, dtype=np.float64))
    waves, field = [], without_matrix(MotionField.identity(W, H))
    everywhere = torch.ones(H, W, dtype=torch.bool)

    def wave(x: np.ndarray, y: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        kx, ky, phase, ax, ay = waves[number]
        swing = np.sin(kx * x + ky * y + phase)
        return x + ax * swing, y + ay * swing

    for number in range(2000):
        along, length = random.uniform(0, 2 * math.pi), random.uniform(60, 120)
        k = 2 * math.pi / length
        swing = random.normal(0, 0.1, 2)
        waves.append((k * math.cos(along), k * math.sin(along), random.uniform(0, 2 * math.pi), *swing))
        source = torch.from_numpy(np.stack(wave(x, y, number), axis=-1).astype(np.float32))
        field = field.then(MotionField(source, everywhere))
    points = grid_points(W, H, 8)
    points = points[(np.abs(points - [(W - 1) / 2, (H - 1) / 2]) < [W / 2 - 16, H / 2 - 16]).all(axis=1)]
    px, py = points.T
    for number in reversed(range(2000)):
        px, py = wave(px, py, number)
    error = np.linalg.norm(sources(field, points) - np.stack([px, py], axis=1), axis=1)
    assert np.linalg.norm(points - np.stack([px, py], axis=1), axis=1).mean() > 1.0
    assert error.max() < 0.1  # observed: 0.002; looked up linearly they level one another, which leaves 1.2


def test_a_tear_is_not_smeared() -> None:
    """Two halves that part: a composed pixel comes from one of them, never from the middle in between."""
    source = MotionField.identity(W, H).source.clone()
    source[:, : W // 2, 0] -= 10.0
    source[:, W // 2 :, 0] += 10.0
    torn = MotionField(source, torch.ones(H, W, dtype=torch.bool))
    shift = MotionField.affine(deforum_matrix(W, H, translation_x=0.5), W, H)
    shown = torn.then(shift).source[:, 1:, 0] - (MotionField.identity(W, H).source[:, 1:, 0] - 0.5)
    assert float((shown.abs() - 10.0).abs().max()) < 1e-4


def test_hidden_stays_hidden_when_moved_on() -> None:
    field = MotionField.identity(W, H)
    valid = field.valid.clone()
    valid[40:50, 50:60] = False
    hidden = MotionField(field.source, valid)
    moved = hidden.then(MotionField.affine(deforum_matrix(W, H, translation_x=7, translation_y=-5), W, H))
    assert not moved.valid[35:45, 57:67].any()
    assert int((~moved.valid).sum()) == 100 + 7 * H + 5 * W - 35


@pytest.mark.parametrize("border", ["wrap", "reflect"])
def test_a_composed_border_goes_on(border: str) -> None:
    """Whole-pixel shifts that are no matrices, over the edge and back."""
    still = MotionField.identity(W, H)
    everywhere = torch.ones(H, W, dtype=torch.bool)

    def shift(pixels: float) -> MotionField:
        return MotionField(still.source - torch.tensor([pixels, 0.0]), everywhere)

    both = shift(0.0).then(shift(30.0), border)
    outside = both.source[0, :30, 0]
    expected = torch.arange(30.0) + (W - 30) if border == "wrap" else 29.0 - torch.arange(30.0)
    assert torch.allclose(outside, expected, atol=1e-3)
    assert bool(both.valid.all())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth that is kept steady from frame to frame, while a camera pans and pushes in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from koshi_backend.depth import (
    Alignment,
    DepthMap,
    align,
    carry_depth,
    first_alignment,
)
from koshi_backend.motion import MotionField

HEIGHT, WIDTH = 96, 128


def mosaic(width: int, seed: int = 5) -> Tensor:
    """Nearness (1 / depth) of a wide world: a floor and discs at all distances."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(width)[None]
    out = (0.15 + 0.25 * torch.linspace(0, 1, HEIGHT)[:, None]).repeat(1, width)
    for _ in range(width // 12):
        x, y, radius, near = torch.rand(4, generator=random).tolist()
        disc = (columns - x * width) ** 2 + (rows - y * HEIGHT) ** 2 < (6 + 18 * radius) ** 2
        out = torch.where(disc, 0.25 + 0.75 * near, out)
    return out


def shifted(pixels: int) -> MotionField:
    matrix = np.array([[1.0, 0.0, -pixels], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return MotionField.homography(matrix, WIDTH, HEIGHT)


def estimates(truths: list[Tensor], noise: float, seed: int = 0) -> list[tuple[Tensor, float, float]]:
    """What a model says of each frame: truth and noise under a scale and a shift of the frame's own."""
    random = torch.Generator().manual_seed(seed)
    out = []
    for truth in truths:
        scale = float(torch.exp(torch.randn(1, generator=random) * 0.3) * 20)
        shift = float(torch.randn(1, generator=random) * 5)
        wrong = noise * torch.randn(truth.shape, generator=random)
        out.append((scale * (truth + wrong) + shift, scale, shift))
    return out


def chain(
    truths: list[Tensor], fields: list[MotionField], noise: float, advance: float = 0.0, relax: float = 0.5
) -> tuple[list[Tensor], list[DepthMap]]:
    """Raw estimates and stabilised maps; the first frame's alignment is the true one."""
    told = estimates(truths, noise)
    raw, scale, shift = told[0]
    state = Alignment(1 / scale, -shift / scale)
    maps = [state.depth(raw)]
    for (raw, _, _), field in zip(told[1:], fields, strict=True):
        state = align(raw, *carry_depth(maps[-1], field, advance), state, relax=relax)
        maps.append(state.depth(raw))
    return [raw for raw, _, _ in told], maps


def line(truth: Tensor, found: Tensor) -> tuple[float, float]:
    """found = a truth + b, by least squares: the truth has no noise."""
    t, f = truth.flatten().double(), found.flatten().double()
    a = float(((t - t.mean()) * (f - f.mean())).sum() / (t - t.mean()).square().sum())
    return a, float(f.mean() - a * t.mean())


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
def test_a_pan_with_a_wavering_model_comes_out_steady(noise: float) -> None:
    """100 frames, all content exchanged twice over, scale and shift drawn anew for every frame."""
    frames = 100
    world = mosaic(WIDTH + 3 * frames)
    truths = [world[:, 3 * k : 3 * k + WIDTH] for k in range(frames)]
    raw, maps = chain(truths, [shifted(3)] * (frames - 1), noise)
    scale, shift = np.array([line(t, 1 / m.values) for t, m in zip(truths, maps, strict=True)]).T
    levelled = np.array([line(t, (r - r.min()) / (r.max() - r.min()))[0] for t, r in zip(truths, raw, strict=True)])
    # Observed over the whole pan: scale within 0.5 %, shift within 0.004 at 3 % noise; 1e-6 without.
    assert abs(scale - 1).max() < 0.02
    assert abs(shift).max() < 0.01
    # From frame to frame 0.0007 at most; each frame levelled by its own range wavers by 0.03.
    assert np.diff(np.log(scale)).std() < 0.002 < 0.01 < np.diff(np.log(levelled)).std()


FOCAL = 110.0


def corridor(camera: float) -> Tensor:
    """Depth of boxes before a wall over a floor, from a camera that has gone forward by `camera`."""
    random = torch.Generator().manual_seed(2)
    y, x = _rays()
    depth = torch.minimum(torch.full((HEIGHT, WIDTH), 5.0 - camera), 0.9 * FOCAL / y.clamp_min(1e-3))
    for _ in range(60):
        bx, by, size, away = torch.rand(4, generator=random).tolist()
        distance = 1.6 + 3 * away - camera
        if distance > 0.3:
            across = (x * distance / FOCAL - (6 * bx - 3)).abs() < 0.15 + 0.2 * size
            down = (y * distance / FOCAL - (6 * by - 3)).abs() < 0.15 + 0.2 * size
            depth = torch.where(across & down & (distance < depth), distance, depth)
    return depth


def push(before: float, after: float) -> MotionField:
    """The exact field of going forward, with what was hidden."""
    y, x = _rays()
    depth, old = corridor(after), corridor(before)
    ratio = depth / (depth + after - before)
    source = torch.stack([x * ratio + (WIDTH - 1) / 2, y * ratio + (HEIGHT - 1) / 2], dim=-1)
    column, row = source[..., 0].round().long(), source[..., 1].round().long()
    return MotionField(source, (old[row, column] - depth / ratio).abs() < 0.03 * depth)


def _rays() -> tuple[Tensor, Tensor]:
    rows, columns = torch.arange(HEIGHT) - (HEIGHT - 1) / 2, torch.arange(WIDTH) - (WIDTH - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return y, x


@pytest.mark.parametrize(("noise", "limit"), [(0.0, 0.05), (0.01, 0.08)])
def test_a_push_in_keeps_bringing_things_nearer(noise: float, limit: float) -> None:
    """Going 0.8 units into a corridor of 5: the true change stays, the model's wavering goes."""
    step, frames = 0.02, 41
    truths = [corridor(step * k) for k in range(frames)]
    fields = [push(step * (k - 1), step * k) for k in range(1, frames)]
    _, maps = chain([1 / t for t in truths], fields, noise, advance=step)
    for truth, found in zip(truths, maps, strict=True):
        # Observed at the end: 2 % without noise (edges mix), 3 % with; the wall itself came 16 % nearer.
        assert (found.values / truth).log().median().abs() < limit
    wall = (truths[0] > 4.99) & (truths[-1] > 4.99 - 0.8)
    assert maps[-1].values[wall].median() < 0.9 * maps[0].values[wall].median()


def test_a_thing_that_comes_nearer_by_itself_is_not_fitted_away() -> None:
    ground = mosaic(WIDTH)
    truths = []
    for k in range(20):
        truth = ground.clone()
        truth[30:70, 40:90] = 0.3 + 0.03 * k
        truths.append(truth)
    _, maps = chain(truths, [shifted(0)] * 19, 0.01)
    for truth, found in zip(truths, maps, strict=True):
        near = 1 / found.values
        # Observed: 0.001 beside it, 0.003 on it.
        assert (near - truth)[80:].mean().abs() < 0.01
        assert (near - truth)[32:68, 42:88].mean().abs() < 0.015


def test_an_endless_push_in_does_not_end_in_a_wall() -> None:
    """Each frame says "the same picture again", the camera says "nearer": without relax depth falls to its limit."""
    raw = mosaic(WIDTH)
    field = shifted(0)

    def after(relax: float) -> float:
        state = first_alignment(raw)
        for _ in range(200):
            state = align(raw, *carry_depth(state.depth(raw), field, 0.02), state, relax=relax)
        return float(state.depth(raw).values.median())

    assert after(0.0) < 0.6
    assert 1.5 < after(0.5) < 5.0


def test_little_or_flat_overlap_keeps_what_was_known() -> None:
    raw = mosaic(WIDTH)
    state = Alignment(0.5, 0.1)
    depth = state.depth(raw)
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    assert align(raw, depth.values, nothing, state) == state
    flat = torch.full((HEIGHT, WIDTH), 0.3)
    held = align(flat + 7.0, 1 / flat, ~nothing, state)
    assert held.scale == state.scale
    assert held.depth(flat + 7.0).values.mean() == pytest.approx(1 / 0.3, rel=1e-4)


def test_real_distances_are_only_scaled() -> None:
    truth = mosaic(WIDTH)
    first = first_alignment(truth, "scene")
    assert (first.scale, first.shift, first.kind) == (1.0, 0.0, "scene")
    depth = first.depth(truth * 0.01)  # 100 m away: no relative range holds it back
    expected, known = carry_depth(depth, shifted(0))
    again = align(truth * 0.01 * 1.3, expected, known, first)
    assert (again.scale, again.shift, again.kind) == (pytest.approx(1 / 1.3, rel=1e-6), 0.0, "scene")
    assert torch.allclose(again.depth(truth * 0.01 * 1.3).values, depth.values, rtol=1e-5)


def test_two_numbers_and_the_picture_are_the_whole_state() -> None:
    raw = mosaic(WIDTH)
    state = align(raw * 3 + 1, *carry_depth(first_alignment(raw).depth(raw), shifted(0)), first_alignment(raw))
    stored = json.loads(json.dumps([state.scale, state.shift]))
    assert torch.equal(Alignment(*stored).depth(raw).values, state.depth(raw).values)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Flow times: the published numbers, and the laws of re-spacing."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from koshi_backend.errors import Cancelled
from koshi_backend.models.sampling import (
    Mu,
    empirical_mu,
    euler,
    flow_times,
    linear_mu,
    no_shift,
    rounded,
    shift,
    unshift,
)


@pytest.mark.parametrize(
    ("tokens", "steps", "mu"),
    [(4096, 50, 2.02335116), (4096, 28, 2.15144316), (1024, 28, 1.85917658), (4608, 50, 1.23666282)],
)
def test_the_shift_agrees_with_published_values(tokens: int, steps: int, mu: float) -> None:
    assert empirical_mu(tokens, steps) == pytest.approx(mu, abs=1e-7)


@pytest.mark.parametrize(
    ("tokens", "table"),
    [
        (256, [1, 0.9554, 0.8771, 0.7041, 0]),
        (1024, [1, 0.9581, 0.8840, 0.7175, 0]),
        (4096, [1, 0.9674, 0.9081, 0.7672, 0]),
    ],
)
def test_four_steps_are_klein_s_table(tokens: int, table: list[float]) -> None:
    assert flow_times(tokens, 4) == pytest.approx(table, abs=6e-5)


def test_flux1_s_schedules() -> None:
    assert flow_times(1024, 4, mu=no_shift) == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-12)
    assert flow_times(4096, 4, mu=no_shift) == flow_times(256, 4, mu=no_shift)
    assert [linear_mu(tokens, 20) for tokens in (256, 1024, 4096)] == pytest.approx([0.5, 0.63, 1.15])
    assert flow_times(1024, 4, mu=linear_mu) == pytest.approx([1, 0.849, 0.6525, 0.385, 0], abs=3e-4)
    assert flow_times(4096, 4, mu=linear_mu) == pytest.approx([1, 0.9045, 0.7595, 0.5128, 0], abs=6e-5)


@pytest.mark.parametrize(("t", "bfl", "diffusers"), [(0.958085, 956, 960), (0.7175, 720, 716), (0.7672, 764, 768)])
def test_the_times_that_others_tell_their_networks(t: float, bfl: int, diffusers: int) -> None:
    """Pinned from their code in bfloat16; the true time lies between or beside them."""
    assert rounded(t, "exact") == t
    assert round(1000 * rounded(t, "bfl"), 3) == bfl
    assert round(1000 * rounded(t, "diffusers"), 3) == diffusers


def test_re_spaced_steps() -> None:
    assert flow_times(1024, 4, 0.7) == pytest.approx([0.7, 0.619, 0.503, 0.322, 0], abs=6e-4)
    assert flow_times(1024, 2, 0.3) == pytest.approx([0.3, 0.173, 0], abs=1.5e-3)


@given(
    st.floats(1e-4, 1.0),
    st.integers(1, 50),
    st.sampled_from([64, 256, 1024, 4096, 8192]),
    st.sampled_from([empirical_mu, linear_mu, no_shift]),
)
def test_times_fall_from_the_start_to_zero(start: float, steps: int, tokens: int, mu: Mu) -> None:
    times = flow_times(tokens, steps, start, mu)
    assert times[0] == start
    assert times[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(times))


@given(st.floats(1e-6, 1.0), st.floats(-1, 4))
def test_unshift_undoes_shift(u: float, mu: float) -> None:
    assert unshift(shift(u, mu), mu) == pytest.approx(u, rel=1e-9)


def test_euler_is_exact_on_a_straight_line_and_stops_when_told() -> None:
    picture, noise = torch.randn(2, 1, 4, 2, 2).unbind()
    out = euler(lambda x, t: noise - picture, noise, [1.0, 0.9, 0.4, 0.0])
    assert torch.allclose(out, picture, atol=1e-6)
    steps: list[int] = []
    with pytest.raises(Cancelled):
        euler(
            lambda x, t: x,
            noise,
            [1.0, 0.5, 0.2, 0.0],
            on_step=lambda k, n: steps.append(k),
            cancelled=lambda: len(steps) == 2,
        )
    assert steps == [0, 1]


def test_held_parts_stay_on_their_line_until_released() -> None:
    picture, noise = torch.randn(2, 1, 4, 2, 2).unbind()
    release = torch.ones_like(picture)
    release[..., 0] = 0.4
    seen: list[tuple[float, torch.Tensor]] = []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        seen.append((t, x.clone()))
        return torch.zeros_like(x)  # a net that would leave everything as it is

    euler(velocity, noise, [1.0, 0.7, 0.4, 0.2, 0.0], held=(picture, noise, release))
    at = dict(seen)
    assert torch.allclose(at[0.7][..., 0], (0.7 * noise + 0.3 * picture)[..., 0])
    assert torch.allclose(at[0.4][..., 0], (0.4 * noise + 0.6 * picture)[..., 0])
    assert torch.equal(at[0.2][..., 0], at[0.4][..., 0])  # let go: from here on the net decides
    assert torch.equal(at[0.4][..., 1], noise[..., 1])
    never = euler(lambda x, t: torch.ones_like(x), noise, [1.0, 0.5, 0.0], held=(picture, noise, release * 0.0))
    assert torch.equal(never, picture)

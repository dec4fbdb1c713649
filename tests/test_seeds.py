# SPDX-License-Identifier: GPL-3.0-or-later
"""Seed paths against sd-webui-deforum's own sequences, and Parseq's fractional seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from koshi_backend.errors import KoshiError
from koshi_backend.seeds import BEHAVIORS, LARGEST, seed_path, split_seed


@pytest.mark.parametrize(
    ("behavior", "iter_n", "path"),
    [
        ("iter", 1, [100, 101, 102, 103]),
        ("iter", 3, [100, 101, 101, 101, 102, 102, 102, 103]),  # the first one is used once only
        ("ladder", 1, [100, 102, 101, 103, 102, 104]),
        ("alternate", 1, [100, 101, 100, 101]),
        ("fixed", 1, [100, 100, 100]),
    ],
)
def test_sequences_are_deforum_s(behavior: str, iter_n: int, path: list[int]) -> None:
    assert seed_path(behavior, 100, len(path), iter_n) == path


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 9))
def test_each_step_is_deforum_s_rule(seed: int, frames: int, iter_n: int) -> None:
    """The closed forms against the counter that Deforum steps (seed.py)."""
    for behavior in ("iter", "ladder", "alternate"):
        value, internal, path = seed, 0, []
        for _ in range(frames):
            path.append(value)
            if behavior == "iter":
                value += 1 if internal % iter_n == 0 else 0
                internal += 1
            else:
                up, down = (2, -1) if behavior == "ladder" else (1, -1)
                value += up if internal == 0 else down
                internal = 1 if internal == 0 else 0
        assert seed_path(behavior, seed, frames, iter_n) == path


def test_random_is_reproducible_and_random() -> None:
    path = seed_path("random", 7, 400)
    assert path[0] == 7
    assert path == seed_path("random", 7, 400)
    assert path[:50] == seed_path("random", 7, 50)  # a longer shot begins with the same seeds
    assert len(set(path)) == 400
    assert not set(path) & set(seed_path("random", 8, 400))
    # 399 uniform draws below 2^32 have a mean of 2^31 with a deviation of 2^32 / sqrt(12 * 399); observed 0.25 of one
    assert abs(sum(path[1:]) / 399 - 2**31) < 4 * 2**32 / (12 * 399) ** 0.5
    assert all(0 <= value < 2**32 for value in path)


def test_schedule_takes_whole_parts_and_draws_where_it_says_minus_one() -> None:
    path = seed_path("schedule", 5, 5, schedule=[10, 10.9, -1, -1, 3])
    assert [path[0], path[1], path[4]] == [10, 10, 3]
    assert path[2] != path[3]
    assert path == seed_path("schedule", 5, 5, schedule=[10, 10.9, -1, -1, 3])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("sideways", 1, 3), "sideways"),
        (("iter", -1, 3), "-1"),
        (("iter", 1.5, 3), "1.5"),
        (("iter", True, 3), "True"),
        (("iter", 1, 3, 0), "seed_iter_N"),
        (("iter", LARGEST, 2), "frame 1"),
        (("schedule", 1, 3), "schedule"),
        (("schedule", 1, 3, 1, [1, 2]), "2 values for 3"),
        (("schedule", 1, 2, 1, [1, float("nan")]), "frame 1"),
        (("schedule", 1, 2, 1, [1, -2]), "frame 1"),
    ],
)
def test_what_cannot_be_a_path_is_refused_in_words(arguments: tuple, word: str) -> None:
    with pytest.raises(KoshiError) as refusal:
        seed_path(*arguments)
    assert refusal.value.code == "bad_seed"
    assert word in refusal.value.message


def test_no_behaviour_is_forgotten() -> None:
    for behavior in BEHAVIORS:
        assert len(seed_path(behavior, 3, 6, schedule=[3] * 6)) == 6
        assert seed_path(behavior, 3, 0, schedule=[]) == []


@pytest.mark.parametrize(
    ("seed", "parts"),
    [(3, (3, 3, 0.0)), (3.25, (3, 4, 0.25)), (0, (0, 0, 0.0)), (0.5, (0, 1, 0.5)), (LARGEST, (LARGEST, LARGEST, 0.0))],
)
def test_a_fractional_seed_is_parseq_s(seed: float, parts: tuple[int, int, float]) -> None:
    assert split_seed(seed) == parts


@pytest.mark.parametrize("seed", [-0.5, float("nan"), float("inf"), 2.0**54, 10**400])
def test_a_seed_out_of_range_is_refused(seed: float) -> None:
    with pytest.raises(KoshiError, match="seed"):
        split_seed(seed)


def test_needs_no_more_than_the_standard_library() -> None:
    code = "import sys, koshi_backend.seeds; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"

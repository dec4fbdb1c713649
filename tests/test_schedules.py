# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules: Deforum's strings as Deforum reads them, and a refusal where it would crash or misread."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.schedules import ScheduleError, evaluate, parse, to_text

# Measured with sd-webui-deforum's own code, max_frames = 10.
DEFORUM_GOLDEN = {
    "0:(1), 5:(2)": [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2],
    "0:1, 5:2": [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2],
    "5:(2), 0:(1)": [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2],
    "0:(1), 20:(3)": [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9],
}


@pytest.mark.parametrize("text", DEFORUM_GOLDEN)
def test_values_are_those_of_deforum(text: str) -> None:
    assert evaluate(text, 10) == pytest.approx(DEFORUM_GOLDEN[text], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.75", [0.75] * 3),  # a bare number: ValueError in Deforum
        ("0:(1),", [1.0] * 3),  # a trailing comma: SyntaxError in Deforum
        ("2:(4)", [4.0] * 3),  # no key at frame 0: UnboundLocalError in Deforum
        ("0:(1e-3)", [0.001] * 3),
        ('"0":(1), 2:(.5)', [1.0, 0.75, 0.5]),
        ("0:(1), 0:(2)", [2.0] * 3),
        ("0:((1))", [1.0] * 3),
    ],
)
def test_what_deforum_crashes_on_is_understood(text: str, values: list[float]) -> None:
    assert evaluate(text, 3) == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0:(1+0.1*t)", 2),  # other readers turn this into the constant 1 without a word
        ("0:(1.0025+0.002*sin(1.25*3.14*t/30))", 2),
        ("0:(1), max_f:(2)", 8),
        ("0:(1), 2.5:(2)", 8),
        ("0:(1), -3:(2)", 8),
        ("0:(1), ²:(2)", 8),
        ("0:(1", 2),
        ("0:1), 2:(3)", 3),
        ("0:(1), abc", 8),
    ],
)
def test_the_rest_is_refused_and_the_place_is_named(text: str, position: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        evaluate(text, 10)
    assert caught.value.position is not None
    assert abs(caught.value.position - position) <= 1
    assert f"at character {caught.value.position + 1}" in caught.value.message


@pytest.mark.parametrize(
    "bad", ["", "   ", "0:(nan)", "0:(inf)", float("nan"), float("inf"), [1.0, float("nan")], True]
)
def test_nothing_that_is_not_a_finite_number_comes_through(bad: object) -> None:
    with pytest.raises(ScheduleError):
        evaluate(bad, 2)  # type: ignore[arg-type]


def test_a_list_of_the_wrong_length_names_both_lengths() -> None:
    with pytest.raises(ScheduleError, match=r"3 values .* 5 frames"):
        evaluate([1, 2, 3], 5)


def test_an_endless_text_is_refused_at_once() -> None:
    begin = time.perf_counter()
    with pytest.raises(ScheduleError):
        parse("0:(1)," * 1_000_000)
    assert time.perf_counter() - begin < 0.5


_value = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 4))


@given(st.lists(_value, min_size=1, max_size=60))
def test_dense_to_text_and_back_loses_nothing(values: list[float]) -> None:
    assert evaluate(to_text(values), len(values)) == pytest.approx(values, abs=1.1e-6, rel=1e-12)


@given(st.dictionaries(st.integers(0, 500), _value, min_size=1, max_size=20))
def test_parse_print_parse_is_the_identity(keys: dict[int, float]) -> None:
    printed = ", ".join(f"{frame}:({value!r})" for frame, value in keys.items())
    assert parse(printed) == keys


@settings(max_examples=300)
@given(st.text(alphabet="0123456789:(),.-+e ts\"'", max_size=40))
def test_any_text_is_read_or_refused_never_worse(text: str) -> None:
    try:
        assert len(evaluate(text, 7)) == 7
    except ScheduleError:
        pass

# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules: Deforum's strings as Deforum reads them, and the right thing where it crashes or misreads."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend import curves
from koshi_backend.schedules import Schedule, ScheduleError, check, evaluate, evaluate_texts, parse, to_text

RAMP = [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2]

# Measured with sd-webui-deforum's own code (2024-03-13) on numexpr 2.14 and pandas 2.2: max_frames 10, seed 42.
DEFORUM_GOLDEN: dict[str, list[float]] = {
    "0:(1), 5:(2)": RAMP,
    "0:1, 5:2": RAMP,
    "5:(2), 0:(1)": RAMP,
    "0:(t), 5:(9)": [0, 1, 2, 3, 4, 9, 9, 9, 9, 9],  # an expression ends with a jump
    "0:(3), 9:(t)": [3, 3.666667, 4.333333, 5, 5.666667, 6.333333, 7, 7.666667, 8.333333, 9],  # and begins with a ramp
    "0:(1), 3:(t), 6:(2), 8:(4)": [1, 1.666667, 2.333333, 3, 4, 5, 2, 3, 4, 4],
    "0:(10-t), 9:(1)": [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
    "0:(1), (2+3):(2)": RAMP,
    '0:(1), "max_f-1":(2)': [1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875, 2, 2],
    "0:(1), max_f/2:(3)": [1, 1.5, 2, 2.5, 3, 3, 3, 3, 3, 3],  # 4.5 is frame 4
    "0:(1), s/7:(3)": [1, 1.333333, 1.666667, 2, 2.333333, 2.666667, 3, 3, 3, 3],
    "0:(1), 20:(3)": [1] * 10,  # beyond the last frame: ignored
    "0:(1), -3:(2)": [1] * 10,
    "0:(1), 0:(2)": [2] * 10,
    "0:(2**t)": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    "0:(t//2)": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "0:(t%3)": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0],
    "0:(abs(-t))": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    "0:(floor(t/2))": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "0:(1e-3)": [0.001] * 10,
    "0:(s)": [42] * 10,
    "0:(max_f-t)": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    "0:(t*s/max_f)": [0, 4.666667, 9.333333, 14, 18.666667, 23.333333, 28, 32.666667, 37.333333, 42],
    "0:((t<5)*2+1)": [3, 3, 3, 3, 3, 1, 1, 1, 1, 1],
    "0: (1.0025+0.002*sin(1.25*3.14*t/30))": [
        1.0025, 1.002761, 1.003017, 1.003265, 1.0035, 1.003717, 1.003914, 1.004086, 1.004232, 1.004347,
    ],
    "0:(exp(-t/4)*cos(t))": [
        1, 0.420788, -0.252406, -0.467639, -0.240462, 0.081271, 0.214243, 0.131009, -0.019691, -0.096032,
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", DEFORUM_GOLDEN)
def test_values_are_those_of_deforum(text: str) -> None:
    assert evaluate(text, 10, seed=42) == pytest.approx(DEFORUM_GOLDEN[text], abs=6e-7)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.75", [0.75] * 10),  # a bare number: ValueError in Deforum
        ("t/2,", [k / 2 for k in range(10)]),  # a bare expression
        ("0:(1),", [1.0] * 10),  # a trailing comma: SyntaxError
        ("5:(2)", [2.0] * 10),  # no key at frame 0: UnboundLocalError
        ("(2+3):(4)", [4.0] * 10),
        ("5:(t), 7:(1)", [5.0] * 6 + [6.0] + [1.0] * 3),  # what is held back is the value at its own frame
        ("0:(where(t<5, 1, 2))", [1.0] * 5 + [2.0] * 5),  # a comma in a function: IndexError
        ("0:(arctan2(0, 1)), 5:(max(1, min(t, 3)))", [0.0] * 5 + [3.0] * 5),
        ("0:(pi)", [3.141592653589793] * 10),  # KeyError
        ("0:( 1 ), 5:( 2 )", RAMP),  # blanks make Deforum hold 1
        ("0:(1e0), 5:(2.)", RAMP),  # so do these numbers
        (' 0 :\n(1)\n,\n"5" : ("2") ,\n', RAMP),
        ("'0':((1)), (5):(((2)))", RAMP),
        ("0: 1+1, 5: t*2", [2.0] * 5 + [10.0, 12.0, 14.0, 16.0, 18.0]),
        ("+0:(+.5)", [0.5] * 10),
        ("step; 0:(1), 4:(t), 6:(3)", [1.0] * 4 + [4.0, 5.0] + [3.0] * 4),
    ],
)
def test_what_deforum_crashes_on_is_understood(text: str, values: list[float]) -> None:
    assert evaluate(text, 10) == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("0:(1/0)", 4, "frame 0: 1/0 divides by zero, in '1/0'"),
        ("0:(1), 2:(1 + 1/(t-3))", 15, "frame 3: 1/0 divides"),
        ("0:(sqrt(2-t))", 3, r"frame 3: sqrt\(-1\) has no value"),
        ("0:(1), 5:( sine(t))", 11, "Did you mean 'sin'"),
        ("0:(1), t:(2)", 7, "same at every frame"),
        ('0:(1), "max_g":(2)', 8, "'max_f'"),
        ('0:(1), "1/(max_f-9)":(2)', 9, "divides by zero"),
        ("0:(1), 2.5:(2)", 7, "whole numbers"),
        ("0:(1), (2.0):(2)", 8, "whole numbers"),
        ("0:(1), ²:(2)", 7, "cannot stand"),
        ("9999999999:(1)", 0, "too large"),
        ("0:(1", 2, "not closed"),
        ("0:1), 2:(3)", 3, "no opening"),
        ("0:(1), abc", 7, "not a key"),
        ("0:(1) 5:(2)", 7, "comma missing"),
        ("0:(1); 5:(2)", 5, "separated by commas"),
        ("0:(), 5:(2)", 3, "missing"),
        ("0:(1), :(2)", 7, "no frame number"),
        ('0:(1), "5:(2)', 7, "quote is not closed"),
        ("0:(1, 2)", 4, "comma"),
        ("12:(1)", 0, "no key lies in frames 0 to 9"),
        ("cubik; 0:(1)", 0, "'cubic'"),
        ("0:(nan)", 3, "no name 'nan'"),
        ("0:(1e999)", 3, "too large"),
        (",", 0, "no key"),
    ],
)
def test_the_rest_is_refused_and_the_place_is_named(text: str, position: int, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as caught:
        evaluate(text, 10)
    assert caught.value.position == position
    assert f"at character {position + 1}" in caught.value.message
    assert caught.value.code == "bad_schedule"


def test_an_error_at_a_frame_says_which() -> None:
    with pytest.raises(ScheduleError) as caught:
        evaluate("0:(1), 2:(1/(t-7))", 10)
    assert caught.value.frame == 7


@pytest.mark.parametrize(
    "bad", ["", "   ", "0:(inf)", float("nan"), float("inf"), [1.0, float("nan")], [1.0, "2"], True, None, {1}, 2j]
)
def test_nothing_that_is_not_a_finite_number_comes_through(bad: Any) -> None:
    with pytest.raises(ScheduleError):
        evaluate(bad, 2)


def test_a_list_of_the_wrong_length_names_both_lengths() -> None:
    with pytest.raises(ScheduleError, match=r"3 values .* 5 frames"):
        evaluate([1, 2, 3], 5)


@pytest.mark.parametrize(
    "text",
    [
        "0:(1)," * 1_000_000, "1+" * 500_000 + "1", "(" * 999_999, "0:" + "(" * 2000 + "1" + ")" * 2000,
        " " * 999_999, "x" * 999_999, "0:(9**9**9)", "0:(2**t**t)", "0:(1<<10**9)", "'" * 999_999, "1;" * 400_000,
        "0:(1), 1:" * 90_000, "0:1+1," * 160_000, "9" * 999_999, '"(' * 400_000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_an_endless_text_is_refused_at_once(text: str) -> None:
    """Observed: under 3 ms, but 0.15 s for the 4,300 short expressions that are allowed (0.8 s on a busy machine)."""
    begin = time.perf_counter()
    with pytest.raises(ScheduleError):
        evaluate(text, 10)
    assert time.perf_counter() - begin < (5 if text.startswith("0:1+1") else 0.5)


def test_expressions_that_take_too_long_together_are_refused() -> None:
    with pytest.raises(ScheduleError, match="steps"):
        evaluate("+".join(["t"] * 150), 100_000)


# ---- interpolation

KEYS = "0:(1), 2:(3), 7:(-2), 10:(0.5), 15:(4)"
# scipy 1.17: make_interp_spline of degree 2 and 3 (which pandas' and Deforum's methods of these names call), and
# CubicHermiteSpline with PchipInterpolator's slopes, the outermost set to 0.
SPLINES: dict[str, list[float]] = {
    "quadratic": [
        1, 2.4356151056867428, 3, 2.693154682939772, 1.5150791545060582, -0.3243654373397004, -1.5660122048288665, -2,
        -1.6263288228530997, -0.5609976120986998, 0.5, 1.4406650747324663, 2.2609976120987003, 2.9609976120986996,
        3.540665074732467, 4,
    ],
    "cubic": [
        1, 2.6680747187433664, 3, 2.3781362767989807, 1.1848439821693912, -0.1975164508596905, -1.3865845892591806, -2,
        -1.764190193164934, -0.8407344512842294, 0.5, 1.9876459350456384, 3.3518361282105706, 4.322203353852686,
        4.628380386329867, 4,
    ],
    "bezier": [
        1, 2, 3, 2.48, 1.24, -0.24, -1.48, -2, -1.5221681535550147, -0.48878075155447387, 0.5, 1.3545109489051095,
        2.283824817518248, 3.1358832116788324, 3.758627737226277, 4,
    ],
    "step": [1, 1, 3, 3, 3, 3, 3, -2, -2, -2, 0.5, 0.5, 0.5, 0.5, 0.5, 4],
    "linear": [1, 2, 3, 2, 1, 0, -1, -2, -2 + 2.5 / 3, -2 + 5 / 3, 0.5, 1.2, 1.9, 2.6, 3.3, 4],
}  # fmt: skip


@pytest.mark.parametrize("kind", SPLINES)
def test_curves_are_those_of_scipy(kind: str) -> None:
    """The three ways of naming an interpolation, and the last value held flat. Observed: 2e-15 apart."""
    expected = [*SPLINES[kind], 4, 4]
    for values in (
        evaluate(f"{kind}; {KEYS}", 18),
        evaluate({"keys": KEYS, "interpolation": kind}, 18),
        evaluate(KEYS, 18, interpolation=kind),
    ):
        assert values == pytest.approx(expected, abs=1e-13)


def test_the_schedules_own_interpolation_comes_first() -> None:
    assert evaluate(f"step; {KEYS}", 16, interpolation="cubic") == SPLINES["step"]
    assert evaluate({"keys": f" Step ;{KEYS}"}, 16) == SPLINES["step"]
    with pytest.raises(ScheduleError, match=r"step.*cubic"):
        evaluate({"keys": f"step; {KEYS}", "interpolation": "cubic"}, 16)


@pytest.mark.parametrize(
    "bad", [{"keys": "1", "interpolatoin": "cubic"}, {"keys": 1}, {}, {"keys": "1", "interpolation": "cubik"}]
)
def test_an_object_with_a_fault_is_refused(bad: Any) -> None:
    with pytest.raises(ScheduleError):
        evaluate(bad, 4)


def test_too_few_keys_draw_the_next_simpler_curve_as_in_deforum() -> None:
    three = "0:(0), 4:(1), 8:(0)"
    assert evaluate(f"cubic; {three}", 9) == evaluate(f"quadratic; {three}", 9)
    assert evaluate(f"quadratic; {three}", 9)[2] == pytest.approx(0.75)  # the parabola through them
    assert evaluate("cubic; 0:(0), 4:(1)", 9) == evaluate("0:(0), 4:(1)", 9)
    assert check("cubic; 0:(0), 4:(1)", 9) == ["A cubic curve needs 4 keys; with fewer it is drawn linear."]
    assert check("cubic; 0:(0)", 9) == []


def test_an_expression_ends_one_curve_and_the_next_number_begins_another() -> None:
    values = evaluate("bezier; 0:(0), 4:(10+t), 6:(1), 10:(3)", 12)
    eased = [14 * (3 * u**2 - 2 * u**3) for u in (0, 0.25, 0.5, 0.75)]
    after = [1 + 2 * (3 * u**2 - 2 * u**3) for u in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([*eased, 14, 15, *after, 3])


_value = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 4))
_points = st.dictionaries(st.integers(0, 200), _value, min_size=1, max_size=20).map(lambda d: sorted(d.items()))


@given(_points, st.sampled_from(curves.KINDS))
def test_curves_meet_their_keys_and_bezier_stays_between_them(points: list[tuple[int, float]], kind: str) -> None:
    values = curves.draw(points, kind)
    first = points[0][0]
    assert [values[frame - first] for frame, _ in points] == [value for _, value in points]
    if kind in ("bezier", "linear", "step"):
        for (a, left), (b, right) in pairwise(points):
            inside = values[a - first : b - first + 1]
            low, high = min(left, right), max(left, right)
            assert all(low - 1e-9 <= v <= high + 1e-9 for v in inside)
            if kind == "bezier":
                steps = [y - x for x, y in pairwise(inside)]
                assert all(s * (right - left) >= -1e-9 * max(1, abs(right - left)) for s in steps)  # never turns round


@given(
    st.lists(st.floats(-10, 10), min_size=4, max_size=4),
    st.lists(st.integers(0, 100), min_size=4, max_size=9, unique=True),
)
def test_a_spline_gives_polynomials_of_its_degree_again(factors: list[float], frames: list[int]) -> None:
    """The law that sets not-a-knot apart from natural ends. Observed: 3e-9 of the range."""
    frames.sort()
    for kind, degree in (("quadratic", 2), ("cubic", 3)):

        def polynomial(x: float, degree: int = degree) -> float:
            return sum(factor * (x / 50 - 1) ** k for k, factor in enumerate(factors[: degree + 1]))

        values = curves.draw([(f, polynomial(f)) for f in frames], kind)
        assert values == pytest.approx([polynomial(f) for f in range(frames[0], frames[-1] + 1)], abs=1e-6)


# ---- texts, remarks, printing


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ('0:("Euler a"), 10:("DPM++ 2M")', ["Euler a"] * 10 + ["DPM++ 2M"] * 2),  # as Deforum has it
        ("Euler a", ["Euler a"] * 12),
        ("0: Euler a, \"max_f-1\": 'DPM++ 2M',", ["Euler a"] * 10 + ["DPM++ 2M"] * 2),
        ('0:("a, (b: c"), 6:(it\'s (very: good), yes)', ["a, (b: c"] * 6 + ["it's (very: good), yes"] * 6),
        (r"0:('C:\masks\a.png')", [r"C:\masks\a.png"] * 12),
        ('3:("late"), 3:("later")', ["later"] * 12),
        ('0:("")', [""] * 12),
    ],
)
def test_texts_hold_until_the_next_key(text: str, runs: list[str]) -> None:
    assert evaluate_texts(text, 12) == runs


@pytest.mark.parametrize(
    ("text", "position"),
    [("0:(a) 5:(b)", 7), ('0:("a" b)', 3), ('0:("a)', 3), ("0:(), 3:(a)", 3), ("0:((a) and) (b)", 2), ("t:(a)", 0)],
)
def test_texts_that_can_be_read_two_ways_are_refused(text: str, position: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        evaluate_texts(text, 12)
    assert caught.value.position == position


def test_what_may_surprise_is_remarked_on() -> None:
    assert check("0:(1), 9:(t)", 10) == check([1.0] * 10, 10) == check(2, 10) == []
    assert check("3:(1)", 10) == ["There is no key at frame 0: the value at frame 3 also holds before it."]
    assert check("0:(1), 4:(1), 4:(2)", 10) == ["Of two keys at the same frame the last one counts: frame 4."]
    outside = check("0:(1), 10:(2), -1:(3), max_f*3:(4)", 10)
    assert outside == ["Keys outside frames 0 to 9 are not used, as in Deforum: frame 10, -1, 27."]
    assert len(check(to_text([float(k % 2) for k in range(500)]), 10)[0]) < 150
    notes: list[str] = []
    assert evaluate_texts('2:("a"), 99:("b")', 4, warnings=notes) == ["a"] * 4
    assert len(notes) == 2


@given(st.lists(_value, min_size=1, max_size=60))
def test_dense_to_text_and_back_loses_nothing(values: list[float]) -> None:
    assert evaluate(to_text(values), len(values)) == pytest.approx(values, abs=1.1e-6, rel=1e-12)


@given(_points, st.integers(0, 3))
def test_a_drawn_curve_to_text_and_back_loses_nothing(points: list[tuple[int, float]], kind: int) -> None:
    """Long straight stretches, where the greedy walk has something to leave out."""
    values = curves.draw([(f, v / 1000) for f, v in points], ("linear", "step", "bezier", "cubic")[kind])
    text = to_text(values)
    assert evaluate(text, len(values)) == pytest.approx(values, abs=1.1e-6, rel=1e-12)
    if kind == 0:
        assert len(parse(text).keys) <= 2 * len(points)


def test_a_long_list_is_written_in_few_keys() -> None:
    assert to_text([1.5] * 100_000) == "0:(1.5)"
    assert to_text([k / 100 for k in range(101)]) == "0:(0.0), 100:(1.0)"
    with pytest.raises(ScheduleError):
        to_text([])
    with pytest.raises(ScheduleError):
        to_text([1.0, float("nan")])


_expression = st.sampled_from(
    ["t", "1 + t", "where(t<5, 1,\n 2)", "(t)*(2)", "-(t+1)", "min(t, max_f)/s", "- 1", "(t<3) & (t>1)", "sin(\u00a0t)"]
)
_frame = st.one_of(
    st.integers(-3, 500).map(str), st.sampled_from(['"max_f-1"', "max_f/2", "'s % 10'", "(2+3)", "007", '("4")'])
)
_number = st.one_of(_value.map(repr), st.floats(allow_nan=False, allow_infinity=False).map(repr), st.just("+.5"))
_kind = st.sampled_from(["", "", "cubic;", " Step ; ", "bezier;"])
_blank = st.sampled_from(["", " ", "\n", "\t "])


@st.composite
def _schedule(draw: Any) -> str:
    keys = draw(st.lists(st.tuples(_frame, st.one_of(_number, _expression), st.integers(0, 3), _blank), min_size=1))
    written = [f"{b}{f}{b}:{b}{'(' * n}{v}{')' * n}{b}" for f, v, n, b in keys]
    return draw(_kind) + ",".join(written) + draw(st.sampled_from(["", ",", " , "]))


@settings(deadline=None)
@given(_schedule())
def test_parse_print_parse_is_the_identity(text: str) -> None:
    once = parse(text)
    again = parse(str(once))
    assert again == once
    assert str(again) == str(once)


@settings(max_examples=300, deadline=None)
@given(_schedule(), st.integers(1, 30))
def test_what_is_printed_means_the_same(text: str, frames: int) -> None:
    def outcome(schedule: Schedule) -> list[float] | str:
        try:
            return evaluate(schedule, frames, seed=7)
        except ScheduleError as error:
            return error.message.split(" (at")[0]

    assert outcome(str(parse(text))) == outcome(text)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789:(),.-+*/e tsmax_f\"';\n", max_size=40))
def test_any_text_is_read_or_refused_never_worse(text: str) -> None:
    for read in (evaluate, evaluate_texts):
        try:
            assert len(read(text, 7)) == 7
        except ScheduleError as error:
            assert error.position is None or 0 <= error.position <= len(text)

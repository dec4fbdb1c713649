# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions: Python's and numexpr's arithmetic, nothing else, and no way to keep a machine busy."""

from __future__ import annotations

import ast
import math
import operator
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.arithmetic import FUNCTIONS
from koshi_backend.expressions import MAX_DEPTH, MAX_NESTING, ExpressionError, read

NAMES = ("t", "max_f", "s")


def value(text: str, t: int = 0) -> float:
    return read(text, NAMES).value({"t": t, "max_f": 9, "s": 42})


# Measured with numexpr 2.14.2 at t = 0 .. 9, max_f = 9, s = 42.
NUMEXPR_GOLDEN: dict[str, list[float]] = {
    "t/2": [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5],
    "(-t)//2": [0, -1, -1, -2, -2, -3, -3, -4, -4, -5],
    "(t-5)//2": [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2],
    "(t-5)//-3": [1, 1, 1, 0, 0, 0, -1, -1, -1, -2],
    "(t-5.5)//3": [-2, -2, -2, -1, -1, -1, 0, 0, 0, 1],
    "(t-5)%3": [1, 2, 0, 1, 2, 0, 1, 2, 0, 1],
    "t%-3": [0, -2, -1, 0, -2, -1, 0, -2, -1, 0],
    "(t-5.5)%3": [0.5, 1.5, 2.5, 0.5, 1.5, 2.5, 0.5, 1.5, 2.5, 0.5],
    "-t**2": [0, -1, -4, -9, -16, -25, -36, -49, -64, -81],
    "~t": [-1, -2, -3, -4, -5, -6, -7, -8, -9, -10],
    "t&3": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1],
    "(t-3)&-2": [-4, -2, -2, 0, 0, 2, 2, 4, 4, 6],
    "t|8": [8, 9, 10, 11, 12, 13, 14, 15, 8, 9],
    "t^5": [5, 4, 7, 6, 1, 0, 3, 2, 13, 12],
    "t<<2": [0, 4, 8, 12, 16, 20, 24, 28, 32, 36],
    "t>>1": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "-5>>1": [-3] * 10,
    "t<5": [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    "(t<5)+1": [2, 2, 2, 2, 2, 1, 1, 1, 1, 1],
    "(t<5)/2": [0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0],
    "(t<5) & (t>2)": [0, 0, 0, 1, 1, 0, 0, 0, 0, 0],
    "(t<5) | (t>7)": [1, 1, 1, 1, 1, 0, 0, 0, 1, 1],
    "~(t<5)": [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    "(t<5)&3": [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    "t==3": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    "t!=3": [1, 1, 1, 0, 1, 1, 1, 1, 1, 1],
    "where(t<5,1.5,2)": [1.5, 1.5, 1.5, 1.5, 1.5, 2, 2, 2, 2, 2],
    "floor(t/2)": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "ceil(-t/2)": [0, 0, -1, -1, -2, -2, -3, -3, -4, -4],
    "round(t/2)": [0, 0, 1, 2, 2, 2, 3, 4, 4, 4],
    "abs(t-5.5)": [5.5, 4.5, 3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5],
    "arctan2(t,2)": [
        0, 0.4636476090008061, 0.7853981633974483, 0.982793723247329, 1.1071487177940904, 1.1902899496825317,
        1.2490457723982544, 1.2924966677897853, 1.3258176636680326, 1.3521273809209546,
    ],
    "log1p(t)": [
        0, 0.6931471805599453, 1.0986122886681096, 1.3862943611198906, 1.6094379124341003, 1.791759469228055,
        1.9459101490553132, 2.0794415416798357, 2.1972245773362196, 2.302585092994046,
    ],
    "conj(t) + real(t) - imag(t)": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
    "s - max_f": [33] * 10,
}  # fmt: skip


@pytest.mark.parametrize("text", NUMEXPR_GOLDEN)
def test_values_are_those_of_numexpr(text: str) -> None:
    assert [value(text, t) for t in range(10)] == pytest.approx(NUMEXPR_GOLDEN[text], abs=1e-15, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "t", "expected"),
    [
        ("where(t==0, 1, sin(t)/t)", 0, 1.0),  # the branch that is not taken would divide by zero
        ("where(t, 1, 2)", 3, 1.0),  # numexpr takes only comparisons
        ("2**(t-5)", 2, 0.125),  # numexpr: 0
        ("floor(t/4) & 1", 5, 1.0),  # numexpr takes no floats here
        ("min(t, 3) + max(1, 2, t)", 7, 10.0),
        ("round(pi, 3)", 0, 3.142),
        ("clamp(t, 1, 4)", 9, 4.0),
        ("e**2", 0, math.e**2),
        ("\n 1 +\t\u00a02 ", 0, 3.0),  # a blank copied from a web page
        ("2**-1", 0, 0.5),
        ("2**3**2", 0, 512.0),
        ("-(t<5)", 0, -1.0),
        ("2.0**t", 100, 2.0**100),
        ("10000000000*10000000000", 0, 1e20),
        ("(-1)**1000000000000000000", 0, 1.0),
    ],
)
def test_additions_and_differences_to_numexpr(text: str, t: int, expected: float) -> None:
    assert value(text, t) == expected


@pytest.mark.parametrize("name", [n for n, (_, fewest, _) in FUNCTIONS.items() if fewest == 1 and n not in ("imag",)])
def test_each_function_is_the_one_of_its_name(name: str) -> None:
    known: dict[str, Callable[[float], float]] = {
        "abs": abs, "round": round, "conj": float, "real": float,
        **{f"arc{k}": getattr(math, f"a{k}") for k in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    }  # fmt: skip
    place = "1.25" if name == "arccosh" else "0.625"
    assert value(f"{name}({place})") == (known.get(name) or getattr(math, name))(float(place))


# ---- arithmetic against Python's, written by Python's own printer


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    signs = [ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod]
    whole = [ast.Pow, ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor]
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(ast.BinOp, inner, st.sampled_from([k() for k in [*signs, *whole]]), inner),
            st.builds(ast.UnaryOp, st.sampled_from([ast.USub(), ast.UAdd(), ast.Invert()]), inner),
            st.builds(
                lambda a, sign, b: ast.Compare(a, [sign], [b]),
                inner,
                st.sampled_from([ast.Lt(), ast.LtE(), ast.Eq(), ast.NotEq(), ast.Gt(), ast.GtE()]),
                inner,
            ),
        ),
        max_leaves=12,
    )


_RUN: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


class Unsafe(Exception):
    """Where Koshi is meant to differ, or Python has no value."""


def python_value(node: Any, t: int) -> Any:
    """What Python makes of a tree, in floats and in integers that fit numexpr's 64 bits."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return t
    if isinstance(node, ast.UnaryOp):
        part = python_value(node.operand, t)
        if isinstance(node.op, ast.Invert):
            if isinstance(part, bool):
                return not part  # as in numexpr; Python's ~True is -2
            if isinstance(part, float):
                raise Unsafe
        return _RUN[type(node.op)](part)
    if isinstance(node, ast.Compare):
        return _RUN[type(node.ops[0])](python_value(node.left, t), python_value(node.comparators[0], t))
    left, right = python_value(node.left, t), python_value(node.right, t)
    sign = type(node.op)
    if sign in (ast.LShift, ast.RShift) and not 0 <= right <= 62:
        raise Unsafe
    if sign is ast.Pow and abs(right) > 200:
        raise Unsafe
    try:
        result = _RUN[sign](left, right)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise Unsafe from error
    if isinstance(result, complex) or abs(result) >= 2**62:
        raise Unsafe
    return result


@settings(max_examples=500, deadline=None)
@given(
    trees(
        st.one_of(
            st.integers(0, 9).map(ast.Constant),
            st.sampled_from([0.5, 1.25, 3.0]).map(ast.Constant),
            st.just(ast.Name("t", ast.Load())),
        )
    ),
    st.integers(0, 50),
)
def test_random_expressions_are_pythons(tree: Any, t: int) -> None:
    try:
        expected = float(python_value(tree, t))
    except Unsafe:
        expected = None
    try:
        got = value(ast.unparse(tree), t)
    except ExpressionError:
        got = None
    if expected is not None:
        assert got == expected


def test_shifted_comparisons_are_numbers() -> None:
    assert value("(0 < 1) << (0 < 1)", 0) == 2
    assert value("(0 < 1) & (1 < 0)", 0) == 0
    assert value("~+(1 < 0)", 0) == -1
    assert value("~(1 < 0)", 0) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("1/(t-0)", 1, "divides by zero"),
        ("t%0", 1, "divides by zero"),
        ("0**-1", 1, "divides by zero"),
        ("1+sqrt(-4)", 2, r"sqrt\(-4\) has no value"),
        ("log(0)", 0, "has no value"),
        ("(-8)**(1/3)", 4, "has no value"),  # a complex number in Python
        ("exp(1000)", 0, "too large"),
        ("1e308*10", 0, "too large"),
        ("1e400", 0, "too large"),
        ("2**63", 1, "too large"),
        ("t & 2.5", 2, "whole numbers"),
        ("1 << -1", 2, "has no value"),
        ("clamp(1, 3, 2)", 0, "has no value"),
        ("1 + sine(t)", 4, "'sin'"),
        ("atan2(1, 2)", 0, "arctan2"),
        ("PI", 0, "'pi'"),
        ("1+frame", 2, "Write t instead"),
        ("sin t", 0, "no parentheses"),
        ("sin(1, 2)", 3, "takes 1 values, not 2"),
        ("where(t<5, 1)", 5, "takes 3 values, not 2"),
        ("t(2)", 0, "not a function"),
        ("2t", 0, r"2\*t"),
        ("0x10", 0, "not a number"),
        ("1 2", 2, "operator is missing"),
        ("1 +", 3, "ends too soon"),
        ("1 + * 2", 4, "missing before"),
        ("(1 + 2", 0, "not closed"),
        ("sin(t", 3, "not closed"),
        ("1 + 2)", 5, "no opening"),
        ("1, 2", 1, "comma"),
        ("1 < t < 5", 6, r"\(t>2\) & \(t<5\)"),
        ("t<5 & t>2", 7, "two comparisons"),
        ("t>2 and t<5", 4, "Write &"),
        ("not t", 0, "Write ~"),
        ("1 if t else 2", 2, "where"),
        ("t && 1", 3, "Write & once"),
        ("t = 3", 2, "=="),
        ("1 − 2", 2, "plain - sign"),
        ("", 0, "too soon"),
    ],
)
def test_a_fault_is_named_with_its_place(text: str, position: int, words: str) -> None:
    with pytest.raises(ExpressionError, match=words) as caught:
        value(text)
    assert caught.value.position == position


@pytest.mark.parametrize(
    "text",
    [
        "().__class__", "t.real", "__import__('os')", "open('x')", "[t]", "{t}", "t[0]", "lambda: 1", "f'{t}'", "t:=1",
        "print(1)", "x", "t;t", "None", "True", "1j", "@t", "*t", "sin(x=1)", "ｔ", "²", "1_000", "\\x41", "t\0",
    ],
)  # fmt: skip
def test_nothing_but_arithmetic_is_on_the_list(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text)


BOMBS = {
    "9**9**9": "9**9**9",
    "2**t**t": "2**t**t",
    "1<<10**9": "1<<10**9",
    "9.0**9**9": "9.0**9**9**9",
    "a tower": "2**" * 600 + "2",
    "a megabyte": "1+" * 500_000 + "1",
    "parentheses": "(" * 900 + "1" + ")" * 900,
    "open parentheses": "(" * 2000,
    "signs": "-" * 1999 + "1",
    "calls": "sin(" * 400 + "t" + ")" * 400,
    "a long sum": "+".join("1" * 900),
    "squares": "*".join(["(9**19)"] * 250),
    "digits": "9" * 1999,
    "shifts": "1<<62" + "<<62" * 300,
    "round": "round(1e308, 400)",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    """Observed: 0.01 to 1.5 ms; the best of five runs, so that a busy machine does not fail it."""
    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        with pytest.raises(ExpressionError):
            value(BOMBS[name], 9)
        spent.append(time.perf_counter() - begin)
    assert min(spent) < 0.01


def test_the_widest_and_deepest_that_is_allowed_runs() -> None:
    """The limits are below what Python's own recursion bears, with room for the caller's frames."""
    assert value("+".join(["t"] * MAX_DEPTH), 3) == 3 * MAX_DEPTH
    with pytest.raises(ExpressionError, match="too many parts"):
        value("+".join(["t"] * (MAX_DEPTH + 1)))
    every_precedence = "0|0^1&1<<0+1*("
    assert value(every_precedence * MAX_NESTING + "1" + ")" * MAX_NESTING) == 1.0


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789.eE+-*/%&|^~<>=!(), tsmax_fpincouwhr\n", max_size=60), st.integers(0, 20))
def test_any_text_has_a_finite_value_or_is_refused(text: str, t: int) -> None:
    try:
        assert math.isfinite(value(text, t))
    except ExpressionError as error:
        assert 0 <= error.position <= len(text)

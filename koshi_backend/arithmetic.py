# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operators and functions of an expression do with their values.

Values are numexpr's, which are Python's: `//` and `%` round down (measured with numexpr 2.14 and, for `%`, 2.9), a
comparison is 1 or 0. Koshi differs where numexpr would put nonsense into a film: division by zero, sqrt(-1) and whole
numbers beyond 64 bits are refused instead of giving inf, nan or a wrapped number, `2**-t` is a fraction instead of 0,
and `where` works out only the branch it takes, so that `where(t==0, 1, sin(t)/t)` is fine. Additions: min, max,
round, clamp, pi, e, and bit operators on whole floats.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Number = int | float  # comparisons give True and False, which count as 1 and 0
Names = Mapping[str, Number]
Run = Callable[[Names], Number]

INTEGER_BITS = 63  # and a sign: numexpr's integers; a power or a shift that goes far beyond is not even worked out

CONSTANTS = {"pi": math.pi, "e": math.e}

# These always have a result, so they are run as they are.
COMPARISONS: dict[str, Callable[[Run, Run], Run]] = {
    "<": lambda a, b: lambda n: a(n) < b(n),
    "<=": lambda a, b: lambda n: a(n) <= b(n),
    "==": lambda a, b: lambda n: a(n) == b(n),
    "!=": lambda a, b: lambda n: a(n) != b(n),
    ">=": lambda a, b: lambda n: a(n) >= b(n),
    ">": lambda a, b: lambda n: a(n) > b(n),
}
SAFE: dict[str, Callable[[Run, Run], Run]] = {
    "+": lambda a, b: lambda n: a(n) + b(n),
    "-": lambda a, b: lambda n: a(n) - b(n),
    "*": lambda a, b: lambda n: a(n) * b(n),
}


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if (abs(base).bit_length() - 1) * exponent > INTEGER_BITS:  # 0, 1 and -1 have no bits to grow
            raise OverflowError
        return _fits(base**exponent)
    if base < 0 and not float(exponent).is_integer():  # Python would go on with a complex number
        raise ValueError
    return float(base) ** float(exponent)


def _whole(value: Number) -> int:
    """A whole number, also where it is written as a float (floor gives those)."""
    if isinstance(value, float) and not value.is_integer():
        raise TypeError
    return int(value)


def _bits(function: Callable[[int, int], int]) -> Callable[[Number, Number], Number]:
    def run(left: Number, right: Number) -> Number:
        if type(left) is type(right) is bool:
            return bool(function(left, right))  # of two comparisons, a comparison
        return function(_whole(left), _whole(right))

    return run


def _shift_left(left: Number, right: Number) -> Number:
    value, places = _whole(left), _whole(right)
    if places > INTEGER_BITS and value:
        raise OverflowError
    return _fits(value << places) if value else 0


def _fits(value: int) -> int:
    if value.bit_length() > INTEGER_BITS:
        raise OverflowError
    return value


def invert(value: Number) -> Number:
    return not value if isinstance(value, bool) else ~_whole(value)


def _round(value: Number, digits: Number = 0) -> float:
    """To the nearest, halves to the even neighbour, as numpy and Python do."""
    places = _whole(digits)
    if abs(places) > 15:
        raise OverflowError
    return float(round(value, places))


def _clamp(value: Number, low: Number, high: Number) -> Number:
    if low > high:
        raise ValueError
    return max(low, min(high, value))


# These may have none: ZeroDivisionError, OverflowError (too large), ValueError (no value), TypeError (not whole).
OPERATORS: dict[str, Callable[[Number, Number], Number]] = {
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": _power,
    "<<": _shift_left,
    ">>": lambda a, b: _whole(a) >> _whole(b),
    "&": _bits(lambda a, b: a & b),
    "|": _bits(lambda a, b: a | b),
    "^": _bits(lambda a, b: a ^ b),
}
# name: (function, fewest and most values). Those of numexpr give floats, as there; `where` is made by the parser.
FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tan": (math.tan, 1, 1),
    "arcsin": (math.asin, 1, 1),
    "arccos": (math.acos, 1, 1),
    "arctan": (math.atan, 1, 1),
    "arctan2": (math.atan2, 2, 2),
    "sinh": (math.sinh, 1, 1),
    "cosh": (math.cosh, 1, 1),
    "tanh": (math.tanh, 1, 1),
    "arcsinh": (math.asinh, 1, 1),
    "arccosh": (math.acosh, 1, 1),
    "arctanh": (math.atanh, 1, 1),
    "log": (math.log, 1, 1),
    "log10": (math.log10, 1, 1),
    "log1p": (math.log1p, 1, 1),
    "exp": (math.exp, 1, 1),
    "expm1": (math.expm1, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "abs": (abs, 1, 1),
    "floor": (lambda x: float(math.floor(x)), 1, 1),
    "ceil": (lambda x: float(math.ceil(x)), 1, 1),
    "conj": (float, 1, 1),
    "real": (float, 1, 1),
    "imag": (lambda x: 0.0, 1, 1),
    "min": (min, 2, 99),
    "max": (max, 2, 99),
    "round": (_round, 1, 2),
    "clamp": (_clamp, 3, 3),
}

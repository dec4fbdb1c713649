# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic from a schedule, such as `1+0.02*sin(2*pi*t/max_f)`: read once, run at every frame.

A whitelist: numbers, the names it is given, the operators and the functions of `arithmetic.py`, nothing else; no
attribute, no string, no assignment, and Python's `eval` is never called. The parser is its own because Python's, which
has to be kept from deep nesting first, tells in each version in another way where a text is wrong (Blender has 3.11 and
3.13). Precedence is Python's and numexpr's: `-2**2` is -4, `**` groups to the right.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from .arithmetic import COMPARISONS, CONSTANTS, FUNCTIONS, OPERATORS, SAFE, Names, Number, Run, invert
from .errors import KoshiError

MAX_LENGTH = 2_000  # characters
MAX_NESTING = 32  # parentheses, signs and powers inside one another; what the parser's own recursion can bear
MAX_DEPTH = 200  # of the tree, so also the number of terms in one sum; what running it can bear
MAX_NODES = 500

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>\*\*|//|<<|>>|<=|>=|==|!=|[-+*/%&|^~<>(),])"
)
_BLANK = re.compile(r"\s*")
_PRECEDENCE = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
_SPOKEN = {"and": "Write & and put each comparison in parentheses: (t>2) & (t<5).",
           "or": "Write | and put each comparison in parentheses: (t<2) | (t>5).",
           "not": "Write ~ before a comparison in parentheses: ~(t<5).",
           "if": "Write where(condition, value, other value).",
           "else": "Write where(condition, value, other value)."}  # fmt: skip
_ODD = {"=": "Equality is written ==.", "!": "Write != for unequal, ~( ) for not.", ";": "Keys end with a comma.",
        "{": "Use ( and ).", "[": "Use ( and ).", "−": "Write a plain - sign.", "×": "Write *.", "÷": "Write /.",
        ":": "A key is written frame:(value), with a comma between two keys."}  # fmt: skip
_ALSO_KNOWN_AS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "ln": "log", "pow": "**",
                  "mod": "%", "clip": "clamp", "frame": "t", "f": "t", "i": "t", "x": "t", "time": "t", "seed": "s",
                  "max_frames": "max_f", "frames": "max_f", "int": "floor"}  # fmt: skip


class ExpressionError(KoshiError):
    """An expression that cannot be read, or that has no value at some frame.

    reason: the message without its full stop, for a longer sentence. position: the character's index, from 0.
    """

    def __init__(self, reason: str, hint: str = "", position: int = 0) -> None:
        self.reason, self.position = reason, position
        super().__init__("bad_expression", f"{reason} (at character {position + 1}).", hint)


@dataclass(frozen=True)
class Expression:
    """An expression that has been read. Two are equal when they are written alike.

    nodes: how many steps one value takes, at most.
    """

    text: str
    nodes: int = field(compare=False)
    run: Run = field(compare=False, repr=False)

    def value(self, names: Names) -> float:
        """The value with these names (all that were allowed when it was read).

        Raises ExpressionError where there is no finite value: division by zero, sqrt(-1), 9**9**9.
        """
        try:
            value = float(self.run(names))
        except OverflowError:  # a product of whole numbers; powers and shifts are caught where they stand
            value = math.inf
        if not math.isfinite(value):
            raise ExpressionError("the value is too large, or not a number")
        return value


def read(text: str, names: Collection[str]) -> Expression:
    """Read an expression in which `names` stand for values, beside the functions and constants of `arithmetic.py`.

    Raises ExpressionError for everything that is not on the list and for what is too long, too deep or too large.
    Time: bounded by MAX_LENGTH, whatever the text.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text)} characters is too long", f"Keep it under {MAX_LENGTH}.")
    parser = _Parser(text, names)
    node = parser.comparison()
    if parser.ahead[0] != "end":
        raise parser.left_over()
    return Expression(text, parser.nodes, node.run)


class _Node(NamedTuple):
    run: Run
    depth: int


class _Parser:
    """Precedence climbing over the tokens; every step makes a closure, so that running it looks nothing up."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.names = names
        self.tokens = _tokens(text)
        self.at = self.nodes = self.nesting = 0

    @property
    def ahead(self) -> tuple[str, str, int]:
        """The next token: kind (number, name, sign, end), text, position."""
        return self.tokens[self.at]

    def take(self, *signs: str) -> tuple[str, int] | None:
        """The next token's text and position, and on to the one after it, if it is one of these signs."""
        kind, word, place = self.ahead
        if kind != "sign" or word not in signs:
            return None
        self.at += 1
        return word, place

    def node(self, run: Run, place: int, *parts: _Node) -> _Node:
        """Count a node that stands on `parts`."""
        self.nodes += 1
        depth = 1 + max((part.depth for part in parts), default=0)
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ExpressionError("the expression has too many parts", "Write a simpler one.", place)
        return _Node(run, depth)

    def inner(self, parse: Callable[[], _Node], place: int) -> _Node:
        """Parse something that stands inside something else."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise ExpressionError("the expression is nested too deep", f"{MAX_NESTING} levels are allowed.", place)
        node = parse()
        self.nesting -= 1
        return node

    def comparison(self) -> _Node:
        left = self.binary(1)
        found = self.take(*COMPARISONS)
        if found is None:
            return left
        right = self.binary(1)
        again = self.take(*COMPARISONS)
        if again is not None:  # Python would chain, and read t<5 & t>2 as t < (5 & t) > 2
            raise ExpressionError(
                "two comparisons in a row",
                "Put each comparison in parentheses and write & between them: (t>2) & (t<5).",
                again[1],
            )
        return self.node(COMPARISONS[found[0]](left.run, right.run), found[1], left, right)

    def binary(self, level: int) -> _Node:
        left = self.unary()
        while True:
            kind, sign, place = self.ahead
            if kind != "sign" or _PRECEDENCE.get(sign, 0) < level:
                return left
            self.at += 1
            right = self.binary(_PRECEDENCE[sign] + 1)
            make = SAFE.get(sign)
            run = make(left.run, right.run) if make else _guarded_sign(sign, left.run, right.run, place)
            left = self.node(run, place, left, right)

    def unary(self) -> _Node:
        found = self.take("+", "-", "~")
        if found is None:
            return self.power()
        sign, place = found
        part = self.inner(self.unary, place)
        run = part.run
        if sign == "+":
            return self.node(lambda n: +run(n), place, part)  # of a comparison, a number
        if sign == "-":
            return self.node(lambda n: -run(n), place, part)
        return self.node(_guarded("~", invert, [run], place), place, part)

    def power(self) -> _Node:
        base = self.atom()
        found = self.take("**")
        if found is None:
            return base
        place = found[1]
        exponent = self.inner(self.unary, place)  # to the right first, and -1 may stand there
        return self.node(_guarded_sign("**", base.run, exponent.run, place), place, base, exponent)

    def atom(self) -> _Node:
        kind, word, place = self.ahead
        self.at += 1
        if kind == "number":
            value = self.number(word, place)
            return self.node(lambda n: value, place)
        if kind == "name":
            return self.name(word, place)
        if kind == "sign" and word == "(":
            inside = self.inner(self.comparison, place)
            self.close(place)
            return inside
        raise self.no_value(word, place)

    def number(self, word: str, place: int) -> Number:
        kind, after, then = self.ahead
        if kind == "name" and then == place + len(word):  # 2t
            hint = f"Write {word}*{after} to multiply." if self.known(after) else "Write plain decimal numbers."
            raise ExpressionError(f"{word + after!r} is not a number", hint, place)
        value = int(word) if word.isdigit() and len(word) < 20 else float(word)
        if math.isinf(value):
            raise ExpressionError(f"{word[:20]} is too large", "", place)
        return value

    def name(self, word: str, place: int) -> _Node:
        called = self.take("(")
        if word == "where" and called:
            return self.where(called[1], place)
        if word in FUNCTIONS and called:
            function, fewest, most = FUNCTIONS[word]
            parts = self.arguments(word, called[1], fewest, most)
            return self.node(_guarded(word, function, [part.run for part in parts], place), place, *parts)
        if word in self.names and not called:
            return self.node(lambda n: n[word], place)
        if word in CONSTANTS and not called:
            constant = CONSTANTS[word]
            return self.node(lambda n: constant, place)
        if not self.known(word):
            raise ExpressionError(f"there is no {'function' if called else 'name'} {word!r}", self.near(word), place)
        if called:
            raise ExpressionError(f"{word!r} is not a function", f"Write {word}*( ) to multiply.", place)
        raise ExpressionError(f"the function {word!r} has no parentheses", f"Write {word}( ).", place)

    def where(self, opening: int, place: int) -> _Node:
        condition, one, other = self.arguments("where", opening, 3, 3)
        test, yes, no = condition.run, one.run, other.run
        return self.node(lambda n: yes(n) if test(n) else no(n), place, condition, one, other)

    def arguments(self, name: str, opening: int, fewest: int, most: int) -> list[_Node]:
        parts: list[_Node] = []
        if self.take(")") is None:
            parts.append(self.inner(self.comparison, opening))
            while self.take(","):
                parts.append(self.inner(self.comparison, opening))
            self.close(opening)
        if not fewest <= len(parts) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}" if most < 99 else f"{fewest} or more"
            raise ExpressionError(f"{name} takes {wanted} values, not {len(parts)}", "", opening)
        return parts

    def close(self, opening: int) -> None:
        if self.take(")"):
            return
        if self.ahead[0] == "end":
            raise ExpressionError("a parenthesis is not closed", "", opening)
        raise self.left_over()

    def known(self, word: str) -> bool:
        return word in self.names or word in CONSTANTS or word in FUNCTIONS or word == "where"

    def near(self, word: str) -> str:
        """A hint for an unknown name."""
        if word in _SPOKEN:
            return _SPOKEN[word]
        values = sorted({*self.names, *CONSTANTS})
        if word == "t":
            return f"A frame number is the same at every frame; it knows {', '.join(values)}."
        if word in _ALSO_KNOWN_AS:
            return f"Write {_ALSO_KNOWN_AS[word]} instead."
        close = difflib.get_close_matches(word.lower(), [*values, *FUNCTIONS, "where"], n=1)
        if close:
            return f"Did you mean {close[0]!r}?"
        return f"Known are {', '.join(values)}, and the functions {', '.join(sorted([*FUNCTIONS, 'where']))}."

    def no_value(self, word: str, place: int) -> ExpressionError:
        """What to say about the token just taken, which stands where a value should begin."""
        if not word:
            return ExpressionError("the expression ends too soon", "", place)
        before = self.tokens[self.at - 2][1] if self.at > 1 else ""
        if word == before and word in "&|":
            return ExpressionError(f"{word * 2!r} cannot be used here", f"Write {word} once.", place)
        return ExpressionError(f"a number or a name is missing before {word!r}", "", place)

    def left_over(self) -> ExpressionError:
        """What to say about the next token, which stands where a value has ended."""
        _, word, place = self.ahead
        if word in _SPOKEN:
            return ExpressionError(f"{word!r} cannot be used here", _SPOKEN[word], place)
        if word == ")":
            return ExpressionError("a closing parenthesis has no opening one", "", place)
        if word == ",":
            return ExpressionError("a comma may only stand between a function's values", "", place)
        return ExpressionError(f"an operator is missing before {word!r}", "Write * to multiply.", place)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """(kind, text, position) of each token, and an ("end", "", position) after the last."""
    found: list[tuple[str, str, int]] = []
    place = _BLANK.match(text).end()  # type: ignore[union-attr]  # it matches anything
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            odd = text[place]
            raise ExpressionError(f"{odd!r} cannot stand in an expression", _ODD.get(odd, ""), place)
        found.append((token.lastgroup or "", token.group(), place))
        place = _BLANK.match(text, token.end()).end()  # type: ignore[union-attr]
    found.append(("end", "", len(text.rstrip())))
    return found


def _guarded_sign(sign: str, left: Run, right: Run, place: int) -> Run:
    return _guarded(sign, OPERATORS[sign], [left, right], place)


def _guarded(name: str, function: Callable[..., Number], parts: list[Run], place: int) -> Run:
    """Run `function` on the parts' values; where it has no result, say so of these very values."""

    def fail(values: list[Number], error: Exception) -> ExpressionError:
        shown = [_show(value) for value in values]
        if name in OPERATORS:
            shown = [f"({value})" if value.startswith("-") else value for value in shown]
            sentence = f"{shown[0]}{name}{shown[1]}"
        else:
            sentence = f"{name}({', '.join(shown)})"
        if isinstance(error, ZeroDivisionError):
            return ExpressionError(f"{sentence} divides by zero", "Keep the divisor from 0 with max or where.", place)
        if isinstance(error, OverflowError):
            base, exponent = values[0], values[-1]
            near = name == "**" and isinstance(base, int) and 0 < exponent * base.bit_length() < 1000
            hint = "Whole numbers end at 9.2e18; written with a point (2.0) they go further." if near else ""
            return ExpressionError(f"{sentence} is too large", hint, place)
        if isinstance(error, TypeError):
            return ExpressionError(f"{sentence} needs whole numbers or comparisons", "", place)
        return ExpressionError(f"{sentence} has no value", "", place)

    if len(parts) == 1:
        (only,) = parts

        def run_one(names: Names) -> Number:
            value = only(names)
            try:
                return function(value)
            except (ArithmeticError, ValueError, TypeError) as error:
                raise fail([value], error) from error

        return run_one

    if len(parts) == 2:
        left, right = parts

        def run_two(names: Names) -> Number:
            one, other = left(names), right(names)
            try:
                return function(one, other)
            except (ArithmeticError, ValueError, TypeError) as error:
                raise fail([one, other], error) from error

        return run_two

    def run_all(names: Names) -> Number:
        values = [part(names) for part in parts]
        try:
            return function(*values)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise fail(values, error) from error

    return run_all


def _show(value: Number) -> str:
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "a huge number"

# SPDX-License-Identifier: GPL-3.0-or-later
"""A schedule's expressions as one that Blender's drivers work out. No bpy.

Measured in 4.2, 4.5 and 5.2: every name used here is on the list of those that a driver may call in a file whose
scripts are not trusted, so nobody has to allow anything when the .blend is opened.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from ..koshi_backend import schedules as text

LONGEST = 255  # characters; Blender cuts what is longer
# Deforum's functions by their names in Blender. `round` is missing: drivers round 2.5 to 3, Deforum to 2.
FUNCTIONS = {
    **{name: name for name in (
        "sin", "cos", "tan", "sinh", "cosh", "tanh", "log", "log10", "log1p", "exp", "expm1", "sqrt", "abs", "floor",
        "ceil", "min", "max", "clamp",
    )},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "tan2", "sinh", "cosh", "tanh")},
}  # fmt: skip
_KNOWN = (
    ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.IfExp, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub, ast.Lt, ast.LtE, ast.Eq, ast.NotEq,
    ast.GtE, ast.Gt,
)  # fmt: skip


class NoDriver(Exception):
    """Why a schedule cannot be a driver, in words."""


def has_expressions(schedule: object) -> bool:
    """Whether a schedule is text in which values are arithmetic."""
    if not isinstance(schedule, (str, Mapping)):
        return False
    keys, _ = text.placed(schedule, 1_000_000)
    return any(not isinstance(key.value, float) for _, key in keys)


def formula(schedule: str | Mapping[str, str], values: list[float], start: int, seed: int, turned: bool) -> str:
    """The schedule as an expression of Blender's `frame`; its values at every frame from `start` on are given.

    turned: it is to be 1 minus the schedule. Raises NoDriver.
    """
    keys, kind = text.placed(schedule, len(values), seed=seed)
    if kind not in ("linear", "step"):
        raise NoDriver(f"it mixes expressions with a {kind} curve")
    since = ast.parse(_since(start), mode="eval").body
    names = {"t": since, "max_f": ast.Constant(len(values) - 1), "s": ast.Constant(seed)}
    given = [1.0 - value for value in values] if turned else values
    found = ""
    for (frame, key), (end, _) in reversed(list(zip(keys, [*keys[1:], (len(values), None)], strict=True))):
        if not isinstance(key.value, float):
            part = _translated(key.value.text, names)
        elif end == len(values) or kind == "step" or given[frame] == given[end]:
            part = f"{given[frame]:.9g}"
        else:
            rise = (given[end] - given[frame]) / (end - frame)
            part = f"{given[frame]:.9g} {'+' if rise >= 0 else '-'} {abs(rise):.9g} * {_since(start + frame)}"
        found = f"{part} if frame < {start + end} else {found}" if found else part
    if turned:
        found = f"1 - ({found})"
    if len(found) > LONGEST:
        raise NoDriver(f"its {len(found)} characters are more than the {LONGEST} that a driver holds")
    return found


def _since(frame: int) -> str:
    return f"(frame - {frame})" if frame else "frame"


def _translated(expression: str, names: Mapping[str, ast.expr]) -> str:
    try:
        tree = _Blenders(names).visit(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise NoDriver("Blender reads it otherwise") from error
    said = ast.unparse(tree)
    return f"({said})" if isinstance(tree, ast.IfExp) else said


class _Blenders(ast.NodeTransformer):
    """Puts Blender's names into an expression."""

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self.names = names

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _KNOWN):
            raise NoDriver("drivers have no arithmetic of bits")
        return super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.names.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        parts = [self.visit(part) for part in node.args]
        if name == "where":
            return ast.IfExp(*parts)
        if name not in FUNCTIONS:
            raise NoDriver(f"drivers have no {name}() that is Deforum's")
        return ast.Call(ast.Name(FUNCTIONS[name]), parts, [])

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every global name that the extension's code reads is bound in its module. Ruff cannot say so there: Blender's
properties are annotations, whose strings it takes for names."""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from conftest import ROOT

FILES = sorted([ROOT / "__init__.py", *(ROOT / "operators").glob("*.py"), *(ROOT / "panels").glob("*.py")])
ALWAYS = {*dir(builtins), "__file__", "__name__", "__package__", "__path__", "__qualname__", "__annotations__"}


def codes(code: CodeType) -> Iterator[CodeType]:
    """A module's code and all that is in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes(inner)


def unbound(text: str) -> set[str]:
    """Names that are read as globals, and that nothing binds."""
    whole = compile(text, "module", "exec", dont_inherit=True)
    steps = {code: list(dis.get_instructions(code)) for code in codes(whole)}
    bound = ALWAYS | {step.argval for step in steps[whole] if step.opname == "STORE_NAME"}
    bound |= {step.argval for found in steps.values() for step in found if step.opname == "STORE_GLOBAL"}
    read: set[str] = set()
    for found in steps.values():
        own = {step.argval for step in found if step.opname == "STORE_NAME"}  # of a class's body
        read |= {step.argval for step in found if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - own
    return read - bound


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_is_there(path: Path) -> None:
    assert unbound(path.read_text(encoding="utf-8")) == set()


def test_a_missing_name_is_found() -> None:
    assert unbound("import a\nclass B:\n    c = 1\n    d = c\ndef f(x):\n    return a, x, gone, len\n") == {"gone"}

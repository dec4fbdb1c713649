# SPDX-License-Identifier: GPL-3.0-or-later
"""No thread of Koshi's touches anything of Blender's: such objects may vanish at any moment."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, in_versions

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)


def names() -> set[str]:
    """The threads that the extension's own modules start."""
    files = [*(ROOT / "operators").glob("*.py"), *(ROOT / "panels").glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    started = [call for call in calls if ast.unparse(call.func) in ("threading.Thread", "Thread")]
    return {next(ast.literal_eval(word.value) for word in call.keywords if word.arg == "name") for call in started}


@pytest.mark.blender
@pytest.mark.timeout(600)
@in_versions("4.2", "5.2")
def test_no_thread_touches_blender(blender: Blender) -> None:
    seen = blender.script("threads")
    assert all(seen["caught"].values()) and not seen["not_caught"], seen["caught"]
    assert names() and names() <= seen["watched"].keys(), "a new thread: let it work in blender_scripts/threads.py"
    assert min(seen["watched"][name] for name in names()) > 10
    assert seen["touched"] == []

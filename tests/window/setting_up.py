# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's set-up in the preferences, with the mouse: the button, Cancel, and the button again."""

from __future__ import annotations

import os
import time
from typing import Any

import bpy
import eyes
import hands


def steps(folder: str, packages: str) -> hands.Steps:
    """Reports what the panel has at each step. folder: an empty one; packages: a file that lists a small one."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.2
    hands.area('VIEW_3D').type = 'PREFERENCES'
    preferences = yield from hands.show_preferences(hands.area('PREFERENCES'), folder)
    os.environ["KOSHI_SETUP_REQUIREMENTS"] = packages
    seen: dict[str, Any] = {"before": condition()}

    heart = hands.Heartbeat()
    yield from press("koshi.setup_backend")
    yield from hands.until(lambda: state().phase == "running", 20)
    hands.shot("setting-up")
    yield from press("koshi.cancel_setup", 0.95)  # to look for it elsewhere takes longer than this small set-up
    begin = time.monotonic()
    yield from hands.until(lambda: state().phase != "running", 30)
    seen["cancelled"] = {"seconds": time.monotonic() - begin, **told()}
    yield from hands.until(lambda: not hands.koshi("bridge_server.setup.start")._alive(), 30)
    seen["cleared"] = condition()
    hands.shot("set-up-cancelled")

    yield from press("koshi.setup_backend")
    yield from hands.until(lambda: state().phase != "running", 240)
    seen["done"] = told()
    seen["away"] = heart.stop()["longest"]
    yield 0.6
    hands.shot("set-up-done")
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.koshi.diagnose('INVOKE_DEFAULT')
    yield from hands.wait_for_the_end(120)
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.koshi.copy_report()
    seen["copied"] = bpy.context.window_manager.clipboard.splitlines()
    del os.environ["KOSHI_SETUP_REQUIREMENTS"]
    preferences.backend_folder = ""
    return seen


def press(operator: str, *columns: float) -> hands.Steps:
    """Click a button of Koshi's preferences."""
    yield 0.4
    place = yield from eyes.find_button(hands.area('PREFERENCES'), operator, 'WINDOW', columns or (0.47,))
    yield from hands.click(*place)
    yield 0.1


def state() -> Any:
    """How the set-up stands."""
    return hands.koshi("operators.setup_watch").status()


def condition() -> str:
    """What is in the folder."""
    return hands.koshi("operators.settings").setup_condition()


def told() -> dict[str, Any]:
    """What the panel says of the set-up."""
    now = state()
    return {"phase": now.phase, "text": now.text, "error": now.error, "condition": condition()}

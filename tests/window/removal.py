# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on is switched off while it renders, and on again."""

from __future__ import annotations

import threading
import time

import bpy
import hands

MODULE = "bl_ext.user_default.koshi"


def steps(frames: int, seed: int) -> hands.Steps:
    """Reports the threads that are left, and the render taken up again."""
    yield from hands.set_the_stage(frames, seed, 64, 8, "removal.blend")
    hands.render()
    yield from hands.wait_for_frames(2)
    job, before = hands.told()["job"], readers()
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.preferences.addon_disable(module=MODULE)
    begin = time.monotonic()
    yield from hands.until(lambda: not readers(), 10)
    seen = {"job": job, "before": before, "seconds": time.monotonic() - begin}
    yield 0.5
    seen["registered"] = hasattr(bpy.types.Scene, "koshi") or hasattr(bpy.types, "KOSHI_OT_render")
    hands.shot("removed")
    hands.key('ESC', hands.middle(hands.area('VIEW_3D')))
    yield 2.0
    hands.shot("removed-and-read")
    bpy.ops.preferences.addon_enable(module=MODULE)
    yield 0.2
    seen["enabled"] = hands.told()
    yield from choose("koshi.connect")
    yield from hands.wait_for_frames(1)
    seen["attached"] = hands.koshi("operators.state").status.attached
    yield from hands.wait_for_the_end()
    hands.shot("taken-up")
    return {**seen, **hands.outcome()}


def choose(operator: str) -> hands.Steps:
    """Render > Koshi in the window's top row, which is the last one there, and an operator in it."""
    place = 126, hands.window().height - 13
    yield from hands.click(*place)
    yield 0.5
    for name in ('UP_ARROW', 'RIGHT_ARROW'):
        hands.key(name, place)
        yield 0.5
    hands.shot("render-menu")
    manager = bpy.context.window_manager
    for _ in range(60):
        manager.clipboard = ""
        hands.key('C', place, ctrl=True)
        yield 0.05
        if manager.clipboard.startswith(f"bpy.ops.{operator}("):
            hands.key('RET', place)
            yield 0.2
            return
        hands.key('UP_ARROW', place)
        yield 0.05
    raise AssertionError(f"no {operator} in the menu")


def readers() -> list[str]:
    """Koshi's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("koshi")]

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
    yield 0.2
    bpy.ops.preferences.addon_enable(module=MODULE)
    yield 0.2
    seen["enabled"] = hands.told()
    with hands.within(hands.area('VIEW_3D')):
        assert bpy.ops.koshi.connect('INVOKE_DEFAULT') == {'RUNNING_MODAL'}
    yield from hands.wait_for_frames(1)
    seen["attached"] = hands.koshi("operators.state").status.attached
    yield from hands.wait_for_the_end()
    hands.shot("taken-up")
    return {**seen, **hands.outcome()}


def readers() -> list[str]:
    """Koshi's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("koshi")]

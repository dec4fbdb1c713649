# SPDX-License-Identifier: GPL-3.0-or-later
"""Saving, saving elsewhere, reverting and opening other files while a render is under way."""

from __future__ import annotations

import bpy
import eyes
import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """The hands.render is left by opening another file, and taken up again."""
    yield from hands.set_the_stage(frames, seed, 64, 8, "first.blend")
    seen = {}
    hands.render()
    yield from hands.wait_for_frames(2)
    bpy.data.scenes[0].frame_current = 2
    hands.key('S', hands.middle(hands.area('VIEW_3D')), ctrl=True)
    yield 0.2
    yield from hands.wait_for_frames(hands.told()["done"] + 1)
    seen["saved"] = {"dirty": bpy.data.is_dirty, **hands.outcome()}
    (hands.FOLDER / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "elsewhere" / "second.blend"))
    yield from hands.wait_for_frames(hands.told()["done"] + 1)
    seen["elsewhere"] = {"file": bpy.data.filepath, **hands.outcome()}
    bpy.ops.wm.revert_mainfile()
    yield 0.3
    seen["reverted"] = hands.outcome()
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.2
    bpy.ops.wm.open_mainfile(filepath=str(hands.FOLDER / "first.blend"))
    yield 0.5
    seen["opened"] = hands.outcome()
    hands.shot("opened")
    yield from hands.click(*(yield from eyes.find_button(hands.area('VIEW_3D'), "koshi.resume", columns=(0.3,))))
    yield from hands.wait_for_frames(1)
    yield from hands.wait_for_the_end()
    return {**seen, "end": hands.outcome()}

# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-Z and Ctrl-Shift-Z while frames arrive, and after the last one."""

from __future__ import annotations

import bpy
import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Three steps of work to undo, a hands.render, and undoing and redoing in it and after it."""
    yield from hands.set_the_stage(frames, seed, 64, 4, "undo.blend")
    for place in (1.0, 2.0, 3.0):
        cube().location.x = place
        with hands.within(hands.area('VIEW_3D')):
            bpy.ops.ed.undo_push(message=f"to {place}")
    hands.render()
    seen = []
    for count, redo in enumerate((False, False, False, True, True, False), start=1):
        yield from hands.wait_for_frames(2 * count)
        seen.append((yield from press(redo)))
    yield from hands.wait_for_the_end()
    after = {**hands.outcome(), "place": cube().location.x}
    undone = yield from press(redo=False)
    redone = yield from press(redo=True)
    return {"seen": seen, "after": after, "undone": undone, "redone": redone, "strips": hands.strips()}


def press(redo: bool) -> hands.Steps:
    """Undo or redo by its hands.key; returns where the cube is then, and how much of the strip there is."""
    hands.key('Z', hands.middle(hands.area('VIEW_3D')), ctrl=True, shift=redo)
    yield 0.15
    found = hands.strips()
    return {"redo": redo, "place": cube().location.x, "shown": len(found[0]["files"]) if found else 0}


def cube() -> bpy.types.Object:
    """The factory scene's cube, which undo makes anew each time."""
    return bpy.data.objects["Cube"]

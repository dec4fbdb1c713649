# SPDX-License-Identifier: GPL-3.0-or-later
"""File > New > Koshi Project in the window, a preset and its undo, and a render that is followed in German."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import hands


def steps(seed: int) -> hands.Steps:
    """Reports the workspace, what the preset did, and what was said of the render."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.3
    hands.move(*hands.middle(hands.area('VIEW_3D')))  # while it is over an editor Blender lets nobody move edges
    yield 0.2
    bpy.ops.koshi.new_project()
    yield from hands.until(lambda: hands.window().workspace.name == "Koshi", 20)
    yield from hands.until(in_order, 20)
    seen: dict[str, Any] = {"areas": sorted(area.type for area in hands.window().screen.areas)}
    view = hands.area('VIEW_3D')
    seen["view"] = view.spaces.active.region_3d.view_perspective
    seen["tab"] = hands.region(view, 'UI').active_panel_category
    seen["shares"] = shares()
    hands.shot("new-project")

    settings = hands.window().scene.koshi
    mine = next(Path(folder, "Restyle.py") for folder in bpy.utils.preset_paths("koshi/video"))
    with hands.within(view):
        bpy.ops.ed.undo_push(message="Before the preset")
        bpy.ops.script.execute_preset(filepath=str(mine), menu_idname="KOSHI_PT_video_presets")
    seen["chosen"] = settings.hybrid_over
    with hands.within(view):
        bpy.ops.ed.undo()
    yield 0.2
    seen["undone"] = hands.window().scene.koshi.hybrid_over
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.wm.call_panel(name="KOSHI_PT_feedback_presets")
    yield 0.6
    hands.shot("presets")
    hands.key('ESC', hands.middle(hands.area('VIEW_3D')))
    yield 0.3
    seen["german"] = yield from in_german(seed)
    return seen


def in_order() -> bool:
    """Whether the new workspace has been arranged."""
    try:
        view = hands.area('VIEW_3D')
        tab = hands.region(view, 'UI').active_panel_category
    except (AttributeError, TypeError, ValueError):  # not there or not drawn yet
        return False
    shown = view.spaces.active.region_3d
    return tab == "Koshi" and shown.view_perspective == 'CAMERA' and shown.view_camera_offset[0] > 0


def shares() -> dict[str, float]:
    """The parts of the window's sides that the editors have; how many channels are seen."""
    whole = hands.window()
    places = {area.spaces.active.view_type: area for area in whole.screen.areas if area.type == 'SEQUENCE_EDITOR'}
    timeline, view = hands.region(places['SEQUENCER']), hands.area('VIEW_3D')
    low, high = (timeline.view2d.region_to_view(0, y)[1] for y in (0, timeline.height))
    return {
        "sequencer": places['SEQUENCER'].height / whole.height, "channels": high - low,
        "preview": places['PREVIEW'].width / whole.width, "view": view.width / whole.width,
    }  # fmt: skip


def in_german(seed: int) -> hands.Steps:
    """What is said of a short render in a Blender that speaks German; None if this one does not."""
    if "de_DE" not in bpy.app.translations.locales:
        return None
    chosen = bpy.context.preferences.view
    chosen.language = 'de_DE'
    chosen.use_translate_interface = True
    try:
        yield from hands.set_the_stage(12, seed, 64, 4)
        hands.render()
        yield from hands.wait_for_the_end()
        yield 0.4
        hands.shot("rendered-in-german")
        return hands.told()
    finally:
        chosen.language = 'en_US'

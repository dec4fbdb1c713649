# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import through Blender's own file browser, and the window while the file is read."""

from __future__ import annotations

from pathlib import Path

import bpy
import hands


def steps(file: str) -> hands.Steps:
    """Choose a file; what the scene has then."""
    yield from hands.set_the_stage(24, 1, 64, 1, "import.blend")
    bpy.context.preferences.view.filebrowser_display_type = 'SCREEN'
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.koshi.import_shot('INVOKE_DEFAULT')
    browser = yield from hands.until(_browser, 20)
    space = browser.spaces.active
    yield from hands.until(lambda: space.params, 20)
    space.params.directory, space.params.filename = str(Path(file).parent).encode(), Path(file).name
    yield 0.5
    hands.shot("import-browser")
    hands.key('RET', hands.middle(browser))
    scene = bpy.data.scenes[0]
    yield from hands.until(lambda: scene.frame_start == 5, 60)
    yield 0.3
    hands.shot("import-report")
    found = {
        "range": [scene.frame_start, scene.frame_end],
        "prompts": [prompt.text for prompt in scene.koshi.prompts],
        "text": bpy.data.texts["Koshi Import"].as_string(),
    }
    hands.key('ESC', hands.middle(hands.area('VIEW_3D')))
    yield 0.2
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.ed.undo()
    yield 0.3
    found["undone"] = bpy.data.scenes[0].frame_start
    return found


def _browser() -> bpy.types.Area | None:
    areas = (area for window in bpy.context.window_manager.windows for area in window.screen.areas)
    return next((area for area in areas if area.type == 'FILE_BROWSER'), None)

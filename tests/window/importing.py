# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import and Export through Blender's own file browser, and the window while the file is read."""

from __future__ import annotations

import json
from pathlib import Path

import bpy
import hands


def steps(file: str) -> hands.Steps:
    """Choose a file; what the scene has then, also after undo; and write the scene out. With a render that has begun
    while the file browser was open, nothing is imported."""
    yield from hands.set_the_stage(24, 1, 64, 1, "import.blend")
    bpy.context.preferences.view.filebrowser_display_type = 'SCREEN'
    place = yield from opened("import_shot", Path(file))
    hands.shot("import-browser")
    hands.key('RET', hands.middle(place))
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
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.ed.redo()
    yield 0.3
    out = hands.FOLDER / "written.koshi.json"
    place = yield from opened("export_shot", out)
    hands.key('RET', hands.middle(place))
    yield from hands.until(out.is_file, 30)
    found["written"] = json.loads(out.read_text(encoding="utf-8"))["frames"]
    bpy.data.scenes[0].frame_start = 9
    place = yield from opened("import_shot", Path(file))
    hands.status().phase = "rendering"
    hands.key('RET', hands.middle(place))
    yield from hands.until(lambda: browser() is None, 20)
    yield 0.5
    hands.shot("import-refused")
    found["meanwhile"] = bpy.data.scenes[0].frame_start
    hands.status().phase = "idle"
    return found


def opened(operator: str, file: Path) -> hands.Steps:
    """The file browser of an operator, with a file's name in it."""
    yield from hands.until(lambda: browser() is None, 20)
    with hands.within(hands.area('VIEW_3D')):
        getattr(bpy.ops.koshi, operator)('INVOKE_DEFAULT')
    place = yield from hands.until(browser, 20)
    space = place.spaces.active
    yield from hands.until(lambda: space.params, 20)
    space.params.directory, space.params.filename = str(file.parent).encode(), file.name
    yield 0.5
    return place


def browser() -> bpy.types.Area | None:
    """The editor with Blender's file browser, once it is open."""
    areas = (area for window in bpy.context.window_manager.windows for area in window.screen.areas)
    return next((area for area in areas if area.type == 'FILE_BROWSER'), None)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Eyes for the chapters: where a button, a menu's item or a frame is. They move the mouse and use the clipboard."""

from __future__ import annotations

from collections.abc import Callable

import bpy
import hands


def find_button(
    editor: bpy.types.Area, wanted: str, kind: str = 'UI', columns: tuple[float, ...] = (0.47, 0.95)
) -> hands.Steps:
    """Where the button of an operator or the field of a property is in an editor's sidebar, or another part of it: goes
    down it with the mouse, at these parts of its width, and asks Blender. wanted: "koshi.render", "koshi.angle"."""
    bar = hands.region(editor, kind)
    manager = bpy.context.window_manager
    for column in columns:
        x = bar.x + round(bar.width * column)
        for y in range(bar.y + bar.height - 6, bar.y, -7):
            hands.move(x, y)
            yield 0.04
            manager.clipboard = ""
            with hands.within(editor, kind):
                if bpy.ops.ui.copy_python_command_button.poll():
                    bpy.ops.ui.copy_python_command_button()
                elif bpy.ops.ui.copy_data_path_button.poll():
                    bpy.ops.ui.copy_data_path_button(full_path=True)
            if f".{wanted}(" in manager.clipboard or manager.clipboard.endswith(wanted):
                return x, y
    raise AssertionError(f"no {wanted} in {kind}")


def find_item(x: int, y: int, operator: str) -> hands.Steps:
    """Where an operator is in the menu that is open: goes down it with the mouse, and asks Blender with Ctrl C."""
    for lower in range(y, max(0, y - 500), -8):
        hands.move(x, lower)
        yield 0.06
        bpy.context.window_manager.clipboard = ""
        hands.key('C', (x, lower), ctrl=True)
        yield 0.06
        if bpy.context.window_manager.clipboard.startswith(f"bpy.ops.{operator}("):
            return x, lower
    raise AssertionError(f"no {operator} in the menu at {x}, {y}")


def frame_at(editor: bpy.types.Area, frame: float) -> tuple[int, int]:
    """Where a frame is on an editor's scale of frames, which the playhead is dragged on."""
    part = hands.region(editor)
    x, _ = part.view2d.view_to_region(frame, 0, clip=False)
    return part.x + x, part.y + part.height - 12


def go_down(x: int, top: int, step: int, reached: Callable[[], bool]) -> hands.Steps:
    """Click down a column of tabs until one is reached."""
    for y in range(top, 0, -step):
        yield from hands.click(x, y)
        yield 0.3
        if reached():
            return
    raise AssertionError(f"not reached from {x}, {top}")

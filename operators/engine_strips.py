# SPDX-License-Identifier: GPL-3.0-or-later
"""The sequencer and the Koshi engine: Blender renders a scene's strips instead of asking its engine.

A render in the sidebar leaves its take in the sequencer, so the engine would never paint such a scene again. For one
whose strips are nothing but takes and sound, Blender's Sequencer option is off from `render_init` to `render_pre`: in
between Blender copies it for the whole render, an animation too (4.2 to 5.2). The scene bears a mark that long, so that
the artist gets the option back wherever `render_pre` did not come: a film that cannot be written, a file saved then.
"""

from __future__ import annotations

from typing import Any

import bpy

from . import between_strip, compat, sequencer

_MARK = "koshi_sequencer"  # of a scene whose option was switched off here


def renders_strips(scene: bpy.types.Scene) -> bool:
    """Whether Blender renders strips that are not Koshi's, and not what the engine would paint."""
    return bool(_pictures(scene)) and not only_takes(scene)


def only_takes(scene: bpy.types.Scene) -> bool:
    """Whether the scene has strips with pictures, and those that are not muted are what Koshi has rendered."""
    found = _pictures(scene)
    return bool(found) and all(strip.mute or sequencer.TAG in strip or between_strip.TAG in strip for strip in found)


def put_to_sleep(scene: bpy.types.Scene) -> None:
    """Let the engine paint in spite of its own takes; to be undone as soon as Blender has read the option."""
    if only_takes(scene):
        scene[_MARK] = True
        scene.render.use_sequencer = False


def wake(*scenes: bpy.types.Scene) -> None:
    """Undo `put_to_sleep`."""
    for scene in scenes:
        if _MARK in scene:
            del scene[_MARK]
            scene.render.use_sequencer = True


def _pictures(scene: bpy.types.Scene) -> list[Any]:
    """The strips for which Blender would not ask the engine; in 4.2 muted ones, too."""
    editor = scene.sequence_editor
    if not scene.render.use_sequencer or editor is None:
        return []
    return [strip for strip in compat.strips(editor) if strip.type != 'SOUND']

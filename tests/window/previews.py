# SPDX-License-Identifier: GPL-3.0-or-later
"""The previews by their buttons: the frame under the playhead, Live while the playhead is dragged, and the motion."""

from __future__ import annotations

import gc
from typing import Any

import bpy
import eyes
import hands
from engine import picture_in


def steps(frames: int, seed: int) -> hands.Steps:
    """Reports what was asked for, what the editors show, and how long a tick took."""
    yield from hands.set_the_stage(frames, seed, 128, 4, "previews.blend")
    scene = hands.window().scene
    scene.koshi.angle = 1.0
    scene.frame_set(4)
    yield from press("koshi.preview")
    yield from rest()
    out: dict[str, Any] = {"current": told(), "windows": len(bpy.context.window_manager.windows)}
    hands.shot("preview-current")
    with bpy.context.temp_override(window=hands.front()):
        bpy.ops.wm.window_close()
    yield 0.3
    preview = next(a for a in hands.window().screen.areas if a.type == 'SEQUENCE_EDITOR' and is_preview(a))
    preview.type = 'IMAGE_EDITOR'
    preview.spaces.active.image = None
    yield 0.3
    out["live"] = yield from live(frames)
    out["motion"] = yield from motion()
    return out


def live(frames: int) -> hands.Steps:
    """Live on, the playhead dragged from frame 2 to the last but one, and let go; Live off."""
    session, ticks = hands.koshi("operators.preview_session"), hands.koshi("operators.preview_live")
    # Python looks through all of Blender's objects once in a while: 37 to 49 ms, in whatever allocates just then.
    gc.collect()
    yield from press("koshi.preview_live", 0.75)
    yield from rest()
    editor = min((a for a in hands.window().screen.areas if a.type == 'SEQUENCE_EDITOR'), key=lambda a: a.height)
    with hands.within(editor):
        bpy.ops.sequencer.view_all()
    yield 0.5
    begin, passed, pictures = session._number, set(), set()

    def look(*_: Any) -> None:
        passed.add(hands.window().scene.frame_current)
        if session.status.phase == "done":
            pictures.add(session.status.frame)

    bpy.app.handlers.frame_change_post.append(look)
    yield from hands.drag(eyes.frame_at(editor, 2), eyes.frame_at(editor, frames - 1))
    bpy.app.handlers.frame_change_post.remove(look)
    yield 0.5
    yield from rest()
    seen = {
        **told(),
        "playhead": hands.window().scene.frame_current,
        "passed": sorted(passed),
        "pictures": sorted(pictures),
        "asked": session._number - begin,
        "tick": ticks.longest_tick,
        "windows": len(bpy.context.window_manager.windows),
    }
    hands.shot("preview-live")
    yield from press("koshi.preview_live", 0.75)
    yield 0.3
    return {**seen, "off": not ticks.is_on()}


def motion() -> hands.Steps:
    """The motion is played in the same editor, as soon as it is there; Esc stops it."""
    yield from press("koshi.motion_preview")
    yield from rest()
    yield from hands.until(lambda: hands.window().screen.is_animation_playing, 10)
    passed: list[int] = []

    def look(*_: Any) -> None:
        passed.append(hands.window().scene.frame_current)

    bpy.app.handlers.frame_change_post.append(look)
    yield 2.0
    hands.shot("preview-motion")
    bpy.app.handlers.frame_change_post.remove(look)
    seen = told()
    hands.key('ESC', hands.middle(hands.area('VIEW_3D')))
    yield 0.3
    return {**seen, "passed": passed, "stopped": not hands.window().screen.is_animation_playing}


def press(operator: str, column: float = 0.3) -> hands.Steps:
    """Click a button of the panel Preview, in the 3D view's sidebar."""
    place = yield from eyes.find_button(hands.area('VIEW_3D'), operator, columns=(column,))
    yield from hands.click(*place)
    yield 0.3


def rest() -> hands.Steps:
    """Wait until no preview is under way, and what has come is drawn."""
    session = hands.koshi("operators.preview_session")
    yield from hands.until(lambda: not session.status.busy, 180)
    yield 0.8


def is_preview(area: bpy.types.Area) -> bool:
    """Whether a sequencer shows pictures and no strips."""
    return area.spaces.active.view_type == 'PREVIEW'


def told() -> dict[str, Any]:
    """What the panel says, the shot that such a preview is asked for with, and the image in the editor."""
    session, shots = hands.koshi("operators.preview_session"), hands.koshi("operators.preview_shot")
    now, scene = session.status, hands.window().scene
    steps = shots.motion_shot(scene, 9) if now.kind == "motion" else shots.frame_shot(scene, scene.frame_current, 9)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        shot = end.value
    editor = hands.area('IMAGE_EDITOR')
    image = editor.spaces.active.image
    return {
        "phase": now.phase,
        "error": now.error,
        "frame": now.frame,
        "shot": shot,
        "path": bpy.path.abspath(image.filepath),
        "shown": [image.name, *image.size],
        "on_screen": picture_in(editor),
    }

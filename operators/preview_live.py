# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer of the previews, and Live: a look every tenth of a second whether the picture would be another one.

Where the motion comes from curves alone, reading a few frames of them costs about a millisecond, so that edits are seen
as they are made. Where Blender has to evaluate the scene for it, that is done only when the frame changes, or when
Blender tells of an update.
"""

from __future__ import annotations

import time
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import guides, preview_session, preview_shot, sample, state, values
from .pumped import redraw

LOOK = 0.1  # seconds between two looks
BUSY = 0.03  # seconds between two ticks while something is under way
FEW = 100  # frames of curves that are read within 4 ms
REST = 3  # looks without a change before the scene is rendered for a preview
_QUIET = (bpy.types.Scene, bpy.types.Collection, bpy.types.Image, bpy.types.Screen, bpy.types.WindowManager)

longest_tick = 0.0  # seconds of the processor, since the timer was started
_scene = ""  # the one that Live follows; "" while it is off
_asked: Any = None  # what the newest preview was asked for
_before: Any = None  # what the look before saw
_rested = 0  # looks since the last change
_updates = 0  # of the scene, as Blender tells of them
_ours = False  # while the scene is evaluated for a preview


def is_on() -> bool:
    """Whether Live follows the playhead."""
    return bool(_scene)


def switch(scene: bpy.types.Scene | None) -> None:
    """Follow this scene's playhead from now on, or (None) no longer."""
    global _scene, _asked, _before
    _scene, _asked, _before = scene.name if scene is not None else "", None, None
    if _note_update in bpy.app.handlers.depsgraph_update_post:
        bpy.app.handlers.depsgraph_update_post.remove(_note_update)
    if scene is not None:
        bpy.app.handlers.depsgraph_update_post.append(_note_update)
        start()


def start() -> None:
    """Start the timer, which ends itself when there is nothing left to do."""
    global longest_tick
    if bpy.app.timers.is_registered(_tick):
        return
    longest_tick = 0.0
    bpy.app.timers.register(_tick, first_interval=0.0)
    bpy.app.handlers.load_pre.append(_on_load)


def stop() -> None:
    """Switch Live off and end every preview."""
    switch(None)
    preview_session.close()
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if _on_load in bpy.app.handlers.load_pre:
        bpy.app.handlers.load_pre.remove(_on_load)


def _on_load(*_: Any) -> None:
    """Another file: its timers and handlers go by themselves, what they worked on must not stay."""
    stop()
    preview_session.status = preview_session.Status()


def _tick() -> float | None:
    global longest_tick
    begin = time.thread_time()
    try:
        changed = _work()
    except Exception:  # a timer that raises is gone without a word
        state.log().exception("preview")
        stop()
        error = BridgeError(
            "internal", "Something unexpected went wrong in the preview.", f"Details: {state.log_file()}"
        )
        preview_session.status = preview_session.Status("failed", error=error.as_dict())
        changed = True
    if changed:
        redraw()
    longest_tick = max(longest_tick, time.thread_time() - begin)
    if preview_session.status.busy:
        return BUSY
    if is_on():
        return LOOK
    if _on_load in bpy.app.handlers.load_pre:
        bpy.app.handlers.load_pre.remove(_on_load)
    return None


_looked = 0.0


def _work() -> bool:
    """One tick's work. True if something has changed that the panels show."""
    global _ours, _looked
    _ours = True  # what follows evaluates the scene
    try:
        changed = preview_session.pump()
    finally:
        _ours = False
    now = time.monotonic()
    if is_on() and now - _looked >= LOOK * 0.9:
        _looked = now
        changed |= _look()
    return changed


def _look() -> bool:
    """See whether another picture is due, and want it. True if it is."""
    global _scene, _asked, _before, _rested
    scene = _followed()
    status = preview_session.status
    if scene is None or preview_session.hindrance() or (status.busy and status.kind == "motion"):
        return False
    _scene = scene.name
    number = preview_shot.shown_frame(scene, scene.frame_current)
    seen = _seen(scene, number)
    _rested = _rested + 1 if seen == _before else 0
    _before = seen
    if seen == _asked:
        return False
    # While the playhead moves, what is being made is finished, or nothing would ever be seen; then comes the newest.
    # Once it rests, what is being made for another frame is cancelled at once.
    if status.busy and not _rested:
        return False
    if _rested < REST and (guides.wanted(scene.koshi) or scene.koshi.motion_source == 'EXACT'):
        return False
    _asked = seen
    preview_session.want("preview", scene, number)
    return True


def _followed() -> bpy.types.Scene | None:
    """The scene that Live was switched on for, as long as a window shows it; else that of the first window."""
    manager = bpy.context.window_manager
    shown = [
        scene
        for window in manager.windows
        for scene in (window.scene, getattr(window.workspace, "sequencer_scene", None))
        if scene is not None
    ]
    return next((scene for scene in shown if scene.name == _scene), shown[0] if shown else None)


def _seen(scene: bpy.types.Scene, number: int) -> Any:
    """What the picture of a frame depends on, as far as it can be told quickly: equal means no new picture is due."""
    settings = scene.koshi
    size = preview_shot.small_size(scene)
    plain = settings.motion_source == 'CURVES' and not guides.wanted(settings)
    begin = preview_shot.block_start(scene, number)
    if plain and number - begin <= FEW and values.direct(scene, (), ()) is not None:
        try:
            return sample.shot_from_scene(scene, begin, number, size=size).shot
        except BridgeError as error:
            return error.as_dict()
    told = tuple(
        getattr(settings, prop.identifier)
        for prop in settings.bl_rna.properties
        if prop.type in ('FLOAT', 'INT', 'ENUM', 'STRING', 'BOOLEAN')
    )
    told += tuple((one.frame, one.image) for one in settings.guided_images)
    told += tuple((one.file, one.use, one.weight) for one in settings.loras)
    prompts = tuple((prompt.frame, prompt.text) for prompt in settings.prompts)
    mask = settings.mask.name if settings.mask is not None else ""
    return scene.name, number, scene.frame_start, scene.frame_step, size, told, prompts, mask, _updates


def _note_update(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
    """Blender has evaluated a change. Selecting things is none, and neither is a preview of ours."""
    global _updates
    if _ours or depsgraph is None:
        return
    for update in depsgraph.updates:
        moved = update.is_updated_geometry or update.is_updated_transform or update.is_updated_shading
        if moved or not isinstance(update.id, _QUIET):
            _updates += 1
            return

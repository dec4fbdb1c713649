# SPDX-License-Identifier: GPL-3.0-or-later
"""Notices that a prompt's marker was moved, renamed or deleted on the timeline.

Blender tells nobody when that happens: there is no handler, and the message bus is silent (4.2 to 5.2). But it draws
the editor anew. What is drawn is compared with what was drawn before; if it is something else, the prompts are told
once Blender has drawn, as nothing may be written while it does.
"""

from __future__ import annotations

import functools
from typing import Any

import bpy

from . import compat, markers
from .pumped import redraw

_SPACES = ("SpaceDopeSheetEditor", "SpaceGraphEditor", "SpaceNLA", "SpaceSequenceEditor")
_drawing: list[tuple[Any, Any]] = []  # space and handle
_seen: dict[int, tuple[tuple[str, int], ...]] = {}  # of each scene, its markers as they were drawn
_told: Any = None  # what is to be done after drawing


def _drawn() -> None:
    """An editor with a timeline is drawn."""
    global _told
    scene = compat.edited_scene(bpy.context)
    if scene is None or _told is not None or not (len(scene.koshi.prompts) or len(scene.koshi.guided_images)):
        return
    now = tuple((marker.name, marker.frame) for marker in scene.timeline_markers)
    if _seen.get(scene.session_uid) == now:
        return
    _seen[scene.session_uid] = now
    _told = functools.partial(_note, scene.name)
    bpy.app.timers.register(_told, first_interval=0.0, persistent=True)  # else opening a file would lose it


def _note(name: str) -> None:
    global _told
    _told = None
    scene = bpy.data.scenes.get(name)
    # A render reads the scene in another thread. What is missed is seen when the editor is next drawn otherwise.
    if scene is None or not scene.is_editable or bpy.app.is_job_running('RENDER'):
        return
    markers.sync(scene)
    redraw()


def register() -> None:
    """Begin to look."""
    for name in _SPACES:
        space = getattr(bpy.types, name)
        _drawing.append((space, space.draw_handler_add(_drawn, (), 'WINDOW', 'POST_PIXEL')))


def unregister() -> None:
    """Look no longer."""
    global _told
    for space, handle in _drawing:
        space.draw_handler_remove(handle, 'WINDOW')
    _drawing.clear()
    _seen.clear()
    if _told is not None and bpy.app.timers.is_registered(_told):
        bpy.app.timers.unregister(_told)
    _told = None

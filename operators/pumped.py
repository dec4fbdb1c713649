# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators that start a job share: modal in the window, blocking in background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.protocol import BridgeError
from . import state
from .job import BUDGET, Job

TICK = 0.05  # seconds
# Seconds from one change to the next, unless much has gathered: the frames of a fast render come in handfuls, as each
# redraw of the window costs some 35 ms by software.
REST = 0.15
# Where Koshi's panels are.
SHOWING = {'VIEW_3D': 'UI', 'SEQUENCE_EDITOR': 'UI', 'IMAGE_EDITOR': 'UI', 'PREFERENCES': 'WINDOW'}
LOST = "Something unexpected went wrong in Blender while Koshi showed what has arrived. The backend goes on."

timers: list[Any] = []  # of the operators that run


class PumpedOperator:
    """Mixin: the operator's `begin` starts a job or raises BridgeError; the rest follows it to its end, reports
    and redraws.

    A tick either works or has the panels drawn: Blender draws what a tick has changed before the next event, and a
    strip that grows and the panel that tells of it, drawn in one go, kept the window for a fifth longer.
    """

    begin: Callable[[bpy.types.Context], Job]
    _job: Job | None = None
    _timer: Any = None
    _stale = False  # what the panels show
    _ended: set[str] | None = None  # the result, once there is nothing left but to draw it
    _next = 0.0  # when there may be work again

    def after(self, context: bpy.types.Context, job: Job) -> Job | None:
        """Called when a job is over without an error; may start another to follow."""
        return None

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Do all of it now; for scripts and background mode, where timers never fire."""
        if not self._begin(context):
            return {'CANCELLED'}
        self._job.run()
        while self._advance(context):
            self._job.run()
        return self._finish()

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Start and return at once; `modal` does the rest."""
        if bpy.app.background:
            return self.execute(context)
        if not self._begin(context):
            redraw()
            return {'CANCELLED'}
        manager = context.window_manager
        self._timer = manager.event_timer_add(TICK, window=context.window)
        timers.append(self._timer)
        manager.modal_handler_add(self)
        self._stale = True
        return {'RUNNING_MODAL'}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A tick: handle what has arrived, within the budget."""
        if event.type != 'TIMER':
            return {'PASS_THROUGH'}
        # Blender's own render reads the scene in another thread; writing strips now could crash it.
        waits = bpy.app.is_job_running('RENDER')
        if waits != state.status.waits:
            state.status.waits = waits
            redraw()
        if waits:
            return {'PASS_THROUGH'}
        if self._job is not state.job and self._ended is None:
            return self._stop_timer(context, {'CANCELLED'})
        begin = time.monotonic()
        try:
            return self._tick(context)
        except Exception:  # the tick's edge: Blender would end the operator, and Koshi be "busy" for ever
            state.log().exception("a tick of %s failed", self.bl_idname)
            state.let_go()
            state.fail(BridgeError("internal", LOST, f"Details: {state.log_file()}"))
            redraw()
            return self._stop_timer(context, self._finish())
        finally:
            state.status.longest_tick = max(state.status.longest_tick, time.monotonic() - begin)

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator (another file is loaded, say): the backend goes on."""
        self._stop_timer(context, set())
        scene = state.status.scene if state.status.busy and state.status.job_id else ""
        state.let_go()
        if scene:
            state.parting = (
                iface_(
                    'The render of "{}" goes on in the backend. To take it up, open its file and press Resume, or '
                    "Render if there is no strip yet"
                ).format(scene)
            )
            state.status.note(state.parting)

    def _tick(self, context: bpy.types.Context) -> set[str]:
        if self._stale:
            self._stale = False
            redraw()
            # Blender draws a panel whose height has changed a second time.
            self._next = max(self._next, time.monotonic() + REST / 2)
            return {'PASS_THROUGH'}
        if self._ended is not None:
            return self._stop_timer(context, self._ended)
        if time.monotonic() < self._next and not self._job.is_behind:
            return {'PASS_THROUGH'}
        self._stale = self._job.pump(BUDGET) or state.status.phase == "cancelling"
        self._next = time.monotonic() + REST if self._stale else 0.0
        if self._job.over and not self._advance(context):
            if bpy.ops.ed.undo_push.poll():  # at once: what the artist does next is a step of its own
                bpy.ops.ed.undo_push(message=self.bl_label)
            self._ended = self._finish()
        return {'PASS_THROUGH'}

    def _begin(self, context: bpy.types.Context) -> bool:
        try:
            self._job = self.begin(context)
        except BridgeError as error:
            if error.code != "busy":
                state.fail(error)
            self.report({'ERROR'}, str(error))
            return False
        return True

    def _advance(self, context: bpy.types.Context) -> bool:
        """The job is over: go on with what comes after it; False if nothing does."""
        follower = self.after(context, self._job) if state.status.phase != "failed" else None
        if follower is not None:
            self._job = follower
        return follower is not None

    def _finish(self) -> set[str]:
        status = state.status
        state.job = None
        if status.phase == "failed":
            error = BridgeError.from_dict(status.error)
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        if status.message:
            self.report({'INFO'}, f"Koshi: {iface_(status.message)}")
        return {'CANCELLED'} if status.phase == "cancelled" else {'FINISHED'}

    def _stop_timer(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            timers.remove(self._timer)
            self._timer = None
        return result


def redraw() -> None:
    """Redraw what shows Koshi's panels, and nothing else: a 3D view drawn by software takes a quarter of a second."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            for region in area.regions if area.type in SHOWING else ():
                if region.type == SHOWING[area.type]:
                    region.tag_redraw()


@bpy.app.handlers.persistent
def loaded(*_: Any) -> None:
    """Another file was opened. (What ran in the one before has been told by `cancel` by then.)"""
    state.forget()


def stop() -> None:
    """Koshi is being removed: end what ticks, and say so if a render goes on without it.

    Blender frees a running operator whose class goes away without calling its `cancel`.
    """
    manager = bpy.context.window_manager
    while timers:
        manager.event_timer_remove(timers.pop())
    if state.status.busy and bpy.context.window is not None and not bpy.app.background:
        manager.popup_menu(_farewell, title="Koshi was removed while it rendered", icon='INFO')


def _farewell(menu: bpy.types.UIPopupMenu, context: bpy.types.Context) -> None:
    menu.layout.label(text="The render goes on in the backend, and finished frames are kept")
    menu.layout.label(text="To take it up, enable Koshi again and press Resume")

# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators that start a job share: modal in the window, blocking in background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import state
from .job import BUDGET, Job

TICK = 0.1  # seconds
SHOWING = {'VIEW_3D', 'SEQUENCE_EDITOR', 'PREFERENCES'}


class PumpedOperator:
    """Mixin: the operator's `begin` starts a job or raises BridgeError; the rest follows it to its end, reports
    and redraws."""

    begin: Callable[[bpy.types.Context], Job]
    _job: Job | None = None
    _timer: Any = None

    def after(self, context: bpy.types.Context, job: Job) -> Job | None:
        """Called when a job is over without an error; may start another to follow."""
        return None

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Do all of it now; for scripts and background mode, where timers never fire."""
        if not self._begin(context):
            return {'CANCELLED'}
        while self._job is not None:
            self._job.run()
            self._advance(context)
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
        manager.modal_handler_add(self)
        redraw()
        return {'RUNNING_MODAL'}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A tick: handle what has arrived, within the budget."""
        if event.type != 'TIMER':
            return {'PASS_THROUGH'}
        # Blender's own render reads the scene in another thread; writing strips now could crash it.
        if bpy.app.is_job_running('RENDER'):
            return {'PASS_THROUGH'}
        if self._job is None or self._job is not state.job:
            return self._stop_timer(context, {'CANCELLED'})
        changed = self._job.pump(BUDGET)
        if changed or state.status.phase == "cancelling":
            redraw()
        if not self._job.over:
            return {'PASS_THROUGH'}
        self._advance(context)
        if self._job is not None:
            return {'PASS_THROUGH'}
        redraw()
        if bpy.ops.ed.undo_push.poll():
            bpy.ops.ed.undo_push(message=self.bl_label)
        return self._stop_timer(context, self._finish())

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator (another file is loaded, say): the backend goes on."""
        self._stop_timer(context, set())
        state.let_go()

    def _begin(self, context: bpy.types.Context) -> bool:
        try:
            self._job = self.begin(context)
        except BridgeError as error:
            if error.code != "busy":
                state.fail(error)
            self.report({'ERROR'}, str(error))
            return False
        return True

    def _advance(self, context: bpy.types.Context) -> None:
        """The job is over: go on with what comes after it, if anything does."""
        job, self._job = self._job, None
        if job is not None and state.status.phase != "failed":
            self._job = self.after(context, job)

    def _finish(self) -> set[str]:
        status = state.status
        state.job = None
        if status.phase == "failed":
            error = BridgeError.from_dict(status.error)
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        if status.message:
            self.report({'INFO'}, f"Koshi: {status.message}")
        return {'CANCELLED'} if status.phase == "cancelled" else {'FINISHED'}

    def _stop_timer(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None
        return result


def redraw() -> None:
    """Redraw the editors that show Koshi's panels."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            if area.type in SHOWING:
                area.tag_redraw()

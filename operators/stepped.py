# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that work in portions: Blender stays alive while they wait for another program, and Esc ends them."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import bpy

from ..bridge_server.protocol import BridgeError
from . import pumped

TICK = 0.05  # seconds
BUDGET = 0.02  # seconds of the main thread per tick

Steps = Generator[str, None, str]
Made = TypeVar("Made")


def portions(work: Generator[float, None, Made], say: str) -> Generator[str, None, Made]:
    """Go on with work, which yields how far it is, 0 to 1, for as long as a tick may last; then yield a line for the
    status bar. say: the line, with {} for the percentage."""
    until = time.monotonic() + BUDGET
    try:
        while True:
            try:
                done = next(work)
            except StopIteration as end:
                return end.value
            if time.monotonic() > until:
                yield say.format(f"{done:.0%}")
                until = time.monotonic() + BUDGET
    finally:
        work.close()


class SteppedOperator:
    """Mixin: `steps` yields a line for the status bar between portions, returns what to tell at the end, and may raise
    BridgeError. Called from a script or in background mode, all of it is done at once."""

    alone = False  # whether the artist's hands are off meanwhile, all but Esc: what is worked on must not change
    level = 'INFO'  # of what is told at the end
    stopped = "Cancelled"  # what Esc comes to
    _steps: Steps | None = None
    _timer: Any = None

    def steps(self, context: bpy.types.Context) -> Steps:
        """The work."""
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> set[str]:
        self._steps = self.steps(context)
        if (result := self._go_on(context)) is not None:
            return result
        if self.options.is_invoke and not bpy.app.background:  # type: ignore[attr-defined]
            manager = context.window_manager
            self._timer = manager.event_timer_add(TICK, window=context.window)
            pumped.timers.append(self._timer)
            manager.modal_handler_add(self)
            return {'RUNNING_MODAL'}
        while (result := self._go_on(context)) is None:
            time.sleep(TICK / 5)
        return result

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type == 'ESC':
            self.cancel(context)
            self.report({'INFO'}, self.stopped)  # type: ignore[attr-defined]
            return {'CANCELLED'}
        if event.type != 'TIMER':
            return {'RUNNING_MODAL'} if self.alone else {'PASS_THROUGH'}
        if bpy.app.is_job_running('RENDER'):
            return {'PASS_THROUGH'}
        result: set[str] | None = {'CANCELLED'}
        try:
            result = self._go_on(context)
        finally:  # whatever went wrong, the status bar must not say for ever that it goes on
            if result is not None:
                self._stop_timer(context)
        return {'PASS_THROUGH'} if result is None else result

    def cancel(self, context: bpy.types.Context) -> None:
        """Esc, or Blender ends the operator: nothing is taken over."""
        if self._steps is not None:
            self._steps.close()
        self._stop_timer(context)

    def _go_on(self, context: bpy.types.Context) -> set[str] | None:
        """Do the next portion; the operator's result at the end."""
        try:
            line = next(self._steps)  # type: ignore[arg-type]
        except StopIteration as end:
            if bpy.ops.ed.undo_push.poll():
                bpy.ops.ed.undo_push(message=self.bl_label)  # type: ignore[attr-defined]
            self.report({self.level}, f"Koshi: {end.value}")  # type: ignore[attr-defined]
            return {'FINISHED'}
        except BridgeError as error:
            self.report({'ERROR'}, str(error))  # type: ignore[attr-defined]
            return {'CANCELLED'}
        if self._timer is not None:
            context.workspace.status_text_set(f"Koshi: {line}    Esc: Cancel")
        return None

    def _stop_timer(self, context: bpy.types.Context) -> None:
        if self._timer is None:
            return
        context.window_manager.event_timer_remove(self._timer)
        if self._timer in pumped.timers:
            pumped.timers.remove(self._timer)
        self._timer = None
        context.workspace.status_text_set(None)

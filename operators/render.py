# SPDX-License-Identifier: GPL-3.0-or-later
"""Render and Cancel."""

from __future__ import annotations

import bpy

from . import compat, job, state
from .pumped import PumpedOperator, redraw


class KOSHI_OT_render(PumpedOperator, bpy.types.Operator):
    """Render the frame range with Koshi; the frames appear in the sequencer as they are made"""

    bl_idname = "koshi.render"
    bl_label = "Render with Koshi"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state.status.busy:
            cls.poll_message_set("A Koshi render is running; wait for it or cancel it")
            return False
        if compat.edited_scene(context) is None:
            cls.poll_message_set("There is no scene to render")
            return False
        return True

    def begin(self, context: bpy.types.Context) -> job.Job:
        return job.start_render(compat.edited_scene(context))


class KOSHI_OT_cancel(bpy.types.Operator):
    """Stop the render; finished frames are kept"""

    bl_idname = "koshi.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state.job is None or not state.status.busy:
            cls.poll_message_set("No Koshi render is running")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        state.job.cancel()
        redraw()
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_render, KOSHI_OT_cancel))

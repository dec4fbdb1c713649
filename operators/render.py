# SPDX-License-Identifier: GPL-3.0-or-later
"""Render, go on with a take, and Cancel."""

from __future__ import annotations

import bpy

from . import compat, job, pumped, sequencer, start, state
from .pumped import PumpedOperator, redraw


class KOSHI_OT_render(PumpedOperator, bpy.types.Operator):
    """Render the frame range with Koshi; the frames appear in the sequencer as they are made"""

    bl_idname = "koshi.render"
    bl_label = "Render with Koshi"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _ready(cls, context)

    def begin(self, context: bpy.types.Context) -> job.Job:
        return start.render(compat.edited_scene(context))


class KOSHI_OT_render_from_here(PumpedOperator, bpy.types.Operator):
    """Keep the take's frames before the playhead, and render those from the playhead on as the scene is now.
    Where nothing has changed, they get another seed"""

    bl_idname = "koshi.render_from_here"
    bl_label = "Re-render From Here"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not _ready(cls, context):
            return False
        if sequencer.take_at_playhead(compat.edited_scene(context)) is None:
            cls.poll_message_set("Put the playhead over a take: a strip that Koshi has rendered")
            return False
        return True

    def begin(self, context: bpy.types.Context) -> job.Job:
        return start.render_from_here(compat.edited_scene(context))


class KOSHI_OT_resume(PumpedOperator, bpy.types.Operator):
    """Go on with the last take, as it was when it was started. Finished frames are kept"""

    bl_idname = "koshi.resume"
    bl_label = "Resume Koshi Render"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not _ready(cls, context):
            return False
        if start.unfinished(compat.edited_scene(context)) is None:
            cls.poll_message_set("The last take has all its frames")
            return False
        return True

    def begin(self, context: bpy.types.Context) -> job.Job:
        scene = compat.edited_scene(context)
        return start.resume(scene, start.unfinished(scene))


class KOSHI_OT_cancel(bpy.types.Operator):
    """Stop the render; finished frames are kept"""

    bl_idname = "koshi.cancel"
    bl_label = "Cancel Koshi Render"

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


def _ready(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    if not state.idle(cls):
        return False
    if compat.edited_scene(context) is None:
        cls.poll_message_set("There is no scene to render")
        return False
    return True


CLASSES = (KOSHI_OT_render, KOSHI_OT_render_from_here, KOSHI_OT_resume, KOSHI_OT_cancel)


def register() -> None:
    """Add the operators; what they tell is of one file."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.app.handlers.load_post.append(pumped.loaded)


def unregister() -> None:
    """Undo `register`."""
    bpy.app.handlers.load_post.remove(pumped.loaded)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

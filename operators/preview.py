# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview Current Frame, Live, and Cancel."""

from __future__ import annotations

import bpy

from ..bridge_server.protocol import BridgeError
from . import compat, preview_image, preview_live, preview_session, preview_shot
from .pumped import redraw


class KOSHI_OT_preview(bpy.types.Operator):
    """Show the frame under the playhead, small, in an Image Editor.
    An approximation: it begins afresh at most 7 frames before, where the render comes all the way from its first frame.
    So motion, prompt and look are right, but not every detail will come out the same"""

    bl_idname = "koshi.preview"
    bl_label = "Preview Current Frame"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_scene(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """All of it now; for scripts and background mode."""
        scene = compat.edited_scene(context)
        if told := preview_session.hindrance():
            self.report({'ERROR'}, f"{told}.")
            return {'CANCELLED'}
        preview_session.want("preview", scene, _frame(scene), budget=float("inf"))
        return finish(self)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Start, and return at once."""
        if bpy.app.background:
            return self.execute(context)
        scene = compat.edited_scene(context)
        preview_image.make_room(context, preview_image.PICTURE, preview_shot.small_size(scene))
        preview_session.want("preview", scene, _frame(scene))
        preview_live.start()
        redraw()
        return {'FINISHED'}


class KOSHI_OT_preview_live(bpy.types.Operator):
    """Preview the frame under the playhead whenever it changes: another frame, other curves or prompts.
    While the animation plays, frames are skipped"""

    bl_idname = "koshi.preview_live"
    bl_label = "Live Preview"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if bpy.app.background:
            cls.poll_message_set("Live needs Blender's window")
            return False
        return has_scene(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        if preview_live.is_on():
            preview_live.switch(None)
        else:
            scene = compat.edited_scene(context)
            preview_image.make_room(context, preview_image.PICTURE, preview_shot.small_size(scene))
            preview_live.switch(scene)
        redraw()
        return {'FINISHED'}


class KOSHI_OT_preview_cancel(bpy.types.Operator):
    """Stop the preview that is being made, and Live"""

    bl_idname = "koshi.preview_cancel"
    bl_label = "Cancel Preview"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not preview_session.status.busy:
            cls.poll_message_set("No preview is being made")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        preview_live.switch(None)
        preview_session.cancel()
        redraw()
        return {'FINISHED'}


def has_scene(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """For `poll`: whether there is a scene to preview."""
    if compat.edited_scene(context) is None:
        cls.poll_message_set("There is no scene to preview")
        return False
    return True


def finish(operator: bpy.types.Operator) -> set[str]:
    """Follow the preview that is wanted to its end, and report it."""
    preview_session.run()
    preview_session.part()
    status = preview_session.status
    if status.phase == "failed":
        operator.report({'ERROR'}, str(BridgeError.from_dict(status.error)))
    return {'FINISHED'} if status.phase == "done" else {'CANCELLED'}


def _frame(scene: bpy.types.Scene) -> int:
    return preview_shot.shown_frame(scene, scene.frame_current)


_register, _unregister = bpy.utils.register_classes_factory(
    (KOSHI_OT_preview, KOSHI_OT_preview_live, KOSHI_OT_preview_cancel)
)


def register() -> None:
    """Add the operators; nothing is started."""
    _register()


def unregister() -> None:
    """Take them away, and end Live and whatever is being previewed."""
    preview_live.stop()
    _unregister()

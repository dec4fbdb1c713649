# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion Preview: the first picture, or a checkerboard, moved as the shot says. No model is needed."""

from __future__ import annotations

import bpy

from . import compat, preview_image, preview_live, preview_session, preview_shot
from .preview import finish, has_scene
from .pumped import redraw


class KOSHI_OT_motion_preview(bpy.types.Operator):
    """Play the motion alone in an Image Editor: a checkerboard (or the scene, where Koshi starts from it) moves as the
    picture will, and gray is what would be painted anew. Needs no model and no prompt"""

    bl_idname = "koshi.motion_preview"
    bl_label = "Motion Preview"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_scene(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """All of it now; for scripts and background mode."""
        if told := preview_session.hindrance():
            self.report({'ERROR'}, f"{told}.")
            return {'CANCELLED'}
        preview_session.want("motion", compat.edited_scene(context), budget=float("inf"))
        return finish(self)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Start, and return at once; it plays when all frames are there."""
        if bpy.app.background:
            return self.execute(context)
        scene = compat.edited_scene(context)
        preview_image.make_room(context, preview_image.FILM, preview_shot.small_size(scene))
        preview_session.want("motion", scene)
        preview_live.start()
        redraw()
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_motion_preview,))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Preview" panel: one frame or the motion alone, small and at once."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..operators import compat, preview_live, preview_session, preview_shot
from .preferences import draw_error, wrapped


class _Preview:
    bl_label = "Preview"
    bl_category = "Koshi"
    bl_region_type = 'UI'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        status = preview_session.status
        row = layout.row(align=True)
        row.operator("koshi.preview", text="Current Frame", icon='RENDER_STILL')
        live = preview_live.is_on()
        row.operator("koshi.preview_live", text="Live", icon='PAUSE' if live else 'PLAY', depress=live)
        layout.operator("koshi.motion_preview", icon='UV')
        if status.busy:
            row = layout.row(align=True)
            row.progress(factor=status.done / max(status.frames, 1), text=_progress())
            row.operator("koshi.preview_cancel", text="", icon="X")
        column = layout.column(align=True)
        column.scale_y = 0.8
        for line in wrapped(_line(scene), context):
            column.label(text=line)
        if status.error:
            draw_error(layout, status.error, context)
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene.koshi, "preview_size")
        width, height = preview_shot.small_size(scene)
        row = column.split(factor=0.4)
        row.label()
        row.label(text=iface_("{} x {} pixels").format(width, height))


def _progress() -> str:
    status = preview_session.status
    what = iface_("Frame {}").format(status.frame) if status.kind == "preview" else iface_("Motion")
    if status.phase == "making" and status.done:
        return iface_("{}: {} of {}").format(what, status.done, status.frames)
    return what


def _line(scene: bpy.types.Scene) -> str:
    """How it goes, in words."""
    status = preview_session.status
    if status.busy or status.phase == "cancelled":
        return status.message
    if status.phase != "done":
        return ""
    if status.kind == "motion":
        return iface_("The motion of {} frames, from frame {} on").format(status.frames, status.begins)
    if status.begins == scene.frame_start:
        return iface_("Frame {}").format(status.frame)
    if status.frames > 1:
        return iface_("Frame {}, roughly: begun afresh at frame {}").format(status.frame, status.begins)
    return iface_("Frame {}, roughly: begun afresh at this frame").format(status.frame)


class KOSHI_PT_view3d_preview(_Preview, bpy.types.Panel):
    bl_space_type = 'VIEW_3D'
    bl_parent_id = "KOSHI_PT_view3d"


class KOSHI_PT_sequencer_preview(_Preview, bpy.types.Panel):
    bl_space_type = 'SEQUENCE_EDITOR'
    bl_parent_id = "KOSHI_PT_sequencer"


class KOSHI_PT_image_preview(_Preview, bpy.types.Panel):
    bl_space_type = 'IMAGE_EDITOR'


register, unregister = bpy.utils.register_classes_factory(
    (KOSHI_PT_view3d_preview, KOSHI_PT_sequencer_preview, KOSHI_PT_image_preview)
)

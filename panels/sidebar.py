# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Koshi" tab in the sidebars of the 3D view and the sequencer."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators import compat, start, state
from ..operators.camera import picture_size
from .preferences import draw_error, wrapped


class KOSHI_UL_prompts(bpy.types.UIList):
    """Prompts in the order of their frames."""

    bl_idname = "KOSHI_UL_prompts"

    def draw_item(
        self,
        context: bpy.types.Context,
        layout: bpy.types.UILayout,
        data: Any,
        item: Any,
        icon: int,
        active_data: Any,
        active_property: str,
        index: int = 0,
        flt_flag: int = 0,
    ) -> None:
        row = layout.row(align=True)
        frame = row.row()
        frame.ui_units_x = 2.5
        frame.prop(item, "frame", text="", emboss=False)
        row.prop(item, "text", text="", emboss=False, placeholder="What the picture shows")

    def filter_items(
        self, context: bpy.types.Context, data: Any, property: str
    ) -> tuple[list[int], list[int]]:
        prompts = getattr(data, property)
        order = sorted(range(len(prompts)), key=lambda i: prompts[i].frame)
        places = [0] * len(prompts)
        for place, index in enumerate(order):
            places[index] = place
        return [], places


class _Main:
    """The tab's head: the button, how it goes, what went wrong, and the model."""

    bl_label = "Koshi"
    bl_category = "Koshi"
    bl_region_type = 'UI'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        status = state.status
        if status.busy:
            column = layout.column(align=True)
            column.progress(factor=_factor(), text=_progress_text())
            column.label(text=status.left or status.message)
            cancel = layout.column()
            cancel.scale_y = 1.4
            cancel.operator("koshi.cancel", icon='X')
        else:
            big = layout.column()
            big.scale_y = 1.8
            big.operator("koshi.render", text="Render", icon='RENDER_ANIMATION')
            more = layout.row(align=True)
            if (take := start.unfinished(scene)) is not None:
                more.operator("koshi.resume", text=f"Resume ({take.shown}/{take.places})", icon='PLAY')
            more.operator("koshi.render_from_here", text="From Here", icon='TRACKING_FORWARDS')
        _draw_lines(layout.column(align=True), _summary(scene), context)
        if status.error:
            draw_error(layout, status.error, context)
        elif status.phase in ("done", "cancelled") and status.message:
            _draw_lines(
                layout.column(align=True),
                status.message,
                context,
                'CHECKMARK' if status.phase == "done" else 'CANCEL',
            )
        for note in status.notes:
            _draw_lines(layout.column(align=True), note, context, 'INFO')
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene.koshi, "model")
        if scene.koshi.model == 'CUSTOM':
            column.prop(scene.koshi, "model_path")


class _Prompts:
    bl_order = 1  # after the preview
    bl_label = "Prompts"
    bl_category = "Koshi"
    bl_region_type = 'UI'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        settings = compat.edited_scene(context).koshi
        row = layout.row()
        row.template_list("KOSHI_UL_prompts", "", settings, "prompts", settings, "prompts_index", rows=3)
        buttons = row.column(align=True)
        buttons.operator("koshi.prompt_add", text="", icon='ADD')
        buttons.operator("koshi.prompt_remove", text="", icon='REMOVE')
        if not len(settings.prompts):
            layout.label(text="Add a prompt with the plus", icon='INFO')
        elif 0 <= settings.prompts_index < len(settings.prompts):
            prompt = settings.prompts[settings.prompts_index]
            column = layout.column()
            column.use_property_split = False
            column.prop(prompt, "text", text="")


class _Motion:
    bl_order = 2  # after the preview
    bl_label = "Motion"
    bl_category = "Koshi"
    bl_region_type = 'UI'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        source = layout.column()
        source.use_property_decorate = False
        source.prop(settings, "motion_source")
        source.prop(settings, "start")
        source.prop(settings, "structure")
        source.prop(settings, "mask")
        source.operator("koshi.guides_clear", icon='TRASH')
        source.separator()
        source.prop(settings, "curves")
        column = layout.column()
        column.prop(settings, "zoom")
        column.prop(settings, "angle")
        column = layout.column(align=True)
        for name in ("translation_x", "translation_y", "translation_z"):
            column.prop(settings, name)
        column = layout.column(align=True)
        column.operator("koshi.bake_camera", icon='FCURVE')
        column.operator("koshi.bake_curves", icon='CAMERA_DATA')


class _Feedback:
    bl_order = 3  # after the preview
    bl_label = "Feedback"
    bl_category = "Koshi"
    bl_region_type = 'UI'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "mode")
        column = layout.column()
        for name in ("strength", "noise", "guidance", "seed"):
            column.prop(settings, name)
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "steps")


class KOSHI_PT_view3d(_Main, bpy.types.Panel):
    bl_space_type = 'VIEW_3D'


class KOSHI_PT_view3d_prompts(_Prompts, bpy.types.Panel):
    bl_space_type = 'VIEW_3D'
    bl_parent_id = "KOSHI_PT_view3d"


class KOSHI_PT_view3d_motion(_Motion, bpy.types.Panel):
    bl_space_type = 'VIEW_3D'
    bl_parent_id = "KOSHI_PT_view3d"


class KOSHI_PT_view3d_feedback(_Feedback, bpy.types.Panel):
    bl_space_type = 'VIEW_3D'
    bl_parent_id = "KOSHI_PT_view3d"


class KOSHI_PT_sequencer(_Main, bpy.types.Panel):
    bl_space_type = 'SEQUENCE_EDITOR'


class KOSHI_PT_sequencer_prompts(_Prompts, bpy.types.Panel):
    bl_space_type = 'SEQUENCE_EDITOR'
    bl_parent_id = "KOSHI_PT_sequencer"


class KOSHI_PT_sequencer_motion(_Motion, bpy.types.Panel):
    bl_space_type = 'SEQUENCE_EDITOR'
    bl_parent_id = "KOSHI_PT_sequencer"


class KOSHI_PT_sequencer_feedback(_Feedback, bpy.types.Panel):
    bl_space_type = 'SEQUENCE_EDITOR'
    bl_parent_id = "KOSHI_PT_sequencer"


def _factor() -> float:
    status = state.status
    return status.done / status.frames if status.frames else 0.0


def _progress_text() -> str:
    status = state.status
    return f"Frame {status.done} of {status.frames}" if status.job_id else "Starting"


def _summary(scene: bpy.types.Scene) -> str:
    """What Render will make, from Blender's own output settings."""
    width, height = picture_size(scene)
    fps = scene.render.fps / scene.render.fps_base
    return f"Frames {scene.frame_start} to {scene.frame_end}, {width} x {height}, {fps:g} fps"


def _draw_lines(
    layout: bpy.types.UILayout, text: str, context: bpy.types.Context, icon: str = 'NONE'
) -> None:
    layout.scale_y = 0.8
    for i, line in enumerate(wrapped(text, context)):
        layout.label(text=line, icon=icon if i == 0 or icon == 'NONE' else 'BLANK1')


register, unregister = bpy.utils.register_classes_factory(
    (
        KOSHI_UL_prompts,
        KOSHI_PT_view3d,
        KOSHI_PT_view3d_prompts,
        KOSHI_PT_view3d_motion,
        KOSHI_PT_view3d_feedback,
        KOSHI_PT_sequencer,
        KOSHI_PT_sequencer_prompts,
        KOSHI_PT_sequencer_motion,
        KOSHI_PT_sequencer_feedback,
    )
)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Prompts" panel: the list, and what the selected prompt says."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators import compat, markers


class KOSHI_UL_prompts(bpy.types.UIList):
    """Prompts in the order of their frames"""

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
        if markers.is_off(item):
            row.active = False
            frame.label(text="Off")
        else:
            frame.prop(item, "frame", text="", emboss=False)
        row.prop(item, "text", text="", emboss=False, placeholder="What the picture shows")
        begins = markers.frames_of(item)
        if len(begins) > 1:
            again = row.row()
            again.ui_units_x = 1.5
            again.label(text=f"x {len(begins)}", translate=False)
        if markers.counts_beside(item):
            weight = row.row()
            weight.ui_units_x = 2.5
            weight.prop(item, "weight", text="", emboss=False)
        elif markers.crowded(data.id_data) & set(begins):
            row.label(text="", icon='ERROR')

    def filter_items(
        self, context: bpy.types.Context, data: Any, property: str
    ) -> tuple[list[int], list[int]]:
        prompts = getattr(data, property)
        # What was taken off the timeline stands last.
        order = sorted(range(len(prompts)), key=lambda i: (markers.is_off(prompts[i]), prompts[i].frame))
        places = [0] * len(prompts)
        for place, index in enumerate(order):
            places[index] = place
        return [], places


def _active(context: bpy.types.Context) -> Any | None:
    settings = compat.edited_scene(context).koshi
    return settings.prompts[settings.prompts_index] if 0 <= settings.prompts_index < len(settings.prompts) else None


class Prompts:
    bl_order = 1  # after the preview
    bl_label = "Prompts"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        settings = scene.koshi
        row = layout.row()
        row.template_list("KOSHI_UL_prompts", "", settings, "prompts", settings, "prompts_index", rows=4)
        buttons = row.column(align=True)
        buttons.operator("koshi.prompt_add", text="", icon='ADD')
        buttons.operator("koshi.prompt_remove", text="", icon='REMOVE')
        buttons.separator()
        buttons.operator("koshi.prompt_duplicate", text="", icon='DUPLICATE')
        buttons.prop(settings, "prompt_markers", text="", icon='PMARKER_ACT')
        prompt = _active(context)
        if not len(settings.prompts):
            layout.label(text="Add a prompt with the plus", icon='INFO')
            return
        row = layout.row(align=True)
        row.operator("koshi.prompt_jump", text="", icon='PREV_KEYFRAME').to = 'PREVIOUS'
        row.operator("koshi.prompt_jump", text="", icon='NEXT_KEYFRAME').to = 'NEXT'
        row.operator("koshi.prompt_place", text="Put at Playhead", icon='MARKER_HLT')
        if prompt is None:
            return
        layout.prop(prompt, "text", text="")
        if markers.is_off(prompt):
            layout.label(text="Its marker was deleted: it does not count", icon='INFO')
        elif markers.crowded(scene) & set(markers.frames_of(prompt)):
            layout.label(text="Two prompts begin at this frame", icon='ERROR')


class Blending:
    bl_label = "Blending"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _active(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        prompt = _active(context)
        beside = markers.counts_beside(prompt)
        fixed = layout.column()
        fixed.use_property_decorate = False
        ease = fixed.column()
        ease.active = not beside
        ease.prop(prompt, "ease")
        check = fixed.column()
        check.enabled = not compat.is_animated(prompt, "weight")
        check.prop(prompt, "use_weight")
        if beside:
            layout.column().prop(prompt, "weight")
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(prompt, "negative")


LISTS = (KOSHI_UL_prompts,)

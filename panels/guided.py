# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels "Guided Pictures" and "Mask"."""

from __future__ import annotations

from typing import Any, ClassVar

import bpy

from ..operators import compat, keyed_lists, markers, shot_fields
from .presets import HasPresets


def _crowded(begins: list[list[int]], index: int) -> bool:
    """Whether another picture begins where this one does. begins: each picture's frames."""
    mine = set(begins[index])
    return any(mine & set(other) for k, other in enumerate(begins) if k != index)


class KOSHI_UL_guided(bpy.types.UIList):
    """Guided pictures in the order of their frames"""

    bl_idname = "KOSHI_UL_guided"
    begins: ClassVar[list[list[int]]] = []  # each picture's frames

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
        row.label(text=bpy.path.basename(item.image) or "No picture", icon='IMAGE_DATA')
        if (times := len(self.begins[index])) > 1:
            again = row.row()
            again.ui_units_x = 1.5
            again.label(text=f"x {times}", translate=False)
        if _crowded(self.begins, index):
            row.label(text="", icon='ERROR')

    def filter_items(self, context: bpy.types.Context, data: Any, property: str) -> tuple[list[int], list[int]]:
        items = getattr(data, property)
        # Blender asks for this before it draws the rows: each look goes through all of the scene's markers.
        KOSHI_UL_guided.begins = [markers.frames_of(one) for one in items]
        # What was taken off the timeline stands last.
        order = sorted(range(len(items)), key=lambda i: (markers.is_off(items[i]), items[i].frame))
        places = [0] * len(items)
        for place, index in enumerate(order):
            places[index] = place
        return [], places


class Guided(HasPresets):
    preset_kind = "guided"
    bl_order = 6
    bl_label = "Guided Pictures"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        settings = scene.koshi
        row = layout.row()
        rows = 3 if len(settings.guided_images) else 2
        row.template_list("KOSHI_UL_guided", "", settings, "guided_images", settings, "guided_index", rows=rows)
        buttons = row.column(align=True)
        buttons.operator("koshi.guided_add", text="", icon='ADD')
        buttons.operator("koshi.guided_remove", text="", icon='REMOVE')
        one = keyed_lists.selected(scene, "guided_images", "guided_index")
        if one is None:
            layout.label(text="Pictures that the film is drawn towards", icon='INFO')
            return
        layout.operator("koshi.guided_place", icon='MARKER_HLT')
        layout.use_property_split = True
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(one, "image")
        fixed.prop(one, "frame")
        fixed.separator()
        fixed.prop(settings, "guided_as")
        layout.column().prop(settings, "guided")
        if markers.is_off(one):
            layout.label(text="Its marker was deleted: it does not count", icon='INFO')
        elif _crowded([markers.frames_of(other) for other in settings.guided_images], settings.guided_index):
            layout.label(text="Two pictures begin at this frame: the last one counts", icon='ERROR')


class Mask(HasPresets):
    preset_kind = "mask"
    bl_order = 7
    bl_label = "Mask"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "mask_source")
        if settings.mask_source == 'COLLECTION':
            fixed.prop(settings, "mask", text="Collection")
        elif settings.mask_source == 'FILE':
            fixed.prop(settings, "mask_file", placeholder="mask/####.png")
        elif settings.mask_source == 'WORDS':
            fixed.prop(settings, "mask_where", placeholder="[sky.png] & !{video_mask}")
            if shot_fields.is_named(settings):
                fixed.prop(settings, "mask_file", placeholder="mask/####.png")
        elif not shot_fields.counts("init_image", settings):
            layout.label(text="Set Start From to Picture first", icon='ERROR')
        rest = layout.column()
        rest.active = shot_fields.is_masked(settings)
        rest.prop(settings, "mask_amount")
        more = rest.column()
        more.use_property_decorate = False
        more.prop(settings, "mask_invert")
        more.prop(settings, "mask_blur")
        span = more.column(align=True)
        span.prop(settings, "mask_contrast")
        span.prop(settings, "mask_brightness")
        noise = layout.column()
        noise.use_property_decorate = False
        noise.prop(settings, "mask_noise", placeholder="Everywhere")


LISTS = (KOSHI_UL_guided,)

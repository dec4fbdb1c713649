# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "LoRAs": which ones the model wears, and how much of each."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators import compat, keyed_lists
from .presets import HasPresets


class KOSHI_UL_loras(bpy.types.UIList):
    """LoRAs in the order in which they are put on"""

    bl_idname = "KOSHI_UL_loras"

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
        row.prop(item, "use", text="")
        name = row.row()
        name.active = item.use
        name.label(text=bpy.path.display_name_from_filepath(item.file) or "No file")
        weight = row.row()
        weight.active = item.use
        weight.ui_units_x = 3.0
        weight.prop(item, "weight", text="", emboss=False)


class Loras(HasPresets):
    preset_kind = "loras"
    bl_order = 8
    bl_label = "LoRAs"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        settings = scene.koshi
        row = layout.row()
        rows = 4 if len(settings.loras) else 2
        row.template_list("KOSHI_UL_loras", "", settings, "loras", settings, "loras_index", rows=rows)
        buttons = row.column(align=True)
        buttons.operator("koshi.lora_add", text="", icon='ADD')
        buttons.operator("koshi.lora_remove", text="", icon='REMOVE')
        if len(settings.loras) > 1:
            buttons.separator()
            buttons.operator("koshi.lora_move", text="", icon='TRIA_UP').to = 'UP'
            buttons.operator("koshi.lora_move", text="", icon='TRIA_DOWN').to = 'DOWN'
        lora = keyed_lists.selected(scene, "loras", "loras_index")
        if lora is None:
            layout.label(text="Files that change what the model paints", icon='INFO')
            return
        layout.use_property_split = True
        column = layout.column()
        column.active = lora.use
        fixed = column.column()
        fixed.use_property_decorate = False
        fixed.prop(lora, "file")
        column.prop(lora, "weight")


LISTS = (KOSHI_UL_loras,)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Import and Export" panel: shots, and what Deforum and Parseq write and read."""

from __future__ import annotations

import bpy


class Exchange:
    bl_order = 11
    bl_label = "Import and Export"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("koshi.import_shot", text="Import", icon='IMPORT')
        column = layout.column(align=True)
        column.operator("koshi.export_shot", icon='EXPORT')
        column.operator("koshi.export_deforum", icon='EXPORT')
        column.operator("koshi.export_parseq", icon='EXPORT')
        column = layout.column(align=True)
        column.operator("koshi.copy_schedule", icon='COPYDOWN')
        column.operator("koshi.paste_schedule", icon='PASTEDOWN')

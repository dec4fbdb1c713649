# SPDX-License-Identifier: GPL-3.0-or-later
"""Preferences: which Python runs the backend, and whether it runs now."""

from __future__ import annotations

import blf
import bpy
from bpy.props import StringProperty

from .. import __package__ as base_package


class KoshiPreferences(bpy.types.AddonPreferences):
    """Koshi's preferences."""

    bl_idname = base_package

    backend_python: StringProperty(
        name="Backend Python",
        description="Folder of the virtual environment (.venv) that runs Koshi's backend, or its Python; "
        "when empty, the environment variable KOSHI_PYTHON counts",
        subtype='FILE_PATH',
    )

    def draw(self, context: bpy.types.Context) -> None:
        from ..operators import state

        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "backend_python")
        status = state.status
        row = layout.row()
        row.operator("koshi.connect", text="Connect" if status.server else "Start and Connect", icon='LINKED')
        row.operator("koshi.stop_backend", icon='UNLINKED')
        if status.busy:
            layout.label(text=status.message or "Working", icon='SORTTIME')
        elif status.server:
            layout.label(text=status.server, icon='CHECKMARK')
        if status.error:
            draw_error(layout, status.error, context)


def draw_error(layout: bpy.types.UILayout, error: dict, context: bpy.types.Context) -> None:
    """An error in words, wrapped to the region: for each thing to mend, what is wrong and what to do."""
    box = layout.box().column(align=True)
    box.scale_y = 0.8
    problems = error.get("problems") or []
    for fault in problems if len(problems) > 1 else [error]:
        told = box.column(align=True)
        told.alert = True
        for i, line in enumerate(wrapped(_sentence(fault), context)):
            told.label(text=line, icon='ERROR' if i == 0 else 'BLANK1')
        for line in wrapped(fault.get("hint", ""), context):
            box.label(text=line, icon='BLANK1')


def wrapped(text: str, context: bpy.types.Context) -> list[str]:
    """Lines that fit the region beside an icon; Blender's labels do not wrap by themselves."""
    scale = context.preferences.system.ui_scale
    room = (context.region.width if context.region else 300) - 96 * scale
    blf.size(0, context.preferences.ui_styles[0].widget.points * scale)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and blf.dimensions(0, longer)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _sentence(fault: dict) -> str:
    """A fault's message; the backend's name the field apart."""
    message = fault.get("message", "")
    return message if message[:1].isupper() else f"{fault.get('field', '')}: {message}"


def register() -> None:
    """Register the preferences."""
    bpy.utils.register_class(KoshiPreferences)


def unregister() -> None:
    """Undo `register`."""
    bpy.utils.unregister_class(KoshiPreferences)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Render > Koshi in Blender's top bar: every operator with its full name, so that F3 finds it in every editor."""

from __future__ import annotations

import bpy

# In the order of the work. None draws a line.
OPERATORS = (
    ("koshi.render", 'RENDER_ANIMATION'),
    ("koshi.resume", 'PLAY'),
    ("koshi.render_from_here", 'TRACKING_FORWARDS'),
    ("koshi.cancel", 'X'),
    None,
    ("koshi.take_rerender", 'FILE_REFRESH'),
    ("koshi.redo_from_strip", 'LOOP_BACK'),
    ("koshi.take_replace", 'UV_SYNC_SELECT'),
    ("koshi.take_add", 'ADD'),
    ("koshi.interpolated_strip", 'MOD_TIME'),
    ("koshi.strip_as_video", 'FILE_MOVIE'),
    None,
    ("koshi.preview", 'RENDER_STILL'),
    ("koshi.preview_live", 'PLAY'),
    ("koshi.motion_preview", 'UV'),
    ("koshi.preview_cancel", 'X'),
    None,
    ("koshi.prompt_add", 'ADD'),
    ("koshi.prompt_duplicate", 'DUPLICATE'),
    ("koshi.prompt_place", 'MARKER_HLT'),
    ("koshi.prompt_remove", 'REMOVE'),
    ("koshi.guided_add", 'IMAGE_DATA'),
    ("koshi.lora_add", 'MOD_HUE_SATURATION'),
    None,
    ("koshi.sound_to_curve", 'SOUND'),
    ("koshi.bake_camera", 'FCURVE'),
    ("koshi.bake_curves", 'CAMERA_DATA'),
    ("koshi.guides_clear", 'TRASH'),
    ("koshi.exact_colors", 'COLOR'),
    None,
    ("koshi.import_shot", 'IMPORT'),
    ("koshi.export_shot", 'EXPORT'),
    ("koshi.export_deforum", 'EXPORT'),
    ("koshi.export_parseq", 'EXPORT'),
    ("koshi.copy_schedule", 'COPYDOWN'),
    ("koshi.paste_schedule", 'PASTEDOWN'),
    None,
    ("koshi.new_project", 'FILE_NEW'),
    ("koshi.setup_backend", 'IMPORT'),
    ("koshi.connect", 'LINKED'),
    ("koshi.stop_backend", 'UNLINKED'),
    ("koshi.diagnose", 'VIEWZOOM'),
    ("koshi.show_preferences", 'PREFERENCES'),
)


class KOSHI_MT_koshi(bpy.types.Menu):
    """What Koshi does"""

    bl_label = "Koshi"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_context = 'INVOKE_DEFAULT'
        for entry in OPERATORS:
            if entry is None:
                layout.separator()
            else:
                layout.operator(entry[0], icon=entry[1])
        row = layout.row(align=True)
        row.operator("koshi.prompt_jump", text="Jump to Prompt Before", icon='PREV_KEYFRAME').to = 'PREVIOUS'
        row.operator("koshi.prompt_jump", text="Jump to Next Prompt", icon='NEXT_KEYFRAME').to = 'NEXT'


def _draw(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu("KOSHI_MT_koshi", icon='SEQ_STRIP_DUPLICATE')


def register() -> None:
    """Add the menu."""
    bpy.utils.register_class(KOSHI_MT_koshi)
    bpy.types.TOPBAR_MT_render.append(_draw)


def unregister() -> None:
    """Remove it."""
    bpy.types.TOPBAR_MT_render.remove(_draw)
    bpy.utils.unregister_class(KOSHI_MT_koshi)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Strip" panel: what the selected strip is to Koshi; and the same in the sequencer's menus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..operators import compat, engine_colors, sequencer, strip_about
from ..operators.take_operators import active_strip
from .preferences import wrapped

LINES = 4  # of a prompt


class KOSHI_PT_strip(bpy.types.Panel):
    bl_label = "Strip"
    bl_category = "Koshi"
    bl_space_type = 'SEQUENCE_EDITOR'
    bl_region_type = 'UI'

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active_strip(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout, strip = self.layout, active_strip(context)
        if strip.type == 'IMAGE' and strip.get(sequencer.TAG):
            _take(layout, context, strip)
        elif strip.type == 'SOUND':
            _named(layout, strip, 'SOUND')
            layout.operator("koshi.sound_to_curve", icon='FCURVE')
        else:
            _named(layout, strip, 'SEQUENCE')
        if strip.type != 'SOUND':
            layout.operator_menu_enum("koshi.strip_as_video", "purpose", icon='FILE_MOVIE')
        layout.operator_menu_enum("koshi.take_add", "take", icon='ADD')


def _take(layout: bpy.types.UILayout, context: bpy.types.Context, strip: Any) -> None:
    """What a take was made with, and what can be done with it."""
    _named(layout, strip, 'RENDER_ANIMATION')
    about = layout.column(align=True)
    about.scale_y = 0.8
    take = Path(bpy.path.abspath(strip.directory)).name
    about.label(text=f"Shot {str(strip[sequencer.TAG])[:8]}, {len(strip.elements)} frames")
    if strip_about.MODEL in strip:
        model = str(strip[strip_about.MODEL]).replace("\\", "/").rstrip("/").rpartition("/")[2]
        about.label(text=f"{model}, seed {strip.get(strip_about.SEED, 0)}")
        lines = [line for text in str(strip.get(strip_about.PROMPT, "")).split("\n") for line in wrapped(text, context)]
        for line in lines[:LINES]:
            about.label(text=line)
        if len(lines) > LINES:
            about.label(text="…")
    if not strip.name.startswith(take):
        about.label(text=take, translate=False)
    column = layout.column(align=True)
    column.operator("koshi.redo_from_strip", icon='LOOP_BACK')
    column.operator_menu_enum("koshi.take_replace", "take", icon='FILE_REFRESH')
    column.operator("koshi.take_rerender", icon='RENDER_ANIMATION')
    column.menu("KOSHI_MT_between", icon='MOD_ARRAY')
    changed = engine_colors.what_changes(compat.edited_scene(context))
    if changed := [one for one in changed if not one.startswith("Dither")]:  # which nobody sees
        box = layout.box().column(align=True)
        box.scale_y = 0.8
        for k, line in enumerate(wrapped(f"The scene changes the take's colors: {', '.join(changed)}", context)):
            box.label(text=line, icon='NONE' if k else 'ERROR')
        layout.operator("koshi.exact_colors", icon='COLOR')


def _named(layout: bpy.types.UILayout, strip: Any, icon: str) -> None:
    row = layout.row()
    row.label(text=strip.name, icon=icon, translate=False)


class KOSHI_MT_strip(bpy.types.Menu):
    """What Koshi does with the active strip"""

    bl_label = "Koshi"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_context = 'INVOKE_DEFAULT'
        layout.operator("koshi.redo_from_strip", icon='LOOP_BACK')
        layout.operator_menu_enum("koshi.take_replace", "take", icon='FILE_REFRESH')
        layout.operator("koshi.take_rerender", icon='RENDER_ANIMATION')
        layout.menu("KOSHI_MT_between", icon='MOD_ARRAY')
        layout.separator()
        layout.operator_menu_enum("koshi.strip_as_video", "purpose", icon='FILE_MOVIE')
        layout.operator("koshi.sound_to_curve", icon='FCURVE')


class KOSHI_MT_between(bpy.types.Menu):
    """Make pictures between the take's frames, along their motion, and show them in a second strip beside it"""

    bl_label = "Interpolated Strip"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_context = 'INVOKE_DEFAULT'
        for playing, words in (('SAME', "As Long as the Take"), ('SLOW', "In Slow Motion")):
            layout.label(text=iface_(words), translate=False)
            for factor in ("2", "4", "8"):
                given = layout.operator("koshi.interpolated_strip", text=f"{factor} x", translate=False)
                given.factor, given.playing = factor, playing


def _draw_strip(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu("KOSHI_MT_strip", icon='SEQ_STRIP_DUPLICATE')


def _draw_context(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    """On top of the right-click menu, which is higher than a small window, what can be done with this strip."""
    strip = active_strip(context)
    if strip is None or strip.type not in ('IMAGE', 'MOVIE'):
        return
    if strip.get(sequencer.TAG):
        menu.layout.menu("KOSHI_MT_strip", icon='SEQ_STRIP_DUPLICATE')
    else:
        menu.layout.operator_menu_enum("koshi.strip_as_video", "purpose", icon='FILE_MOVIE')
    menu.layout.separator()


def _draw_add(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.operator_menu_enum("koshi.take_add", "take", text="Koshi Take", icon='RENDER_ANIMATION')


CLASSES = (KOSHI_PT_strip, KOSHI_MT_strip, KOSHI_MT_between)


def register() -> None:
    """Add the panel and the menus' entries."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.SEQUENCER_MT_strip.append(_draw_strip)
    bpy.types.SEQUENCER_MT_context_menu.prepend(_draw_context)
    bpy.types.SEQUENCER_MT_add.append(_draw_add)


def unregister() -> None:
    """Remove them."""
    bpy.types.SEQUENCER_MT_add.remove(_draw_add)
    bpy.types.SEQUENCER_MT_context_menu.remove(_draw_context)
    bpy.types.SEQUENCER_MT_strip.remove(_draw_strip)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

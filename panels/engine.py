# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender's property editors show while the Koshi engine is chosen."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..operators import engine_colors, engine_strips
from ..operators.camera import picture_size
from ..operators.engine_session import ENGINE
from .preferences import wrapped

# Blender has a panel for an engine if the panel names it. What the built-in engines share is taken over ...
SHARED = {"BLENDER_RENDER", "BLENDER_WORKBENCH"}
# ... with the surfaces, lights and world that the viewport, and renders of the scene for a shot, show ...
SURFACES = {
    "EEVEE_MATERIAL_PT_surface",
    "EEVEE_MATERIAL_PT_volume",
    "EEVEE_MATERIAL_PT_displacement",
    "EEVEE_WORLD_PT_surface",
    "EEVEE_WORLD_PT_volume",
}
# ... and without what has no effect on a painted picture.
WITHOUT = ("RENDER_PT_opengl", "RENDER_PT_eevee_hair", "VIEWLAYER_PT_workbench", "VIEWLAYER_PT_layer_passes")
WITHOUT_WORDS = ("freestyle", "stereoscopy", "output_views", "gpencil", "grease_pencil", "greasepencil")

_taken: list[type[bpy.types.Panel]] = []


class KOSHI_PT_engine(bpy.types.Panel):
    """The engine's own panel in Render Properties"""

    bl_label = "Koshi"
    bl_space_type = 'PROPERTIES'
    bl_region_type = 'WINDOW'
    bl_context = "render"
    COMPAT_ENGINES = {ENGINE}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.engine in cls.COMPAT_ENGINES

    def draw(self, context: bpy.types.Context) -> None:
        layout, scene = self.layout, context.scene
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.prop(scene.koshi, "model")
        if scene.koshi.model == 'CUSTOM':
            column.prop(scene.koshi, "model_path")
        column.prop(scene.koshi, "steps")
        width, height = picture_size(scene)
        told = layout.column(align=True)
        told.scale_y = 0.8
        shot = iface_("Frames {} to {}, {} x {}").format(scene.frame_start, scene.frame_end, width, height)
        for line in wrapped(f"{shot}. {iface_('Prompts and motion: sidebar of the 3D view')}.", context):
            told.label(text=line)
        if engine_strips.renders_strips(scene):
            box = layout.box().column()
            told = iface_("Blender renders the sequencer's strips instead, as not all are Koshi's")
            for i, line in enumerate(wrapped(told, context)):
                box.label(text=line, icon='ERROR' if i == 0 else 'BLANK1')
            box.prop(scene.render, "use_sequencer")
        changed = engine_colors.what_changes(scene)
        if not changed:
            layout.label(text="Colors stay exactly as painted", icon='CHECKMARK')
            return
        box = layout.box().column()
        lines = box.column(align=True)
        lines.scale_y = 0.8
        told = iface_("{} changes the painted colors").format(", ".join(changed))
        for i, line in enumerate(wrapped(told, context)):
            lines.label(text=line, icon='ERROR' if i == 0 else 'BLANK1')
        box.operator("koshi.exact_colors")


def _panels(cls: type = bpy.types.Panel) -> Iterator[type[bpy.types.Panel]]:
    for panel in cls.__subclasses__():
        yield panel
        yield from _panels(panel)


def _wanted(panel: type[bpy.types.Panel]) -> bool:
    name, engines = panel.__name__, getattr(panel, "COMPAT_ENGINES", set())
    if name in SURFACES:
        return True
    dropped = name.startswith(WITHOUT) or any(word in name for word in WITHOUT_WORDS)
    return not dropped and bool(SHARED & set(engines))


def register() -> None:
    """Add the panel, and the engine to the panels of others."""
    bpy.utils.register_class(KOSHI_PT_engine)
    for panel in _panels():
        engines = getattr(panel, "COMPAT_ENGINES", None)
        if isinstance(engines, set) and ENGINE not in engines and _wanted(panel):
            engines.add(ENGINE)
            _taken.append(panel)


def unregister() -> None:
    """Undo `register`."""
    for panel in _taken:
        panel.COMPAT_ENGINES.discard(ENGINE)
    _taken.clear()
    bpy.utils.unregister_class(KOSHI_PT_engine)

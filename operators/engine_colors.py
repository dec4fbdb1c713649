# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's colour management, so that it leaves finished pictures as they are.

What a model paints is a finished picture. The Standard view without look, exposure, curves and dither is the exact
inverse of reading it (0 of 256 values differ); AgX changes 8-bit values by up to 111, the default dither a third of
them by 1.
"""

from __future__ import annotations

from typing import Any

import bpy

from . import compat

NEUTRAL = {
    "view_transform": 'Standard',
    "look": 'None',
    "exposure": 0.0,
    "gamma": 1.0,
    "use_curve_mapping": False,
    "use_white_balance": False,  # from 4.3
    "use_hdr_view": False,
}
NAMES = {
    "view_transform": "View Transform",
    "look": "Look",
    "exposure": "Exposure",
    "gamma": "Gamma",
    "use_curve_mapping": "Use Curves",
    "use_white_balance": "White Balance",
    "use_hdr_view": "High Dynamic Range",
}


def what_changes(scene: bpy.types.Scene) -> list[str]:
    """The settings that would change the pictures, in the words of Blender's panels."""
    found = []
    for view in _views(scene):
        for name, wanted in NEUTRAL.items():
            value = getattr(view, name, wanted)
            if value != wanted:
                shown = "on" if value is True else f"{value:g}" if isinstance(value, float) else value
                found.append(f"{NAMES[name]} {shown}")
    if scene.render.dither_intensity:
        found.append(f"Dither {scene.render.dither_intensity:g}")
    return list(dict.fromkeys(found))


def make_exact(scene: bpy.types.Scene) -> str:
    """Set the scene so that nothing changes the pictures; returns a sentence that says what was changed, or ""."""
    changed = what_changes(scene)
    if not changed:
        return ""
    scene.render.dither_intensity = 0.0
    for view in _views(scene):
        for name, wanted in NEUTRAL.items():
            if getattr(view, name, wanted) != wanted:
                try:
                    setattr(view, name, wanted)
                except TypeError:  # a colour configuration without this view or look
                    return f"This colour configuration has no {NAMES[name]} {wanted}: the frames' colours will change."
    return f"{', '.join(changed)}: set to Standard, without dither, so that the frames keep their colours."


def warning(changed: list[str]) -> str:
    """What to tell when it is too late to change anything."""
    return (
        f"Koshi: {', '.join(changed)} will change the colours of the finished picture. "
        "Press Keep Exact Colors in Render Properties > Koshi."
    )


def _views(scene: bpy.types.Scene) -> list[Any]:
    settings = scene.render.image_settings
    own = getattr(settings, "color_management", 'FOLLOW_SCENE') == 'OVERRIDE'
    return [scene.view_settings, *([settings.view_settings] if own else [])]


class KOSHI_OT_exact_colors(bpy.types.Operator):
    """Set the view transform to Standard and dither to 0, so that rendered frames have exactly the model's colors"""

    bl_idname = "koshi.exact_colors"
    bl_label = "Keep Exact Colors"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: bpy.types.Context) -> set[str]:
        told = make_exact(compat.edited_scene(context))
        self.report({'INFO'}, told or "The colors are exact already")
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_exact_colors,))

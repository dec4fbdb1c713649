# SPDX-License-Identifier: GPL-3.0-or-later
"""The preset menus in the headers of the panels."""

from __future__ import annotations

import bpy
from bl_ui.utils import PresetPanel

from ..operators import presets


class _Presets(PresetPanel):
    bl_label = "Presets"
    preset_operator = "script.execute_preset"
    kind = ""

    @classmethod
    def reset_cb(cls, context: bpy.types.Context, filepath: str) -> None:
        presets.forget_curves(context, cls.kind)

    @classmethod
    def post_cb(cls, context: bpy.types.Context, filepath: str) -> None:
        presets.key_what_is_keyed(context, cls.kind)
        if bpy.ops.ed.undo_push.poll():
            bpy.ops.ed.undo_push(message="Koshi Preset")


def _menu(name: str) -> type[bpy.types.Panel]:
    about = {
        "__module__": __name__,
        "kind": name,
        "preset_subdir": f"koshi/{name}",
        "preset_add_operator": f"koshi.{name}_preset_add",
    }
    return type(f"KOSHI_PT_{name}_presets", (_Presets, bpy.types.Panel), about)


MENUS = {name: _menu(name) for name in presets.HOLDS}


class HasPresets:
    """Mixin: a panel whose header has the presets of one kind."""

    preset_kind = ""

    def draw_header_preset(self, context: bpy.types.Context) -> None:
        MENUS[self.preset_kind].draw_panel_header(self.layout)


register, unregister = bpy.utils.register_classes_factory(MENUS.values())

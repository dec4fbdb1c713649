# SPDX-License-Identifier: GPL-3.0-or-later
"""Add and remove prompts."""

from __future__ import annotations

import bpy

from . import compat


class KOSHI_OT_prompt_add(bpy.types.Operator):
    """Add a prompt that counts from the playhead on"""

    bl_idname = "koshi.prompt_add"
    bl_label = "Add Prompt at Playhead"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings = scene.koshi
        for index, prompt in enumerate(settings.prompts):
            if prompt.frame == scene.frame_current:
                settings.prompts_index = index
                self.report({'INFO'}, f"There is a prompt at frame {prompt.frame} already")
                return {'CANCELLED'}
        # The prompt in force here is the best start for its successor.
        earlier = [p for p in settings.prompts if p.frame < scene.frame_current]
        text = max(earlier, key=lambda p: p.frame).text if earlier else ""
        place = len(earlier)
        prompt = settings.prompts.add()
        prompt.frame, prompt.text = scene.frame_current, text
        settings.prompts.move(len(settings.prompts) - 1, place)
        settings.prompts_index = place
        return {'FINISHED'}


class KOSHI_OT_prompt_remove(bpy.types.Operator):
    """Remove the selected prompt"""

    bl_idname = "koshi.prompt_remove"
    bl_label = "Remove Prompt"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        settings = compat.edited_scene(context).koshi
        if not 0 <= settings.prompts_index < len(settings.prompts):
            cls.poll_message_set("Select a prompt first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = compat.edited_scene(context).koshi
        settings.prompts.remove(settings.prompts_index)
        settings.prompts_index = min(settings.prompts_index, max(len(settings.prompts) - 1, 0))
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_prompt_add, KOSHI_OT_prompt_remove))

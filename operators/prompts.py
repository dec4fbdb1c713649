# SPDX-License-Identifier: GPL-3.0-or-later
"""Add, remove, duplicate and move prompts, and go from one to the next."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from . import compat, keyed_lists, marker_watch, markers


class KOSHI_OT_prompt_add(bpy.types.Operator):
    """Add a prompt that counts from the playhead on"""

    bl_idname = "koshi.prompt_add"
    bl_label = "Add Prompt at Playhead"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.may_change(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings, frame = scene.koshi, scene.frame_current
        for index, prompt in enumerate(settings.prompts):
            if frame in markers.frames_of(prompt):
                settings.prompts_index = index
                self.report({'INFO'}, f"There is a prompt at frame {frame} already")
                return {'CANCELLED'}
        # The prompt in force here is the best start for its successor.
        earlier = [(at, p.text) for p in settings.prompts for at in markers.frames_of(p) if at < frame]
        text = max(earlier, key=lambda one: one[0])[1] if earlier else ""
        _new(scene, frame).text = text
        markers.show_all(scene)
        return {'FINISHED'}


class _OfTheSelected:
    """An operator for the selected prompt."""

    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if _selected(compat.edited_scene(context)) is None:
            cls.poll_message_set("Select a prompt first")  # type: ignore[attr-defined]
            return False
        return compat.may_change(cls, context)  # type: ignore[arg-type]


class KOSHI_OT_prompt_remove(_OfTheSelected, bpy.types.Operator):
    """Remove the selected prompt, its marker and its keyframes"""

    bl_idname = "koshi.prompt_remove"
    bl_label = "Remove Prompt"

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings = scene.koshi
        index = settings.prompts_index
        markers.remove(settings.prompts[index])
        keyed_lists.remove(scene, "prompts", index)
        settings.prompts_index = min(index, max(len(settings.prompts) - 1, 0))
        return {'FINISHED'}


class KOSHI_OT_prompt_duplicate(_OfTheSelected, bpy.types.Operator):
    """Copy the selected prompt to the playhead, or to the next frame that has none"""

    bl_idname = "koshi.prompt_duplicate"
    bl_label = "Duplicate Prompt"

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        taken = {frame for prompt in scene.koshi.prompts for frame in markers.frames_of(prompt)}
        frame = scene.frame_current
        while frame in taken:
            frame += 1
        index = scene.koshi.prompts_index
        copy = _new(scene, frame)
        for name in ("text", "negative", "ease", "use_weight", "weight"):
            setattr(copy, name, getattr(scene.koshi.prompts[index], name))
        markers.show_all(scene)
        return {'FINISHED'}


class KOSHI_OT_prompt_place(_OfTheSelected, bpy.types.Operator):
    """Let the selected prompt begin at the playhead"""

    bl_idname = "koshi.prompt_place"
    bl_label = "Put Prompt at Playhead"

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        prompt = _selected(scene)
        others = [one for one in scene.koshi.prompts if one != prompt and not markers.counts_beside(one)]
        if not markers.counts_beside(prompt) and any(scene.frame_current in markers.frames_of(one) for one in others):
            self.report({'WARNING'}, f"There is a prompt at frame {scene.frame_current} already")
            return {'CANCELLED'}
        if scene.koshi.prompt_markers or prompt.marker:
            markers.put(prompt, scene.frame_current)
        else:
            prompt.frame = scene.frame_current
        return {'FINISHED'}


class KOSHI_OT_prompt_jump(bpy.types.Operator):
    """Put the playhead where a prompt begins, and select that prompt"""

    bl_idname = "koshi.prompt_jump"
    bl_label = "Jump to Prompt"
    bl_options = {'REGISTER', 'UNDO'}

    to: EnumProperty(
        name="To",
        items=(
            ('PREVIOUS', "Previous", "Back to where the prompt before begins"),
            ('NEXT', "Next", "On to where the next prompt begins"),
            ('SELECTED', "Selected", "To where the selected prompt begins"),
        ),
        default='NEXT',
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not len(compat.edited_scene(context).koshi.prompts):
            cls.poll_message_set("There are no prompts")
            return False
        return True

    @classmethod
    def description(cls, context: bpy.types.Context, properties: Any) -> str:
        return {
            'PREVIOUS': "Go back to where the prompt before begins, and select it",
            'NEXT': "Go on to where the next prompt begins, and select it",
        }.get(properties.to, "Go to where the selected prompt begins")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings, now = scene.koshi, scene.frame_current
        begins = sorted((at, k) for k, prompt in enumerate(settings.prompts) for at in markers.frames_of(prompt))
        if self.to == 'PREVIOUS':
            begins = [one for one in begins if one[0] < now][-1:]
        elif self.to == 'NEXT':
            begins = [one for one in begins if one[0] > now]
        else:
            begins = [one for one in begins if one[1] == settings.prompts_index]
        if not begins:
            self.report({'INFO'}, "There is no prompt further on" if self.to == 'NEXT' else "There is none")
            return {'CANCELLED'}
        scene.frame_set(begins[0][0])
        settings.prompts_index = begins[0][1]
        return {'FINISHED'}


def clear(scene: bpy.types.Scene) -> None:
    """Remove all prompts, their markers and their keyframes."""
    settings = scene.koshi
    for prompt in settings.prompts:
        markers.remove(prompt)
    keyed_lists.clear(scene, "prompts")
    settings.prompts_index = 0


def _selected(scene: bpy.types.Scene) -> Any | None:
    settings = scene.koshi
    return settings.prompts[settings.prompts_index] if 0 <= settings.prompts_index < len(settings.prompts) else None


def _new(scene: bpy.types.Scene, frame: int) -> Any:
    """A new prompt, last of all and selected: keyframes know the others by their numbers, which stay."""
    prompt = scene.koshi.prompts.add()
    prompt.frame = frame
    scene.koshi.prompts_index = len(scene.koshi.prompts) - 1
    return prompt


CLASSES = (
    KOSHI_OT_prompt_add,
    KOSHI_OT_prompt_remove,
    KOSHI_OT_prompt_duplicate,
    KOSHI_OT_prompt_place,
    KOSHI_OT_prompt_jump,
)


def register() -> None:
    """Add the operators, and look after the markers."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    marker_watch.register()


def unregister() -> None:
    """Undo `register`."""
    marker_watch.unregister()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

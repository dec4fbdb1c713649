# SPDX-License-Identifier: GPL-3.0-or-later
"""Add, remove and move guided pictures and LoRAs."""

from __future__ import annotations

import os
from typing import Any

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, StringProperty

from . import compat, keyed_lists, markers


class _Chooser:
    """An operator that asks for one file or for several in the file browser."""

    bl_options = {'REGISTER', 'UNDO'}

    files: CollectionProperty(type=bpy.types.OperatorFileListElement, options={'HIDDEN', 'SKIP_SAVE'})
    directory: StringProperty(subtype='DIR_PATH', options={'HIDDEN', 'SKIP_SAVE'})
    filepath: StringProperty(subtype='FILE_PATH', options={'HIDDEN', 'SKIP_SAVE'})
    scene: StringProperty(options={'HIDDEN', 'SKIP_SAVE'})  # the file browser may know another one
    filter_folder: BoolProperty(default=True, options={'HIDDEN', 'SKIP_SAVE'})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.may_change(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.scene = compat.edited_scene(context).name
        context.window_manager.fileselect_add(self)
        return {'RUNNING_MODAL'}

    def chosen(self) -> list[str]:
        """Their paths, in the order of their names; relative to the .blend where it is saved and they are on its
        disk."""
        names = sorted(one.name for one in self.files if one.name)
        paths = [os.path.join(self.directory, name) for name in names] or ([self.filepath] if self.filepath else [])
        return [relative(path) for path in paths if not os.path.isdir(path)]

    def of(self, context: bpy.types.Context) -> bpy.types.Scene:
        """The scene that was edited where the operator was called."""
        return bpy.data.scenes.get(self.scene) or compat.edited_scene(context)


class KOSHI_OT_guided_add(_Chooser, bpy.types.Operator):
    """Choose a picture that the shot is drawn towards from the playhead on"""

    bl_idname = "koshi.guided_add"
    bl_label = "Add Guided Picture at Playhead"

    filter_image: BoolProperty(default=True, options={'HIDDEN', 'SKIP_SAVE'})

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = self.of(context)
        settings, paths = scene.koshi, self.chosen()
        if not paths:
            self.report({'ERROR'}, "Choose a picture")
            return {'CANCELLED'}
        taken = {frame for one in settings.guided_images for frame in markers.frames_of(one)}
        frame = scene.frame_current
        for path in paths:
            while frame in taken:
                frame += 1
            one = settings.guided_images.add()
            one.frame, one.image = frame, path
            taken.add(frame)
        settings.guided_index = len(settings.guided_images) - 1
        markers.show_all(scene)
        return {'FINISHED'}


class KOSHI_OT_guided_remove(bpy.types.Operator):
    """Remove the selected guided picture from the list, and its marker; its file stays"""

    bl_idname = "koshi.guided_remove"
    bl_label = "Remove Guided Picture"
    bl_options = {'REGISTER', 'UNDO', 'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _needs(cls, context, "guided_images", "guided_index", "Select a guided picture first")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        markers.remove(keyed_lists.selected(scene, "guided_images", "guided_index"))
        keyed_lists.remove(scene, "guided_images", scene.koshi.guided_index)
        scene.koshi.guided_index = min(scene.koshi.guided_index, max(len(scene.koshi.guided_images) - 1, 0))
        return {'FINISHED'}


class KOSHI_OT_guided_place(bpy.types.Operator):
    """Let the selected guided picture begin at the playhead"""

    bl_idname = "koshi.guided_place"
    bl_label = "Put at Playhead"
    bl_options = {'REGISTER', 'UNDO', 'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _needs(cls, context, "guided_images", "guided_index", "Select a guided picture first")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        one = keyed_lists.selected(scene, "guided_images", "guided_index")
        if scene.koshi.prompt_markers or one.marker:
            markers.put(one, scene.frame_current)
        else:
            one.frame = scene.frame_current
        return {'FINISHED'}


class KOSHI_OT_lora_add(_Chooser, bpy.types.Operator):
    """Choose LoRAs for the model to wear: .safetensors files that were trained for its family"""

    bl_idname = "koshi.lora_add"
    bl_label = "Add LoRA"

    filter_glob: StringProperty(default="*.safetensors", options={'HIDDEN', 'SKIP_SAVE'})

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings, paths = self.of(context).koshi, self.chosen()
        if not paths:
            self.report({'ERROR'}, "Choose a .safetensors file")
            return {'CANCELLED'}
        for path in paths:
            settings.loras.add().file = path
        settings.loras_index = len(settings.loras) - 1
        return {'FINISHED'}


class KOSHI_OT_lora_remove(bpy.types.Operator):
    """Remove the selected LoRA from the list, with its keyframes; its file stays"""

    bl_idname = "koshi.lora_remove"
    bl_label = "Remove LoRA"
    bl_options = {'REGISTER', 'UNDO', 'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _needs(cls, context, "loras", "loras_index", "Select a LoRA first")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        keyed_lists.remove(scene, "loras", scene.koshi.loras_index)
        scene.koshi.loras_index = min(scene.koshi.loras_index, max(len(scene.koshi.loras) - 1, 0))
        return {'FINISHED'}


class KOSHI_OT_lora_move(bpy.types.Operator):
    """Move the selected LoRA in the list, with its keyframes"""

    bl_idname = "koshi.lora_move"
    bl_label = "Move LoRA"
    bl_options = {'REGISTER', 'UNDO', 'INTERNAL'}

    to: EnumProperty(
        name="To",
        items=(('UP', "Up", "One place up"), ('DOWN', "Down", "One place down")),
        default='UP',
        options={'SKIP_SAVE'},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _needs(cls, context, "loras", "loras_index", "Select a LoRA first")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        index = scene.koshi.loras_index
        to = index + (-1 if self.to == 'UP' else 1)
        if not 0 <= to < len(scene.koshi.loras):
            return {'CANCELLED'}
        keyed_lists.move(scene, "loras", index, to)
        scene.koshi.loras_index = to
        return {'FINISHED'}


def clear(scene: bpy.types.Scene) -> None:
    """Remove all guided pictures and LoRAs, with their markers and keyframes."""
    for one in scene.koshi.guided_images:
        markers.remove(one)
    for name, index_name in (("guided_images", "guided_index"), ("loras", "loras_index")):
        keyed_lists.clear(scene, name)
        setattr(scene.koshi, index_name, 0)


def _needs(cls: Any, context: bpy.types.Context, name: str, index_name: str, message: str) -> bool:
    if keyed_lists.selected(compat.edited_scene(context), name, index_name) is None:
        cls.poll_message_set(message)
        return False
    return compat.may_change(cls, context)


def relative(path: str) -> str:
    """A file's path as Blender's own fields write it: relative to the .blend, unless the artist wants it otherwise."""
    if not bpy.data.filepath or not bpy.context.preferences.filepaths.use_relative_paths:
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # another drive
        return path


register, unregister = bpy.utils.register_classes_factory(
    (
        KOSHI_OT_guided_add,
        KOSHI_OT_guided_remove,
        KOSHI_OT_guided_place,
        KOSHI_OT_lora_add,
        KOSHI_OT_lora_remove,
        KOSHI_OT_lora_move,
    )
)

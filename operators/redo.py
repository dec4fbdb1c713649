# SPDX-License-Identifier: GPL-3.0-or-later
"""Redo From Strip: the scene gets everything that a take was made with, so that rendering gives it again."""

from __future__ import annotations

from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import compat, import_shot, reader, sample, sequencer, shot_compare, start, state, strip_about
from .take_operators import active_strip, needs_take


def restore(scene: bpy.types.Scene, strip: Any) -> tuple[list[str], list[str]]:
    """Give a scene what the strip's take was rendered from: size, rate, range, model, seed, prompts, settings, and the
    curves as keyframes. Returns in what a render of the scene would still differ, and remarks.

    Raises BridgeError "no_take" and "bad_shot"; the scene is as it was then.
    """
    take = sequencer.take_of(scene, strip)
    if take is None:
        raise BridgeError("no_take", "The strip shows no take of Koshi's.", "Select one that Koshi has rendered.")
    shot = start.shot_of(take)
    # What it cannot take over, such as a camera's motion, either comes from the scene again or is found below.
    import_shot.apply_shot(scene, shot_compare.unstepped(shot), folder=reader.shot_file(take.folder).parent)
    scene.frame_step = shot.get("frame_step", 1)
    if shot.get("motion", {}).get("source") == "camera":  # the flat motion of a camera is in the curves
        scene.koshi.motion_source = 'EXACT'
    _from_scene(scene, strip.get(strip_about.SIDE) or {})
    try:
        sampled = sample.shot_from_scene(scene)
    except BridgeError as error:
        return [error.message], []
    return shot_compare.differences(shot, sampled.shot), sampled.notes


def _from_scene(scene: bpy.types.Scene, side: Any) -> None:
    """Take from the scene itself again what the take took from it, as far as that is still there."""
    settings = scene.koshi
    if side.get("start") == 'SCENE':
        settings.start = 'SCENE'
    if side.get("structure") not in (None, "", 'NONE', 'FILE'):
        settings.structure = side["structure"]
    if side.get("video_source") in ('SCENE', 'CLAY'):
        settings.video_source = side["video_source"]
    if side.get("depth_source") == "scene":
        settings.depth_source = "scene"
    if mask := bpy.data.collections.get(side.get("mask", "")):
        settings.mask = mask
    camera = scene.objects.get(side.get("camera", ""))
    if camera is not None and camera.type == 'CAMERA':
        scene.camera = camera


class KOSHI_OT_redo_from_strip(bpy.types.Operator):
    """Give the scene everything that this take was made with: size, range, model, seed, prompts, settings, and the
    curves as keyframes. Rendering then gives the same frames"""

    bl_idname = "koshi.redo_from_strip"
    bl_label = "Redo From Strip"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls) and needs_take(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene, strip = compat.strips_scene(context), active_strip(context)
        try:
            differs, notes = restore(scene, strip)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        for note in notes:
            self.report({'INFO'}, f"Koshi: {note}")
        if differs:
            told = f'The scene has the settings of "{strip.name}", but a render would differ in: {"; ".join(differs)}'
            self.report({'WARNING'}, told)
        else:
            self.report({'INFO'}, f'The scene has all settings of "{strip.name}": a render gives the same frames')
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_redo_from_strip,))

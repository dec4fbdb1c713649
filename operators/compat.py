# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference between Blender 4.2 and 5.2 that Koshi meets, in one place."""

from __future__ import annotations

from typing import Any

import bpy


def fcurves(owner: bpy.types.ID) -> Any | None:
    """The F-curves that animate `owner` through its action (from 4.4 on: through its slot). An empty list if there are
    none, None for an action of several layers, which may mix."""
    animation = owner.animation_data
    if animation is None or animation.action is None:
        return []
    action = animation.action
    if not hasattr(action, "layers"):
        return action.fcurves
    if animation.action_slot is None or not len(action.layers):
        return []
    if len(action.layers) > 1 or len(action.layers[0].strips) != 1:
        return None
    bag = action.layers[0].strips[0].channelbag(animation.action_slot)
    return [] if bag is None else bag.fcurves


def every_fcurves(owner: bpy.types.ID) -> list[Any]:
    """All collections of F-curves that animate `owner`: of its action, of the NLA's, and its drivers."""
    animation = owner.animation_data
    if animation is None:
        return []
    used = [animation, *(strip for track in animation.nla_tracks for strip in track.strips)]
    found: list[Any] = [animation.drivers]
    for user in used:
        action, slot = user.action, getattr(user, "action_slot", None)
        if action is None:
            continue
        if not hasattr(action, "layers"):
            found.append(action.fcurves)
            continue
        for layer in action.layers if slot is not None else ():
            bags = (strip.channelbag(slot) for strip in layer.strips)
            found += [bag.fcurves for bag in bags if bag is not None]
    return found


def is_animated(group: bpy.types.PropertyGroup, name: str) -> bool:
    """Whether a value of a group has keyframes or a driver."""
    animation = group.id_data.animation_data
    if animation is None or (animation.action is None and not len(animation.drivers) and not len(animation.nla_tracks)):
        return False
    path = group.path_from_id(name)
    return any(curve.data_path == path for curves in every_fcurves(group.id_data) for curve in curves)


# Options of a file's property: 4.5 and later warn of // in one that does not say that it knows it.
FILE_OPTIONS = {'PATH_SUPPORTS_BLEND_RELATIVE'} if bpy.app.version >= (4, 5) else set()


def storage(group: bpy.types.PropertyGroup, write: bool = False) -> Any:
    """Where the values of properties with `get` and `set` lie, as a dictionary (5.0 keeps them apart)."""
    if hasattr(group, "bl_system_properties_get"):
        return group.bl_system_properties_get(do_create=write) or {}
    return group


def strips(editor: bpy.types.SequenceEditor) -> Any:
    """The top-level strips, as a collection that makes new ones (`sequences` before 4.4)."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def strip_range(strip: Any) -> tuple[int, int]:
    """First frame of a strip and the frame after its last one (`frame_final_*` go away in 6.0)."""
    if hasattr(strip, "left_handle"):
        return int(strip.left_handle), int(strip.right_handle)
    return int(strip.frame_final_start), int(strip.frame_final_end)


def all_strips(editor: bpy.types.SequenceEditor) -> Any:
    """All strips, also those inside meta strips."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def set_strip_range(strip: Any, left: int, right: int) -> None:
    """Put a strip's handles at a first frame and at the frame after its last one; its content stays where it is."""
    newer = hasattr(strip, "left_handle")
    names = ("left_handle", "right_handle") if newer else ("frame_final_start", "frame_final_end")
    ends = list(zip(names, (left, right), strict=True))
    # The one that makes room for the other goes first.
    for name, value in ends if left < strip_range(strip)[1] else reversed(ends):
        setattr(strip, name, value)


def content_start(strip: Any) -> float:
    """The frame at which a strip's content begins, whatever of it the handles hide."""
    return float(strip.content_start if hasattr(strip, "content_start") else strip.frame_start)


def set_content_start(strip: Any, frame: float) -> None:
    """Move a strip in time, its handles with it."""
    setattr(strip, "content_start" if hasattr(strip, "content_start") else "frame_start", frame)


def new_effect(editor: Any, kind: str, name: str, channel: int, left: int, right: int, over: Any) -> Any:
    """An effect strip over another strip (`seq1` before 4.4; an end and no length before 5.0)."""
    span = {"length": right - left} if bpy.app.version >= (5, 0) else {"frame_end": right}
    below = {"input1" if bpy.app.version >= (4, 4) else "seq1": over}
    return strips(editor).new_effect(name=name, type=kind, channel=channel, frame_start=left, **span, **below)


def refresh_element(strip: Any, index: int) -> None:
    """Make Blender read an image strip's file again; from 5.0 on it would show what it remembers."""
    element = strip.elements[index]
    element.filename = element.filename


def edited_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene the user works on here: in a sequencer of 5.0+ that is the sequencer's own scene."""
    area = context.area
    if area is not None and area.type == 'SEQUENCE_EDITOR':
        return getattr(context, "sequencer_scene", None) or context.scene
    return context.scene


def strips_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene whose strips the user means: also beside a sequencer (5.0+), in a menu or by F3, the one it shows."""
    if context.screen is not None and any(area.type == 'SEQUENCE_EDITOR' for area in context.screen.areas):
        return getattr(context, "sequencer_scene", None) or context.scene
    return edited_scene(context)


def may_change(operator: type, context: bpy.types.Context, scene: bpy.types.Scene | None = None) -> bool:
    """For an operator's `poll`: whether the scene can be changed, and if not, the reason."""
    scene = scene or edited_scene(context)
    if scene is None or not scene.is_editable:  # what is written into a linked one is gone when the file is opened
        operator.poll_message_set("The scene is linked from another file and cannot be changed here")  # type: ignore[attr-defined]
        return False
    return True


def show_in_sequencers(scene: bpy.types.Scene) -> None:
    """Give sequencers that show no scene this one (5.0+: a workspace has none until someone chooses)."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        workspace = window.workspace
        if hasattr(workspace, "sequencer_scene") and workspace.sequencer_scene is None:
            workspace.sequencer_scene = scene


def vectors_seen(parallel: bool) -> str:
    """By which camera a frame's Vector pass sees its neighbours: what a shot's `guides.vector_seen` says of it.

    parallel: an orthographic camera. Of one that moves 4.5 to 5.1 make nonsense, unless it stands still while they
    render. 4.2 takes no notice of a lens that changes.
    """
    if bpy.app.version < (4, 3):
        return "lens"
    return "still" if parallel and bpy.app.version < (5, 2) else "camera"


def set_multilayer_exr(settings: Any) -> None:
    """Image settings for an OpenEXR file with all passes in full precision."""
    if hasattr(settings, "media_type"):  # 5.0 and later
        settings.media_type = 'MULTI_LAYER_IMAGE'
    settings.file_format = 'OPEN_EXR_MULTILAYER'
    settings.color_depth = '32'
    settings.exr_codec = 'ZIP'
    if hasattr(settings, "use_exr_interleave"):
        # 5.0 and 5.1 cannot save one part a pass where pixels are not square ("conflicting attributes").
        settings.use_exr_interleave = True


def set_png(settings: Any) -> None:
    """Image settings for an 8-bit PNG without transparency."""
    if hasattr(settings, "media_type"):  # 5.0 and later
        settings.media_type = 'IMAGE'
    settings.file_format = 'PNG'
    settings.color_mode = 'RGB'
    settings.color_depth = '8'

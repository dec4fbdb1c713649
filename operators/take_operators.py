# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with a finished take: other pictures for its strip, and a strip for a take that has none."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import BoolProperty, EnumProperty

from ..bridge_server.protocol import BridgeError
from . import compat, reader, sequencer, start, state, strip_about, take_swap
from .job import Job
from .pumped import PumpedOperator
from .sequencer import Footage, Take

MENU = 40  # takes in a menu, the newest
_items: list[tuple[str, str, str, Any, int]] = []  # Blender keeps no copy of a menu's words
# Of each folder of a take: when its shot and what is in it changed, and its line in the menu.
_read: dict[Path, tuple[tuple[int | None, int | None], tuple[str, str, str, str, int]]] = {}


def active_strip(context: bpy.types.Context) -> Any | None:
    """The strip that is active in the sequencer that the artist works in."""
    scene = compat.strips_scene(context)
    return scene.sequence_editor.active_strip if scene is not None and scene.sequence_editor else None


def needs_take(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """For a `poll`: whether the active strip shows a take, and if not, what to do."""
    strip = active_strip(context)
    if strip is None or strip.type != 'IMAGE' or not strip.get(sequencer.TAG):
        cls.poll_message_set("Select a strip with a take of Koshi's")  # type: ignore[attr-defined]
        return False
    return compat.may_change(cls, context, compat.strips_scene(context))


def _other_takes(operator: Any, context: bpy.types.Context) -> list[tuple[str, str, str, Any, int]]:
    """The menu of takes, the active strip's own last and marked: once it was chosen, the panel of the last operator
    shows it, and Blender wants it among the others."""
    scene, strip = compat.strips_scene(context), active_strip(context)
    own = Path(bpy.path.abspath(strip.directory)) if strip is not None and strip.type == 'IMAGE' else None
    there = take_swap.shelf(scene, own)
    items = [_item(folder) for folder in there if folder != own][:MENU] or [
        ("", "No Other Take", "There is no other take yet", 'NONE', 0)
    ]
    _items[:] = items + [_marked(_item(folder)) for folder in there if folder == own]
    return _items


def _marked(item: tuple[str, str, str, Any, int]) -> tuple[str, str, str, Any, int]:
    """The line of the take that the active strip shows."""
    name, line, about, _, number = item
    return name, iface_("{} (shown now)").format(line), about, 'CHECKMARK', number


def _item(folder: Path) -> tuple[str, str, str, str, int]:
    """A take's line. Blender asks for the menu each time it is drawn: files are read again only once they change."""
    changed = _changed(reader.shot_file(folder)), _changed(folder)
    known = _read.get(folder)
    if known is None or known[0] != changed or None in changed:
        known = _read[folder] = changed, _line(folder)
    return known[1]


def _changed(path: Path) -> int | None:
    """When a file was written last, or something added to a folder."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _line(folder: Path) -> tuple[str, str, str, str, int]:
    number = zlib.crc32(os.fsencode(folder)) >> 1  # Blender keeps this: it must not change as takes are added
    try:
        shot = start.shot_of(Take("", folder, 0, 0))
    except BridgeError:
        return str(folder), folder.name, "Its shot cannot be read", 'ERROR', number
    prompt = strip_about.prompt_of(shot).partition("\n")[0]
    count, seed = len(take_swap.pictures(folder)), shot.get("seed", 0)
    return str(folder), f"{folder.name}: {count} frames, seed {seed}", prompt[:200], 'NONE', number


class _Chosen:
    """An operator for a take: that of the menu, or else one that is searched for."""

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.properties.is_property_set("take") or bpy.app.background:  # type: ignore[attr-defined]
            return self.execute(context)  # type: ignore[attr-defined]
        context.window_manager.invoke_search_popup(self)
        return {'INTERFACE'}  # nothing is done yet: no undo step


class KOSHI_OT_take_replace(_Chosen, bpy.types.Operator):
    """Show another take in this strip. Trims, place, transform, effects, fades and colors of the strip stay"""

    bl_idname = "koshi.take_replace"
    bl_label = "Replace Take"
    bl_property = "take"  # Blender looks for it in the class itself
    bl_options = {'REGISTER', 'UNDO'}

    take: EnumProperty(name="Take", description="The take to show", items=_other_takes)
    pieces: BoolProperty(
        name="All Pieces",
        description="Also in the other strips of this take: pieces that were cut from it, and copies",
        default=True,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return needs_take(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene, strip = compat.strips_scene(context), active_strip(context)
        if not self.take:
            self.report({'ERROR'}, "No take is chosen. If there is none yet, render one")
            return {'CANCELLED'}
        folder = Path(self.take)
        try:
            footage = take_swap.on_disk(folder, start.shot_of(Take("", folder, 0, 0)))
            told = exchange(scene, strip, footage, self.pieces)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        self.report({'INFO'}, f"Koshi: {told}")
        return {'FINISHED'}


class KOSHI_OT_take_add(_Chosen, bpy.types.Operator):
    """Add a strip that shows a take which was rendered before, at its own frames on a free channel"""

    bl_idname = "koshi.take_add"
    bl_label = "Add Take"
    bl_property = "take"
    bl_options = {'REGISTER', 'UNDO'}

    take: EnumProperty(name="Take", description="The take to show", items=_other_takes)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.may_change(cls, context, compat.strips_scene(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene, notes = compat.strips_scene(context), []
        if not self.take:
            self.report({'ERROR'}, "No take is chosen. If there is none yet, render one")
            return {'CANCELLED'}
        folder = Path(self.take)
        try:
            footage = take_swap.on_disk(folder, start.shot_of(Take("", folder, 0, 0)))
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        name = sequencer.show_frame(scene, footage, footage.frames - 1, notes)
        scene.sequence_editor.active_strip = compat.all_strips(scene.sequence_editor)[name]
        for note in notes:
            self.report({'WARNING'}, note)
        return {'FINISHED'}


class KOSHI_OT_take_rerender(PumpedOperator, bpy.types.Operator):
    """Render the scene as it is now, and show that in this strip instead of its take. Trims, place, transform, effects,
    fades and colors of the strip stay. The old take's frames are kept"""

    bl_idname = "koshi.take_rerender"
    bl_label = "Render Into Strip"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls) and needs_take(cls, context)

    def begin(self, context: bpy.types.Context) -> Job:
        name = active_strip(context).name

        def deliver(scene: bpy.types.Scene, footage: Footage) -> str:
            strip = compat.all_strips(scene.sequence_editor).get(name) if scene.sequence_editor else None
            if strip is None or not strip.get(sequencer.TAG):
                sequencer.show_frame(scene, footage, footage.frames - 1, state.status.notes)
                return f'The strip "{name}" is gone: the take has a new one.'
            return exchange(scene, strip, footage, True)

        return start.render(compat.strips_scene(context), deliver=deliver)


def exchange(scene: bpy.types.Scene, strip: Any, footage: Footage, pieces: bool) -> str:
    """Show other footage in a strip, or in all pieces of its take; returns what to tell of it."""
    known = next((take for take in sequencer.takes(scene) if take.folder == footage.folder), None)
    if known is not None and strip_about.SIDE not in footage.about:  # what is on disk does not say it
        showing = (one for one in compat.all_strips(scene.sequence_editor) if sequencer.shows(one, known.digest))
        footage = replace(footage, about=footage.about | strip_about.read(next(showing)))
    strips = take_swap.pieces(scene, strip) if pieces else [strip]
    for one in strips:  # all of them or none: an operator that fails leaves no undo step
        take_swap.names_for(one, footage)
    where = f"{len(strips)} strips show" if len(strips) > 1 else f'"{strip.name}" shows'  # it may be named anew
    notes = [note for one in strips for note in take_swap.swap(one, footage, known)]
    return " ".join([f"{where} {footage.folder.name} now.", *dict.fromkeys(notes)])


register, unregister = bpy.utils.register_classes_factory(
    (KOSHI_OT_take_replace, KOSHI_OT_take_add, KOSHI_OT_take_rerender)
)

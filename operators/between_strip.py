# SPDX-License-Identifier: GPL-3.0-or-later
"""Interpolated Strip: a take with two, four or eight times as many pictures a second, beside it.

The take's own frames come from the store; what the backend makes are the pictures between them.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from . import compat, sequencer, start, state, strip_about
from .job import Job
from .pumped import PumpedOperator
from .sequencer import Footage
from .take_operators import active_strip, needs_take

TAG = "koshi_between"  # of a strip that shows all pictures of an interpolated take: its digest


class KOSHI_OT_interpolated_strip(PumpedOperator, bpy.types.Operator):
    """Make pictures between the take's frames, along their motion, and show them in a second strip beside it"""

    bl_idname = "koshi.interpolated_strip"
    bl_label = "Interpolated Strip"

    factor: EnumProperty(
        name="Pictures",
        description="How many times as many pictures",
        items=(
            ("2", "2 x", "Twice as many pictures"),
            ("4", "4 x", "Four times as many pictures"),
            ("8", "8 x", "Eight times as many pictures"),
        ),
        default="2",
    )
    playing: EnumProperty(
        name="Plays",
        description="How fast the pictures go by",
        items=(
            (
                'SAME',
                "As Long as the Take",
                "A Speed strip plays several pictures a frame. Lower its speed, by keyframes too, for slow motion that "
                "stays smooth",
            ),
            ('SLOW', "In Slow Motion", "One picture a frame: so many times as long, from the take's first frame on"),
        ),
        default='SAME',
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls) and needs_take(cls, context)

    def begin(self, context: bpy.types.Context) -> Job:
        scene, strip = compat.edited_scene(context), active_strip(context)
        shot = start.shot_of(sequencer.take_of(scene, strip))
        shot = {**shot, "time": {**shot.get("time", {}), "interpolation": int(self.factor)}}
        name, playing, factor = strip.name, self.playing, int(self.factor)

        def deliver(scene: bpy.types.Scene, footage: Footage) -> str:
            made = lay(scene, name, footage, factor, slow=playing == 'SLOW')
            return f'{footage.frames} pictures in "{made.name}".'

        return start.render_shot(scene, shot, deliver)


def lay(scene: bpy.types.Scene, beside: str, footage: Footage, factor: int, slow: bool) -> Any:
    """Lay a strip with all of a take's pictures on a free channel, where the strip `beside` has its frames, or from the
    take's own first frame on if that strip is gone. Returns the topmost new strip.

    slow: one picture a frame; else as many in the time of one frame as `factor` says, and trimmed as the other is.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    strip = compat.all_strips(editor).get(beside)
    if strip is not None:
        begin, (left, right) = round(compat.content_start(strip)), compat.strip_range(strip)
        begin -= int(strip.get(sequencer.PART, 0)) * sequencer.LONGEST
    else:
        begin, left, right = footage.first, footage.first, footage.first + (footage.frames - 1) // factor + 1
    first = (left - begin) * factor  # what the take's strip hides at its beginning
    if slow:  # a handle may be dragged beyond the pictures; an element without a file can crash Blender
        first = min(max(first, 0), footage.frames - 1)
    skipped = first if slow else 0
    count = min((right - left) * factor, footage.frames - first) if slow else footage.frames
    at = left - first + skipped
    channel = sequencer.free_channel(editor, min(left, at), max(right, at + count), None)
    names = [f"{footage.first + skipped + k:04d}.png" for k in range(count)]
    made = compat.strips(editor).new_image(
        name=f"{footage.folder.name} {factor}x",
        filepath=str(footage.folder / names[0]),
        channel=channel,
        frame_start=at,
    )
    made.directory = sequencer.directory_of(footage.folder)
    for picture in names[1:]:
        made.elements.append(picture)
    made[TAG] = footage.digest
    strip_about.write(made, footage.about)
    if not slow:
        # A Speed strip counts from the picture under its beginning, and sees what lies beyond the handles.
        compat.set_strip_range(made, left, right)
        made = _speed(scene, made, factor)
    editor.active_strip = made
    return made


def _speed(scene: bpy.types.Scene, strip: Any, factor: int) -> Any:
    """A Speed strip over a strip, so that it shows every so manieth picture."""
    editor = scene.sequence_editor
    left, right = compat.strip_range(strip)
    channel = sequencer.free_channel(editor, left, right, strip.channel + 1)
    speed = compat.new_effect(editor, 'SPEED', f"{strip.name} Speed", channel, left, right, strip)
    speed.speed_control, speed.speed_factor = 'MULTIPLY', float(factor)
    speed[TAG] = strip[TAG]
    return speed


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_interpolated_strip,))

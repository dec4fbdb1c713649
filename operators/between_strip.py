# SPDX-License-Identifier: GPL-3.0-or-later
"""Interpolated Strip: a take with two, four or eight times as many pictures a second, beside it.

The take's own frames come from the store; what the backend makes are the pictures between them.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from . import compat, reader, sequencer, start, state, strip_about
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
        scene, strip = compat.strips_scene(context), active_strip(context)
        shot = start.shot_of(sequencer.take_of(scene, strip))
        shot = {**shot, "time": {**shot.get("time", {}), "interpolation": int(self.factor)}}
        name, slow = strip.name, self.playing == 'SLOW'

        def deliver(scene: bpy.types.Scene, footage: Footage) -> str:
            made = lay(scene, name, footage, slow)
            return f'{footage.frames} pictures in "{made.name}".'

        return start.render_shot(scene, shot, deliver)


def lay(scene: bpy.types.Scene, beside: str, footage: Footage, slow: bool) -> Any:
    """Lay a strip with a take's pictures on a free channel, where the strip `beside` has its frames, or from the take's
    own first frame on if that strip is gone. Returns the topmost new strip.

    slow: one picture a frame; else as many in the time of one frame as there are, and trimmed as the other is. Of a
    take that has a strip for each thousand frames, the pictures of that one.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    rate = footage.interpolation / footage.step  # pictures in one frame of the scene
    strip = compat.all_strips(editor).get(beside)
    if strip is not None and strip.type == 'IMAGE':
        begin, (left, right) = round(compat.content_start(strip)), compat.strip_range(strip)
        part = int(strip.get(sequencer.PART, 0)) * sequencer.LONGEST
        low = min(round(part * rate), footage.frames - 1)
        high = min(max(round((part + len(strip.elements)) * rate), low + 1), footage.frames)
    else:
        begin, left, right = footage.first, footage.first, footage.first + footage.places
        low, high = 0, footage.frames
    first = low + round((left - begin) * rate)  # what the take's strip hides at its beginning
    if slow:  # a handle may be dragged beyond the pictures; an element without a file can crash Blender
        low = min(max(first, low), high - 1)
        high, at = min(low + round((right - left) * rate), high), left
    else:
        at = left - (first - low)
    shown = range(low, high)
    channel = sequencer.free_channel(editor, min(left, at), max(right, at + len(shown)), None)
    name = f"{footage.folder.name} {footage.interpolation}x"
    made = _pictures(compat.strips(editor), name, footage, shown, channel, at)
    made[TAG] = footage.digest
    strip_about.write(made, footage.about)
    if not slow:
        # A Speed strip counts from the picture under its beginning, and sees what lies beyond the handles.
        compat.set_strip_range(made, left, right)
        made = _speed(scene, made, rate)
    editor.active_strip = made
    return made


def _pictures(strips: Any, name: str, footage: Footage, shown: range, channel: int, at: int) -> Any:
    """A strip with these pictures of a take, one a frame. Of more than sequencer.LONGEST a meta strip, with a strip for
    each so many: 8,000 in one strip take Blender 2.6 s (4.2 and 5.2), in eight .03 s."""
    if len(shown) <= sequencer.LONGEST:
        return _image(strips, name, footage, shown, channel, at)
    meta = strips.new_meta(name=name, channel=channel, frame_start=at)
    # Up to 4.5 a meta strip is as long as its strips were when they were new, with one picture each: the last picture
    # stands alone.
    body = range(shown.start, shown.stop - 1)
    for begin in range(0, len(body), sequencer.LONGEST):
        part = body[begin : begin + sequencer.LONGEST]
        _image(compat.strips(meta), f"{name} {part.start + 1}", footage, part, 1, at + begin)
    _image(compat.strips(meta), f"{name} {shown.stop}", footage, range(shown.stop - 1, shown.stop), 1, at + len(body))
    for _ in range(2):  # the handles do not follow by themselves, and the second one not before the first has
        compat.set_strip_range(meta, at, at + len(shown))
    return meta


def _image(strips: Any, name: str, footage: Footage, shown: range, channel: int, at: int) -> Any:
    """An image strip with these pictures of a take."""
    names = [reader.frame_name(footage.first + k) for k in shown]
    made = strips.new_image(name=name, filepath=str(footage.folder / names[0]), channel=channel, frame_start=at)
    made.directory = sequencer.directory_of(footage.folder)
    for picture in names[1:]:
        made.elements.append(picture)
    return made


def _speed(scene: bpy.types.Scene, strip: Any, factor: float) -> Any:
    """A Speed strip over a strip, so that it shows every so manieth picture."""
    editor = scene.sequence_editor
    left, right = compat.strip_range(strip)
    channel = sequencer.free_channel(editor, left, right, strip.channel + 1)
    speed = compat.new_effect(editor, 'SPEED', f"{strip.name} Speed", channel, left, right, strip)
    speed.speed_control, speed.speed_factor = 'MULTIPLY', factor
    speed[TAG] = strip[TAG]
    return speed


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_interpolated_strip,))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound to Koshi Curve: how loud a part of a sound strip is becomes keyframes, and its beats become markers."""

from __future__ import annotations

import re
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import BoolProperty, EnumProperty, FloatProperty

from ..bridge_server.protocol import BridgeError
from ..panels.properties import MORE_SCHEDULES, SCHEDULES
from . import bake, carried_shot, compat, scene_values, shot_fields, sound_bands, state, strip_alone, values
from .stepped import SteppedOperator, Steps, portions
from .take_operators import active_strip

# What silence and the loudest moment are on a curve, unless the artist says.
RANGES = {
    "zoom": (1.0, 1.05), "angle": (0.0, 2.0), "translation_x": (0.0, 6.0), "translation_y": (0.0, 6.0),
    "translation_z": (0.0, 6.0), "strength": (0.35, 0.65), "noise": (0.0, 0.03), "guidance": (1.0, 4.0),
    "contrast": (1.0, 1.15), "sharpen": (0.0, 0.3), "fov": (70.0, 80.0), "aspect_ratio": (1.0, 1.1),
    "perspective_flip_fv": (53.0, 70.0),
}  # fmt: skip
TURNING = (0.0, 2.0)  # degrees, of what turns the view or flips the picture
PARTS = (0.0, 1.0)  # of everything else, which are parts of 1
_TURNS = (*values.TURNS, *values.FLIPS)
_BEAT = re.compile(r"Beat \d+")


def _curves() -> tuple[tuple[str, str, str], ...]:
    """The curves that a sound may drive: all but whole numbers."""
    names = [shot_fields.property_of(n) for n in (*SCHEDULES, *MORE_SCHEDULES) if n not in carried_shot.WHOLE]
    return tuple((name, name.replace("_", " ").title(), "") for name in names)


def range_of(name: str) -> tuple[float, float]:
    """The values of silence and of the loudest moment for a curve, unless the artist says."""
    return RANGES.get(name, TURNING if name in _TURNS else PARTS)


def _curve_chosen(self: Any, context: bpy.types.Context) -> None:
    self.quiet, self.loud = range_of(self.curve)


class KOSHI_OT_sound_to_curve(SteppedOperator, bpy.types.Operator):
    """Make keyframes of how loud a part of this sound is, for one of Koshi's curves, and markers of its beats.
    Trims, place, speed and volume of the strip count"""

    bl_idname = "koshi.sound_to_curve"
    bl_label = "Sound to Koshi Curve"

    alone = True  # a strip that is moved meanwhile would be heard in two places
    keys: BoolProperty(name="Keyframes", description="Make keyframes for the curve", default=True)
    curve: EnumProperty(
        name="Curve", description="Which of Koshi's curves gets the keyframes", items=_curves(), update=_curve_chosen
    )
    band: EnumProperty(
        name="Listen To",
        description="Which part of the sound counts",
        items=(
            ('ALL', "Everything", "All that can be heard"),
            ('LOW', "Low", "20 to 250 Hz: kick drum and bass"),
            ('MID', "Middle", "250 to 2000 Hz: voices, guitars, snare"),
            ('HIGH', "High", "2 to 16 kHz: cymbals, hiss"),
            ('RANGE', "Range", "The frequencies between two that you set"),
        ),
        default='LOW',
    )
    lowest: FloatProperty(name="Lowest", description="Lowest frequency in Hz", default=60.0, min=1.0, max=20000.0)
    highest: FloatProperty(name="Highest", description="Highest frequency in Hz", default=120.0, min=2.0, max=22000.0)
    quiet: FloatProperty(name="Quiet", description="The curve's value in silence", default=1.0, precision=3)
    loud: FloatProperty(
        name="Loud", description="The curve's value where the sound is loudest", default=1.05, precision=3
    )
    gain: FloatProperty(
        name="Gain",
        description="More of it reaches the loud value sooner, and stays there longer",
        default=1.0,
        min=0.0,
        soft_max=4.0,
        max=100.0,
    )
    threshold: FloatProperty(
        name="Threshold",
        description="What is softer than this part of the loudest moment counts as silence",
        default=0.05,
        min=0.0,
        max=0.99,
        subtype='FACTOR',
    )
    attack: FloatProperty(
        name="Attack",
        description="How long the curve takes to follow a rise",
        default=0.0,
        min=0.0,
        max=10.0,
        step=1,
        subtype='TIME_ABSOLUTE',
    )
    release: FloatProperty(
        name="Release",
        description="How long the curve takes to fall again",
        default=0.2,
        min=0.0,
        max=10.0,
        step=1,
        subtype='TIME_ABSOLUTE',
    )
    beats: BoolProperty(
        name="Beats as Markers",
        description="Put a marker at each beat. Beat markers that are there, under the strip, go away",
        default=False,
    )
    sensitivity: FloatProperty(
        name="Sensitivity",
        description="How weak a beat may be beside the strongest",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        strip = active_strip(context)
        if strip is None or strip.type != 'SOUND':
            cls.poll_message_set("Select a sound strip")
            return False
        if not bpy.app.build_options.audaspace:
            cls.poll_message_set("This Blender was built without sound")
            return False
        # A render's frames would come among muted strips.
        return state.idle(cls) and compat.may_change(cls, context, compat.strips_scene(context))

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, width=340)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(self, "band")
        if self.band == 'RANGE':
            column = layout.column(align=True)
            column.prop(self, "lowest")
            column.prop(self, "highest")
        layout.prop(self, "keys")
        keyed = layout.column()
        keyed.active = self.keys
        keyed.prop(self, "curve")
        column = keyed.column(align=True)
        column.prop(self, "quiet")
        column.prop(self, "loud")
        keyed.prop(self, "gain")
        keyed.prop(self, "threshold")
        column = keyed.column(align=True)
        column.prop(self, "attack")
        column.prop(self, "release")
        layout.prop(self, "beats")
        beat = layout.column()
        beat.active = self.beats
        beat.prop(self, "sensitivity")

    def steps(self, context: bpy.types.Context) -> Steps:
        scene, strip = compat.strips_scene(context), active_strip(context)
        if not (self.properties.is_property_set("quiet") or self.properties.is_property_set("loud")):
            _curve_chosen(self, context)
        band = (self.lowest, self.highest) if self.band == 'RANGE' else sound_bands.BANDS[self.band]
        if band[0] >= band[1]:
            raise BridgeError("no_sound", f"There is nothing from {band[0]:g} to {band[1]:g} Hz: swap them.")
        if not (self.keys or self.beats):
            raise BridgeError("no_sound", "There is nothing to do.", "Switch on Keyframes, or Beats as Markers.")
        if self.keys and (reason := _not_keyable(scene, self.curve)):
            raise BridgeError("not_keyable", reason)
        name, strip_name, fps = scene.name, strip.name, scene.render.fps / scene.render.fps_base
        samples, rate, first = yield from portions(strip_alone.sound(name, strip_name), iface_("Listening, {}"))
        count = round(len(samples) / rate * fps)
        column, beats, told = [], [], []
        if self.keys:
            measured = sound_bands.levels(samples, rate, fps, count, band)
            loud = yield from portions(measured, iface_("Measuring the sound, {}"))
            if loud.max() < sound_bands.SILENCE:
                told_band = f"from {band[0]:g} to {band[1]:g} Hz"
                raise BridgeError("no_sound", f'Nothing is heard of "{strip_name}" {told_band}.')
            soft = sound_bands.smooth(loud, fps, self.attack, self.release)
            course = sound_bands.course(soft, self.quiet, self.loud, self.gain, self.threshold, float(loud.max()))
            column = [values.rounded(value) for value in course]
        if self.beats:
            work = sound_bands.beats(samples, rate, band, self.sensitivity)
            found = yield from portions(work, iface_("Looking for beats, {}"))
            beats = sorted({first + round(at * fps) for at in found})
        scene = scene_values.scene_named(name)  # nothing was changed before all is known
        if self.keys:
            _lay(scene, self.curve, first, column)
            told.append(f"{count} frames of {self.curve} keyed")
        if self.beats:
            _mark(scene, beats, (first, first + count))
            told.append(f"{len(beats)} beats marked")
        with scene_values.evaluated(scene):  # show at once what the new keys say at the playhead
            pass
        return ", ".join(told)


def _lay(scene: bpy.types.Scene, name: str, first: int, column: list[float]) -> None:
    """Key a curve from frame `first` on. Before and after it goes on as it was."""
    settings, path = scene.koshi, f"koshi.{name}"
    old = next((curve for curve in compat.fcurves(scene) or () if curve.data_path == path), None)
    keyed = {round(point.co.x) for point in old.keyframe_points} if old is not None else set()
    rest = values.rounded(getattr(settings, name))
    before, after = first - 1, first + len(column)
    ends = [rest if old is None else values.rounded(old.evaluate(frame)) for frame in (before, after)]
    if before not in keyed:
        first, column = before, [ends[0], *column]
    if after not in keyed:
        column = [*column, ends[1]]
    bake.write_keys(scene, settings, path, name, first, column)


def _mark(scene: bpy.types.Scene, frames: list[int], span: tuple[int, int]) -> None:
    """Markers at these frames, instead of those of beats that are there."""
    markers = scene.timeline_markers
    for marker in [one for one in markers if _BEAT.fullmatch(one.name) and span[0] <= one.frame <= span[1]]:
        markers.remove(marker)
    number = max((int(one.name[5:]) for one in markers if _BEAT.fullmatch(one.name)), default=0)
    for k, frame in enumerate(frames, number + 1):
        markers.new(f"Beat {k}", frame=frame).select = False


def _not_keyable(scene: bpy.types.Scene, name: str) -> str:
    """Why keys of a curve would not count."""
    animation, label = scene.animation_data, name.replace("_", " ").title()
    if animation is None:
        return ""
    if any(driver.data_path == f"koshi.{name}" and not driver.mute for driver in animation.drivers):
        return f"{label} has a driver, which keys cannot change: remove it first"
    return "The scene's action has several layers" if compat.fcurves(scene) is None else ""


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_sound_to_curve,))

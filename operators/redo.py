# SPDX-License-Identifier: GPL-3.0-or-later
"""Redo From Strip: the scene gets everything that a take was made with, so that rendering gives it again."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.protocol import BridgeError
from . import compat, import_shot, reader, sample, sequencer, shot_compare, start, state, strip_about
from .stepped import BUDGET, SteppedOperator, Steps
from .take_operators import active_strip, needs_take


def restore(scene: bpy.types.Scene, strip: Any) -> tuple[list[str], list[str]]:
    """Give a scene what the strip's take was rendered from: size, rate, range, model, seed, prompts, settings, and the
    curves as keyframes. Returns in what a render of the scene would still differ, and remarks. All at once.

    Raises BridgeError "no_take" and "bad_shot"; the scene is as it was then.
    """
    steps = restoring(scene, strip, float("inf"))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def restoring(
    scene: bpy.types.Scene, strip: Any, budget: float = BUDGET
) -> Generator[str, None, tuple[list[str], list[str]]]:
    """The same in portions; yields lines for the status bar. Closed too early it leaves out the comparison alone."""
    take = sequencer.take_of(scene, strip)
    if take is None:
        raise BridgeError("no_take", "The strip shows no take of Koshi's.", "Select one that Koshi has rendered.")
    shot = start.shot_of(take)
    side = strip_about.read(strip).get(strip_about.SIDE, {})
    # What it cannot take over, such as a camera's motion, either comes from the scene again or is found below.
    folder = reader.shot_file(take.folder).parent
    laying = import_shot.applying(scene, shot_compare.unstepped(shot), folder=folder)
    until = time.monotonic() + budget
    try:
        for done in laying:
            if time.monotonic() > until:
                yield iface_("Restoring the curves, {}").format(f"{done:.0%}")
                until = time.monotonic() + budget
    except GeneratorExit:  # one half of a take's settings is nobody's wish
        for _ in laying:
            pass
        _rest(scene, shot, side)
        raise
    _rest(scene, shot, side)
    if time.monotonic() > until:
        yield iface_("Restoring the curves, {}").format("100%")
    try:
        sampled = yield from sample.sampling(scene, budget=budget)
    except BridgeError as error:
        return [error.message], []
    return shot_compare.differences(shot, sampled.shot), sampled.notes


def _rest(scene: bpy.types.Scene, shot: dict[str, Any], side: Any) -> None:
    """What a shot that comes from elsewhere does not bring."""
    scene.frame_step = shot.get("frame_step", 1)
    if shot.get("motion", {}).get("source") == "camera":  # the flat motion of a camera is in the curves
        scene.koshi.motion_source = 'EXACT'
    _from_scene(scene, side)


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


class KOSHI_OT_redo_from_strip(SteppedOperator, bpy.types.Operator):
    """Give the scene everything that this take was made with: size, range, model, seed, prompts, settings, and the
    curves as keyframes. Rendering then gives the same frames"""

    bl_idname = "koshi.redo_from_strip"
    bl_label = "Redo From Strip"

    alone = True  # what is changed meanwhile would be half the artist's, half the take's
    stopped = "The scene has the settings of the take; whether a render gives the same frames was not looked at"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls) and needs_take(cls, context)

    def steps(self, context: bpy.types.Context) -> Steps:
        scene, strip = compat.strips_scene(context), active_strip(context)
        name = strip.name
        differs, notes = yield from restoring(scene, strip)
        for note in notes:
            self.report({'INFO'}, f"Koshi: {note}")
        if differs:
            self.level = 'WARNING'
            return f'The scene has the settings of "{name}", but a render would differ in: {"; ".join(differs)}'
        return f'The scene has all settings of "{name}": a render gives the same frames'

    def cancel(self, context: bpy.types.Context) -> None:
        """Esc: the settings are there, and are an undo step."""
        super().cancel(context)
        if bpy.ops.ed.undo_push.poll():
            bpy.ops.ed.undo_push(message=self.bl_label)


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_redo_from_strip,))

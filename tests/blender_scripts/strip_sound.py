# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound strips become curves and markers: `-- FOLDER`, in which the sound that is listened to is made."""

from __future__ import annotations

import os
import sys
import wave
from typing import Any

import bpy
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

compat = koshi("operators.compat")
RATE = 44100
KICKS = [0.5, 1.0, 1.5, 2.25, 3.0]  # seconds
HATS = [0.75, 2.0, 2.6]


def make(path: str) -> None:
    """Four seconds: kicks at 80 Hz, hats at 7 kHz, and a voice of 700 Hz from 2.0 to 2.5 s."""
    time = np.arange(4 * RATE) / RATE
    sound = 0.2 * np.sin(2 * np.pi * 700 * time) * ((time >= 2.0) & (time < 2.5))
    for hertz, loud, dies, times in ((80, 0.6, 0.05, KICKS), (7000, 0.3, 0.02, HATS)):
        for at in times:
            since = np.maximum(time - at, 0.0)
            sound += loud * np.sin(2 * np.pi * hertz * since) * np.exp(-since / dies) * (time >= at)
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def run(work: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


(folder,) = arguments()
out: dict[str, Any] = {"sound": bpy.app.build_options.audaspace}
scene = empty_scene(64, 64, 120)
scene.render.fps = 24
editor = scene.sequence_editor_create()
settings = scene.koshi
out["poll"] = bpy.ops.koshi.sound_to_curve.poll()
if out["sound"]:
    path = os.path.join(folder, "beat.wav")
    make(path)
    strip = compat.strips(editor).new_sound(name="beat", filepath=path, channel=1, frame_start=11)
    other = compat.strips(editor).new_sound(name="louder", filepath=path, channel=2, frame_start=17)
    editor.active_strip = strip
    scene.timeline_markers.new("Verse 2", frame=40)

    def course(name: str, frames: range = range(1, 121)) -> list[float]:
        curve = next((c for c in compat.fcurves(scene) or () if c.data_path == f"koshi.{name}"), None)
        return [round(curve.evaluate(k), 5) for k in frames] if curve else []

    def beats() -> list[int]:
        return sorted(marker.frame for marker in scene.timeline_markers if marker.name.startswith("Beat"))

    def listen(**given: Any) -> list[str]:
        return list(bpy.ops.koshi.sound_to_curve(**given))

    editor.channels[1].mute = True
    out["low"] = listen(curve='zoom', band='LOW', release=0.0, beats=True)
    out["channel"] = editor.channels[1].mute
    editor.channels[1].mute = False
    out["zoom"], out["low_beats"] = course("zoom"), beats()
    out["mid"] = listen(curve='strength', band='MID', quiet=0.3, loud=0.6, release=0.0, threshold=0.3)
    out["strength"] = course("strength")
    out["high"] = listen(band='HIGH', keys=False, beats=True)
    out["high_beats"], out["markers"] = beats(), len(scene.timeline_markers)
    voice = {"band": 'RANGE', "lowest": 600.0, "highest": 800.0, "threshold": 0.0}
    out["range"] = listen(curve='angle', **voice, quiet=0.0, loud=2.0, release=0.5)
    out["angle"] = course("angle")
    # Trimmed to where only two kicks are, moved, and half as loud, which the curve's range takes out again.
    compat.set_content_start(strip, 31)
    compat.set_strip_range(strip, 31 + 30, 31 + 60)
    strip.volume = 0.5
    settings.translation_x = 1.5
    out["trimmed"] = listen(curve='translation_x', band='LOW', quiet=0.0, loud=4.0, release=0.0, beats=True)
    out["shift"], out["trimmed_beats"] = course("translation_x"), beats()
    # Blender's own data are as they were.
    out["left"] = [len(bpy.data.scenes), strip.mute, other.mute, scene.frame_start, scene.frame_end]
    # Twice as fast, where a script can say so without Blender falling over (4.5 to 5.1 do).
    out["speed"] = None
    if bpy.app.version >= (5, 2):
        compat.set_strip_range(strip, 31, 31 + 96)
        strip.retiming_keys.add(timeline_frame=31)
        strip.retiming_keys[len(strip.retiming_keys) - 1].timeline_frame = 31 + 48
        out["speed"] = [[*compat.strip_range(strip)], listen(band='LOW', keys=False, beats=True), beats()]
    # A long sound is heard in portions, as if it were heard in one; between two of them all is as it was.
    strip_alone = koshi("operators.strip_alone")
    compat.set_strip_range(strip, 31, 31 + 96)

    def heard() -> tuple[np.ndarray, list[float]]:
        work, yielded = strip_alone.sound(scene.name, strip.name), []
        while True:
            try:
                yielded.append(next(work))
            except StopIteration as end:
                return end.value[0], yielded
            assert [strip.mute, other.mute, scene.frame_start, scene.frame_end] == [False, False, 1, 120]

    whole, _ = heard()
    strip_alone.PORTION = 1.5
    parts, yielded = heard()
    bands = koshi("operators.sound_bands")
    off = []
    for band in bands.BANDS.values():
        one, other_one = (run(bands.levels(sound, 48000, 24.0, 96, band)) for sound in (whole, parts))
        off.append(float(np.abs(one - other_one).max()))
    out["portions"] = [len(whole), len(parts), off, yielded]
    work = strip_alone.sound(scene.name, strip.name)
    next(work)
    strip.name = "renamed"  # or deleted, meanwhile
    try:
        next(work)
    except koshi("bridge_server.protocol").BridgeError as error:
        out["gone"] = error.message
    strip_alone.PORTION = 4.0
    # What does not work says so.
    settings.driver_add("noise")
    out["refused"] = []
    for given in ({"curve": 'noise'}, {"keys": False}, {"band": 'RANGE', "lowest": 500.0, "highest": 100.0}):
        try:
            listen(**given)
        except RuntimeError as error:
            out["refused"].append(str(error))
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Music-driven zoom: through a tunnel, with a push and new rings at each beat of a drum, and a new colour half-way.

    blender -b -P examples/blend/make_music.py -- music.blend

The tune is made here, too (music.wav, beside the file), so that nobody else's is needed.
"""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FRAMES, FPS, RATE = 36, 12, 22050
BEAT = 0.5  # seconds: 120 a minute
NOTES = (220.0, 261.63, 329.63, 261.63, 196.0, 246.94)  # Hz, one a beat
CALM, PUSH = 1.012, 1.075  # zoom between the beats, and on one


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """The tune in the sequencer, and curves that follow how loud its bass is."""
    common.output(scene, "Music", FRAMES, fps=FPS)
    drum, melody = tune(FRAMES / FPS)
    path = folder / "music.wav"
    write(path, 0.8 * drum + 0.25 * melody)
    editor = scene.sequence_editor
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences  # until Blender 4.4
    try:
        strips.new_sound(name="Music", filepath=str(path), channel=1, frame_start=1)
    except RuntimeError:
        pass  # a Blender that was built without sound
    koshi = scene.koshi
    koshi.audio, koshi.seed, koshi.border = "//music.wav", 5, "reflect"
    # Without the frame before as a reference, or the rings that it has would be all there ever are.
    koshi.mode, koshi.keyframe_every = 'START', round(BEAT * FPS)
    common.key(scene, "keyframe_strength", ((1, 0.85), (18, 0.85), (19, 1.0), (20, 0.9)))
    loud = levels(drum)
    common.key(scene, "zoom", [(1 + k, CALM + (PUSH - CALM) * float(loud[k])) for k in range(FRAMES)])
    common.key(scene, "angle", ((1, -1.5), (13, 1.5), (25, -1.5), (FRAMES, 1.5)))
    common.key(scene, "strength", [(1 + k, 0.35 + 0.2 * float(loud[k])) for k in range(FRAMES)])
    common.prompts(scene, (1, "a glowing tunnel at sunset, neon"), (19, "a glowing tunnel at night, neon"))


def tune(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """A drum and a melody, float64 in -1..1."""
    time = np.arange(round(seconds * RATE)) / RATE
    since = time % BEAT  # seconds since the beat
    drum = np.sin(2 * np.pi * (50.0 * since + 6.0 * (1 - np.exp(-18.0 * since)))) * np.exp(-9.0 * since)
    pitch = np.array(NOTES)[(time // BEAT).astype(int) % len(NOTES)]
    return drum, np.sin(2 * np.pi * pitch * since) * np.exp(-3.0 * since)


def levels(sound: np.ndarray) -> np.ndarray:
    """How loud each frame is, from 0 to 1."""
    pieces = sound[: FRAMES * (RATE // FPS)].reshape(FRAMES, -1)
    loud = np.sqrt((pieces**2).mean(1))
    return np.clip(loud / loud.max(), 0.0, 1.0)


def write(path: Path, sound: np.ndarray) -> None:
    """A .wav of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    common.build(make)

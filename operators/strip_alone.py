# SPDX-License-Identifier: GPL-3.0-or-later
"""One strip of the sequencer by itself: to be rendered, in a copy of the scene that goes away again, or to be heard."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
import wave
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..bridge_server.protocol import BridgeError
from . import compat, scene_values

# Blender mixes sound in one go and lets nobody in meanwhile: a portion of 4 s takes .1 s, on a busy computer .25 s.
PORTION = 4.0  # seconds of sound
# Seconds before a portion that are heard with it and dropped: the first 64 samples of a mix-down are not those of a
# longer one. The others are the same, or one sample off, as Blender counts the strip's own samples from there.
LEAD = 0.1
PATIENCE = 30.0  # seconds for a portion's file to be there
BLOCKED = 0.2  # of them, how long nobody else is let in


@contextmanager
def alone(scene: bpy.types.Scene, strip: Any) -> Iterator[tuple[bpy.types.Scene, Any]]:
    """A copy of the scene in which nothing but a strip, and what an effect needs for it, is seen; and the strip in it.
    The artist's scene is left alone."""
    copy = scene.copy()
    try:
        copy.name = ".koshi_strip"
        _empty(copy)
        mine = compat.all_strips(copy.sequence_editor)[strip.name]
        needed = {one.name for one in (*_inputs(mine), *_around(copy.sequence_editor, mine))}
        for one in compat.all_strips(copy.sequence_editor):
            one.mute = one.name not in needed
        for channel in _channels(copy.sequence_editor):
            channel.mute = False
        yield copy, mine
    finally:
        bpy.data.scenes.remove(copy)


def sound(scene_name: str, strip_name: str) -> Generator[float, None, tuple[np.ndarray, int, int]]:
    """What a sound strip plays, as the sequencer plays it: trimmed, moved, at its speed, with its volume. Yields how
    far it is, 0 to 1, after each portion, with the scene as it was.

    Returns float32 samples of one channel in -1..1, how many a second, and the scene frame at which they begin. Raises
    BridgeError "no_sound", and "no_scene" if the scene goes away meanwhile.
    """
    scene, strip = _found(scene_name, strip_name)
    left, right = compat.strip_range(strip)
    left = max(left, 0)  # a scene's range begins at 0
    if right <= left:
        raise BridgeError("no_sound", f'"{strip_name}" lies before frame 0.', "Move it to the right.")
    fps = scene.render.fps / scene.render.fps_base
    length = max(round(PORTION * fps), 1)
    heard, rate = np.zeros(0, np.float32), 0
    with tempfile.TemporaryDirectory(prefix="koshi_sound_", ignore_cleanup_errors=True) as place:
        for begin in range(left, right, length):
            scene, strip = _found(scene_name, strip_name)
            end, lead = min(begin + length, right), min(math.ceil(LEAD * fps), begin - left)
            path = Path(place) / f"{begin}.wav"
            data, rate = yield from _mixed(scene, strip, begin - lead, end, path, (begin - left) / (right - left))
            with contextlib.suppress(OSError):  # Windows may not let go of it yet
                path.unlink()
            if not len(heard):
                heard = np.zeros(round((right - left) / fps * rate), np.float32)
            at, until = (round((frame - left) / fps * rate) for frame in (begin, end))
            data = data[round(lead / fps * rate) :][: until - at]
            heard[at : at + len(data)] = data
            yield (end - left) / (right - left)
    return heard, rate, left


def _found(scene_name: str, strip_name: str) -> tuple[bpy.types.Scene, Any]:
    """A scene and a strip of it, which may have gone since the last look."""
    scene = scene_values.scene_named(scene_name)
    strip = compat.all_strips(scene.sequence_editor).get(strip_name) if scene.sequence_editor else None
    if strip is None:
        raise BridgeError("no_sound", f'The strip "{strip_name}" is gone.', "Select a sound strip.")
    return scene, strip


def _mixed(
    scene: bpy.types.Scene, strip: Any, left: int, right: int, path: Path, done: float
) -> Generator[float, None, tuple[np.ndarray, int]]:
    """The float32 samples of a sound strip alone, from a scene frame to another, and their rate. Where that takes
    longer than usual it yields `done`; nobody must change the scene then."""
    seconds = (right - left) / (scene.render.fps / scene.render.fps_base)
    given: dict[str, Any] = {"scene": scene, "view_layer": scene.view_layers[0]}
    if hasattr(bpy.context, "sequencer_scene"):
        given["sequencer_scene"] = scene
    try:
        with _nothing_else_heard(scene, strip, left, right):
            with bpy.context.temp_override(**given):
                bpy.context.evaluated_depsgraph_get().update()
                bpy.ops.sound.mixdown(filepath=str(path), container='WAV', codec='PCM', format='S16')
            # In a window of 5.2 a thread of Blender's writes the file.
            begun = looked = time.monotonic()
            while (read := _read(path, seconds)) is None:
                now = time.monotonic()
                if now - begun > PATIENCE:
                    raise OSError("Blender does not write it out")
                if now - looked > BLOCKED:
                    yield done
                    looked = time.monotonic()
                else:
                    time.sleep(0.01)
    except (RuntimeError, OSError) as error:
        raise BridgeError(
            "no_sound", f'The sound of "{strip.name}" cannot be read: {error}'.strip(), "Look whether it plays."
        ) from error
    finally:
        with bpy.context.temp_override(**given):  # let the others be heard again
            bpy.context.evaluated_depsgraph_get().update()
    return read


def _read(path: Path, seconds: float) -> tuple[np.ndarray, int] | None:
    """The samples of a file with so many seconds of sound, its channels in one, and its rate; None while it is not
    whole."""
    try:
        with wave.open(str(path)) as file:
            rate, channels, count = file.getframerate(), file.getnchannels(), file.getnframes()
            data = np.frombuffer(file.readframes(count), "<i2")
    except (OSError, EOFError, wave.Error):
        return None
    if len(data) < count * channels or count < (seconds - 0.02) * rate:
        return None
    return data.reshape(-1, channels).astype(np.float32).mean(1) / 32768.0, rate


@contextmanager
def _nothing_else_heard(scene: bpy.types.Scene, strip: Any, left: int, right: int) -> Iterator[None]:
    """The scene with nothing to be heard but one strip, from a frame to another, and afterwards as it was.

    In place, not in a copy: Blender may still look at the scene for a moment when its file is there.
    """
    editor, audio = scene.sequence_editor, scene.use_audio
    needed = {strip.name} | {one.name for one in _around(editor, strip)}
    muted = {one.name: one.mute for one in compat.all_strips(editor)}
    silent = [channel for channel in _channels(editor) if channel.mute]
    speakers = {thing.data.name: thing.data.muted for thing in scene.objects if thing.type == 'SPEAKER'}
    span = scene.frame_start, scene.frame_end
    try:
        for one in compat.all_strips(editor):
            if one.mute != (one.name not in needed):
                one.mute = one.name not in needed
        for channel in silent:
            channel.mute = False
        for name in speakers:
            bpy.data.speakers[name].muted = True
        scene.use_audio = True  # what the interface calls Mute is its opposite
        scene.frame_start, scene.frame_end = left, right - 1
        yield
    finally:
        scene.frame_start, scene.frame_end = span
        scene.use_audio = audio
        for channel in silent:
            channel.mute = True
        for name, was in speakers.items():
            bpy.data.speakers[name].muted = was
        for one in compat.all_strips(editor):
            if one.mute != muted.get(one.name, one.mute):
                one.mute = muted[one.name]


def _empty(scene: bpy.types.Scene) -> None:
    """Take everything out of a scene's copy that is no strip."""
    for child in list(scene.collection.children):
        scene.collection.children.unlink(child)
    for thing in list(scene.collection.objects):
        scene.collection.objects.unlink(thing)


def _channels(editor: Any) -> list[Any]:
    """All channels of the sequencer, and of its meta strips: what a muted one has is neither seen nor heard."""
    metas = [one for one in compat.all_strips(editor) if one.type == 'META']
    return [channel for owner in (editor, *metas) for channel in owner.channels]


def _inputs(strip: Any) -> list[Any]:
    """A strip and all that it is made of: of an effect its inputs, of a meta strip its contents, and theirs."""
    found = [strip]
    for name in ("input_1", "input_2"):
        if (one := getattr(strip, name, None)) is not None:
            found += _inputs(one)
    if strip.type == 'META':
        for one in strip.strips if hasattr(strip, "strips") else strip.sequences:
            found += _inputs(one)
    return found


def _around(editor: bpy.types.SequenceEditor, strip: Any) -> list[Any]:
    """The meta strips that a strip is in."""
    parent = strip.parent_meta()
    return [] if parent is None else [parent, *_around(editor, parent)]

# SPDX-License-Identifier: GPL-3.0-or-later
"""A sound strip becomes a curve, and an edited strip video input, in the window: Blender writes the sound in a thread
of its own there, and the pictures come one at a time; Esc leaves everything as it was."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import bpy
import hands
import numpy as np

RATE = 44100
HITS = (0.5, 1.0, 2.0)  # seconds


def steps() -> hands.Steps:
    """Reports the curve, the beats, and what each of two ways through the rendering of a strip has left."""
    yield from hands.set_the_stage(24, 1)
    scene, editor = hands.window().scene, hands.area('SEQUENCE_EDITOR')
    compat = hands.koshi("operators.compat")
    if hasattr(hands.window().workspace, "sequencer_scene"):
        hands.window().workspace.sequencer_scene = scene
    strips = compat.strips(scene.sequence_editor or scene.sequence_editor_create())
    sound, picture = hands.FOLDER / "hits.wav", hands.FOLDER / "still.png"
    make_sound(sound)
    make_picture(picture)
    strip = strips.new_sound(name="hits", filepath=str(sound), channel=1, frame_start=1)
    scene.sequence_editor.active_strip = strip
    yield 0.3
    with hands.within(editor):
        answer = bpy.ops.koshi.sound_to_curve('EXEC_DEFAULT', curve='zoom', release=0.0, beats=True)
    curve = next(curve for curve in compat.fcurves(scene) if curve.data_path == "koshi.zoom")
    out: dict[str, Any] = {
        "sound": [*answer, strip.mute, scene.frame_start, scene.frame_end],
        "zoom": [round(curve.evaluate(frame), 4) for frame in range(1, 73)],
        "beats": sorted(marker.frame for marker in scene.timeline_markers if marker.name.startswith("Beat")),
    }
    out["listening"] = yield from listen(editor)
    scene = hands.window().scene
    strips = compat.strips(scene.sequence_editor)
    still = strips.new_image(name="still", filepath=str(picture), channel=3, frame_start=1)
    compat.set_strip_range(still, 1, 25)
    still.transform.scale_x = 0.5
    scene.sequence_editor.active_strip = still
    yield 0.3
    for key in ("stopped", "done"):
        with hands.within(editor):
            bpy.ops.koshi.strip_as_video('INVOKE_DEFAULT', purpose='OVER')
        if key == "stopped":
            yield 0.05
            hands.key('ESC', hands.middle(editor))
            yield from hands.until(lambda: len(bpy.data.scenes) == 1, 20)
        else:
            yield from hands.until(lambda: hands.window().scene.koshi.video, 60)
        settings = hands.window().scene.koshi
        path = Path(bpy.path.abspath(settings.video)) if settings.video else None
        count = len(list(path.parent.glob("*.png"))) if path else 0
        out[key] = [settings.video_source, settings.hybrid_over, count, len(bpy.data.scenes)]
    out["asked"] = []
    for name in ("paste_schedule", "take_add", "copy_schedule"):  # F3: what for is asked, and nothing done before
        with hands.within(editor):
            out["asked"].append([*getattr(bpy.ops.koshi, name)('INVOKE_DEFAULT')])
        yield 0.5
        hands.shot(f"strips-{name}")
        for key in ('DOWN_ARROW', 'RET') if name == "copy_schedule" else ('ESC',):
            hands.key(key, hands.middle(editor))
            yield 0.3
    out["copied"] = bpy.context.window_manager.clipboard
    with hands.within(editor):
        bpy.ops.wm.call_menu(name="KOSHI_MT_strip")
    yield 0.5
    hands.shot("strips")
    hands.key('ESC', hands.middle(editor))
    yield 0.2
    return out


def listen(editor: bpy.types.Area) -> hands.Steps:
    """Through the dialogue, in eleven portions: stopped by Esc on the way, and to its end."""
    heard = hands.koshi("operators.strip_alone")
    heard.PORTION = 0.3
    seen: dict[str, Any] = {}
    for key in ("stopped", "done"):
        scene = hands.window().scene
        scene.animation_data_clear()
        scene.timeline_markers.clear()
        scene.koshi.zoom = 1.0
        with hands.within(hands.area('VIEW_3D')):
            bpy.ops.ed.undo_push(message="the stage")
        lines: list[str] = []
        mixed = heard._mixed

        def counted(*given: Any, lines: list[str] = lines, mixed: Any = mixed) -> Any:
            lines.append(f"{given[-1]:.0%}")
            return mixed(*given)

        heard._mixed = counted
        hands.move(*hands.middle(editor))
        yield 0.2
        with hands.within(editor):
            bpy.ops.koshi.sound_to_curve('INVOKE_DEFAULT', curve='zoom', release=0.0)
        yield 0.4
        hands.shot("sound-dialogue")
        hands.key('RET', hands.middle(editor))
        if key == "stopped":
            yield from hands.until(lambda lines=lines: len(lines) >= 3, 60, 0.0)
            hands.shot("sound-listening")
            done = len(lines)
            hands.key('ESC', hands.middle(editor))
            yield 0.1
            seen["further"] = len(lines) - done
            yield 0.5
            seen["portions"] = len(lines) < 11
        else:
            yield from hands.until(lambda: hands.window().scene.animation_data is not None, 60)
            seen["portions"] = len(lines)
        heard._mixed = mixed
        scene = hands.window().scene
        curves = hands.koshi("operators.compat").fcurves(scene) if scene.animation_data else []
        sound = scene.sequence_editor.active_strip
        seen[key] = [len(curves or ()), sound.mute, scene.frame_start, scene.frame_end, len(scene.timeline_markers)]
        seen[f"{key}_portions"] = seen.pop("portions")
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.ed.undo()
    yield 0.3
    seen["undone"] = hands.window().scene.animation_data is None
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.ed.redo()
    yield 0.3
    heard.PORTION = 4.0
    return seen


def make_sound(path: Path) -> None:
    """Three seconds with a low drum now and then."""
    since = np.arange(3 * RATE) / RATE
    heard = sum(
        np.sin(2 * np.pi * 90 * (since - at)) * np.exp(-np.maximum(since - at, 0) / 0.04) * (since >= at) for at in HITS
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((0.7 * heard * 32767).astype("<i2").tobytes())


def make_picture(path: Path) -> None:
    """A grey one."""
    image = bpy.data.images.new("grey", 64, 64)
    image.filepath_raw, image.file_format = str(path), 'PNG'
    image.save()
    bpy.data.images.remove(image)

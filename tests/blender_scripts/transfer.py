# SPDX-License-Identifier: GPL-3.0-or-later
"""Import, export and the clipboard, by their operators: `-- SETTINGS.txt SHOT.koshi.json BAD.json FOLDER`.

With "all": also import and export of other tools' files, which asks the backend.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

compat = koshi("operators.compat")
schedules, transfer = koshi("operators.schedules"), koshi("operators.transfer")
sample = koshi("operators.sample")


def keys(scene: Any, path: str) -> Any:
    """A curve's keys, or its driver's expression."""
    for curve in scene.animation_data.drivers if scene.animation_data else ():
        if curve.data_path == f"koshi.{path}":
            return curve.driver.expression
    for curve in compat.fcurves(scene) or ():
        if curve.data_path == f"koshi.{path}":
            return [[p.co[0], round(p.co[1], 6), p.interpolation] for p in curve.keyframe_points]
    return None


def report_text() -> str:
    """What the last import or export has to say."""
    text = bpy.data.texts.get(transfer.REPORT)
    return text.as_string() if text else ""


def refused(call: Any) -> str:
    """What an operator says when it refuses."""
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return ""


def clipboard() -> dict[str, Any]:
    """Copy and paste, in one scene that begins at frame 11."""
    scene = empty_scene(frames=40)
    scene.frame_start = 11
    settings, found = scene.koshi, {}
    for frame, value in ((11, 1.0), (35, 1.5), (40, 1.25)):
        settings.zoom = value
        settings.keyframe_insert("zoom", frame=frame)
    for frame, value in ((11, 0.2), (40, 0.5)):
        settings.strength = value
        settings.keyframe_insert("strength", frame=frame)
    smooth = schedules.schedule_of(scene, "zoom")
    for curve in compat.fcurves(scene):
        for point in curve.keyframe_points:
            point.interpolation = 'LINEAR'
    found["linear"] = schedules.schedule_of(scene, "zoom")
    found["strength"] = schedules.schedule_of(scene, "strength")
    found["constant"] = schedules.schedule_of(scene, "angle")
    settings.prompts[0].use_weight = True
    found["operator"] = sorted(bpy.ops.koshi.copy_schedule(path="prompts[0].weight"))
    found["smooth"] = smooth
    before = sampled(scene)
    for name in ("zoom", "strength"):
        schedules.lay_schedule(scene, name, smooth if name == "zoom" else found["strength"], 'BAKE')
    found["again"], found["before"] = sampled(scene), before
    bpy.ops.koshi.paste_schedule(curve="angle", schedule='0:(0), 10:(5), "max_f":(-1)')
    found["pasted"] = keys(scene, "angle")
    bpy.ops.koshi.paste_schedule(curve="translation_x", schedule="0:(10*sin(2*pi*t/12)), 20:(3)", expressions='DRIVERS')
    found["driver"] = keys(scene, "translation_x")
    scene.frame_set(14)
    found["driven"] = settings.translation_x
    bpy.ops.koshi.paste_schedule(curve="translation_y", schedule="0:(t & 3)", expressions='DRIVERS')
    found["baked"] = keys(scene, "translation_y")[:3]
    bpy.ops.koshi.paste_schedule(curve="strength", schedule="0:(0.65)")
    found["turned"] = settings.strength
    bpy.ops.koshi.paste_schedule(curve="seed", schedule="0:(5), 3:(9)")
    found["seed"] = keys(scene, "seed")
    settings.curves = 'ABSOLUTE'
    schedules.lay_schedule(scene, "zoom", "0:(1), 1:(1.02)", 'BAKE')
    found["size"] = [round(value, 5) for value in sampled(scene)["zoom"][:3]]
    found["moves"] = schedules.schedule_of(scene, "zoom")
    found["wrong"] = refused(lambda: bpy.ops.koshi.paste_schedule(curve="zoom", schedule="0:(1.0"))
    return found


def sampled(scene: Any) -> dict[str, list[float]]:
    """Some values at every frame."""
    read, frames = koshi("operators.import_shot").read, range(scene.frame_start, scene.frame_end + 1)
    return {name: list(column) for name, column in read(scene, ["zoom", "strength"], frames).items()}


def own(shot: Path, broken: Path, folder: Path) -> dict[str, Any]:
    """Import a Koshi shot and export it again."""
    scene = empty_scene()
    for k, frame in enumerate((1, 12)):
        camera = bpy.data.objects.new(f"Camera {k}", bpy.data.cameras.new("Camera"))
        scene.collection.objects.link(camera)
        scene.timeline_markers.new(f"shot {k}", frame=frame).camera = camera
    found: dict[str, Any] = {"import": sorted(bpy.ops.koshi.import_shot(filepath=str(shot), expressions='DRIVERS'))}
    found["text"] = report_text()
    found["range"] = [scene.frame_start, scene.frame_end]
    found["keys"] = {name: keys(scene, name) for name in ("zoom", "angle", "strength", "translation_x")}
    bpy.ops.koshi.export_shot(filepath=str(folder / "again.koshi.json"))
    found["exported"] = json.loads((folder / "again.koshi.json").read_text(encoding="utf-8"))
    found["sampled"] = sample.shot_from_scene(scene).shot
    found["broken"] = refused(lambda: bpy.ops.koshi.import_shot(filepath=str(broken)))
    # A render that begins while the file is chosen or read: nothing is imported.
    start, read, begun = koshi("operators.start"), transfer._own_shot, []

    def while_it_reads(path: Any) -> Any:
        begun.append(start.connect(scene))
        return read(path)

    transfer._own_shot = while_it_reads
    scene.koshi.seed = 77
    found["meanwhile"] = [refused(lambda: bpy.ops.koshi.import_shot(filepath=str(shot))), scene.koshi.seed]
    transfer._own_shot = read
    found["poll"] = bpy.ops.koshi.import_shot.poll()
    begun[0].run()
    found["missing"] = refused(lambda: bpy.ops.koshi.import_shot(filepath=str(folder / "none.json")))
    return found


def others(settings: Path, folder: Path) -> dict[str, Any]:
    """Import another tool's file, and write other tools' files."""
    scene = empty_scene()
    bpy.ops.koshi.import_shot(filepath=str(settings))
    scene.koshi.audio = ""  # a file that is not there
    found: dict[str, Any] = {"text": report_text(), "range": [scene.frame_start, scene.frame_end]}
    found["shot"] = sample.shot_from_scene(scene).shot
    for name in ("deforum", "parseq"):
        getattr(bpy.ops.koshi, f"export_{name}")(filepath=str(folder / name))
        found[name] = report_text()
    return found


def named() -> list[str]:
    """What the file browser makes of names that are typed."""
    found = []
    for name, ending in (
        ("city", ".koshi.json"), ("city.v2", ".koshi.json"), ("city.blend", ".koshi.json"), ("city.json", ".txt"),
        ("city.koshi", ".koshi.json"),
    ):  # fmt: skip
        typed = SimpleNamespace(filepath=os.path.join("films", name), filename_ext=ending)
        transfer._Export.check(typed, bpy.context)
        found.append(os.path.basename(typed.filepath))
    return found


def main(*given: str) -> None:
    settings, shot, broken, folder = map(Path, given[:4])
    found = {"clipboard": clipboard(), "own": own(shot, broken, folder), "named": named()}
    if "all" in given:
        found["others"] = others(settings, folder)
    result(found)


main(*arguments())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets: Koshi's own in a scene of their own each, and one that is added, chosen and removed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import empty_scene, koshi, result

presets = koshi("operators.presets")
compat, sample = koshi("operators.compat"), koshi("operators.sample")


def files(kind: str) -> dict[str, str]:
    """A kind's presets as Blender finds them: names and files."""
    folders = map(Path, bpy.utils.preset_paths(f"koshi/{kind}"))
    return {path.stem: str(path) for folder in folders for path in folder.glob("*.py")}


def choose(kind: str, file: str) -> None:
    """What a click in the menu does."""
    bpy.ops.script.execute_preset(filepath=file, menu_idname=f"KOSHI_PT_{kind}_presets")


def held(kind: str) -> dict[str, Any]:
    """What a preset of this kind would hold now."""
    settings = bpy.context.scene.koshi
    return {name: getattr(settings, name) for name in presets.HOLDS[kind]}


def main() -> None:
    found: dict[str, Any] = {"own": {}, "shots": {}, "holds": presets.HOLDS}
    for kind in presets.HOLDS:
        empty_scene()
        plain = held(kind)
        for name, file in sorted(files(kind).items()):
            empty_scene()
            choose(kind, file)
            now = held(kind)
            found["own"][f"{kind}/{name}"] = {key: now[key] for key in now if now[key] != plain[key]}
            found["shots"][f"{kind}/{name}"] = sample.shot_from_scene(bpy.context.scene).shot
    scene = empty_scene()
    settings = scene.koshi
    settings.zoom, settings.angle, settings.border = 1.25, 3.0, "wrap"
    bpy.ops.koshi.motion_preset_add(name="Mine é")
    mine = {name: file for name, file in files("motion").items() if name.startswith("Mine")}
    found["added"] = {name: file.startswith(bpy.utils.user_resource('SCRIPTS')) for name, file in mine.items()}
    settings.zoom, settings.border = 1.0, "replicate"
    settings.angle = 1.0
    settings.keyframe_insert("angle", frame=1)
    settings.keyframe_insert("angle", frame=20)
    scene.frame_set(10)
    choose("motion", next(iter(mine.values())))
    scene.frame_set(10)
    found["chosen"] = [round(settings.zoom, 4), settings.angle, settings.border]
    found["keys"] = [[p.co[0], p.co[1]] for p in compat.fcurves(scene)[0].keyframe_points]
    bpy.ops.koshi.motion_preset_add(name=next(iter(found["added"])), remove_name=True)
    found["removed"] = sorted(name for name in files("motion") if name.startswith("Mine"))
    bpy.ops.koshi.motion_preset_add(name="Tunnel", remove_name=True)
    found["ours stay"] = "Tunnel" in files("motion")
    result(found)


main()

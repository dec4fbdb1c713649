# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets: Koshi's own in a scene of their own each; one that is added, chosen and removed; and one of LoRAs.

Argument: a folder with film.mp4, picture.png and two LoRAs, which only have to be there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

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


def scene_for(kind: str) -> bpy.types.Scene:
    """An empty scene in which a kind's settings have something to act on."""
    scene, folder = empty_scene(), Path(arguments()[0])
    settings = scene.koshi
    if kind == "video":
        settings.video_source, settings.video = 'FILE', str(folder / "film.mp4")
    if kind == "guided":
        settings.guided_images.add().image = str(folder / "picture.png")
    if kind == "mask":
        settings.mask_source, settings.mask_file = 'FILE', str(folder / "picture.png")
    return scene


def of_loras() -> dict[str, Any]:
    """A preset of LoRAs, written in one .blend and chosen in another one, which has a LoRA with keyframes."""
    folder = Path(arguments()[0])
    scene = empty_scene()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "one.blend"))
    scene = bpy.context.scene
    for name, weight in (("//a.safetensors", 0.8), (str(folder / "b'é.safetensors"), -0.25)):
        lora = scene.koshi.loras.add()
        lora.file, lora.weight, lora.use = name, weight, weight > 0
    bpy.ops.koshi.loras_preset_add(name="My Look")
    file = files("loras")["My_Look"]
    (folder / "elsewhere").mkdir()
    scene = empty_scene()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "elsewhere" / "two.blend"))
    scene = bpy.context.scene
    lora = scene.koshi.loras.add()
    lora.keyframe_insert("weight", frame=1)
    choose("loras", file)
    worn = [[lora.file, round(lora.weight, 4), lora.use] for lora in scene.koshi.loras]
    bpy.ops.koshi.loras_preset_add(name="My_Look", remove_name=True)
    curves = [curve.data_path for curve in compat.fcurves(scene) or ()]
    return {"worn": worn, "curves": curves, "left": sorted(files("loras"))}


def main() -> None:
    found: dict[str, Any] = {"own": {}, "shots": {}, "holds": presets.HOLDS}
    for kind in presets.HOLDS:
        empty_scene()
        if kind == "loras":
            continue
        plain = held(kind)
        for name, file in sorted(files(kind).items()):
            scene_for(kind)
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
    found["loras"] = of_loras()
    result(found)


main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay shots on a scene: `-- FOLDER`, all its .koshi.json files, once baked and once as drivers. Report what sampling
gives, the keys and drivers, and what was told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

apply_shot = koshi("operators.import_shot").apply_shot
scene_values, compat = koshi("operators.scene_values"), koshi("operators.compat")
short = koshi("operators.prompt_text").short


def sampled(scene: Any) -> dict[str, Any]:
    """Every value of the scene, frame by frame, with all its digits."""
    samples = scene_values.Samples(scene.frame_start, scene.frame_end, 1)
    for _ in samples.take(scene.name, float("inf")):
        pass
    return {name: short(column) for name, column in samples.table.items()}


def keys(scene: Any) -> dict[str, Any]:
    """The keys of each curve, and the expressions of each driver."""
    found = {
        curve.data_path.removeprefix("koshi."): [
            [round(p.co[0], 4), round(p.co[1], 6), p.interpolation] for p in curve.keyframe_points
        ]
        for curve in compat.fcurves(scene) or ()
    }
    for curve in scene.animation_data.drivers if scene.animation_data else ():
        found[curve.data_path.removeprefix("koshi.")] = curve.driver.expression
    return found


def main(folder: Path) -> None:
    scene = empty_scene()
    out: dict[str, Any] = {}
    for path in sorted(folder.glob("*.koshi.json")):
        shot = json.loads(path.read_text(encoding="utf-8"))
        for expressions in ("BAKE", "DRIVERS"):  # one after the other into the same scene: nothing may stay behind
            told = apply_shot(scene, shot, expressions=expressions, folder=folder)
            out[f"{path.name.partition('.')[0]} {expressions}"] = {
                "told": told,
                "values": sampled(scene),
                "keys": keys(scene),
                "range": [scene.frame_start, scene.frame_end, scene.render.fps / scene.render.fps_base],
                "size": [scene.render.resolution_x, scene.render.resolution_y],
                "prompts": [[p.frame, p.text, p.negative, p.ease, p.use_weight] for p in scene.koshi.prompts],
                "markers": [[m.frame, m.name] for m in scene.timeline_markers],
                "model": scene.koshi.model,
            }
    result(out)


main(Path(arguments()[0]))

# SPDX-License-Identifier: GPL-3.0-or-later
"""New Koshi Project: what the new file has, in both kinds. The first is saved where the argument says."""

from __future__ import annotations

import os
import sys
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result


def about() -> dict[str, Any]:
    """What a person would look for."""
    scene = bpy.context.window.scene
    curves = koshi("operators.compat").every_fcurves(scene.camera)
    return {
        "size": [scene.render.resolution_x, scene.render.resolution_y],
        "range": [scene.frame_start, scene.frame_end],
        "view": scene.view_settings.view_transform,
        "source": scene.koshi.motion_source,
        "moved": sorted({curve.data_path for each in curves for curve in each}),
        "prompts": [[p.frame, p.text] for p in scene.koshi.prompts],
        "markers": [[m.name, m.frame] for m in scene.timeline_markers],
        "sequencer": scene.sequence_editor is not None,
        "objects": sorted({o.name.split(".")[0] for o in scene.objects}),
        "workspaces": [w.name for w in bpy.data.workspaces if w.name.startswith("Koshi")],
        "lost": [o.name for o in bpy.data.objects if o.name == "Lost"],
    }


bpy.context.scene.collection.objects.link(bpy.data.objects.new("Lost", None))
bpy.ops.koshi.new_project()
seen: dict[str, Any] = {"blocks": about()}
bpy.ops.wm.save_as_mainfile(filepath=arguments()[0])
bpy.ops.koshi.new_project(stage='EMPTY', use_workspace=False)
seen["empty"] = about()
shot = koshi("operators.sample").shot_from_scene(bpy.context.window.scene).shot
seen["shot"] = {
    "frames": shot["frames"],
    "width": shot["width"],
    "prompts": len(shot["prompts"]),
    "moves": len(set(shot["schedules"]["zoom"])) > 10,
}
result(seen)

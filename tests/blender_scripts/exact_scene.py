# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene for camera-exact motion, started from its own render: `-- OUT.blend`. Beside it, frame 3 by Blender."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, result
from render_motion_truth import DEFAULTS, build

(path,) = map(Path, arguments())
case = {"width": 192, "height": 128, "step": [0.12, 0.03, -0.2], "step_turn": [0.3, 0.8, 1.0]}
scene = build({**DEFAULTS, **case, "moving": [0.2, 0.1, 0.0]})
scene.frame_end = 3
scene.view_settings.view_transform = 'Standard'
koshi = scene.koshi
koshi.motion_source, koshi.start, koshi.strength = 'EXACT', 'SCENE', 0.0
prompt = koshi.prompts.add()
prompt.frame, prompt.text = 1, "a calm sea at dawn, photo"
lens = scene.camera.data
lens.dof.use_dof, lens.dof.focus_distance, lens.dof.aperture_fstop = True, 3.0, 0.4  # which motion must not see
bpy.ops.wm.save_as_mainfile(filepath=str(path))
lens.dof.use_dof = False
render = scene.render
render.engine = 'CYCLES'
scene.cycles.samples, scene.cycles.use_denoising = 64, False
if hasattr(render.image_settings, "media_type"):
    render.image_settings.media_type = 'IMAGE'
render.image_settings.file_format = 'PNG'
for frame in (1, 3):
    scene.frame_set(frame)
    render.filepath = str(path.parent / f"truth_{frame}.png")
    bpy.ops.render.render(write_still=True)
result({"scenes": [scene.name for scene in bpy.data.scenes]})

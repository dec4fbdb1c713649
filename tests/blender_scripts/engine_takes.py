# SPDX-License-Identifier: GPL-3.0-or-later
"""F12 and Ctrl-F12 in a scene whose sequencer has a take, and then another strip too: `-- FOLDER`."""

from __future__ import annotations

import os
import sys

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result

compat, engine_strips = koshi("operators.compat"), koshi("operators.engine_strips")
(folder,) = arguments()
scene = bpy.context.scene
render, out = scene.render, {}

scene.frame_end = 2
bpy.ops.koshi.render()
out["old"] = koshi("operators.state").status.folder
scene.frame_end = 3  # further than the take
scene.koshi.seed += 1
render.engine = 'KOSHI'
render.filepath = os.path.join(folder, "painted", "")
bpy.ops.render.render(animation=True)
render.filepath = os.path.join(folder, "still")
scene.frame_set(2)
bpy.ops.render.render(write_still=True)
out["sequencer"] = render.use_sequencer
prompts = [prompt.text for prompt in scene.koshi.prompts]
scene.koshi.prompts[0].text = ""
try:
    bpy.ops.render.render()
except RuntimeError as error:
    out["refused"] = str(error)
out["after_refusal"] = render.use_sequencer
scene.koshi.prompts[0].text = prompts[0]

(strip,) = compat.strips(scene.sequence_editor)
strip.mute = True  # in 4.2 this alone does not make Blender ask the engine
out["muted"] = engine_strips.only_takes(scene)
strip.mute = False
color = compat.new_effect(scene.sequence_editor, 'COLOR', "Color", 9, 1, 4, None)
color.color = (1.0, 0.0, 0.0)
out["edit"] = [engine_strips.only_takes(scene), engine_strips.renders_strips(scene)]
render.filepath = os.path.join(folder, "edit")
bpy.ops.render.render(write_still=True)
color.mute = True
out["color_muted"] = engine_strips.only_takes(scene)

bpy.ops.koshi.render()
out["new"] = koshi("operators.state").status.folder
result(out)

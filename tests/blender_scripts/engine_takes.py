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


def kept(path: str) -> bool:
    """What a file has as the scene's Sequencer option."""
    with bpy.data.libraries.load(path) as (there, here):
        here.scenes = there.scenes
    (found,) = here.scenes
    option = found.render.use_sequencer
    bpy.data.scenes.remove(found)
    return option


scene.frame_end = 2
bpy.ops.koshi.render()
out["old"] = koshi("operators.state").status.folder
scene.frame_end = 3  # further than the take
scene.koshi.seed += 1
render.engine = 'KOSHI'
render.filepath = os.path.join(folder, "painted", "")
saved = []


def jobs() -> set[str]:
    """Of the backend."""
    with koshi("bridge_server.client").Client() as client:
        return {job["id"] for job in client.jobs()}


def save(*_: object) -> None:
    """What is in the file just now, written as Blender's own autosave does: no handler hears of it."""
    saved.append(os.path.join(folder, f"saved_{len(saved)}.blend"))
    bpy.data.libraries.write(saved[-1], {scene})


def rename(*_: object) -> None:
    """Another script."""
    scene.name += "+"


during = [getattr(bpy.app.handlers, f"render_{name}") for name in ("pre", "stats", "post", "write", "complete")]
for handlers in during:
    handlers.append(save)
bpy.app.handlers.render_post.append(rename)
before = jobs()
bpy.ops.render.render(animation=True)
out["jobs"] = len(jobs() - before)
render.filepath = os.path.join(folder, "still")
scene.frame_set(2)
bpy.ops.render.render(write_still=True)
out["sequencer"], out["name"] = render.use_sequencer, scene.name
for handlers in during:
    handlers.remove(save)
bpy.app.handlers.render_post.remove(rename)
out["saved"] = [kept(path) for path in saved]

# A Blender that is killed before it has read the option, and a render that fails before its first frame.
bpy.app.handlers.render_init.append(save)
render.resolution_percentage = 1
try:
    bpy.ops.render.render(animation=True)
except RuntimeError as error:
    out["too_small"] = str(error)
bpy.app.handlers.render_init.remove(save)
render.resolution_percentage = 100
out["killed"] = kept(killed := saved[-1])
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "after.blend"), copy=True)
out["afterwards"] = [kept(os.path.join(folder, "after.blend")), render.use_sequencer]
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
bpy.ops.wm.open_mainfile(filepath=killed)
healed = bpy.data.scenes[0]
out["healed"] = [healed.render.use_sequencer, list(healed.keys())]
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Press F12 and Ctrl-F12 with the Koshi engine, right and wrong: `-- FOLDER`. Report what came of it."""

from __future__ import annotations

import os
import sys

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, arguments, koshi, result

client = koshi("bridge_server.client")
(folder,) = arguments()
scene = bpy.context.scene
render = scene.render
out: dict = {"engines": {}, "refused": {}}


def jobs() -> list[list[object]]:
    """[frames, made, stored, state] of all jobs of this seed, oldest first; each is told once."""
    with client.Client(client.read_connection()) as connected:
        found = [job for job in connected.jobs() if job["id"] not in told]
    told.update(job["id"] for job in found)
    return [[job["frames"], job["made"], job["stored"], job["state"]] for job in found]


def still(name: str, frame: int) -> None:
    scene.frame_set(frame)
    render.filepath = os.path.join(folder, name)
    bpy.ops.render.render(write_still=True)
    out[name] = {"jobs": jobs(), "playhead": [scene.frame_current, scene.frame_subframe]}


def animation(name: str, **chosen: str) -> None:
    render.filepath = os.path.join(folder, name, "")
    bpy.ops.render.render(animation=True, **chosen)
    out[name] = {"jobs": jobs(), "playhead": [scene.frame_current, scene.frame_subframe]}


def refused(name: str, frame: int = 2) -> None:
    scene.frame_set(frame)
    render.filepath = os.path.join(folder, f"refused_{name}")
    try:
        bpy.ops.render.render(write_still=True)
        out["refused"][name] = ""
    except RuntimeError as error:
        out["refused"][name] = str(error)


told: set[str] = set()
render.engine = 'KOSHI'
try:
    jobs()
except client.BridgeError as error:  # none runs yet
    assert error.code == "server_not_running", error

still("four", 4)
out["view"] = [scene.view_settings.view_transform, scene.render.dither_intensity]
still("six", 6)
still("two", 2)
animation("all")
scene.frame_step = 2
animation("step")
refused("between_steps")
scene.frame_step = 1

# A scene that no window shows, with two view layers.
other = scene.copy()
other.name = "Other"
other.koshi.seed += 1
other.frame_end = 2
other.view_layers.new("Second")
other.render.filepath = os.path.join(folder, "other", "")
bpy.ops.render.render(animation=True, scene="Other")
out["other"] = jobs()

# 16 bits a channel: the same 8-bit values.
render.image_settings.color_depth = '16'
still("deep", 2)
render.image_settings.color_depth = '8'

render.use_border = True
refused("border")
render.use_border = False
render.use_multiview = True
refused("multiview")
render.use_multiview = False
render.resolution_x = 70
refused("size")
render.resolution_x = 64
refused("outside", 9)
text = scene.koshi.prompts[0].text
scene.koshi.prompts[0].text = ""
refused("prompt")
scene.koshi.prompts[0].text = text
scene.koshi.model, scene.koshi.model_path = 'CUSTOM', "//nowhere"
refused("model")
scene.koshi.model = 'koshi-tiny'
scene.frame_end = 4
out["wrong_jobs"] = jobs()

engine_colors = koshi("operators.engine_colors")
scene.view_settings.view_transform, scene.view_settings.exposure, scene.render.dither_intensity = 'AgX', 1.5, 0.5
out["changes"] = engine_colors.what_changes(scene)
out["pressed"] = list(bpy.ops.koshi.exact_colors())
out["changes_after"] = engine_colors.what_changes(scene)


def panels(cls: type) -> list[str]:
    found = [p.__name__ for p in cls.__subclasses__() if 'KOSHI' in getattr(p, "COMPAT_ENGINES", ())]
    return found + [name for panel in cls.__subclasses__() for name in panels(panel)]


out["panels"] = sorted(set(panels(bpy.types.Panel)))
bpy.ops.preferences.addon_disable(module=PACKAGE)
out["panels_left"] = panels(bpy.types.Panel)
result(out)

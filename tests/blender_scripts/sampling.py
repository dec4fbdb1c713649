# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample values that only Blender's own evaluation gets right, and report them beside what they should be."""

from __future__ import annotations

import os
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import empty_scene, koshi, result

sample = koshi("operators.sample")
BridgeError = koshi("bridge_server.protocol").BridgeError
out: dict = {}


def keyed(scene: bpy.types.Scene, name: str, keys: dict[int, float]) -> None:
    for frame, value in keys.items():
        setattr(scene.koshi, name, value)
        scene.koshi.keyframe_insert(name, frame=frame)


def values(scene: bpy.types.Scene, name: str) -> list[float]:
    value = sample.shot_from_scene(scene).shot["schedules"][name]
    return value if isinstance(value, list) else [value] * (scene.frame_end - scene.frame_start + 1)


def curve(scene: bpy.types.Scene, name: str):
    """The F-curve of a Koshi value, in every version."""
    action = scene.animation_data.action
    if hasattr(action, "fcurves"):
        curves = action.fcurves
    else:
        curves = action.layers[0].strips[0].channelbag(scene.animation_data.action_slot).fcurves
    return curves.find(f"koshi.{name}")


# Bezier easing, with the playhead and subframe kept, and frames that begin elsewhere than at 1.
scene = empty_scene(frames=24)
scene.frame_start, scene.frame_end = 5, 30
keyed(scene, "zoom", {5: 1.0, 20: 1.1, 30: 0.98})
scene.frame_set(17, subframe=0.5)
out["bezier"] = {
    "sampled": values(scene, "zoom"),
    "expected": [curve(scene, "zoom").evaluate(f) for f in range(5, 31)],
    "linear": [1.0 + 0.1 * (f - 5) / 15 for f in range(5, 21)],
    "playhead": [scene.frame_current, scene.frame_subframe],
    "frame_start": sample.shot_from_scene(scene).shot["frame_start"],
}

# A driver that reads another object, and one that calls Python.
scene = empty_scene()
empty = bpy.data.objects.new("Empty", None)
scene.collection.objects.link(empty)
for frame, x in ((1, 0.0), (24, 23.0)):
    empty.location.x = x
    empty.keyframe_insert("location", index=0, frame=frame)
driver = scene.koshi.driver_add("angle").driver
variable = driver.variables.new()
variable.name = "x"
variable.targets[0].id = empty
variable.targets[0].data_path = "location.x"
driver.expression = "x * 2 + 1"
bpy.app.driver_namespace["koshi_test"] = lambda frame: frame * 0.5
python = scene.koshi.driver_add("translation_x").driver
python.expression = "koshi_test(frame)"
sampled = sample.shot_from_scene(scene).shot["schedules"]
truth = []
for f in range(1, 25):
    scene.frame_set(f)
    truth.append(empty.location.x * 2 + 1)
out["driver"] = {"sampled": sampled["angle"], "expected": truth}
out["python_driver"] = {"sampled": sampled["translation_x"], "expected": [f * 0.5 for f in range(1, 25)]}

# A driver that does not work is told, not read as 0.
python.expression = "no_such_function(frame)"
try:
    sample.shot_from_scene(scene)
    out["broken_driver"] = None
except BridgeError as error:
    out["broken_driver"] = error.as_dict()

# What is no number: in a key, and by a driver, of which Blender makes 0 and cuts it off.
def no_number(scene: bpy.types.Scene) -> object:
    try:
        return sample.shot_from_scene(scene).notes
    except BridgeError as error:
        return error.as_dict()


out["no_number"] = {}
for name in ("angle", "seed"):
    scene = empty_scene()
    keyed(scene, name, {1: 1, 5: 2, 24: 3})
    curve(scene, name).keyframe_points[1].co.y = float("nan")
    out["no_number"][name] = no_number(scene)
scene = empty_scene()
scene.koshi.driver_add("zoom").driver.expression = "float('nan') if frame == 7 else 1.01"
out["no_number"]["driver"] = no_number(scene)
scene.animation_data.drivers[0].driver.expression = "1.01"
out["no_number"]["mended"] = no_number(scene)

# NLA: the curve lies in a strip that plays it later and at half speed.
scene = empty_scene()
keyed(scene, "translation_y", {1: 0.0, 11: 10.0})
curve(scene, "translation_y").keyframe_points[0].interpolation = 'LINEAR'
animation = scene.animation_data
action = animation.action
strip = animation.nla_tracks.new().strips.new("Move", 5, action)
animation.action = None
if hasattr(strip, "action_slot") and strip.action_slot is None:
    strip.action_slot = strip.action_suitable_slots[0]
strip.scale = 2.0
strip.extrapolation = 'HOLD'
out["nla"] = {
    "sampled": values(scene, "translation_y"),
    "expected": [min(max((f - 5) / 2, 0.0), 10.0) for f in range(1, 25)],
}

# A scene that no window shows.
shown = empty_scene()
hidden = shown.copy()
hidden.name = "Hidden"
keyed(hidden, "zoom", {1: 1.0, 24: 1.2})
out["hidden"] = {
    "sampled": values(hidden, "zoom"),
    "expected": [curve(hidden, "zoom").evaluate(f) for f in range(1, 25)],
    "window": bpy.context.window.scene.name,
}

# Constants are one number; seeds are the shot's own unless they move; noise modifiers count.
scene = empty_scene()
scene.koshi.zoom = 1.01
scene.koshi.seed = 7
shot = sample.shot_from_scene(scene).shot
out["constant"] = {
    "zoom": shot["schedules"]["zoom"],
    "seed": shot["seed"],
    "listed": "seed" in shot["schedules"],
}
keyed(scene, "seed", {1: 1, 24: 24})
keyed(scene, "strength", {1: 0.5})
noise = curve(scene, "strength").modifiers.new('NOISE')
noise.strength, noise.scale = 0.2, 3.0
shot = sample.shot_from_scene(scene).shot
out["seeds"] = shot["schedules"]["seed"]
out["noise_modifier"] = {
    "sampled": shot["schedules"]["strength"],
    "expected": [curve(scene, "strength").evaluate(f) for f in range(1, 25)],
}

# Output settings.
scene = empty_scene(1920, 1024, frames=10)
scene.render.resolution_percentage = 50
scene.render.fps, scene.render.fps_base = 30, 1.001
shot = sample.shot_from_scene(scene).shot
out["output"] = {name: shot[name] for name in ("width", "height", "fps", "frames", "frame_start")}

# Prompts in scene frames become prompts counted from the shot's first frame.
scene = empty_scene()
scene.koshi.prompts.clear()
for frame, text in ((40, "d"), (1, "a"), (8, "b"), (20, "c")):
    prompt = scene.koshi.prompts.add()
    prompt.frame, prompt.text = frame, text
out["prompts"] = {
    f"{a}-{b}": sample.shot_from_scene(scene, a, b).shot["prompts"]
    for a, b in ((1, 50), (10, 30), (8, 8), (-3, 4))
}

# Twenty curves of a hundred keys each, 10,000 frames.
scene = empty_scene(frames=10_000)
properties = koshi("panels.properties")
names = (*properties.SCHEDULES, *properties.MORE_SCHEDULES)[:20]
for name in names:
    path = koshi("operators.shot_fields").property_of(name)
    low, high = (getattr(scene.koshi.bl_rna.properties[path], f"soft_{end}") for end in ("min", "max"))
    for k in range(100):
        setattr(scene.koshi, path, type(low)(low + (high - low) * (k % 7) / 6))
        scene.koshi.keyframe_insert(path, frame=1 + 100 * k)
begin = time.process_time()
shot = sample.shot_from_scene(scene).shot
out["long"] = {
    "curves": len(names), "frames": shot["frames"], "seconds": time.process_time() - begin,
    "moving": sum(len(set(column)) > 100 for column in shot["schedules"].values() if isinstance(column, list)),
}  # fmt: skip
result(out)

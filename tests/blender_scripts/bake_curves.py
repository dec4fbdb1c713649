# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves as Blender evaluates them, read directly and by `frame_set`; frame step; absolute curves; baking and back."""

from __future__ import annotations

import math
import os
import random
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import bpy
from mathutils import Euler, Matrix

sys.path.insert(0, os.path.dirname(__file__))
from inside import empty_scene, koshi, result

bake = koshi("operators.bake")
compat = koshi("operators.compat")
sample, scene_values = koshi("operators.sample"), koshi("operators.scene_values")
values = koshi("operators.values")
NAMES = (*scene_values.SCHEDULES, "seed")
MOTION = ("zoom", "angle", "translation_x", "translation_y", "translation_z")
out: dict[str, Any] = {}


def key(scene: bpy.types.Scene, name: str, keys: dict[int, float]) -> Any:
    """Key a value; returns its curve."""
    for frame, value in keys.items():
        setattr(scene.koshi, name, value)
        scene.koshi.keyframe_insert(name, frame=frame)
    return next(c for c in compat.fcurves(scene) if c.data_path == f"koshi.{name}")


def by_frame_set(scene: bpy.types.Scene, frames: range) -> dict[str, list[float]]:
    """What Blender says."""
    table: dict[str, list[float]] = {name: [] for name in NAMES}
    with scene_values.evaluated(scene):
        for frame in frames:
            scene.frame_set(frame)
            for name in NAMES:
                table[name].append(getattr(scene.koshi, name))
    return table


def columns(scene: bpy.types.Scene) -> dict[str, list[float]]:
    """The sampled schedules as lists."""
    shot = sample.shot_from_scene(scene).shot
    table = shot["schedules"]
    return {n: v if isinstance(v, list) else [v] * shot["frames"] for n, v in table.items()}


# Read directly: random curves of every kind, in and out of range, must give what Blender gives, to the bit.
chance = random.Random(7)
wrong: list[str] = []
compared = 0
for trial in range(40):
    scene = empty_scene(frames=40)
    for name in chance.sample(NAMES, 5):
        setting = scene.koshi.bl_rna.properties[name]
        low, high = setting.soft_min, setting.soft_max
        curve = key(scene, name, {f: chance.uniform(low, high) if setting.type == 'FLOAT' else chance.randint(0, 999)
                                  for f in sorted(chance.sample(range(-5, 50), chance.randint(1, 6)))})  # fmt: skip
        for point in curve.keyframe_points:
            point.interpolation = chance.choice(
                ['CONSTANT', 'LINEAR', 'BEZIER', 'SINE', 'BOUNCE', 'ELASTIC', 'BACK', 'EXPO']
            )
            if chance.random() < 0.3:
                point.co.y *= chance.choice([-3.0, 20.0])  # beyond the property's range
        curve.extrapolation = chance.choice(['CONSTANT', 'LINEAR'])
        if chance.random() < 0.5:
            curve.modifiers.new(chance.choice(['NOISE', 'CYCLES', 'GENERATOR', 'STEPPED', 'LIMITS', 'FNGENERATOR']))
        curve.mute = chance.random() < 0.1
        if chance.random() < 0.1:
            curve.keyframe_points.clear()
        curve.update()
    frames = range(-8, 55)
    direct = values.direct(scene, NAMES, frames)
    truth = by_frame_set(scene, frames)
    if direct is None:
        wrong.append(f"{trial}: not direct")
        continue
    for name in NAMES:
        compared += len(frames)
        if direct[name] != truth[name]:
            wrong.append(f"{trial}: {name}")
out["direct"] = {"wrong": wrong, "compared": compared}

# Where anything else has a say, Blender is asked.
asked: dict[str, bool] = {}


def is_asked(name: str, scene: bpy.types.Scene) -> None:
    asked[name] = values.direct(scene, NAMES, range(1, 3)) is None


scene = empty_scene()
key(scene, "zoom", {1: 1.0, 24: 1.2})
is_asked("plain", scene)
scene.koshi.driver_add("angle").driver.expression = "frame"
is_asked("driver", scene)
scene.koshi.driver_remove("angle")
scene.render.frame_map_new = 200
is_asked("stretched", scene)
scene.render.frame_map_new = 100
scene.animation_data.action_influence = 0.5
is_asked("influence", scene)
scene.animation_data.action_influence = 1.0


def handler(*_: Any) -> None:
    """An add-on's."""


bpy.app.handlers.frame_change_post.append(handler)
is_asked("handler", scene)
bpy.app.handlers.frame_change_post.remove(handler)
action = scene.animation_data.action
scene.animation_data.nla_tracks.new().strips.new("Zoom", 1, action)
scene.animation_data.action = None
is_asked("nla", scene)
out["asked"] = asked

# A curve of samples, as Sound to Samples bakes it.
scene = empty_scene()
curve = key(scene, "strength", {1: 0.2, 24: 0.7})
sound = Path(tempfile.mkdtemp()) / "sound.wav"
with wave.open(str(sound), "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    tone = (int(30000 * (k / 8000) * math.sin(k * 0.4)) for k in range(8000))
    file.writeframes(b"".join(s.to_bytes(2, "little", signed=True) for s in tone))
how = "samples"
try:
    area = bpy.context.window.screen.areas[0]
    area.type = 'GRAPH_EDITOR'
    curve.select = True
    region = next(r for r in area.regions if r.type == 'WINDOW')
    with bpy.context.temp_override(area=area, region=region):
        bake_sound = getattr(bpy.ops.graph, "sound_to_samples", None) or bpy.ops.graph.sound_bake
        bake_sound(filepath=str(sound))
    how = "sound"
except (RuntimeError, AttributeError) as error:  # this build has no sound, or no editor to bake in
    out["no_sound"] = str(error)
curve = next(c for c in compat.fcurves(scene) if c.data_path == "koshi.strength")
if not len(curve.sampled_points):
    curve.convert_to_samples(1, 26)
out["sound"] = {
    "how": how,
    "points": len(curve.sampled_points),
    "sampled": columns(scene)["strength"],
    "expected": [min(max(point.co.y, 0.0), 1.0) for point in curve.sampled_points][:24],
    "direct": values.direct(scene, NAMES, range(1, 25)) is not None,
    "blender": by_frame_set(scene, range(1, 25))["strength"],
}

# One action, a slot for each of two scenes.
scene = empty_scene()
key(scene, "zoom", {1: 1.0, 24: 1.1})
other = scene.copy()
action = scene.animation_data.action
if hasattr(action, "slots"):
    other.animation_data.action = action
    slot = action.slots.new('SCENE', "Other")
    other.animation_data.action_slot = slot
    other.koshi.zoom = 1.5
    key(other, "zoom", {1: 1.5, 24: 1.5})
    ends = {"one": columns(scene)["zoom"][::23], "other": columns(other)["zoom"][::23]}
    out["slots"] = {**ends, "slots": len(action.slots)}
    # A second layer that adds to the first, should a version of Blender take one.
    try:
        layer = action.layers.new("On top")
    except RuntimeError as error:
        out["layers"] = {"refused": str(error)}
    else:
        layer.mix_mode = 'ADD'
        bag = layer.strips.new(type='KEYFRAME').channelbag(scene.animation_data.action_slot, ensure=True)
        bag.fcurves.new("koshi.zoom").keyframe_points.insert(1, 0.5)
        blender = by_frame_set(scene, range(1, 25))["zoom"]
        out["layers"] = {"sampled": columns(scene)["zoom"], "blender": blender}

# Absolute curves; frame step; both.
scene = empty_scene(frames=25)
for name, keys in {
    "zoom": {1: 1.0, 25: 2.0}, "angle": {1: 10.0, 25: 40.0}, "translation_x": {1: 5.0, 25: -20.0},
    "translation_y": {1: 0.0, 25: 8.0}, "translation_z": {1: 0.0, 25: 10.0}, "strength": {1: 0.2, 25: 0.8},
}.items():  # fmt: skip
    key(scene, name, keys)
plain = {name: by_frame_set(scene, range(1, 26))[name] for name in (*MOTION, "strength")}
scene.koshi.curves = 'ABSOLUTE'
out["absolute"] = {"places": plain, "moves": columns(scene)}
scene.frame_step = 3
out["absolute_step"] = columns(scene)

scene = empty_scene(frames=25)
key(scene, "zoom", {1: 1.0, 25: 1.04})
key(scene, "angle", {1: -1.0, 25: 2.0})
key(scene, "translation_x", {1: 0.0, 25: 6.0})
scene.koshi.translation_y, scene.koshi.translation_z = -2.0, 1.5
prompt = scene.koshi.prompts.add()
prompt.frame, prompt.text = 6, "later"
out["single"] = columns(scene)
scene.frame_step = 4
stepped = sample.shot_from_scene(scene).shot
out["stepped"] = columns(scene) | {
    "shot": {n: stepped[n] for n in ("frame_start", "frame_step", "frames")},
    "prompts": [p["frame"] for p in stepped["prompts"]],
}
portions = sample.sampling(scene, budget=1e-9)
scene.koshi.driver_add("angle").driver.expression = "frame * 0.1"
count = 0
while True:
    try:
        next(portions)
        count += 1
        assert scene.frame_current == 1
    except StopIteration as end:
        out["portions"] = {"count": count, "same": end.value == sample.shot_from_scene(scene)}
        break

# Bake: poll says why not.
polls: dict[str, str] = {}


def poll_of(name: str, operator: Any) -> None:
    """What a button that is greyed out says; "" if it is not."""
    polls[name] = ""
    if not operator.poll():
        try:
            operator()
        except RuntimeError as error:
            polls[name] = str(error)


CAMERA, CURVES = bpy.ops.koshi.bake_camera, bpy.ops.koshi.bake_curves
scene = empty_scene(frames=12)
poll_of("no camera", CAMERA)
poll_of("nothing moves", CURVES)


def add_camera(scene: bpy.types.Scene, parallel: bool = False) -> bpy.types.Object:
    """A camera with a focus distance that pushes in, rolls and drifts aside."""
    made = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(made)
    scene.camera = made
    made.data.type = 'ORTHO' if parallel else 'PERSP'
    made.data.dof.use_dof, made.data.dof.focus_distance = True, 8.0
    made.data.shift_x = 0.07
    made.rotation_mode = 'QUATERNION'
    start = Matrix.LocRotScale((1.0, -6.0, 2.0), Euler((1.3, 0.1, 0.2)), None)
    for frame in range(0, scene.frame_end + 1):
        step = Matrix.Translation((0.02 * frame, 0.01 * frame, -0.05 * frame)) @ Matrix.Rotation(0.01 * frame, 4, 'Z')
        where = start @ step
        made.location, made.rotation_quaternion = where.translation, where.to_quaternion()
        made.keyframe_insert("location", frame=frame)
        made.keyframe_insert("rotation_quaternion", frame=frame)
    return made


add_camera(scene)
poll_of("camera", CAMERA)
scene.koshi.motion_source = 'CAMERA'
key(scene, "zoom", {1: 1.01, 12: 1.02, 40: 1.5})
before = columns(scene)
poll_of("curves", CURVES)
answer = list(bpy.ops.koshi.bake_camera())
after = columns(scene)
out["baked_curves"] = {
    "answer": answer,
    "before": before,
    "after": after,
    "source": scene.koshi.motion_source,
    "later_key": by_frame_set(scene, range(40, 41))["zoom"],
    "keys": len(next(c for c in compat.fcurves(scene) if c.data_path == "koshi.zoom").keyframe_points),
}
bpy.ops.koshi.bake_camera()
again = columns(scene)
out["baked_again"] = {name: again[name] for name in MOTION}
scene.koshi.driver_add("zoom").driver.expression = "1.1"
poll_of("driver", CAMERA)

for kind in ("PERSP", "ORTHO", "none"):
    scene = empty_scene(320, 192, frames=12)
    if kind != "none":
        add_camera(scene, kind == 'ORTHO')
    key(scene, "zoom", {1: 1.0, 12: 1.05})
    key(scene, "angle", {1: 3.0, 12: -40.0})
    key(scene, "translation_x", {1: 0.0, 12: 9.0})
    scene.koshi.translation_y = -3.0
    wanted = columns(scene)
    answer = list(bpy.ops.koshi.bake_curves())
    out[f"baked_camera {kind}"] = {
        "answer": answer,
        "wanted": {name: wanted[name] for name in MOTION},
        "given": {name: columns(scene)[name] for name in MOTION},
        "source": scene.koshi.motion_source,
        "camera": scene.camera.name,
        "left": [c.data_path for c in compat.fcurves(scene) or ()],
    }

scene = empty_scene(frames=6)
scene.render.pixel_aspect_x = 2.0
scene.koshi.angle = 2.0
try:
    bpy.ops.koshi.bake_curves()
except RuntimeError as error:
    out["not_square"] = str(error)
out["polls"] = polls
result(out)

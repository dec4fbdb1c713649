# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts and their markers, moved by Blender's own operators; what is sampled of them, of time and of all curves:
`-- FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

sample, markers, sequencer = koshi("operators.sample"), koshi("operators.markers"), koshi("operators.sequencer")
properties, exchange = koshi("panels.properties"), koshi("operators.exchange")
preview_shot, compat = koshi("operators.preview_shot"), koshi("operators.compat")
BridgeError = koshi("bridge_server.protocol").BridgeError
(folder,) = arguments()
out: dict[str, Any] = {}


def stage(*prompts: tuple[int, str]) -> bpy.types.Scene:
    """An empty scene of 48 frames with these prompts, made by the operator at the playhead."""
    scene = empty_scene(frames=48)
    scene.koshi.prompts.clear()
    for frame, text in prompts:
        scene.frame_set(frame)
        bpy.ops.koshi.prompt_add()
        scene.koshi.prompts[scene.koshi.prompts_index].text = text
    return scene


def timeline(operator: Callable[..., Any], *names: str, **options: Any) -> None:
    """Call one of the timeline's own operators for the markers of these names, as the mouse does."""
    scene, window = bpy.context.scene, bpy.context.window_manager.windows[0]
    for marker in scene.timeline_markers:
        marker.select = marker.name in names
    area = max(window.screen.areas, key=lambda one: one.width * one.height)
    area.type = 'DOPESHEET_EDITOR'
    region = next(one for one in area.regions if one.type == 'WINDOW')
    with bpy.context.temp_override(window=window, area=area, region=region):
        operator(**options)
    markers.sync(scene)  # in a window this follows when the timeline is drawn (tests/window/markers.py)


def heard(scene: bpy.types.Scene, *span: int) -> list[list[Any]]:
    return [[p["frame"], p["text"]] for p in sample.shot_from_scene(scene, *span).shot["prompts"]]


def marks(scene: bpy.types.Scene) -> list[list[Any]]:
    return sorted([marker.frame, marker.name] for marker in scene.timeline_markers)


def refused(scene: bpy.types.Scene) -> list[str]:
    try:
        sample.shot_from_scene(scene)
    except BridgeError as error:
        return [problem["message"] for problem in error.problems]
    return []


# Added at the playhead, written, moved from both ends.
scene = stage((1, "a calm sea"), (20, "a forest"), (10, "a town " * 20))
sea, forest, town = scene.koshi.prompts
out["added"] = {"marks": marks(scene), "frames": [p.frame for p in scene.koshi.prompts]}
timeline(bpy.ops.marker.move, "“a forest”", frames=5)
out["marker_moved"] = {"frame": forest.frame, "heard": heard(scene)}
forest.frame = 31
out["prompt_moved"] = {"marks": marks(scene), "heard": heard(scene)}
forest.text = "a desert"
out["written"] = [name for _, name in marks(scene)]

# Renamed: it stays the prompt's, and keeps the name.
timeline(bpy.ops.marker.rename, "“a desert”", name="Act 2")
out["renamed"] = {"frame": forest.frame, "off": markers.is_off(forest)}
timeline(bpy.ops.marker.move, "Act 2", frames=2)
forest.text = "dunes"
out["renamed"] |= {"moved": forest.frame, "names": [name for _, name in marks(scene)]}

# Duplicated on the timeline: it comes again there. Deleted: it is off, and its text is kept.
timeline(bpy.ops.marker.duplicate, "“a calm sea”", frames=39)
out["again"] = {"frames": markers.frames_of(sea), "heard": heard(scene)}
timeline(bpy.ops.marker.delete, "“a calm sea”")
out["deleted"] = {"off": markers.is_off(sea), "text": sea.text, "heard": heard(scene)}
scene.koshi.prompts_index, scene.frame_current = 0, 3
bpy.ops.koshi.prompt_place()
out["placed"] = {"heard": heard(scene), "off": markers.is_off(sea)}

# Of the scene's other markers none is taken, moved or removed, not even one at the same frame.
scene = stage((5, "a sea"), (12, "a hill"))
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(camera)
for name, frame in (("beat", 5), ("beat 2", 12), ("cut", 30)):
    scene.timeline_markers.new(name, frame=frame)
scene.timeline_markers["cut"].camera = camera
markers.sync(scene)
own = [mark for mark in marks(scene) if "“" not in mark[1]]
timeline(bpy.ops.marker.delete, "“a sea”")
off = markers.is_off(scene.koshi.prompts[0])
scene.timeline_markers["“a hill”"].camera = camera
scene.koshi.prompts_index = 1
bpy.ops.koshi.prompt_remove()
out["others"] = {"before": own, "after": marks(scene), "off": off}

# Copies of the scene, switched off and on, saved and loaded again.
scene = stage((1, "a sea"), (12, "a hill"))
copied = scene.copy()
copied.koshi.prompts[1].frame = 20
out["copied"] = {"heard": heard(copied), "first": heard(scene), "marks": [marks(copied), marks(scene)]}
scene.koshi.prompt_markers = False
scene.koshi.prompts[1].frame = 14
out["hidden"] = {"marks": marks(scene), "heard": heard(scene)}
scene.koshi.prompt_markers = True
out["shown"] = marks(scene)
path = os.path.join(folder, "prompts.blend")
bpy.ops.wm.save_as_mainfile(filepath=path)
bpy.ops.wm.open_mainfile(filepath=path)
scene = bpy.context.scene
timeline(bpy.ops.marker.move, "“a hill”", frames=3)
out["loaded"] = {"marks": marks(scene), "heard": heard(scene)}

# A file without markers, as older ones and scripts make them, is what it says; an operator shows them.
scene = empty_scene(frames=48)
later = scene.koshi.prompts.add()
later.frame, later.text = 9, "a hill"
out["plain"] = {"heard": heard(scene), "marks": marks(scene)}
scene.frame_set(30)
bpy.ops.koshi.prompt_add()
out["plain"]["shown"] = marks(scene)
out["jumps"] = []
for to in ('PREVIOUS', 'PREVIOUS', 'NEXT', 'NEXT'):
    bpy.ops.koshi.prompt_jump(to=to)
    out["jumps"].append([scene.frame_current, scene.koshi.prompts_index])

# What is wrong is told.
scene = stage((5, "a sea"), (12, "a hill"))
timeline(bpy.ops.marker.move, "“a hill”", frames=-7)
out["crowded"] = {"told": refused(scene), "frames": sorted(markers.crowded(scene))}
scene.timeline_markers.clear()
out["all_off"] = refused(scene)
scene.koshi.audio = "//nowhere.wav"
out["silent"] = refused(scene)[-1]

# Weights, easing, negative texts and math.
scene = stage((1, "a sea"), (21, "a hill"), (60, "a town"), (11, "snow"))
sea, hill, town, snow = scene.koshi.prompts
sea.ease, hill.ease, hill.negative = "linear", "ease_in", "people"
for frame, weight in ((11, 0.0), (31, 1.0)):
    snow.weight = weight
    snow.keyframe_insert("weight", frame=frame)
for point in next(iter(compat.fcurves(scene))).keyframe_points:
    point.interpolation = 'LINEAR'
hill.text = "a hill of `t+max_f` stones"
whole = sample.shot_from_scene(scene)
out["blend"] = {"prompts": whole.shot["prompts"], "notes": whole.notes}
out["part"] = sample.shot_from_scene(scene, 16, 40).shot["prompts"]
scene.koshi.keyframe_prompts = True
out["part_keyframes"] = sample.shot_from_scene(scene, 16, 40).shot["time"]
scene.frame_step = 2
out["stepped"] = sample.shot_from_scene(scene).shot["prompts"]
scene.frame_step = 1
scene.koshi.prompts_index = 1
bpy.ops.koshi.prompt_remove()
shot = sample.shot_from_scene(scene).shot
out["renumbered"] = {
    "paths": [curve.data_path for curve in compat.fcurves(scene)],
    "snow": next(p["weight"] for p in shot["prompts"] if p["text"] == "snow"),
}
snow = next(p for p in scene.koshi.prompts if p.text == "snow")
snow.driver_add("weight").driver.expression = "frame / 48"
shot = sample.shot_from_scene(scene).shot
out["driven"] = next(p["weight"] for p in shot["prompts"] if p["text"] == "snow")

# A prompt begins where its marker stands: its frame takes no keyframes and no driver, and one that a script or another
# file has brought all the same is refused.
scene = stage((1, "a sea"), (21, "a hill"))
hill, out["frame_keyed"] = scene.koshi.prompts[1], []
for attempt in (lambda: hill.keyframe_insert("frame", frame=5), lambda: hill.driver_add("frame")):
    try:
        attempt()
        out["frame_keyed"].append("done")
    except TypeError as error:
        out["frame_keyed"].append(str(error))
hill.keyframe_insert("weight", frame=5)
(curve,) = compat.fcurves(scene)
curve.data_path = "koshi.prompts[1].frame"
scene.frame_set(5)
out["frame_curve"] = {"frame": hill.frame, "marks": marks(scene), "told": refused(scene)}

# A scene that is linked from another file: what would be written into it is gone when this one is opened again.
with bpy.data.libraries.load(path, link=True) as (there, wanted):
    wanted.scenes = there.scenes[:1]
with bpy.context.temp_override(scene=wanted.scenes[0]):
    names = ("prompt_add", "prompt_remove", "prompt_place", "prompt_duplicate", "prompt_jump")
    out["linked"] = [getattr(bpy.ops.koshi, name).poll() for name in names]
bpy.data.scenes.remove(wanted.scenes[0])

# Time and curves: nothing at the defaults, and what is set.
scene = stage((1, "a sea"))
settings = scene.koshi
out["defaults"] = sample.shot_from_scene(scene).shot
sound = os.path.join(folder, "sound.wav")
open(sound, "wb").close()
settings.loop, settings.seam, settings.interpolation, settings.audio = "seamless", 6, "4", sound
settings.keyframe_every, settings.keyframe_prompts, settings.inbetween = 8, True, "blend"
settings.border, settings.color_mode, settings.noise_mode, settings.noise_delta = "wrap", "none", "slerp", 0.2
settings.motion_source, settings.depth_source, settings.depth_farthest = '3D', "files", 9.0
settings.depth_files = os.path.join(folder, "depth_####.png")
settings.cadence = 3
for frame, value in ((1, 0.0), (48, 0.47)):
    settings.rotation_3d_y = value
    settings.keyframe_insert("rotation_3d_y", frame=frame)
for point in next(iter(compat.fcurves(scene))).keyframe_points:
    point.interpolation = 'LINEAR'
shot = sample.shot_from_scene(scene).shot
out["set"] = shot
out["engine"] = {"shot": sample.frame_by_frame(shot), "whole": sample.needs_what_follows(settings)}
steps = preview_shot.motion_shot(scene, float("inf"))
try:
    while True:
        next(steps)
except StopIteration as end:
    out["preview"] = sorted(end.value)
scene.frame_step = 4
out["turned"] = sample.shot_from_scene(scene).shot["schedules"]["rotation_3d_y"]

# The table of all curves, and of the choices.
rna = scene.koshi.bl_rna.properties
fields = koshi("operators.shot_fields")
curves = {
    name: rna[fields.property_of(name)] for name in (*properties.SCHEDULES, *properties.MORE_SCHEDULES, "seed")
}
out["curves"] = {name: [one.default, one.hard_min, one.hard_max] for name, one in curves.items()}
out["animatable"] = [name for name, one in curves.items() if not one.is_animatable]
out["choices"] = {
    name: [item.identifier for item in rna[name].enum_items] for name in fields.FIELDS if rna[name].type == 'ENUM'
}
out["choices"]["depth_source"].remove("scene")  # in Blender alone: to the backend these are files
out["told_choices"] = {name: list(map(str, words)) for name, words in fields.CHOICES.items()}
out["eases"] = [item.identifier for item in scene.koshi.prompts[0].bl_rna.properties["ease"].enum_items]

# A strip shows one picture in each scene frame, whatever lies between.
out["strips"] = []
for frames, loop_length, step, interpolation in ((6, 10, 1, 1), (6, 21, 1, 4), (6, 40, 1, 4), (4, 13, 3, 4)):
    footage = sequencer.Footage("f" * 64, folder, 5, loop_length, step, interpolation)
    names = [footage.name_at(place) for place in range(footage.places)]
    out["strips"].append([frames, footage.places, names, [footage.place_of(k) for k in range(loop_length)]])
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes whose strips were edited: redo from the strip, other pictures for it, pieces, metas: `-- FOLDER SEED`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

compat, sequencer, state = koshi("operators.compat"), koshi("operators.sequencer"), koshi("operators.state")
sample, shot_compare = koshi("operators.sample"), koshi("operators.shot_compare")
folder, seed = arguments()
out: dict[str, Any] = {}


def stage() -> bpy.types.Scene:
    """A scene that uses much of what can be set."""
    scene = empty_scene(64, 64, 6)
    scene.frame_start, scene.frame_end = 5, 10
    scene.render.fps, scene.render.fps_base = 30, 1.001
    settings = scene.koshi
    settings.steps, settings.seed, settings.mode = 1, int(seed), 'START'
    for name, keys in {
        "zoom": {5: 1.0, 8: 1.04, 10: 1.01}, "angle": {5: 0.0, 10: 6.0}, "strength": {5: 0.3, 9: 0.6},
        "translation_x": {6: 0.0, 7: 3.25}, "seed": {5: int(seed), 8: int(seed) + 5}, "contrast": {5: 1.0, 10: 1.1},
    }.items():  # fmt: skip
        for frame, value in keys.items():
            setattr(settings, name, value)
            settings.keyframe_insert(name, frame=frame)
    settings.cadence, settings.keyframe_every, settings.color_mode, settings.border = 2, 3, 'RGB', 'wrap'
    settings.noise = 0.01
    first = settings.prompts[0]
    first.frame, first.text, first.ease = 5, "a calm sea at dawn, photo", 'linear'
    for frame, text in ((7, "a forest at day, photo"), (9, "a city at night, photo")):
        scene.frame_set(frame)
        bpy.ops.koshi.prompt_add()
        settings.prompts[len(settings.prompts) - 1].text = text
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "edit.blend"))
    return bpy.context.scene


def spoil(scene: bpy.types.Scene) -> None:
    """Change everything."""
    scene.animation_data_clear()
    settings, render = scene.koshi, scene.render
    for name in [one.identifier for one in settings.bl_rna.properties]:
        settings.property_unset(name)
    while scene.timeline_markers:
        scene.timeline_markers.remove(scene.timeline_markers[0])
    prompt = settings.prompts.add()
    prompt.text, settings.zoom, settings.seed, settings.strength = "a desert, photo", 1.2, 1, 0.9
    render.resolution_x, render.resolution_y, render.fps, render.fps_base = 128, 96, 24, 1.0
    scene.frame_start, scene.frame_end, scene.frame_step = 1, 3, 2


def strips() -> list[Any]:
    return sorted(compat.all_strips(bpy.context.scene.sequence_editor), key=lambda strip: (strip.channel, strip.name))


def about(strip: Any) -> dict[str, Any]:
    names = ("koshi_shot", "koshi_model", "koshi_seed", "koshi_prompt", "koshi_first", "koshi_places")
    return {name: strip.get(name) for name in names} | {
        "scene": dict(strip["koshi_scene"].items()) if "koshi_scene" in strip else None
    }


def pictures(strip: Any) -> list[str]:
    place = Path(bpy.path.abspath(strip.directory))
    return [hashlib.sha256((place / one.filename).read_bytes()).hexdigest() for one in strip.elements]


def edited(strip: Any) -> dict[str, Any]:
    """What an editor has done to a strip."""
    return {
        "range": compat.strip_range(strip), "start": compat.content_start(strip), "channel": strip.channel,
        "blend": [strip.blend_type, strip.mute, strip.color_saturation, strip.use_flip_x],
        "transform": [strip.transform.offset_x, strip.transform.scale_x, strip.transform.rotation],
        "crop": strip.crop.min_x, "modifiers": [one.type for one in strip.modifiers],
    }  # fmt: skip


def curve_paths(scene: bpy.types.Scene) -> list[str]:
    return sorted(curve.data_path for curve in compat.fcurves(scene) if "koshi" not in curve.data_path.split(".")[0])


scene = stage()
out["poll"] = [getattr(bpy.ops.koshi, name).poll() for name in ("redo_from_strip", "take_replace", "take_rerender")]
bpy.ops.koshi.render()
first = state.status
(strip,) = strips()
out["first"] = {
    "phase": first.phase, "error": first.error, "digest": first.digest, "notes": first.notes, "about": about(strip),
}  # fmt: skip
frames = pictures(strip)

# Saved and loaded, and copied.
copy = scene.copy()
out["copied"] = about(compat.strips(copy.sequence_editor)[0])
bpy.data.scenes.remove(copy)
bpy.ops.wm.save_mainfile()
bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
scene = bpy.context.scene
(strip,) = strips()
out["loaded"] = about(strip)

# Everything is changed, and redone.
sampled = sample.shot_from_scene(scene).shot
redo, stopped = koshi("operators.redo"), []
for count in (1, 3):  # Esc after so many portions: all settings are there
    spoil(scene)
    steps = redo.restoring(scene, strip, 0.0)
    lines = [next(steps) for _ in range(count)]
    steps.close()
    stopped.append([lines[-1], shot_compare.differences(sampled, sample.shot_from_scene(scene).shot)])
out["stopped"] = stopped
spoil(scene)
out["spoiled"] = shot_compare.differences(sampled, sample.shot_from_scene(scene).shot)
scene.sequence_editor.active_strip = strip
out["redo"] = list(bpy.ops.koshi.redo_from_strip())
again = sample.shot_from_scene(scene).shot
out["same_shot"] = again == sampled
out["differs"] = shot_compare.differences(sampled, again)
out["markers"] = sorted([marker.frame, marker.name] for marker in scene.timeline_markers)
out["keys"] = sorted({curve.data_path for curve in compat.fcurves(scene)})
bpy.ops.koshi.render()
out["rendered_again"] = {
    "digest": state.status.digest, "made": state.status.made, "stored": state.status.stored,
    "strips": len(strips()), "same": pictures(strips()[0]) == frames,
}  # fmt: skip

# Trimmed, moved, transformed, faded, with an effect, in a meta strip; then another take of other length and range.
settings = scene.koshi
strip = strips()[0]
strip.name = "Hero"
compat.set_content_start(strip, 105)
compat.set_strip_range(strip, 107, 110)
strip.blend_type, strip.color_saturation, strip.use_flip_x, strip.crop.min_x = 'ALPHA_OVER', 0.5, True, 3
strip.transform.offset_x, strip.transform.scale_x, strip.transform.rotation = 12.0, 1.5, 0.25
strip.modifiers.new("bright", 'BRIGHT_CONTRAST')
for frame, value in ((107, 0.0), (109, 1.0)):
    strip.blend_alpha = value
    strip.keyframe_insert("blend_alpha", frame=frame)
effect = compat.new_effect(scene.sequence_editor, 'GAUSSIAN_BLUR', "blur", 2, 107, 110, strip)
out["edited"] = [edited(strip), compat.strip_range(effect), curve_paths(scene)]

settings.strength = 0.5
scene.frame_start, scene.frame_end = 4, 8  # begins earlier, ends earlier
settings.seed = int(seed) + 50
for curve in [c for c in compat.fcurves(scene) if c.data_path == "koshi.seed"]:
    compat.fcurves(scene).remove(curve)
settings.prompts[0].frame = 4
bpy.ops.koshi.render()
out["second"] = {"phase": state.status.phase, "error": state.status.error, "digest": state.status.digest}
scene.sequence_editor.active_strip = strip
other = Path(state.status.folder)
menu = {name: number for name, *_, number in koshi("operators.take_operators")._other_takes(None, bpy.context)}
out["replace"] = list(bpy.ops.koshi.take_replace(take=str(other)))
out["replaced"] = [edited(strip), compat.strip_range(effect), curve_paths(scene)]
out["menu"] = [
    len(set(menu.values())), max(menu.values()) < 2**31,
    menu == {name: number for name, *_, number in koshi("operators.take_operators")._other_takes(None, bpy.context)},
]  # fmt: skip
# The menu is asked for at each redraw: the takes' files are read once, and again where something has changed.
take_operators, reads = koshi("operators.take_operators"), []
shot_of = take_operators.start.shot_of
take_operators.start.shot_of = lambda take: reads.append(take.folder.name) or shot_of(take)
there = list(take_operators._other_takes(None, bpy.context))  # it is one list, filled anew
changes = [len(reads)]
os.utime(other / next(other.iterdir()).name)  # what changes in a picture does not matter
(other / "9999.png").touch()
os.utime(other, (1.0, 1.0))  # two changes may be closer than a file system's clock
counted = list(take_operators._other_takes(None, bpy.context))
changes.append(len(reads))
(other / "9999.png").unlink()
os.utime(other, (2.0, 2.0))
take_operators._other_takes(None, bpy.context)
seed_file = koshi("operators.reader").shot_file(other)
seed_file.write_text(seed_file.read_text().replace(f'"seed": {int(seed) + 50}', '"seed": 7'))
reseeded = list(take_operators._other_takes(None, bpy.context))
changes.append(len(reads))
seed_file.write_text(seed_file.read_text().replace('"seed": 7', f'"seed": {int(seed) + 50}'))
take_operators.start.shot_of = shot_of


def line_of(items: list[Any]) -> str:
    return next(line.partition(": ")[2].removesuffix(" (shown now)") for name, line, *_ in items if Path(name) == other)


out["menu_read"] = [changes, [line_of(items) for items in (there, counted, reseeded)]]
out["replaced_files"] = [one.filename for one in strip.elements]
out["replaced_about"] = about(strip)
out["effect_input"] = effect.input_1.name
out["shown_now"] = [[Path(name) == other, icon] for name, line, _, icon, _ in there if line.endswith("(shown now)")]

# In a meta strip, and cut into two pieces; and the first take again.
made = [one for one in strips() if one not in (strip, effect)]
scene.sequence_editor.active_strip = made[-1]
for one in made:
    compat.strips(scene.sequence_editor).remove(one)
meta = compat.strips(scene.sequence_editor).new_meta("Act", 5, 107)
strip.move_to_meta(meta)  # the effect goes along
strip.split(108, 'SOFT')
scene.sequence_editor.active_strip = strip
out["pieces"] = [[one.name, *compat.strip_range(one)] for one in strips() if one.type == 'IMAGE']
start_folder = other.with_name(f"Scene_{out['first']['digest'][:8]}")
last = next(one for one in strips() if one.type == 'IMAGE' and one != strip)
last["koshi_part"] = 1  # of a take of more than a thousand frames, which the other one is not
try:
    bpy.ops.koshi.take_replace(take=str(start_folder))
except RuntimeError as error:
    out["half"] = str(error)
out["half_after"] = [element.filename for one in (strip, last) for element in one.elements]
last["koshi_part"] = 0
out["back"] = list(bpy.ops.koshi.take_replace(take=str(start_folder)))
out["pieces_after"] = [[one.name, *compat.strip_range(one)] for one in strips() if one.type == 'IMAGE']
out["back_same"] = [pictures(one) == frames for one in strips() if one.type == 'IMAGE']
out["inside"] = sorted(one.name for one in compat.all_strips(scene.sequence_editor) if one.parent_meta() == meta)

# What is rendered anew goes into the strip; and a strip for a take that has none.
settings.strength = 0.45
out["rerender"] = list(bpy.ops.koshi.take_rerender())
images = [one for one in strips() if one.type == 'IMAGE']
out["rerendered"] = {
    "phase": state.status.phase, "notes": state.status.notes, "strips": len(images),
    "digests": sorted({one["koshi_shot"] for one in images}) == [state.status.digest],
    "ranges": [compat.strip_range(one) for one in images],
    "folder": Path(bpy.path.abspath(images[0].directory)) == Path(state.status.folder),
}  # fmt: skip
out["add"] = list(bpy.ops.koshi.take_add(take=str(start_folder)))
added = next(one for one in strips() if one.type == 'IMAGE' and one.parent_meta() is None)
out["added"] = {"range": compat.strip_range(added), "same": pictures(added) == frames, "name": added.name}

# Its name follows what it shows, also that of a strip whose name had no seed yet.
names = [added.name]
for folder_shown, name in ((other, added.name), (start_folder, other.name)):
    added.name = name
    bpy.ops.koshi.take_replace(take=str(folder_shown), pieces=False)
    names.append(added.name)
out["named"] = [names, [start_folder.name, other.name]]


def from_the_view(operator: Any, *given: Any, **named: Any) -> Any:
    """As a menu or F3 calls it in the 3D view."""
    area = next(area for area in bpy.context.window.screen.areas if area.type == 'VIEW_3D')
    with bpy.context.temp_override(area=area, region=area.regions[-1]):
        return operator(*given, **named)


# Beside a sequencer that shows another scene than the window does, which 5.0 knows.
window = bpy.context.window
window.scene = bpy.data.scenes.new("Elsewhere")
beside = [from_the_view(bpy.ops.koshi.take_replace.poll)]
next(area for area in window.screen.areas if area.type == 'PROPERTIES').type = 'SEQUENCE_EDITOR'
if hasattr(window.workspace, "sequencer_scene"):
    window.workspace.sequencer_scene = scene
beside.append(from_the_view(bpy.ops.koshi.take_replace.poll))
if beside[-1]:
    from_the_view(bpy.ops.koshi.take_replace, take=str(other), pieces=False)
out["beside"] = [*beside, hasattr(window.workspace, "sequencer_scene"), added.name]

# Every third frame, moved in 2D and 3D: keyed so that a render of it is the same.
bare = bpy.data.scenes.new("Stepped")
bpy.context.window.scene = bare
settings, bare.frame_start, bare.frame_end, bare.frame_step = bare.koshi, 2, 8, 3
bare.render.resolution_x, bare.render.resolution_y = 64, 64
settings.steps, settings.mode, settings.seed = 1, 'START', int(seed) + 90
settings.prompts.add().text = "a calm sea at dawn, photo"
for name, begin, end in (("zoom", 1.0, 1.03), ("angle", 0.0, 3.0), ("strength", 0.3, 0.5), ("translation_z", 0.0, 2.0)):
    for frame, value in ((2, begin), (8, end)):
        setattr(settings, name, value)
        settings.keyframe_insert(name, frame=frame)
bpy.ops.koshi.render()
digest = state.status.digest
(strip,) = compat.strips(bare.sequence_editor)
bare.animation_data_clear()
settings.zoom, bare.frame_step, bare.frame_end = 1.5, 1, 20
differs, _ = redo.restore(bare, strip)
phase, step = state.status.phase, bare.frame_step
bpy.ops.koshi.render()

# What a take took from the scene itself: the camera's exact motion, its look, its depth, a mask. Nothing is rendered.
strip_about, reader = koshi("operators.strip_about"), koshi("operators.reader")
deep = bpy.data.scenes.new("Deep")
deep.render.resolution_x, deep.render.resolution_y = 64, 64
deep.frame_start, deep.frame_end = 1, 3
for name in ("Other Camera", "Camera"):
    deep.camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    deep.collection.objects.link(deep.camera)
camera = deep.camera
for frame in (1, 3):
    camera.location.x = frame
    camera.keyframe_insert("location", frame=frame)
masked = bpy.data.collections.new("Masked")
deep.koshi.prompts.add().text = "a calm sea"
deep.koshi.motion_source, deep.koshi.start, deep.koshi.structure = 'EXACT', 'SCENE', 'EDGES'
deep.koshi.mask, deep.koshi.angle = masked, 2.0
shot = sample.shot_from_scene(deep).shot
place = Path(folder) / "koshi" / "Deep_00000000"
place.mkdir()
for number in (1, 2, 3):
    (place / reader.frame_name(number)).write_bytes(next(other.glob("*.png")).read_bytes())
reader.shot_file(place).write_text(json.dumps(shot))
footage = sequencer.Footage("0" * 64, place, 1, 3, about=strip_about.told(shot, strip_about.scene_side(deep)))
sequencer.show_frame(deep, footage, 2, [])
deep.koshi.motion_source, deep.koshi.start, deep.koshi.structure = 'CURVES', 'PROMPT', 'NONE'
deep.koshi.mask, deep.camera, deep.koshi.angle = None, bpy.data.objects["Other Camera"], 0.0
(strip,) = compat.strips(deep.sequence_editor)
out["deep"] = [redo.restore(deep, strip)[0], deep.camera.name, deep.koshi.mask.name, deep.koshi.structure]
camera.location.y = 5.0
camera.keyframe_insert("location", frame=2)
out["moved"] = redo.restore(deep, strip)[0]
out["stepped"] = {"phase": phase, "differs": differs, "step": step, "digest": digest, "again": state.status.digest}
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Films, pictures, masks and LoRAs as an artist sets them, and what is sampled of them: `-- FOLDER`, which has
clip.mp4, pictures and two LoRAs."""

from __future__ import annotations

import os
import sys
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

sample, compat, guides = koshi("operators.sample"), koshi("operators.compat"), koshi("operators.guides")
preview_shot, shot_fields = koshi("operators.preview_shot"), koshi("operators.shot_fields")
properties = koshi("panels.properties")
BridgeError = koshi("bridge_server.protocol").BridgeError
(folder,) = arguments()
out: dict[str, Any] = {"shots": {}, "refused": {}}


def stage(frames: int = 8) -> tuple[bpy.types.Scene, Any]:
    """An empty scene, saved beside the files, so that // is their folder."""
    scene = empty_scene(64, 64, frames)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "media.blend"))
    return scene, scene.koshi


def keyed(group: Any, name: str, *keys: tuple[int, float]) -> None:
    """Straight lines between these values."""
    for frame, value in keys:
        setattr(group, name, value)
        group.keyframe_insert(name, frame=frame)
    path = group.path_from_id(name)
    curve = next(one for one in compat.fcurves(group.id_data) if one.data_path == path)
    for point in curve.keyframe_points:
        point.interpolation = 'LINEAR'


def take(name: str, scene: bpy.types.Scene, *span: int) -> None:
    out["shots"][name] = sample.shot_from_scene(scene, *span).shot


def refused(name: str, scene: bpy.types.Scene) -> None:
    try:
        sample.shot_from_scene(scene)
    except BridgeError as error:
        out["refused"][name] = [problem["message"] for problem in error.problems]


def motion_alone(scene: bpy.types.Scene) -> dict[str, Any]:
    steps = preview_shot.motion_shot(scene, float("inf"))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


# Nothing is named that is not used, whatever else is set.
scene, settings = stage()
settings.video, settings.hybrid_over, settings.hybrid_mask = "//clip.mp4", "every", "blend"
settings.mask_blur, settings.mask_amount, settings.guided, settings.structure_as = 3.0, 0.5, 0.7, "edges"
settings.init_image, settings.color_image, settings.flow_factor, settings.seed_iter_n = "//no", "//no", 2.0, 4
take("plain", scene)

# A film: painted over, from its fourth frame on, every second one.
scene, settings = stage()
settings.video_source, settings.video = 'FILE', "//clip.mp4"
refused("unused", scene)
settings.hybrid_over, settings.video_first, settings.video_every, settings.video_last = "every", 4, 2, 20
settings.start, settings.init_image = 'IMAGE', "//nowhere.png"  # it does not count: frames begin in the film
take("over", scene)
take("over_part", scene, 4, 6)
scene.frame_step = 2
take("over_stepped", scene, 5, 8)
scene.frame_step = 1

# Mixed in, by a mask and by keyframes.
settings.hybrid_over, settings.start, settings.hybrid_composite = "first", 'PROMPT', "normal"
settings.hybrid_mask, settings.hybrid_inverse, settings.hybrid_equalize = "blend", True, "after"
settings.hybrid_auto_contrast, settings.hybrid_cutoff_low, settings.hybrid_cutoff_high = True, 5.0, 95.0
settings.hybrid_mask_contrast = 1.5
keyed(settings, "hybrid_alpha", (1, 0.0), (8, 0.7))
keyed(settings, "hybrid_mask_alpha", (1, 0.1), (8, 0.8))
take("mixed", scene)
out["motion_of_mixed"] = motion_alone(scene)
settings.hybrid_mask, settings.depth_source = "depth", "files"
settings.depth_files, settings.depth_nearest = "//picture.png", 0.5
take("by_depth", scene)
out["motion_by_depth"] = motion_alone(scene)

# The scene's own depth: for the film's mask, and for the curves in 3D.
settings.depth_source = "scene"
refused("no_camera_for_depth", scene)
scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(scene.camera)
scene.frame_end = 2
out["depth_wanted"] = [guides.wanted(settings)]
take("by_own_depth", scene)
out["motion_by_own_depth"] = motion_alone(scene)
kinds = type(settings).bl_rna.properties["depth_source"].enum_items
out["depth_numbers"] = {kind.identifier: kind.value for kind in kinds}
settings.hybrid_composite, settings.video_source = "none", 'NONE'
out["depth_wanted"].append(guides.wanted(settings))
settings.motion_source, settings.depth_farthest = '3D', 9.0
out["depth_wanted"].append(guides.wanted(settings))
take("own_depth", scene)
out["motion_over_depth"] = motion_alone(scene)

# Numbered pictures keep the frame's own number; motion that follows them, alone and painted.
scene, settings = stage()
settings.video_source, settings.video, settings.motion_source = 'FILE', "//clip_####.png", 'FLOW'
settings.flow_method, settings.flow_factor = "dis_fast", 0.5
settings.loras.add().file = "//ink.safetensors"
settings.zoom = 1.01
take("flow", scene)
take("flow_part", scene, 4, 8)
out["motion_alone"] = motion_alone(scene)
for source in ('AFFINE', 'PERSPECTIVE'):
    settings.motion_source = source
    take(source.lower(), scene)
settings.video_source = 'NONE'
refused("no_film", scene)

# This scene as the film, in clay, and a mask by its objects.
scene, settings = stage(2)
bpy.ops.mesh.primitive_cube_add(size=2)
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
camera.location = (0, 0, 6)
scene.collection.objects.link(camera)
scene.camera = camera
settings.video_source, settings.hybrid_composite = 'CLAY', "normal"
out["wanted"] = guides.wanted(settings)
take("clay", scene)
sampled = sample.shot_from_scene(scene)
list(guides.render_guides(scene, sampled.shot, guides.guides_folder(scene)))
out["rendered"] = sorted(os.listdir(guides.guides_folder(scene)))
settings.video_source, settings.hybrid_over = 'SCENE', "first"
take("scene", scene)
settings.hybrid_composite = settings.hybrid_over = "none"
out["unwanted"] = guides.wanted(settings)
scene.camera, settings.hybrid_over = None, "every"
refused("no_camera", scene)

# Pictures: to start from, to be drawn towards, to take colours from, to be shown, to mask.
scene, settings = stage()
settings.start, settings.init_image = 'IMAGE', "//picture.png"
settings.mask_source, settings.mask_invert, settings.mask_blur = 'ALPHA', True, 2.0
keyed(settings, "mask_amount", (1, 1.0), (8, 0.3))
take("alpha", scene)
settings.start = 'PROMPT'
refused("alpha", scene)
settings.mask_source, settings.mask_file = 'FILE', "//clip.mp4"
settings.mask_contrast, settings.mask_brightness = 2.0, 1.5
settings.structure, settings.structure_file, settings.structure_as = 'FILE', "//picture.png", "edges"
settings.color_reference, settings.color_image, settings.color_every = "image", "//picture.png", 3
take("masked", scene)
take("masked_part", scene, 5, 8)
out["motion_of_masked"] = motion_alone(scene)

# Guided pictures: added at the playhead, moved, counted from the range's first frame.
scene, settings = stage()
picture = os.path.join(folder, "picture.png")
for frame in (6, 2, 6):
    scene.frame_set(frame)
    bpy.ops.koshi.guided_add(filepath=picture)
out["guided_frames"] = [one.frame for one in settings.guided_images]
out["guided_image"] = settings.guided_images[0].image
settings.guided_index = 2
bpy.ops.koshi.guided_remove()
settings.guided_images[0].image = "//other.png"
settings.guided_as, settings.color_reference = "both", "guided"
keyed(settings, "guided", (1, 0.1), (8, 0.5))
take("guided", scene)
take("guided_part", scene, 4, 5)
scene.frame_step = 3
take("guided_stepped", scene)
scene.frame_step = 1


def guided_now() -> list[list[object]]:
    told = sample.shot_from_scene(scene).shot
    return [[one["frame"], os.path.basename(one["image"])] for one in told.get("guided_images", [])]


# On the timeline they are markers as prompts are: moved from both ends, duplicated, deleted, hidden and put back.
first = settings.guided_images[0]
marks = {marker.name: marker for marker in scene.timeline_markers}
out["pictures_marked"] = [sorted(marks), [one.frame for one in settings.guided_images]]
marks["«other»"].frame = 4
out["picture_moved"] = [first.frame, guided_now()]
first.frame = 5
again = scene.timeline_markers.new("«other»", frame=8)
out["picture_again"] = [marks["«other»"].frame, guided_now()]
for marker in (marks["«other»"], again):
    scene.timeline_markers.remove(marker)
out["picture_off"] = [guided_now()]
settings.guided_index, scene.frame_current = 0, 7
bpy.ops.koshi.guided_place()
scene.koshi.prompt_markers = False
out["picture_off"] += [guided_now(), len(scene.timeline_markers)]
scene.koshi.prompt_markers = True
settings.color_reference = "prompt"
for marker in [one for one in scene.timeline_markers if one.name.startswith("«")]:
    scene.timeline_markers.remove(marker)
told = sample.shot_from_scene(scene).shot
out["pictures_none"] = [name for name in ("guided_images", "guided_as") if name in told] + list(told["schedules"])[8:]

# The scene that was edited where the file browser was called for, not the one that the browser knows.
other = bpy.data.scenes.new("Other")
bpy.ops.koshi.guided_add(filepath=picture, scene="Other")
bpy.ops.koshi.lora_add(filepath=os.path.join(folder, "ink.safetensors"), scene="Other")
out["other_scene"] = [len(other.koshi.guided_images), len(other.koshi.loras), len(settings.guided_images)]
bpy.data.scenes.remove(other)

# LoRAs: keyframes follow them when they are moved and removed.
scene, settings = stage()
bpy.ops.koshi.lora_add(directory=folder, files=[{"name": "ink.safetensors"}, {"name": "steady.safetensors"}])
bpy.ops.koshi.lora_add(filepath=os.path.join(folder, "ink.safetensors"))
first, second, third = settings.loras
out["lora_files"] = [one.file for one in settings.loras]
keyed(first, "weight", (1, 0.0), (8, 0.7))
second.weight, third.weight = 0.25, 2.0
third.driver_add("weight").driver.expression = "frame / 4"
take("loras", scene)
settings.loras_index = 2
bpy.ops.koshi.lora_move(to='UP')
bpy.ops.koshi.lora_move(to='UP')
take("loras_moved", scene)
out["top"] = sorted(bpy.ops.koshi.lora_move(to='UP'))
settings.loras_index = 2  # "steady"
bpy.ops.koshi.lora_remove()
settings.loras[0].use = False
take("loras_removed", scene)
out["lora_paths"] = sorted(
    curve.data_path for curves in compat.every_fcurves(scene) for curve in curves if "loras" in curve.data_path
)

# Seeds that go on, and what holds for experts.
scene, settings = stage()
settings.seed, settings.seed_behavior, settings.seed_iter_n = 100, "iter", 3
settings.time_rounding, settings.carry = "bfl", "latent"
take("seeds", scene)
take("seeds_part", scene, 4, 8)

# Masks in words, and keyframes where the artist keys them.
scene, settings = stage()
settings.mask_source, settings.mask_file = 'WORDS', "//picture.png"
settings.mask_where = "0:({video_mask}), 5:(![//other.png])"
settings.mask_noise, settings.noise = "[//other.png]", 0.1
for frame, on in ((1, False), (3, True), (4, False), (7, True)):
    settings.keyframe_here = on
    settings.keyframe_insert("keyframe_here", frame=frame)
take("words", scene)
take("words_part", scene, 4, 8)

# All else that a shot can say: exact cameras, cuts, prompts that are blended, all settings at once.
scene, settings = stage(2)
for k in range(2):
    camera = bpy.data.objects.new(f"Camera {k}", bpy.data.cameras.new("Camera"))
    camera.data.type = 'ORTHO'
    camera.location = (0, 0, 6)
    scene.collection.objects.link(camera)
    scene.timeline_markers.new(f"cut {k}", frame=k + 1).camera = camera
scene.camera, settings.motion_source = camera, 'EXACT'
scene.frame_set(1)
prompt = settings.prompts[0]
prompt.negative, prompt.ease = "people", "linear"
later = settings.prompts.add()
later.text, later.frame = "a hill at night", 2
other = settings.prompts.add()
other.text, other.frame, other.use_weight, other.weight = "snow", 1, True, 0.5
keyed(settings, "seed", (1, 4), (2, 9))
take("exact", scene)
scene, settings = stage()
counts, shot_fields.counts = shot_fields.counts, lambda *_: True
for name in shot_fields.FIELDS:
    prop, default = settings.bl_rna.properties[name], shot_fields.FIELDS[name][1]
    if prop.type == 'ENUM':
        setattr(settings, name, next(i.identifier for i in prop.enum_items if i.identifier != str(default)))
    elif prop.type == 'STRING':
        setattr(settings, name, "//picture.png")
    else:
        setattr(settings, name, not default if prop.type == 'BOOLEAN' else (default or 0) + 1)
out["told"] = sorted(sample.told(settings))
shot_fields.counts = counts

# What is not there, in words.
scene, settings = stage()
settings.video_source, settings.hybrid_over = 'FILE', "first"
refused("no_file_chosen", scene)
settings.video = "//gone.mp4"
settings.guided_images.add().image = "//gone.png"
settings.loras.add().file = "//gone.safetensors"
settings.loras.add()
settings.color_reference = "image"
refused("gone", scene)
rna = settings.loras[0].bl_rna.properties["weight"]
out["schedules"] = [*properties.SCHEDULES, *properties.MORE_SCHEDULES, "seed"]
out["weight"] = [rna.is_animatable, rna.hard_min, rna.hard_max, rna.default]
result(out)

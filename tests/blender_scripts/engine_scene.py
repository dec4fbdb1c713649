# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a .blend for the render engine, which wants a camera: `-- OUT.blend '{"seed": 3}'`. AgX and dither as new."""

from __future__ import annotations

import json
import os
import sys

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene

path, given = arguments()
settings = {"name": "Scene", "frames": 6, "seed": 1, "width": 64, "height": 64, "prompt": True, **json.loads(given)}
scene = empty_scene(settings["width"], settings["height"], settings["frames"])
scene.name = settings["name"]
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(camera)
scene.camera = camera
camera.location = (0.0, 0.0, 5.0)
koshi = scene.koshi
koshi.steps, koshi.seed, koshi.strength, koshi.translation_x = 1, settings["seed"], 0.4, 1.5
for frame, zoom in ((1, 1.0), (settings["frames"], 1.04)):
    koshi.zoom = zoom
    koshi.keyframe_insert("zoom", frame=frame)
if not settings["prompt"]:
    koshi.prompts.clear()
if settings.get("seen"):  # painted over the scene, and moved as its camera sees it
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.light_add(type='SUN')
    koshi.start, koshi.motion_source = 'SCENE', 'EXACT'
    for frame, x in ((1, 0.0), (settings["frames"], 0.5)):
        camera.location.x = x
        camera.keyframe_insert("location", frame=frame)
if "media" in settings:  # a film, a guided picture, a mask and a LoRA from that folder
    media = settings["media"]
    koshi.video_source, koshi.video, koshi.video_first = 'FILE', os.path.join(media, "clip.mp4"), 2
    koshi.hybrid_over, koshi.hybrid_composite, koshi.hybrid_mask = "first", "normal", "difference"
    koshi.mask_source, koshi.mask_file = 'FILE', os.path.join(media, "half.png")
    guided = koshi.guided_images.add()
    guided.frame, guided.image = 2, os.path.join(media, "picture.png")
    lora = koshi.loras.add()
    lora.file = os.path.join(media, "ink.safetensors")
    for frame, weight, alpha in ((1, 0.0, 0.0), (settings["frames"], 1.0, 0.6)):
        lora.weight, koshi.hybrid_alpha = weight, alpha
        lora.keyframe_insert("weight", frame=frame)
        koshi.keyframe_insert("hybrid_alpha", frame=frame)
if "more_scenes" in settings:  # {name: seed}, None: without a prompt
    for name, seed in settings["more_scenes"].items():
        other = scene.copy()
        other.name = name
        other.use_fake_user = True  # or it would not be saved
        other.frame_end = 2
        other.koshi.seed = seed or 0
        if seed is None:
            other.koshi.prompts.clear()
assert scene.view_settings.view_transform == 'AgX' and scene.render.dither_intensity == 1.0
bpy.ops.wm.save_as_mainfile(filepath=path)

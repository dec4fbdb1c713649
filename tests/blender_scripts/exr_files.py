# SPDX-License-Identifier: GPL-3.0-or-later
"""Run in Blender: writes OpenEXR files of every kind that it has, into the folder given last.

A plane of 2 x 2 units stands 5 units ahead of a camera that looks straight down, and moves 0.1 units to the right per
frame; behind it is nothing. Also a picture of noise, whose packed form uses all of a codec.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

folder = Path(sys.argv[-1])
CODECS = ("NONE", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "DWAA")

bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))  # looks down -Z, lens 50, sensor 36
scene.collection.objects.link(camera)
scene.camera = camera
bpy.ops.mesh.primitive_plane_add(size=2, location=(0, 0, -5))
plane = bpy.context.object
for frame in (1, 2, 3):
    plane.location.x = 0.1 * frame
    plane.keyframe_insert("location", frame=frame)

render = scene.render
render.engine = "CYCLES"
scene.cycles.samples = 1
scene.cycles.use_denoising = False
scene.cycles.pixel_filter_type = "BOX"
scene.cycles.filter_width = 0.01
render.resolution_x, render.resolution_y, render.resolution_percentage = 80, 48, 100
layer = scene.view_layers[0]
layer.use_pass_z = layer.use_pass_vector = True
scene.frame_set(2)

image = render.image_settings


def kind(media: str, file: str) -> None:
    if hasattr(image, "media_type"):  # Blender 5
        image.media_type = media
    image.file_format = file


kind("MULTI_LAYER_IMAGE", "OPEN_EXR_MULTILAYER")
bpy.ops.render.render()
result = bpy.data.images["Render Result"]
for codec in CODECS:
    for depth in ("16", "32"):
        image.exr_codec, image.color_depth = codec, depth
        for parts in (False, True) if hasattr(image, "use_exr_interleave") else (False,):
            if parts or hasattr(image, "use_exr_interleave"):
                image.use_exr_interleave = not parts  # Blender 5 writes a part per pass unless told otherwise
            result.save_render(str(folder / f"layers-{codec}-{depth}{'-parts' if parts else ''}.exr"), scene=scene)

kind("IMAGE", "OPEN_EXR")
image.color_depth, image.exr_codec = "32", "ZIP"
for mode in ("BW", "RGB", "RGBA"):
    image.color_mode = mode
    result.save_render(str(folder / f"single-{mode}.exr"), scene=scene)

image.color_mode = "RGBA"
for width, height in ((1, 1), (37, 29), (131, 70)):
    noise = bpy.data.images.new("noise", width, height, alpha=True, float_buffer=True)
    state, values = 1, []
    for _ in range(width * height * 4):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(state / 2**31)
    noise.pixels.foreach_set(values)
    for codec in CODECS[:-1]:
        for depth in ("16", "32"):
            image.exr_codec, image.color_depth = codec, depth
            noise.save_render(str(folder / f"noise-{width}x{height}-{codec}-{depth}.exr"), scene=scene)
    bpy.data.images.remove(noise)

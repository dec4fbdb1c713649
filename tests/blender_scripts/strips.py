# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the strips of a rendered .blend, and render one of its frames: `-- OUT.png FRAME`."""

from __future__ import annotations

import os
import sys

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result

compat = koshi("operators.compat")
picture, frame = arguments()
scene = bpy.context.scene
strips = []
for strip in compat.strips(scene.sequence_editor):
    start, end = compat.strip_range(strip)
    folder = bpy.path.abspath(strip.directory)
    strips.append(
        {
            "name": strip.name,
            "type": strip.type,
            "channel": strip.channel,
            "start": start,
            "end": end,
            "shot": strip.get("koshi_shot"),
            "directory": strip.directory,
            "files": [os.path.join(folder, element.filename) for element in strip.elements],
        }
    )
scene.render.dither_intensity = 0.0
if hasattr(scene.render.image_settings, "media_type"):
    scene.render.image_settings.media_type = 'IMAGE'
scene.render.image_settings.file_format = 'PNG'
scene.render.image_settings.color_mode = 'RGB'
scene.render.filepath = picture
scene.frame_set(int(frame))
bpy.ops.render.render(write_still=True)
result({"strips": strips, "view": scene.view_settings.view_transform})

# SPDX-License-Identifier: GPL-3.0-or-later
"""A keyframe that is made anew in every 24th frame: nothing burns in."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.cadence = 1
koshi.inbetween = 'flow'
koshi.loop = 'none'
koshi.seam = 12
koshi.interpolation = '1'
koshi.keyframe_every = 24
koshi.keyframe_prompts = False
koshi.keyframe_strength = 0.85

# SPDX-License-Identifier: GPL-3.0-or-later
"""Twice as fast; what lies between follows the motion."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.cadence = 2
koshi.inbetween = 'flow'
koshi.loop = 'none'
koshi.seam = 12
koshi.interpolation = '1'
koshi.keyframe_every = 0
koshi.keyframe_prompts = False
koshi.keyframe_strength = 1.0

# SPDX-License-Identifier: GPL-3.0-or-later
"""The defaults: follows the motion, stays sharp."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.mode = 'BOTH'
koshi.strength = 0.5
koshi.noise = 0.0
koshi.color_mode = 'LAB'
koshi.color_match = 0.3
koshi.color_reference = 'prompt'
koshi.contrast = 1.0
koshi.sharpen = 0.0
koshi.noise_type = 'gaussian'
koshi.noise_mode = 'incremental'
koshi.noise_delta = 0.05
koshi.noise_scale = 1.0
koshi.carry = 'pixels'

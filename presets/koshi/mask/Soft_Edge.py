# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges of some pixels that nobody sees."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.mask_amount = 1.0
koshi.mask_invert = False
koshi.mask_blur = 6.0
koshi.mask_contrast = 1.0
koshi.mask_brightness = 1.0

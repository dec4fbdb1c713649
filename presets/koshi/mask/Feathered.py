# SPDX-License-Identifier: GPL-3.0-or-later
"""Painting fades out over a wide border."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.mask_amount = 1.0
koshi.mask_invert = False
koshi.mask_blur = 24.0
koshi.mask_contrast = 1.0
koshi.mask_brightness = 1.0

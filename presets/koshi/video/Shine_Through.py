# SPDX-License-Identifier: GPL-3.0-or-later
"""A little of the film comes into each frame before it is painted."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.hybrid_over = 'none'
koshi.hybrid_composite = 'normal'
koshi.hybrid_alpha = 0.2
koshi.hybrid_mask = 'none'
koshi.hybrid_mask_alpha = 0.5
koshi.hybrid_mask_contrast = 1.0
koshi.hybrid_inverse = False
koshi.hybrid_equalize = 'none'
koshi.hybrid_auto_contrast = False
koshi.hybrid_cutoff_low = 0.0
koshi.hybrid_cutoff_high = 100.0

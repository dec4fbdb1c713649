# SPDX-License-Identifier: GPL-3.0-or-later
"""Where picture and film are dark the film shows; what is light stays the picture's."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.hybrid_over = 'none'
koshi.hybrid_composite = 'after_generation'
koshi.hybrid_alpha = 0.8
koshi.hybrid_mask = 'blend'
koshi.hybrid_mask_alpha = 0.5
koshi.hybrid_mask_contrast = 1.0
koshi.hybrid_inverse = False
koshi.hybrid_equalize = 'none'
koshi.hybrid_auto_contrast = True
koshi.hybrid_cutoff_low = 5.0
koshi.hybrid_cutoff_high = 95.0

# SPDX-License-Identifier: GPL-3.0-or-later
"""A little of the picture in each frame."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.guided_as = 'mixed'
koshi.guided = 0.1

# SPDX-License-Identifier: GPL-3.0-or-later
"""The model sees the picture and takes of it what it likes."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.guided_as = 'shown'
koshi.guided = 0.2

# SPDX-License-Identifier: GPL-3.0-or-later
"""Fast into the middle."""

import bpy

area = bpy.context.area
shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None
koshi = (shown or bpy.context.scene).koshi

koshi.motion_source = 'CURVES'
koshi.curves = 'PER_FRAME'
koshi.zoom = 1.04
koshi.angle = 0.25
koshi.translation_x = 0.0
koshi.translation_y = 0.0
koshi.translation_z = 0.0
koshi.rotation_3d_x = 0.0
koshi.rotation_3d_y = 0.0
koshi.rotation_3d_z = 0.0
koshi.fov = 70.0
koshi.aspect_ratio = 1.0
koshi.transform_center_x = 0.5
koshi.transform_center_y = 0.5
koshi.perspective_flip_theta = 0.0
koshi.perspective_flip_phi = 0.0
koshi.perspective_flip_gamma = 0.0
koshi.perspective_flip_fv = 53.0
koshi.border = 'replicate'

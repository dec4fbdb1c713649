# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "Video": the film, what is painted over it, and what is mixed in."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators import compat, shot_fields
from .presets import HasPresets


class Video(HasPresets):
    preset_kind = "video"
    bl_order = 5
    bl_label = "Video"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "video_source")
        if settings.video_source == 'FILE':
            fixed.prop(settings, "video", placeholder="clip.mp4, clip/####.png")
            span = fixed.column(align=True)
            span.prop(settings, "video_first")
            span.prop(settings, "video_every")
            span.prop(settings, "video_last")
        uses = fixed.column()
        uses.active = settings.video_source != 'NONE'
        uses.prop(settings, "hybrid_over")
        if settings.video_source != 'NONE' and not shot_fields.video_is_used(settings):
            layout.label(text="Nothing is taken from it yet", icon='INFO')
        elif settings.video_source == 'NONE' and settings.motion_source in shot_fields.FOLLOWERS:
            layout.label(text="The motion follows a film: choose one", icon='ERROR')


class Mixing:
    bl_label = "Mix In"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.edited_scene(context).koshi.video_source != 'NONE'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "hybrid_composite", text="When")
        rest = layout.column()
        rest.active = settings.hybrid_composite != "none"
        rest.prop(settings, "hybrid_alpha")
        where = rest.column()
        where.use_property_decorate = False
        where.prop(settings, "hybrid_mask")
        if settings.hybrid_mask == "none":
            return
        if settings.hybrid_mask == "blend":
            rest.prop(settings, "hybrid_mask_alpha")
        elif settings.hybrid_mask != "difference":
            _draw_depth(where, settings)
        rest.prop(settings, "hybrid_mask_contrast")
        more = rest.column()
        more.use_property_decorate = False
        more.prop(settings, "hybrid_inverse")
        more.prop(settings, "hybrid_equalize")
        more.prop(settings, "hybrid_auto_contrast")
        span = rest.column(align=True)
        span.active = settings.hybrid_auto_contrast
        span.prop(settings, "hybrid_cutoff_low")
        span.prop(settings, "hybrid_cutoff_high")


def draw_flow(layout: bpy.types.UILayout, settings: Any) -> None:
    """What belongs to the motion source that follows every pixel of the film."""
    column = layout.column(align=True)
    column.prop(settings, "flow_method")
    column.prop(settings, "flow_factor")


def _draw_depth(column: bpy.types.UILayout, settings: Any) -> None:
    """The depth that says where; with the curves' 3D motion it is that one, and shown there."""
    if settings.motion_source == '3D':
        return
    if settings.motion_source != 'EXACT':
        column.prop(settings, "depth_source")
        if settings.depth_source == "model":
            column.prop(settings, "depth_model")
        elif settings.depth_source in ("files", "plane"):
            column.prop(settings, "depth_files")
    span = column.column(align=True)
    span.prop(settings, "depth_nearest")
    span.prop(settings, "depth_farthest")

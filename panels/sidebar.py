# SPDX-License-Identifier: GPL-3.0-or-later
"""The "Koshi" tab in the sidebars of the 3D view and the sequencer."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..operators import compat, shot_fields, start, state
from ..operators.camera import picture_size
from . import exchange, guided, loras, models, prompts, video
from .preferences import draw_error, wrapped
from .presets import HasPresets


class _Main:
    """The tab's head: the button, how it goes, what went wrong, and the model."""

    bl_label = "Koshi"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = compat.edited_scene(context)
        status = state.status
        if status.busy:
            column = layout.column(align=True)
            column.progress(factor=_factor(), text=_progress_text())
            column.label(text=status.left or status.message)
            cancel = layout.column()
            cancel.scale_y = 1.4
            cancel.operator("koshi.cancel", text="Cancel", icon='X')
        else:
            big = layout.column()
            big.scale_y = 1.8
            big.operator("koshi.render", text="Render", icon='RENDER_ANIMATION')
            more = layout.row(align=True)
            if (take := start.unfinished(scene)) is not None:
                text = iface_("Resume ({}/{})").format(take.shown, take.places)
                more.operator("koshi.resume", text=text, icon='PLAY')
            more.operator("koshi.render_from_here", text="From Here", icon='TRACKING_FORWARDS')
        _draw_lines(layout.column(align=True), _summary(scene), context)
        if status.error:
            draw_error(layout, status.error, context)
        elif status.phase in ("done", "cancelled") and status.message:
            _draw_lines(
                layout.column(align=True),
                status.message,
                context,
                'CHECKMARK' if status.phase == "done" else 'CANCEL',
            )
        for note in status.notes:
            _draw_lines(layout.column(align=True), note, context, 'INFO')
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene.koshi, "model")
        if scene.koshi.model == 'CUSTOM':
            column.prop(scene.koshi, "model_path")
        models.draw(column, scene.koshi.model, context)


class _Motion(HasPresets):
    preset_kind = "motion"
    bl_order = 2  # after the preview
    bl_label = "Motion"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        source = layout.column()
        source.use_property_decorate = False
        source.prop(settings, "motion_source")
        if settings.motion_source == 'FLOW':
            video.draw_flow(source, settings)
        if settings.motion_source in shot_fields.FOLLOWERS and settings.video_source == 'NONE':
            source.label(text="Choose a film in the panel Video", icon='ERROR')
        start = source.column()
        start.enabled = not shot_fields.is_painted_over(settings)  # else frames begin in the film
        start.prop(settings, "start")
        if settings.start == 'IMAGE':
            start.prop(settings, "init_image")
        source.prop(settings, "structure")
        if settings.structure == 'FILE':
            source.prop(settings, "structure_file")
            source.prop(settings, "structure_as")
        source.operator("koshi.guides_clear", icon='TRASH')
        source.separator()
        source.prop(settings, "curves")
        column = layout.column()
        column.prop(settings, "zoom")
        column.prop(settings, "angle")
        _columns(layout, settings, ("translation_x", "translation_y", "translation_z"))
        column = layout.column(align=True)
        column.operator("koshi.bake_camera", icon='FCURVE')
        column.operator("koshi.bake_curves", icon='CAMERA_DATA')


class _Feedback(HasPresets):
    preset_kind = "feedback"
    bl_order = 3  # after the preview
    bl_label = "Feedback"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "mode")
        column = layout.column()
        for name in ("strength", "noise", "guidance", "seed"):
            column.prop(settings, name)
        fixed = layout.column()
        fixed.use_property_decorate = False
        fixed.prop(settings, "steps")


class _Perspective:
    bl_label = "Center and Perspective"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        _columns(layout, settings, ("transform_center_x", "transform_center_y"))
        _columns(layout, settings, tuple(f"perspective_flip_{name}" for name in ("theta", "phi", "gamma", "fv")))
        _fixed(layout).prop(settings, "border")


class _In3D:
    bl_label = "3D"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.edited_scene(context).koshi.motion_source == '3D'

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        _columns(layout, settings, ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z"))
        _columns(layout, settings, ("fov", "aspect_ratio"))
        depth = _fixed(layout)
        depth.prop(settings, "depth_source")
        if settings.depth_source == "files":
            depth.prop(settings, "depth_files")
            depth.prop(settings, "depth_near")
            depth.prop(settings, "depth_spacing")
        elif settings.depth_source == "model":
            depth.prop(settings, "depth_model")
        if settings.depth_source in ("scene", "files", "model"):
            span = depth.column(align=True)
            span.prop(settings, "depth_nearest")
            span.prop(settings, "depth_farthest")


class _Colours:
    bl_label = "Colors and Detail"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        _fixed(layout).prop(settings, "color_mode")
        column = layout.column()
        column.active = settings.color_mode != "none"
        column.prop(settings, "color_match")
        fixed = _fixed(column)
        fixed.prop(settings, "color_reference")
        if settings.color_reference == "image":
            fixed.prop(settings, "color_image")
            fixed.prop(settings, "color_every")
        elif settings.color_reference == "guided" and not len(settings.guided_images):
            fixed.label(text="There are no guided pictures", icon='ERROR')
        _columns(layout, settings, ("contrast", "sharpen"))


class _Noise:
    bl_label = "Noise"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = _fixed(layout)
        fixed.prop(settings, "noise_type")
        fixed.prop(settings, "noise_mode")
        if settings.noise_mode == "slerp":
            fixed.prop(settings, "noise_delta")
        fixed.prop(settings, "noise_scale")
        column = layout.column(align=True)
        column.active = settings.noise_mode == "subseed"
        column.prop(settings, "subseed")
        column.prop(settings, "subseed_strength")


class _Chain:
    bl_label = "Seeds and Chain"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = _fixed(layout)
        seeds = fixed.column()
        seeds.active = not compat.is_animated(settings, "seed")  # keyframes say it then
        seeds.prop(settings, "seed_behavior")
        if settings.seed_behavior == "iter":
            seeds.prop(settings, "seed_iter_n")
        carry = fixed.column()
        carry.active = not (shot_fields.is_painted_over(settings) and settings.hybrid_over == "every")
        carry.prop(settings, "carry")
        fixed.prop(settings, "time_rounding")


class _Time(HasPresets):
    preset_kind = "time"
    bl_order = 9
    bl_label = "Time"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        layout.column().prop(settings, "cadence")
        fixed = _fixed(layout)
        fixed.prop(settings, "inbetween")
        if settings.inbetween == "rife":
            fixed.prop(settings, "rife")
        fixed.prop(settings, "loop")
        if settings.loop == "seamless":
            fixed.prop(settings, "seam")
        fixed.prop(settings, "interpolation")
        fixed.prop(settings, "audio")


class _Keyframes:
    bl_label = "Keyframes"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        settings = compat.edited_scene(context).koshi
        fixed = _fixed(layout)
        fixed.prop(settings, "keyframe_every")
        fixed.prop(settings, "keyframe_prompts")
        layout.column().prop(settings, "keyframe_here")
        column = layout.column()
        here = settings.keyframe_here or compat.is_animated(settings, "keyframe_here")
        column.active = bool(settings.keyframe_every or settings.keyframe_prompts or here)
        column.prop(settings, "keyframe_strength")


class _Closed:
    bl_options = {'DEFAULT_CLOSED'}


def _in(space: str, name: str) -> list[type[bpy.types.Panel]]:
    """All of the tab's panels for one editor, parents first."""
    parts = (
        ("", "", (_Main,)),
        ("_prompts", "", (prompts.Prompts,)),
        ("_blending", "_prompts", (prompts.Blending, _Closed)),
        ("_motion", "", (_Motion,)),
        ("_3d", "_motion", (_In3D, _Closed)),
        ("_perspective", "_motion", (_Perspective, _Closed)),
        ("_feedback", "", (_Feedback,)),
        ("_colours", "_feedback", (_Colours, _Closed)),
        ("_noise", "_feedback", (_Noise, _Closed)),
        ("_chain", "_feedback", (_Chain, _Closed)),
        ("_video", "", (video.Video, _Closed)),
        ("_mixing", "_video", (video.Mixing, _Closed)),
        ("_guided", "", (guided.Guided, _Closed)),
        ("_mask", "", (guided.Mask, _Closed)),
        ("_loras", "", (loras.Loras, _Closed)),
        ("_time", "", (_Time, _Closed)),
        ("_keyframes", "_time", (_Keyframes, _Closed)),
        ("_exchange", "", (exchange.Exchange, _Closed)),
    )
    made = []
    for suffix, parent, bases in parts:
        about = {"bl_space_type": space, "bl_region_type": 'UI', "bl_category": "Koshi", "__module__": __name__}
        if suffix:
            about["bl_parent_id"] = f"KOSHI_PT_{name}{parent}"
        made.append(type(f"KOSHI_PT_{name}{suffix}", (*bases, bpy.types.Panel), about))
    return made


def _columns(layout: bpy.types.UILayout, settings: Any, names: tuple[str, ...]) -> None:
    column = layout.column(align=True)
    for name in names:
        column.prop(settings, name)


def _fixed(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """A column of what holds for a whole shot: nothing to keyframe."""
    column = layout.column()
    column.use_property_decorate = False
    return column


def _factor() -> float:
    status = state.status
    return status.done / status.frames if status.frames else 0.0


def _progress_text() -> str:
    status = state.status
    return iface_("Frame {} of {}").format(status.done, status.frames) if status.job_id else iface_("Starting")


def _summary(scene: bpy.types.Scene) -> str:
    """What Render will make, from Blender's own output settings."""
    width, height = picture_size(scene)
    fps = scene.render.fps / scene.render.fps_base
    return iface_("Frames {} to {}, {} x {}, {:g} fps").format(scene.frame_start, scene.frame_end, width, height, fps)


def _draw_lines(
    layout: bpy.types.UILayout, text: str, context: bpy.types.Context, icon: str = 'NONE'
) -> None:
    layout.scale_y = 0.8
    for i, line in enumerate(wrapped(text, context)):
        layout.label(text=line, icon=icon if i == 0 or icon == 'NONE' else 'BLANK1')


register, unregister = bpy.utils.register_classes_factory(
    (*prompts.LISTS, *guided.LISTS, *loras.LISTS, *_in('VIEW_3D', "view3d"), *_in('SEQUENCE_EDITOR', "sequencer"))
)

# SPDX-License-Identifier: GPL-3.0-or-later
"""`scene.koshi`: everything an artist sets or keyframes, under the Deforum names."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from ..koshi_backend.models.registry import MODELS as KNOWN
from ..koshi_backend.models.registry import ModelInfo
from ..operators import markers
from .choices import CURVES, MODES, MOTION_SOURCES, STARTS, STRUCTURES
from .curve_properties import MORE, MotionCurves, PictureCurves, TimeCurves
from .guided_properties import GuidedCurves, GuidedSettings, KoshiGuidedImage, MaskSettings
from .lora_properties import KoshiLora
from .prompt_properties import KoshiPrompt
from .setting_properties import ChainSettings, DepthSettings, PictureSettings, TimeSettings
from .video_properties import VideoCurves, VideoSettings


def _about(info: ModelInfo) -> str:
    """A model's tooltip."""
    if not info.repository:
        return "Ships with Koshi, needs no download and no GPU; made for sizes up to 256 x 256"
    able = "" if info.traits.references else ", no references"
    return f"{info.licence}, {info.traits.steps} steps{able}; the weights take {info.memory_gb:.0f} GB of memory"


# Identifiers are what the backend calls the models; CUSTOM stands for the path in `model_path`.
MODELS = (
    *((info.name, info.title.partition(" (")[0], _about(info)) for info in KNOWN.values()),
    ("CUSTOM", "Custom", "A model of your own: a folder in diffusers layout, a safetensors or a GGUF file"),
)

def _model_items(settings: bpy.types.PropertyGroup, context: bpy.types.Context) -> list:
    """The same for the menu, with what is installed; imported late, for the operators need this module."""
    from .models import menu_items

    return menu_items(MODELS)


# Sampled once per frame, in this order. `seed` is handled apart: it is also the shot's own seed.
SCHEDULES = (
    "zoom",
    "angle",
    "translation_x",
    "translation_y",
    "translation_z",
    "strength",
    "noise",
    "guidance",
)
MORE_SCHEDULES = MORE  # the same, named in a shot only where they differ from their defaults


def _markers_switched(settings: Any, context: bpy.types.Context) -> None:
    (markers.show_all if settings.prompt_markers else markers.hide_all)(settings.id_data)


class KoshiSettings(
    MotionCurves,
    PictureCurves,
    TimeCurves,
    VideoCurves,
    GuidedCurves,
    TimeSettings,
    PictureSettings,
    ChainSettings,
    DepthSettings,
    VideoSettings,
    GuidedSettings,
    MaskSettings,
    bpy.types.PropertyGroup,
):
    """Koshi's settings of one scene"""

    zoom: FloatProperty(
        name="Zoom",
        description="How much larger the picture becomes in this frame: 1 keeps, more goes in, less goes out",
        default=1.0,
        min=0.1,
        max=10.0,
        soft_min=0.9,
        soft_max=1.2,
        step=0.1,
        precision=4,
    )
    angle: FloatProperty(
        name="Angle",
        description="How far the picture turns in this frame, in degrees, counter-clockwise",
        default=0.0,
        min=-360.0,
        max=360.0,
        soft_min=-30.0,
        soft_max=30.0,
        step=10,
        precision=3,
    )
    translation_x: FloatProperty(
        name="Translation X",
        description="How far the picture moves to the right in this frame, in pixels",
        default=0.0,
        min=-4096.0,
        max=4096.0,
        soft_min=-50.0,
        soft_max=50.0,
        step=10,
        precision=3,
    )
    translation_y: FloatProperty(
        name="Y",
        description="How far the picture moves down in this frame, in pixels",
        default=0.0,
        min=-4096.0,
        max=4096.0,
        soft_min=-50.0,
        soft_max=50.0,
        step=10,
        precision=3,
    )
    translation_z: FloatProperty(
        name="Z",
        description="How far the view moves into the depth of the picture in this frame, in Deforum's units",
        default=0.0,
        min=-500.0,
        max=75.0,
        soft_min=-100.0,
        soft_max=50.0,
        step=10,
        precision=3,
    )
    strength: FloatProperty(
        name="Strength",
        description="How much of the picture is made anew: 0 keeps it, 1 regenerates it",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )
    noise: FloatProperty(
        name="Noise",
        description="Grain added to the moved picture before the model sees it, against blur",
        default=0.0,
        min=0.0,
        max=1.0,
        soft_max=0.2,
        step=1,
        precision=3,
    )
    guidance: FloatProperty(
        name="Guidance",
        description="How strictly the prompt is followed; distilled models (Koshi Tiny, Klein) want 1",
        default=1.0,
        min=0.0,
        max=30.0,
        soft_max=10.0,
        step=10,
        precision=2,
    )
    seed: IntProperty(
        name="Seed",
        description="Number that the noise is drawn from; the same seed gives the same pictures",
        default=0,
        min=0,
    )

    model: EnumProperty(
        name="Model",
        description="The model that paints the frames",
        items=_model_items,
        default=0,  # koshi-tiny
        options=set(),
    )
    model_path: StringProperty(
        name="Path",
        description="Your own model: a folder in diffusers layout, a safetensors or a GGUF file",
        subtype='FILE_PATH',
        options=set(),
    )
    mode: EnumProperty(
        name="Mode",
        description="How a frame follows from the one before",
        items=MODES,
        default='BOTH',
        options=set(),
    )
    steps: IntProperty(
        name="Steps",
        description="Denoising steps per frame; distilled models want 4",
        default=4,
        min=1,
        soft_max=50,
        max=1000,
        options=set(),
    )
    motion_source: EnumProperty(
        name="Source",
        description="What moves the picture",
        items=MOTION_SOURCES,
        default='CURVES',
        options=set(),
    )
    start: EnumProperty(
        name="Start From",
        description="What the first frame is made from",
        items=STARTS,
        default='PROMPT',
        options=set(),
    )
    curves: EnumProperty(
        name="Curves",
        description="What zoom, angle and translation mean",
        items=CURVES,
        default='PER_FRAME',
        options=set(),
    )
    structure: EnumProperty(
        name="Structure",
        description="What of the scene the model is shown beside the frame before, so that things stay where they are",
        items=STRUCTURES,
        default='NONE',
        options=set(),
    )
    mask: PointerProperty(
        name="Mask",
        description="Only objects of this collection are painted; elsewhere the moved picture stays as it is",
        type=bpy.types.Collection,
        options=set(),
    )
    preview_size: IntProperty(
        name="Longer Side",
        description="Longer side of the preview's picture in pixels; never larger than the render",
        default=256,
        min=64,
        soft_max=512,
        max=1024,
        step=16,
        subtype='PIXEL',
        options=set(),
    )
    prompts: CollectionProperty(type=KoshiPrompt)
    prompts_index: IntProperty(name="Active Prompt", options=set())
    guided_images: CollectionProperty(type=KoshiGuidedImage)
    guided_index: IntProperty(name="Active Guided Picture", options=set())
    loras: CollectionProperty(type=KoshiLora)
    loras_index: IntProperty(name="Active LoRA", options=set())
    prompt_markers: BoolProperty(
        name="Markers",
        description="Show prompts and guided pictures as markers on the timeline, to be moved with the mouse. Deleting "
        "a marker takes its prompt or picture off the timeline, duplicating it lets that come again there",
        default=True,
        update=_markers_switched,
        options=set(),
    )


CLASSES = (KoshiPrompt, KoshiGuidedImage, KoshiLora, KoshiSettings)


def register() -> None:
    """Register the property groups and hang them on the scene."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.koshi = PointerProperty(type=KoshiSettings, name="Koshi")


def unregister() -> None:
    """Undo `register`."""
    del bpy.types.Scene.koshi
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

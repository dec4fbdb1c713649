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


MODES = (
    ("START", "Image to Image", "Each frame starts from the moved frame before it, with noise by strength"),
    ("REFERENCE", "Reference", "Each frame is made anew while looking at the moved frame before it"),
    ("BOTH", "Image and Reference", "Start from the moved frame before and look at it too: follows the motion best"),
)

MOTION_SOURCES = (
    ("CURVES", "Curves", "The zoom, angle and translation values below, per frame"),
    (
        "3D",
        "Curves in 3D",
        "As in Deforum's 3D mode: translation and rotation of the view over a depth, with zoom and angle first",
    ),
    (
        "CAMERA",
        "Camera, Flat",
        "The scene camera's motion as zoom, turn and shift of the picture at the focus distance, "
        "with the values below applied on top",
    ),
    (
        "EXACT",
        "Camera, Exact",
        "Every pixel follows the scene camera over the scene's own depth, and objects that move by themselves; "
        "what comes into view is painted anew. The values below are applied on top",
    ),
    (
        "FLOW",
        "Video, Every Pixel",
        "Every pixel follows the optical flow of the film in the panel Video: for people and water. The values below "
        "are applied on top",
    ),
    (
        "AFFINE",
        "Video, as a Whole",
        "The picture shifts, turns and zooms as the film in the panel Video does: for a film from the hand. The values "
        "below are applied on top",
    ),
    (
        "PERSPECTIVE",
        "Video, in Perspective",
        "The picture moves like something flat in the film of the panel Video, seen from elsewhere: for a drone above "
        "fields. The values below are applied on top",
    ),
)

CURVES = (
    ("PER_FRAME", "Per Frame", "The values say how far the picture moves in each frame, as in Deforum"),
    (
        "ABSOLUTE",
        "Absolute",
        "The values say where the picture is: its size, its turn and its place; what moves it is the difference to the "
        "frame before, of the zoom the ratio",
    ),
)

STRUCTURES = (
    ("NONE", "None", "The model sees the frame before, and nothing of the scene"),
    ("DEPTH", "Depth", "The model is also shown how far things are, as a gray picture"),
    ("EDGES", "Edges", "The model is also shown the outlines of the scene's depth"),
    ("CLAY", "Clay", "The model is also shown the scene in plain gray"),
    ("SCENE", "Scene", "The model is also shown the scene as it is, quickly rendered"),
    ("FILE", "File", "The model is also shown pictures of your own"),
)

STARTS = (
    ("PROMPT", "Prompt", "The model draws the first frame from its prompt alone"),
    (
        "SCENE",
        "Scene",
        "The first frame is painted over a render of the scene, so that the picture has the scene's layout; "
        "strength at that frame says how much is made anew",
    ),
    (
        "IMAGE",
        "Picture",
        "The first frame is painted over a picture of your own; strength at that frame says how much is made anew",
    ),
)

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
        name="Preview Size",
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
        description="Show the prompts as markers on the timeline, to be moved with the mouse. Deleting a marker takes "
        "its prompt off the timeline, duplicating it lets the prompt come again there",
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

# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of the artist's own: to start from, to be drawn towards, to take colours from; and masks."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ..operators import markers
from ..operators.compat import FILE_OPTIONS
from ..operators.shot_fields import FIELDS

GUIDED_AS = (
    ("mixed", "Mixed In", "As much of the picture as Amount says is mixed in before painting; works with any model"),
    ("shown", "Shown", "The model is shown the picture beside the frame before, and nothing is mixed in"),
    ("both", "Both", "The picture is mixed in, and the model is shown it"),
)
MASK_SOURCES = (
    ("COLLECTION", "Collection", "Objects of the scene: what they cover is painted"),
    ("FILE", "File", "A picture, numbered pictures, or a film: white is painted, gray less, black stays"),
    ("ALPHA", "Start Picture's Alpha", "The picture that the shot starts from: what is opaque in it is painted"),
    ("WORDS", "In Words", "Masks joined by words, each from its frame on, as Deforum's mask schedules have them"),
)
STRUCTURE_AS = (
    ("picture", "Picture", "The file as it is"),
    ("depth", "Depth", "The file is a depth, shown as a gray picture: near is light"),
    ("edges", "Edges", "The outlines of the file, which is a picture or a depth"),
)


def _get_frame(one: Any) -> int:
    return markers.frame_of(one)


def _set_frame(one: Any, frame: int) -> None:
    markers.move(one, frame)


def _image_changed(one: Any, context: bpy.types.Context) -> None:
    markers.rename(one)


def _default(name: str) -> object:
    return FIELDS[name][1]


class KoshiGuidedImage(bpy.types.PropertyGroup):
    """A picture that frames are drawn towards, from its frame on until the next one's"""

    frame: IntProperty(
        name="Frame",
        description="Scene frame from which the picture counts: where its marker stands on the timeline. Typing the "
        "number moves the marker, moving the marker changes the number",
        default=1,
        get=_get_frame,
        set=_set_frame,
        options=set(),
    )
    image: StringProperty(
        name="Picture",
        description="A picture file; it is scaled until it covers the frame",
        subtype='FILE_PATH',
        update=_image_changed,
        options=FILE_OPTIONS,
    )
    # How the picture knows its marker again (operators/markers.py).
    marker: StringProperty(options={'HIDDEN'})
    beside: StringProperty(options={'HIDDEN'})
    named: BoolProperty(options={'HIDDEN'})


class GuidedSettings:
    """Start picture, guided pictures, colours of a picture, a structure of one's own: what holds for a whole shot."""

    init_image: StringProperty(
        name="Picture",
        description="The picture that the first frame is painted over. With #### in its name, for the frame, there is "
        "one for each camera cut, too",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    guided_as: EnumProperty(
        name="How",
        description="How frames are drawn towards the pictures",
        items=GUIDED_AS,
        default=_default("guided_as"),
        options=set(),
    )
    color_image: StringProperty(
        name="Picture",
        description="Whose colors the frames take: a picture, numbered pictures (####), or a film",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    color_every: IntProperty(
        name="Look Every",
        description="After how many frames the colors of numbered pictures or of a film are looked at again",
        default=_default("color_every"),
        min=1,
        soft_max=48,
        max=100_000,
        options=set(),
    )
    structure_file: StringProperty(
        name="File",
        description="A picture for all frames, or numbered ones (####); for a depth OpenEXR with that pass, or .npy",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    structure_as: EnumProperty(
        name="Shown As",
        description="What the model is shown of the file",
        items=STRUCTURE_AS,
        default=_default("structure_as"),
        options=set(),
    )


class MaskSettings:
    """Where frames are painted: what holds for a whole shot."""

    mask_source: EnumProperty(
        name="Mask",
        description="What says where frames are painted",
        items=MASK_SOURCES,
        default='COLLECTION',
        options=set(),
    )
    mask_file: StringProperty(
        name="File",
        description="White is painted, gray less, black stays: one picture, numbered ones (####), or a film",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    mask_where: StringProperty(
        name="Where",
        description="{video_mask} (the file), {init_mask} (the start picture's alpha), [a.png] or {everywhere}, joined "
        "by & | ^ \\ and turned round by !. With 0:(...), 24:(...) one after the other, counted from the scene's first",
        options=set(),
    )
    mask_noise: StringProperty(
        name="Noise Where",
        description="Where Noise adds its grain, in the words that masks have; when empty, everywhere",
        options=set(),
    )
    mask_invert: BoolProperty(
        name="Invert",
        description="Paint what would stay, and the other way round",
        default=_default("mask_invert"),
        options=set(),
    )
    mask_blur: FloatProperty(
        name="Blur",
        description="Over how many pixels the mask's edges are soft",
        default=_default("mask_blur"),
        min=0.0,
        max=256.0,
        soft_max=32.0,
        step=100,
        precision=1,
        options=set(),
    )
    mask_contrast: FloatProperty(
        name="Contrast",
        description="Factor on the mask's contrast: 1 keeps it",
        default=_default("mask_contrast"),
        min=0.0,
        max=100.0,
        soft_max=4.0,
        step=10,
        precision=2,
        options=set(),
    )
    mask_brightness: FloatProperty(
        name="Brightness",
        description="Factor on the mask's grays: 1 keeps them",
        default=_default("mask_brightness"),
        min=0.0,
        max=100.0,
        soft_max=2.0,
        step=10,
        precision=2,
        options=set(),
    )


class GuidedCurves:
    """How much guided pictures and masks count, frame by frame."""

    guided: FloatProperty(
        name="Amount",
        description="How much of the guided picture is mixed into each painted frame: 0 is nothing, 1 is the picture",
        default=0.2,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )
    mask_amount: FloatProperty(
        name="Amount",
        description="How far the mask counts: 1 is fully, at 0 everything is painted",
        default=1.0,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shot takes from a film: which one and which of its frames, what is painted over it, what is mixed in.

All of it lies in `scene.koshi` itself: `video_source` says where the film comes from, `video` is its file. The
identifiers are the backend's own words, and the names are the shot's, with the table before them where two agree.
"""

from __future__ import annotations

from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ..operators.compat import FILE_OPTIONS
from ..operators.shot_fields import FIELDS

VIDEO_SOURCES = (
    ("NONE", "None", "The shot takes nothing from a film"),
    ("FILE", "File", "A video file, or numbered pictures"),
    ("SCENE", "This Scene", "The scene itself, quickly rendered: each frame as it is, in its own materials and light"),
    ("CLAY", "This Scene, in Clay", "The scene itself in plain gray: its shapes and how they move, and no colors"),
)
OVERS = (
    ("none", "Nothing", "The film is not painted over"),
    ("first", "First Frame", "The first frame, and the one after each cut, is painted over the film's own"),
    ("every", "Every Frame", "Each frame is painted over the film's own, by Strength; nothing else is carried into it"),
)
COMPOSITES = (
    ("none", "Off", "The film is not mixed in"),
    ("before_motion", "Before the Move", "Into the frame before, which is then moved: what is mixed in moves along"),
    ("normal", "Before Painting", "Into the moved picture, which is then painted over"),
    ("after_generation", "After Painting", "Into the painted picture; the next frame goes on from the mixture"),
)
MASKS = (
    ("none", "Everywhere", "The film is mixed in everywhere alike"),
    ("depth", "Picture's Depth", "What is near in the picture stays, and the film shows where it is far"),
    ("video_depth", "Film's Depth", "What is near in the film hides it, and the film shows where it is far"),
    ("blend", "Grays", "Where picture and film, mixed, are light the picture stays; where dark, the film shows"),
    ("difference", "Difference", "The film shows where it agrees with the picture, and the picture stays elsewhere"),
)
EQUALIZES = (
    ("none", "Off", "Leave the mask's grays as they are"),
    ("before", "Before", "Spread the mask's grays evenly, before the contrast"),
    ("after", "After", "Spread the mask's grays evenly, after the contrast"),
    ("both", "Both", "Spread the mask's grays evenly, before the contrast and after it"),
)
FLOW_METHODS = (
    ("dis_ultrafast", "DIS, Ultrafast", "Coarse, for large pictures"),
    ("dis_fast", "DIS, Fast", "Coarser than Medium"),
    ("dis_medium", "DIS, Medium", "Good and quick"),
    ("dis_fine", "DIS, Fine", "Follows smaller things, and is slower"),
    ("farneback", "Farnebäck", "Smooth; finds nothing that is uncovered"),
    ("raft", "RAFT", "A network; needs torchvision and its weights in the backend's environment"),
)


def _default(name: str) -> object:
    return FIELDS[name][1]


class VideoSettings:
    """The film, and how it comes in: what holds for a whole shot."""

    video_source: EnumProperty(
        name="Source",
        description="The film that frames are painted over, that is mixed in, or whose motion is followed",
        items=VIDEO_SOURCES,
        default='NONE',
        options=set(),
    )
    video: StringProperty(
        name="File",
        description="A video file, or numbered pictures such as clip/####.png, where #### stands for the frame",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    video_first: IntProperty(
        name="First",
        description="The film's frame, counted from 0, that belongs to the scene's first frame",
        default=_default("video_first"),
        min=0,
        max=10_000_000,
        options=set(),
    )
    video_every: IntProperty(
        name="Every",
        description="How many of the film's frames one frame of the scene goes on: 2 takes every second one",
        default=_default("video_every"),
        min=1,
        soft_max=10,
        max=100_000,
        options=set(),
    )
    video_last: IntProperty(
        name="Last",
        description="The film's last frame that may be used, counted from 0; -1 is the film's end",
        default=-1,
        min=-1,
        max=10_000_000,
        options=set(),
    )
    flow_method: EnumProperty(
        name="Method",
        description="How the film's motion is found, pixel by pixel",
        items=FLOW_METHODS,
        default=_default("flow_method"),
        options=set(),
    )
    flow_factor: FloatProperty(
        name="Factor",
        description="How much the film's motion counts: 0 stands still, 2 exaggerates, -1 goes back",
        default=_default("flow_factor"),
        min=-10.0,
        max=10.0,
        soft_min=0.0,
        soft_max=2.0,
        step=10,
        precision=2,
        options=set(),
    )
    hybrid_over: EnumProperty(
        name="Paint Over",
        description="Which frames are painted over the film's own; Strength says how much is made anew",
        items=OVERS,
        default=_default("hybrid_over"),
        options=set(),
    )
    hybrid_composite: EnumProperty(
        name="Mix In",
        description="When the film's picture is mixed in; Amount says how much",
        items=COMPOSITES,
        default=_default("hybrid_composite"),
        options=set(),
    )
    hybrid_mask: EnumProperty(
        name="Where",
        description="Where the film is mixed in",
        items=MASKS,
        default=_default("hybrid_mask"),
        options=set(),
    )
    hybrid_inverse: BoolProperty(
        name="Invert",
        description="Show the film where the picture would stay, and the other way round",
        default=_default("hybrid_inverse"),
        options=set(),
    )
    hybrid_equalize: EnumProperty(
        name="Equalize",
        description="Make each gray of the mask about equally frequent",
        items=EQUALIZES,
        default=_default("hybrid_equalize"),
        options=set(),
    )
    hybrid_auto_contrast: BoolProperty(
        name="Auto Contrast",
        description="Spread the mask's grays from the darkest to the lightest, without what lies beyond the cutoffs",
        default=_default("hybrid_auto_contrast"),
        options=set(),
    )


class VideoCurves:
    """How much of the film is mixed in, frame by frame."""

    hybrid_alpha: FloatProperty(
        name="Amount",
        description="How much of the film is mixed in: 0 is nothing, 1 is all film",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )
    hybrid_mask_alpha: FloatProperty(
        name="Film's Share",
        description="How much of the film there is in the grays that the mask is made of: 0 is the picture's grays, "
        "1 the film's",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )
    hybrid_mask_contrast: FloatProperty(
        name="Contrast",
        description="Factor on the mask's contrast: 1 keeps it, 0 makes it one gray",
        default=1.0,
        min=0.0,
        max=100.0,
        soft_max=4.0,
        step=10,
        precision=2,
    )
    hybrid_cutoff_low: FloatProperty(
        name="Cutoff Low",
        description="Which part of the mask, from the darkest on, becomes black: 5 is a twentieth",
        default=0.0,
        min=0.0,
        max=100.0,
        subtype='PERCENTAGE',
        precision=1,
    )
    hybrid_cutoff_high: FloatProperty(
        name="High",
        description="From where on the lightest part of the mask becomes white: 95 leaves a twentieth",
        default=100.0,
        min=0.0,
        max=100.0,
        subtype='PERCENTAGE',
        precision=1,
    )

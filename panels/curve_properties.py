# SPDX-License-Identifier: GPL-3.0-or-later
"""The curves that most shots leave as they are; at their defaults a shot does not name them."""

from __future__ import annotations

from typing import Any

from bpy.props import BoolProperty, FloatProperty, IntProperty

# All of them, sampled once per frame, by their names in a shot (shot_fields.property_of has those in a scene).
MORE = (
    "transform_center_x",
    "transform_center_y",
    "perspective_flip_theta",
    "perspective_flip_phi",
    "perspective_flip_gamma",
    "perspective_flip_fv",
    "rotation_3d_x",
    "rotation_3d_y",
    "rotation_3d_z",
    "fov",
    "aspect_ratio",
    "keyframe_strength",
    "cadence",
    "contrast",
    "sharpen",
    "color_match",
    "subseed",
    "subseed_strength",
    "guided",
    "mask",  # in a scene `mask_amount`
    "hybrid_alpha",
    "hybrid_mask_alpha",
    "hybrid_mask_contrast",
    "hybrid_cutoff_low",
    "hybrid_cutoff_high",
)


def degrees(name: str, description: str, usual: float) -> Any:
    """A turn; usual: how far it mostly goes to either side."""
    limits = {"min": -360.0, "max": 360.0, "soft_min": -usual, "soft_max": usual}
    return FloatProperty(name=name, description=description, default=0.0, step=10, precision=3, **limits)


def place(name: str, description: str) -> Any:
    """A place in the picture from one side (0) to the other (1), in its middle at first."""
    limits = {"min": -10.0, "max": 10.0, "soft_min": 0.0, "soft_max": 1.0}
    return FloatProperty(name=name, description=description, default=0.5, step=1, precision=3, **limits)


def view_angle(name: str, description: str, default: float) -> Any:
    """An angle of view in degrees."""
    limits = {"min": 1.0, "max": 179.0}
    return FloatProperty(name=name, description=description, default=default, step=100, precision=1, **limits)


class MotionCurves:
    """What moves the picture further."""

    transform_center_x: place(
        "Center X",
        "About which point the picture turns and zooms, from its left edge (0) to its right one (1)",
    )
    transform_center_y: place(
        "Y",
        "About which point the picture turns and zooms, from its upper edge (0) to its lower one (1)",
    )
    perspective_flip_theta: degrees(
        "Flip Roll",
        "How far the flat picture rolls in space in this frame, in degrees, clockwise (Deforum's theta)",
        usual=30.0,
    )
    perspective_flip_phi: degrees(
        "Tilt",
        "How far the flat picture tilts in space in this frame, in degrees: the lower edge comes nearer "
        "(Deforum's phi)",
        usual=30.0,
    )
    perspective_flip_gamma: degrees(
        "Pan",
        "How far the flat picture turns in space in this frame, in degrees: the right edge goes away "
        "(Deforum's gamma)",
        usual=30.0,
    )
    perspective_flip_fv: view_angle(
        "View",
        "Angle of view of the flips, in degrees: a larger one makes them stronger",
        default=53.0,
    )
    rotation_3d_x: degrees(
        "Rotation X",
        "How far the view tilts in this frame, in degrees: the picture goes down",
        usual=10.0,
    )
    rotation_3d_y: degrees(
        "Y",
        "How far the view pans in this frame, in degrees: the picture goes left",
        usual=10.0,
    )
    rotation_3d_z: degrees(
        "Z",
        "How far the view rolls in this frame, in degrees: the picture turns counter-clockwise",
        usual=10.0,
    )
    fov: view_angle(
        "Field of View",
        "Angle of view of the 3D motion, in degrees: a smaller one makes all of it stronger",
        default=70.0,
    )
    aspect_ratio: FloatProperty(
        name="Aspect",
        description="Width to height that the 3D motion takes for granted, as a ratio; 1 as in Deforum",
        default=1.0,
        min=0.1,
        max=10.0,
        soft_min=0.5,
        soft_max=2.0,
        step=1,
        precision=3,
    )


class PictureCurves:
    """What else is done to a frame before it is painted, and its noise."""

    contrast: FloatProperty(
        name="Contrast",
        description="Factor on the contrast of the moved picture before the model sees it: 1 keeps it",
        default=1.0,
        min=0.0,
        max=4.0,
        soft_min=0.8,
        soft_max=1.2,
        step=1,
        precision=3,
    )
    sharpen: FloatProperty(
        name="Sharpen",
        description="How much the moved picture is sharpened before the model sees it, against blur: 0 is not at all",
        default=0.0,
        min=0.0,
        max=4.0,
        soft_max=1.0,
        step=1,
        precision=3,
    )
    color_match: FloatProperty(
        name="Match",
        description="How far each frame's colors are drawn to the reference: 0 lets them drift, 1 takes them over",
        default=0.3,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )
    subseed: IntProperty(
        name="Subseed",
        description="The second seed, towards which Subseed Strength turns the noise",
        default=0,
        min=0,
    )
    subseed_strength: FloatProperty(
        name="Strength",
        description="How far the noise has turned from the seed's (0) to the subseed's (1)",
        default=0.0,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )


class TimeCurves:
    """Which frames the model makes, and how."""

    keyframe_here: BoolProperty(
        name="At This Frame",
        description="Frames at which this is on are keyframes: key it on at one frame, and off at the next",
        default=False,
    )

    cadence: IntProperty(
        name="Cadence",
        description="How many frames on the next one is that the model makes; those in between are moved and mixed. "
        "1 makes every frame, 4 is four times as fast",
        default=1,
        min=1,
        max=100,
        soft_max=12,
    )
    keyframe_strength: FloatProperty(
        name="Strength",
        description="Takes the place of Strength at keyframes: 1 starts from noise alone, which takes away what has "
        "burnt in",
        default=1.0,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
    )

# SPDX-License-Identifier: GPL-3.0-or-later
"""`scene.koshi.prompts`: what the pictures show, and when."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ..operators import markers

# The identifiers are the backend's own words.
EASES = (
    ("hold", "Hold", "Stay until the next prompt's frame, and change at once"),
    ("linear", "Linear", "Go over into the next prompt evenly"),
    ("ease_in", "Ease In", "Go over into the next prompt, slowly at first"),
    ("ease_out", "Ease Out", "Go over into the next prompt, slowly at last"),
    ("ease_in_out", "Ease In and Out", "Go over into the next prompt, slowly at both ends"),
    ("sigmoid", "Sigmoid", "Go over into the next prompt, most of it half-way"),
)


def _get_frame(prompt: Any) -> int:
    return markers.frame_of(prompt)


def _set_frame(prompt: Any, frame: int) -> None:
    markers.move(prompt, frame)


def _text_changed(prompt: Any, context: bpy.types.Context) -> None:
    markers.rename(prompt)


class KoshiPrompt(bpy.types.PropertyGroup):
    """One prompt, valid from its frame up to the next one's"""

    frame: IntProperty(
        name="Frame",
        description="Scene frame from which this prompt counts: where its marker stands on the timeline. Typing the "
        "number moves the marker, moving the marker changes the number",
        default=1,
        get=_get_frame,
        set=_set_frame,
        options=set(),
    )
    text: StringProperty(
        name="Prompt",
        description="What the picture shows, in words. Numbers may be counted: a house of `1+t/12` storeys, where t is "
        "the frame, from 0",
        update=_text_changed,
        options=set(),
    )
    negative: StringProperty(
        name="Negative",
        description="What the picture should not show, for models that are guided by contrast (Klein Base)",
        options=set(),
    )
    ease: EnumProperty(
        name="Into the Next",
        description="How this prompt goes over into the next one",
        items=EASES,
        default="hold",
        options=set(),
    )
    use_weight: BoolProperty(
        name="Beside the Others",
        description="Take no turns with the other prompts: count beside them from this frame on, as much as the weight "
        "says. A weight with keyframes counts in any case",
        default=False,
        options=set(),
    )
    weight: FloatProperty(
        name="Weight",
        description="How much this prompt counts beside those that take turns, which count as 1 together: 0 is "
        "nothing, 1 as much as they",
        default=1.0,
        min=0.0,
        max=1000.0,
        soft_max=2.0,
        step=1,
        precision=3,
    )
    # How the prompt knows its marker again (operators/markers.py).
    marker: StringProperty(options={'HIDDEN'})
    beside: StringProperty(options={'HIDDEN'})
    named: BoolProperty(options={'HIDDEN'})

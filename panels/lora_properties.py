# SPDX-License-Identifier: GPL-3.0-or-later
"""`scene.koshi.loras`: small files that change what the model paints, each with a weight that takes keyframes."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty, StringProperty

from ..operators.compat import FILE_OPTIONS


class KoshiLora(bpy.types.PropertyGroup):
    """A LoRA that the model wears"""

    file: StringProperty(
        name="File",
        description="A LoRA that was trained for the model's family: a .safetensors file",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    use: BoolProperty(
        name="Use",
        description="Let the model wear this LoRA. For going in and out within the shot key its weight",
        default=True,
        options=set(),
    )
    weight: FloatProperty(
        name="Weight",
        description="How much of what the LoRA has learnt is added: 0 is nothing, 1 is what it was trained for, less "
        "than 0 turns away from it",
        default=1.0,
        min=-10.0,
        max=10.0,
        soft_min=0.0,
        soft_max=1.5,
        step=5,
        precision=3,
    )

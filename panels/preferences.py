# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi's preferences, and how its errors are shown."""

from __future__ import annotations

import blf
import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import BoolProperty, EnumProperty, FloatProperty, StringProperty

from .. import __package__ as base_package

# Errors that are mended in the preferences.
MENDED_HERE = ("backend_not_set", "backend_not_found", "server_start_failed", "bad_remote", "offline", "out_of_memory")


class KoshiPreferences(bpy.types.AddonPreferences):
    """Koshi's preferences. Empty texts stand for what Koshi finds by itself."""

    bl_idname = base_package

    backend_folder: StringProperty(
        name="Folder",
        description="Where the backend is set up: some 1.5 GB, with an NVIDIA card some 6 GB. When empty, a folder of "
        "yours that all Blender versions share",
        subtype='DIR_PATH',
    )
    backend_python: StringProperty(
        name="Backend Python",
        description="An environment of your own to run the backend in, as its folder or its Python, instead of the one "
        "that is set up here. When empty, the environment variable KOSHI_PYTHON counts",
        subtype='FILE_PATH',
    )
    package_index: StringProperty(
        name="Package Index",
        description="Address that Python packages are downloaded from. When empty, pip's own configuration counts",
    )
    torch_index: StringProperty(
        name="PyTorch Index",
        description="Address of a mirror of PyTorch's builds, with a folder for each kind of card. When empty, "
        "PyTorch's own is asked if the package index has none that suits your card",
    )
    model_folder: StringProperty(
        name="Model Folder",
        description="Where models are downloaded to and looked for; from the backend's next start on. When empty, the "
        "Hugging Face cache that other programs use, too",
        subtype='DIR_PATH',
    )
    hub_token: StringProperty(
        name="Token",
        description="Of your account on the models' hub, for models whose license you have accepted there; one that "
        "may only read will do. It is kept in Blender's preferences file, as it is. When empty, HF_TOKEN or what "
        "`hf auth login` has noted counts",
        subtype='PASSWORD',
    )
    store_limit: FloatProperty(
        name="Frame Store Limit",
        description="Size in GB above which the least recently used frames go; from the backend's next start on",
        default=20.0,
        min=0.1,
        soft_min=1.0,
        soft_max=500.0,
        precision=1,
    )
    offload: EnumProperty(
        name="Offload",
        description="What leaves the graphics card while it is not needed, so that a model fits that is too large for "
        "it. The pictures are the same; from the backend's next start on",
        items=(
            ('auto', "Automatic", "As much as the model's size and the free memory of the card call for"),
            ('none', "Nothing", "All of the model stays on the card: the fastest"),
            ('model', "Networks in Turn", "The text encoder and the painter take turns on the card"),
            ('block', "Block by Block", "Only the part of a network that computes is on the card: takes the least "
             "memory, and the most time"),
        ),
        default='auto',
    )  # fmt: skip
    vram_limit: FloatProperty(
        name="Card Memory Limit",
        description="Size in GB of the graphics card's memory that Koshi may use, so that some is left for Blender; "
        "from the backend's next start on. At 0 all that is free",
        default=0.0,
        min=0.0,
        soft_max=96.0,
        precision=1,
    )
    quantize: EnumProperty(
        name="Quantize",
        description="Make the painter's weights narrow while a model is loaded: it takes less memory, and its pictures "
        "change a little. They are kept apart from the model's own; from the backend's next start on",
        items=(
            ('none', "As the Files Are", "The weights stay as the model's files have them"),
            ('int8', "8-Bit Integers", "Half the memory. The pictures are hardly different"),
            ('fp8', "8-Bit Floats", "Half the memory. The pictures differ in details"),
            ('nf4', "4 Bits", "A quarter of the memory. The pictures differ visibly"),
        ),
        default='none',
    )  # fmt: skip
    use_remote: BoolProperty(
        name="Use a Backend on Another Computer",
        description="Render on another computer, where `koshi serve` runs, instead of starting a backend here",
    )
    remote_file: StringProperty(
        name="Connection File",
        description="A copy of connection.json, which the backend writes into its cache folder when it starts",
        subtype='FILE_PATH',
    )
    remote_address: StringProperty(
        name="Address",
        description="Where that backend is reached from here, as host:port. When empty, what the connection file says",
    )

    def draw(self, context: bpy.types.Context) -> None:
        from . import preferences_draw

        preferences_draw.draw(self, context)


def draw_error(layout: bpy.types.UILayout, error: dict, context: bpy.types.Context) -> None:
    """An error in words, wrapped to the region: for each thing to mend, what is wrong and what to do."""
    box = layout.box().column(align=True)
    box.scale_y = 0.8
    problems = error.get("problems") or []
    for fault in problems if len(problems) > 1 else [error]:
        told = box.column(align=True)
        told.alert = True
        for i, line in enumerate(wrapped(_sentence(fault), context)):
            told.label(text=line, icon='ERROR' if i == 0 else 'BLANK1')
        for line in wrapped(fault.get("hint", ""), context):
            box.label(text=line, icon='BLANK1')
    if error.get("code") in MENDED_HERE and context.area is not None and context.area.type != 'PREFERENCES':
        layout.operator("koshi.show_preferences", icon='PREFERENCES')


def wrapped(text: str, context: bpy.types.Context) -> list[str]:
    """Lines that fit the region beside an icon, in the interface's language; Blender's labels do not wrap."""
    scale = context.preferences.system.ui_scale
    room = (context.region.width if context.region else 300) - 96 * scale
    blf.size(0, context.preferences.ui_styles[0].widget.points * scale)
    lines: list[str] = []
    for word in iface_(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and blf.dimensions(0, longer)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _sentence(fault: dict) -> str:
    """A fault's message; the backend's name the field apart."""
    message = fault.get("message", "")
    return message if message[:1].isupper() else f"{fault.get('field', '')}: {message}"


def register() -> None:
    """Register the preferences."""
    bpy.utils.register_class(KoshiPreferences)


def unregister() -> None:
    """Undo `register`."""
    bpy.utils.unregister_class(KoshiPreferences)

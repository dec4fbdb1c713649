# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of what the panels hold, by Blender's own system: people's in their configuration, ours in presets/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bl_operators.presets import AddPresetBase

from . import compat, keyed_lists

FOLDER = Path(__file__).parent.parent  # with presets/; as Blender knows it, which takes what lies there for ours
# What each kind of preset holds, of `scene.koshi`: what is of use in other scenes, too. Left out is what belongs to one
# scene or shot: files, its film and which of its frames, guided pictures and their frames, what a mask is made of,
# prompts and seeds. Of LoRAs the file is all there is to keep, so their presets hold it, by its whole path.
HOLDS = {
    "motion": (
        "motion_source", "curves", "zoom", "angle", "translation_x", "translation_y", "translation_z", "rotation_3d_x",
        "rotation_3d_y", "rotation_3d_z", "fov", "aspect_ratio", "transform_center_x", "transform_center_y",
        "perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv", "border",
        "depth_source", "depth_model", "depth_near", "depth_spacing", "depth_nearest", "depth_farthest", "flow_method",
        "flow_factor",
    ),
    "feedback": (
        "mode", "strength", "noise", "guidance", "steps", "color_mode", "color_match", "color_reference", "contrast",
        "sharpen", "noise_type", "noise_mode", "noise_delta", "noise_scale", "subseed", "subseed_strength", "carry",
    ),
    "video": (
        "hybrid_over", "hybrid_composite", "hybrid_alpha", "hybrid_mask", "hybrid_mask_alpha", "hybrid_mask_contrast",
        "hybrid_inverse", "hybrid_equalize", "hybrid_auto_contrast", "hybrid_cutoff_low", "hybrid_cutoff_high",
    ),
    "guided": ("guided_as", "guided"),
    "mask": ("mask_amount", "mask_invert", "mask_blur", "mask_contrast", "mask_brightness"),
    "loras": ("loras",),
    "time": (
        "cadence", "inbetween", "loop", "seam", "interpolation", "keyframe_every", "keyframe_prompts",
        "keyframe_strength",
    ),
}  # fmt: skip
NAMES = {"guided": "guided picture", "loras": "LoRA"}  # of kinds that are called something else
# A sequencer of 5.0 and later may show another scene than the window.
SCENE = (
    "area = bpy.context.area",
    "shown = getattr(bpy.context, 'sequencer_scene', None) if area and area.type == 'SEQUENCE_EDITOR' else None",
    "koshi = (shown or bpy.context.scene).koshi",
)


class _Preset(AddPresetBase):
    preset_defines = list(SCENE)


def _add_operator(kind: str) -> type[bpy.types.Operator]:
    """The operator that adds or removes a preset of one kind."""
    name = NAMES.get(kind, kind)
    about = {
        "__doc__": f"Add or remove a preset of Koshi's {name} settings",
        "__module__": __name__,
        "bl_idname": f"koshi.{kind}_preset_add",
        "bl_label": f"Add {name if name[0].isupper() else name.title()} Preset",
        "preset_menu": f"KOSHI_PT_{kind}_presets",
        "preset_subdir": f"koshi/{kind}",
        "preset_values": [f"koshi.{name}" for name in HOLDS[kind]],
    }
    if kind == "loras":
        about["add"] = _write_loras
    return type(f"KOSHI_OT_{kind}_preset_add", (_Preset, bpy.types.Operator), about)


def _write_loras(operator: bpy.types.Operator, context: bpy.types.Context, path: str) -> None:
    """Write the LoRAs as a preset, as Blender would, but with whole paths: `//` is another folder in another .blend."""
    lines = ["import bpy", *SCENE, "", "koshi.loras.clear()"]
    for lora in compat.edited_scene(context).koshi.loras:
        lines += ["item = koshi.loras.add()", f"item.file = {bpy.path.abspath(lora.file)!r}"]
        lines += [f"item.use = {lora.use!r}", f"item.weight = {lora.weight!r}"]
    Path(path).write_text("\n".join([*lines, "koshi.loras_index = 0", ""]), encoding="utf-8")


def forget_curves(context: bpy.types.Context, kind: str) -> None:
    """A preset is about to be chosen: one of LoRAs brings a new list, so that the old one goes with its keyframes."""
    if kind == "loras":
        keyed_lists.clear(compat.edited_scene(context), "loras")


def key_what_is_keyed(context: bpy.types.Context, kind: str) -> list[str]:
    """A preset was chosen: what has keyframes gets one at the playhead, or its value would be gone at the next frame.

    Returns the names of those.
    """
    scene = compat.edited_scene(context)
    settings: Any = scene.koshi
    curves = {curve.data_path for curve in compat.fcurves(scene) or ()}
    keyed = [name for name in HOLDS[kind] if f"koshi.{name}" in curves]
    for name in keyed:
        settings.keyframe_insert(name, frame=scene.frame_current)
    return keyed


CLASSES = tuple(_add_operator(kind) for kind in HOLDS)


def register() -> None:
    """Add the operators, and tell Blender where our own presets are."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.utils.register_preset_path(str(FOLDER))


def unregister() -> None:
    """Undo `register`."""
    bpy.utils.unregister_preset_path(str(FOLDER))
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

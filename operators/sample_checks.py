# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender knows to be wrong with a shot before anything is sampled; the backend judges the values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import compat, markers, shot_fields
from . import settings as backend
from .field_names import title

MULTIPLE = 16  # the models see the picture in blocks of this many pixels


def model_name(settings: Any) -> str:
    """The model as the backend knows it: its name, or the absolute path of a custom one."""
    if settings.model != 'CUSTOM':
        return settings.model
    return bpy.path.abspath(settings.model_path.strip())


def raise_problems(problems: list[dict[str, Any]]) -> None:
    """Raise one BridgeError "bad_shot" for all problems, or return if there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise BridgeError("bad_shot", problems[0]["message"], problems[0]["hint"], problems)
    lines = " ".join(f"{i}. {p['message']} {p['hint']}" for i, p in enumerate(problems, 1))
    raise BridgeError("bad_shot", f"{len(problems)} things to mend before rendering: {lines}", "", problems)


def problem(
    field: str, message: str, hint: str, frame: int | None = None, value: object = None
) -> dict[str, Any]:
    """One fault of a shot, in the form the backend uses too; `frame` is a frame of the scene."""
    return {"field": field, "frame": frame, "value": value, "message": message, "hint": hint}


def check_range(first: int, last: int) -> list[dict[str, Any]]:
    if last >= first:
        return []
    return [
        problem(
            "frame_end",
            f"The frame range ends at {last}, before it starts at {first}.",
            "Make the end frame at least the start frame.",
            value=last,
        )
    ]


def check_size(scene: bpy.types.Scene, width: int, height: int) -> list[dict[str, Any]]:
    faults = []
    percent = scene.render.resolution_percentage
    scaled = f" (at {percent} % of {{}})" if percent != 100 else ""
    for field, value, full in (
        ("width", width, scene.render.resolution_x),
        ("height", height, scene.render.resolution_y),
    ):
        if value % MULTIPLE == 0 and value > 0:
            continue
        below = max(value // MULTIPLE, 4) * MULTIPLE  # 64 is the smallest side
        nearest = (below, below + MULTIPLE)
        faults.append(
            problem(
                field,
                f"The picture's {field} is {value} pixels{scaled.format(full)}, no multiple of {MULTIPLE}.",
                f"{' and '.join(map(str, nearest))} would fit. Set it in Output Properties > Format.",
                value=value,
            )
        )
    return faults


def check_model(settings: Any) -> list[dict[str, Any]]:
    if settings.model != 'CUSTOM':
        return []
    path = model_name(settings)
    if not path:
        return [
            problem(
                "model_path",
                "The model is set to Custom but no path is given.",
                "Choose the model's folder in Koshi > Path.",
            )
        ]
    if not Path(path).exists():
        return [
            problem(
                "model_path",
                f"There is no model at {path}.",
                "Choose the model's folder in Koshi > Path.",
                value=path,
            )
        ]
    return []


def check_prompts(settings: Any, last: int) -> list[dict[str, Any]]:
    if not len(settings.prompts):
        return [
            problem(
                "prompts",
                "There is no prompt, so Koshi does not know what to paint.",
                "Add a prompt in Koshi > Prompts.",
            )
        ]
    if all(markers.is_off(prompt) for prompt in settings.prompts):
        hint = "Select one in Koshi > Prompts and press Put at Playhead."
        return [problem("prompts", "No prompt is on the timeline: their markers were deleted.", hint)]
    faults, frames = [], []
    for prompt in settings.prompts:
        begins = markers.frames_of(prompt)
        if begins and not prompt.text.strip() and begins[0] <= last:
            faults.append(
                problem(
                    "prompts",
                    f"The prompt at frame {begins[0]} is empty.",
                    "Write what the picture shows, or remove it in Koshi > Prompts.",
                    begins[0],
                )
            )
        if not markers.counts_beside(prompt):
            frames += begins
        if compat.is_animated(prompt, "frame"):
            where = f"The frame of the prompt at {begins[0]}" if begins else "The frame of a prompt"
            hint = "Remove them in the Graph or Drivers Editor, and move its marker. Its weight takes keyframes."
            faults.append(problem("prompts", f"{where} has keyframes or a driver, which do not count.", hint))
    for frame in sorted({frame for frame in frames if frames.count(frame) > 1}):
        faults.append(
            problem(
                "prompts",
                f"{frames.count(frame)} prompts stand at frame {frame}.",
                "Keep one of them, or give them different frames.",
                frame,
            )
        )
    return faults


def check_audio(settings: Any) -> list[dict[str, Any]]:
    path = bpy.path.abspath(settings.audio.strip())
    if not path or Path(path).is_file():
        return []
    hint = "Choose another file in Koshi > Time > Sound, or empty the field."
    return [problem("audio", f"There is no sound at {path}.", hint, value=path)]


def check_files(settings: Any, painted: bool) -> list[dict[str, Any]]:
    """Files that are asked for and not named, or not there. Numbered pictures are counted by the backend; on another
    computer's files nothing can be said here."""
    follows = settings.motion_source in shot_fields.FOLLOWERS
    faults = []
    if follows and settings.video_source == 'NONE':
        hint = "Choose one in Koshi > Video, or another Source in Koshi > Motion."
        faults.append(problem("guides.video", "The picture shall move as a film does, but there is none.", hint))
    needed = ["video"] if follows and not painted else ["video", "init_image", "color_image", "structure_file"]
    if painted or settings.motion_source == '3D':
        needed.append("depth_files")
    for name in needed:
        if shot_fields.counts(name, settings):
            faults += _check_file(shot_fields.FIELDS[name][0], getattr(settings, name))
    if not painted:
        return faults
    if shot_fields.counts("rife", settings):
        faults += _check_file("time.rife", settings.rife)
    if settings.mask_file.strip() and shot_fields.counts("mask_file", settings):
        faults += _check_file("guides.mask", settings.mask_file)
    if settings.mask_source == 'ALPHA' and not shot_fields.counts("init_image", settings):
        hint = "Set Start From in Koshi > Motion to Picture, or take another mask in Koshi > Mask."
        faults.append(problem("masking.alpha", "The mask is a start picture's, but the shot starts from none.", hint))
    for k, one in enumerate(settings.guided_images):
        if markers.is_off(one):
            continue
        faults += _check_file(f"guided_images[{k}].image", one.image)
    for k, lora in enumerate(settings.loras):
        if lora.use:
            faults += _check_file(f"loras[{k}].file", lora.file)
    return faults


def _check_file(field: str, given: str) -> list[dict[str, Any]]:
    path, where = bpy.path.abspath(given.strip()), title(field)
    if not path:
        return [problem(field, f"{where} names no file.", "Choose one.")]
    chosen = backend.preferences()
    if (chosen is not None and chosen.use_remote) or "#" in Path(path).name or Path(path).is_file():
        return []
    return [problem(field, f"{where}: there is no file {path}.", "Choose another file.", value=path)]


def check_drivers(scene: bpy.types.Scene) -> list[dict[str, Any]]:
    """Drivers of Koshi's values that Blender could not run; it would silently use 0 for them."""
    animation = scene.animation_data
    faults = []
    for curve in animation.drivers if animation else ():
        if not curve.data_path.startswith("koshi.") or curve.mute or curve.driver.is_valid:
            continue
        name = curve.data_path.removeprefix("koshi.")
        refused = bpy.app.autoexec_fail
        hint = (
            "Blender does not run Python from this file: reload it with File > Open > Trusted Source."
            if refused
            else "Mend its expression in the Drivers editor, or remove it."
        )
        faults.append(
            problem(name, f"The driver of {name} does not work.", hint, value=curve.driver.expression)
        )
    return faults


def check_numbers(table: dict[str, list[Any]], first: int) -> list[dict[str, Any]]:
    """Sampled values that are no numbers; table: of every scene frame from `first` on, by a schedule's name."""
    faults = []
    for name, column in table.items():
        if all(map(math.isfinite, column)):
            continue
        at, value = next((first + k, value) for k, value in enumerate(column) if not math.isfinite(value))
        hint = "Mend its curve in the Graph Editor, or its driver in the Drivers Editor."
        faults.append(problem(name, f"{_curve(name)} is no number at frame {at} ({value}).", hint, at, str(value)))
    return faults


def cut_drivers(scene: bpy.types.Scene, table: dict[str, list[Any]], first: int) -> list[str]:
    """Remarks on drivers that give less than their property takes. What is no number Blender makes 0 without a word,
    and then cuts off; where 0 is in the range, nobody can tell it from one."""
    animation, notes = scene.animation_data, []
    driven = {curve.data_path for curve in animation.drivers if not curve.mute} if animation else set()
    for name, column in table.items():
        path = shot_fields.property_of(name)
        if f"koshi.{path}" not in driven or "." in path:
            continue
        least = scene.koshi.bl_rna.properties[path].hard_min
        if least > 0.0 and least in column:
            at = f"at frame {first + column.index(least)}"
            notes.append(
                f"The driver of {_curve(name)} gives {least:g}, less, or no number {at}. Its smallest value counts."
            )
    return notes


def _curve(name: str) -> str:
    """A schedule in the artist's words."""
    return title(name if "[" in name else f"schedules.{name}")

# SPDX-License-Identifier: GPL-3.0-or-later
"""`--command koshi sample | export | import`: between a scene and a shot's JSON.

export -> import -> export gives the same JSON, for what a scene can hold: model, size, frame rate, range, seed, steps,
prompts, mode, and the curves. `shot_file` knows what that is; the rest is named, and stops an import unless --partial.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from ..panels.properties import MODELS, MORE_SCHEDULES, SCHEDULES
from . import batch, guides, lay_keys, markers, media, sample, scene_values, shot_fields, shot_file
from . import prompts as prompt_list
from .carried_shot import Carried
from .cli_output import print_json, say

MODES = {condition: mode for mode, condition in sample.CONDITIONS.items()}
# What moves the picture or guides it comes from the shot alone then.
PLAIN = {"motion_source": 'CURVES', "curves": 'PER_FRAME', "mask": None}


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the scene's shot to --output, with the renders of the scene that it needs beside it; or print it."""
    scene = batch.scene_named(arguments.scene)
    sampled = sample.shot_from_scene(scene, *batch.frame_range(arguments))
    shot, notes, needs_guides = sampled
    for note in notes:
        say(note)
    if arguments.output is None:
        if needs_guides:
            raise BridgeError(
                "guides",
                "This shot needs renders of the scene, which take files of their own.",
                "Name a file with --output; they are written beside it.",
            )
        if not arguments.json:
            print_json(shot)
        return {"ok": True, "notes": notes, "shot": shot}
    for line in write_shot(scene, sampled, arguments.output):
        say(line)
    say(f"Wrote {arguments.output}")
    return {"ok": True, "notes": notes, "out": str(arguments.output.resolve())}


def write_shot(scene: bpy.types.Scene, sampled: sample.Sampled, path: Path) -> Iterator[str]:
    """Write a shot of the scene's, and into a folder beside it the renders that it needs; yields a line for a person
    now and then. Raises BridgeError."""
    shot = sampled.shot
    if sampled.guides:
        folder = path.parent / (path.name.removesuffix(".json").removesuffix(".koshi") + "_guides")
        yield from guides.render_guides(scene, shot, folder.resolve())
        shot = guides.moved_to(shot, Path(folder.name))  # read relative to the shot's own file
    try:
        path.write_text(json.dumps(shot, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise BridgeError("cannot_write", message, "Choose another place.") from error


def read_into_scene(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make a shot's JSON the scene's. The scene stays as it is unless all can be taken over, or --partial is given."""
    scene = batch.scene_named(arguments.scene)
    if arguments.save == "" and not bpy.data.filepath:
        raise BridgeError("not_saved", "There is no .blend file to save.", "Name one: --save FILE.blend")
    carried = shot_file.read(arguments.file)
    carried.check_limits(limits(scene))
    if carried.left and not arguments.partial:
        raise BridgeError(
            "not_carried",
            f"{arguments.file} has what a scene cannot hold: {'; '.join(carried.left)}.",
            "Take over the rest with --partial, or render it as it is: koshi animate SHOT --out FOLDER.",
            [sample.problem(left.partition(" ")[0], f"{left} is not taken over.", "") for left in carried.left],
        )
    into_scene(carried, scene)
    for left in carried.left:
        say(f"Not taken over: {left}")
    if arguments.save is not None:
        batch.save(arguments.save)
    say(f"The scene \"{scene.name}\" has {arguments.file.name} now.")
    return {"ok": True, "scene": scene.name, "frames": carried.frames, "not_carried": carried.left}


def limits(scene: bpy.types.Scene) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each of Koshi's animated properties, and of numbers that hold for a whole shot."""
    properties = scene.koshi.bl_rna.properties
    numbers = [name for name in shot_fields.FIELDS if properties[name].type in ('INT', 'FLOAT')]
    found = {}
    for name in (*SCHEDULES, *MORE_SCHEDULES, "seed", *numbers):
        one = properties[shot_fields.property_of(name)]
        found[name] = one.hard_min, one.hard_max
    return found


def into_scene(carried: Carried, scene: bpy.types.Scene) -> None:
    """Set the scene's output settings, prompts and values; curves become keyframes. `laying` does it in portions."""
    for _ in laying(carried, scene):
        pass


def laying(carried: Carried, scene: bpy.types.Scene) -> Iterator[float]:
    """The same; yields how far it is, 0 to 1, after each curve."""
    render, settings = scene.render, scene.koshi
    render.resolution_x, render.resolution_y, render.resolution_percentage = carried.width, carried.height, 100
    render.fps, render.fps_base = whole_rate(carried.fps)
    scene.frame_step = 1
    scene.frame_start, scene.frame_end = carried.frame_start, carried.frame_start + carried.frames - 1
    for name, value in PLAIN.items():
        if hasattr(settings, name):
            setattr(settings, name, value)
    if carried.model in {name for name, *_ in MODELS}:
        settings.model = carried.model
    else:
        settings.model, settings.model_path = 'CUSTOM', carried.model
    settings.steps, settings.mode = carried.steps, MODES[carried.condition]
    settings.motion_source = carried.source
    for name, value in carried.choices.items():
        setattr(settings, name, value)
    for name, value in carried.settings.items():
        kind = settings.bl_rna.properties[name].type
        if kind == 'INT' and value is None:
            value = -1
        setattr(settings, name, str(value or "") if kind == 'STRING' else str(value) if kind == 'ENUM' else value)
    prompt_list.clear(scene)
    for given in carried.prompts:
        prompt = settings.prompts.add()
        prompt.frame, prompt.text = carried.frame_start + given.frame, given.text
        prompt.negative, prompt.ease, prompt.use_weight = given.negative, given.ease, given.weights is not None
        if given.weights is not None:
            lay_keys.lay(scene, f"prompts[{len(settings.prompts) - 1}].weight", given.weights, given.keys)
    settings.prompts_index = 0
    markers.show_all(scene)
    media.clear(scene)
    for frame, image in carried.guided:
        one = settings.guided_images.add()
        one.frame, one.image = carried.frame_start + frame, image
    markers.show_all(scene)
    for lora in carried.loras:
        settings.loras.add().file = lora.file
        lay_keys.lay(scene, f"loras[{len(settings.loras) - 1}].weight", lora.weights, lora.keys)
    lay_keys.lay(scene, scene_values.KEYFRAME, carried.keyframes)
    for k, (name, values) in enumerate(carried.values.items(), 1):
        lay_keys.lay(scene, shot_fields.property_of(name), values, carried.keys.get(name))
        yield k / len(carried.values)


def whole_rate(fps: float) -> tuple[int, float]:
    """A frame rate as Blender holds it, a whole number and a divisor: 29.97003 is 30 / 1.001."""
    rate = max(round(fps), 1)
    return rate, 1.0 if rate == fps else rate / fps

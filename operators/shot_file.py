# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a shot's JSON for a Blender scene. No bpy: the numbers are the backend's own reading of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from ..bridge_server.protocol import BridgeError
from ..koshi_backend import schedules as text
from ..koshi_backend.easing import EASINGS
from ..koshi_backend.errors import KoshiError
from ..koshi_backend.models.registry import find_traits
from ..koshi_backend.seeds import seed_path
from . import course, shot_fields
from .carried_shot import DEFAULTS, WHOLE, Carried, CarriedLora, CarriedPrompt, bad_shot

VERSION = 1
MAX_FRAMES = 100_000
LAST_FRAME = 1_048_574  # Blender's
LARGEST_WEIGHT = 10  # of a LoRA
DEFORUM_STRENGTH = 0.65  # of a document in Deforum's convention that does not name it
# What a shot says of itself that changes nothing while it says this; a scene cannot hold anything else.
FIXED: dict[str, dict[str, Any]] = {
    "": {"frame_step": 1},
    "feedback": {"position": "grid"},
    "motion": {"cameras": None, "cuts": [], "plane": None},
    "guides": {"vector": None, "vector_seen": "camera"},
    "time": {},
    "time.keyframes": {},
    "depth": {},
    "hybrid": {},
    "masking": {},
}
READ = {
    "": {
        "koshi", "model", "width", "height", "fps", "frame_start", "frame_end", "frames", "seed", "steps", "prompts",
        "schedules", "strength_convention", "feedback", "motion", "guides", "depth", "time", "hybrid", "masking",
        "guided_images", "loras",
    },
    "feedback": {"condition"},
    "motion": {"absolute", "source"},
    "time": {"keyframes"},
    "masking": {"alpha"},
    "time.keyframes": {"frames"},
}  # fmt: skip
SOURCES = {"2d": 'CURVES', "3d": '3D', **{word: name for name, word in shot_fields.FOLLOWERS.items()}}


def read(path: Path) -> Carried:
    """Read a .koshi.json file. Raises BridgeError "bad_shot"."""
    try:
        shot = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise bad_shot(f"The shot {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except ValueError as error:
        raise bad_shot(f"The shot {path} is not JSON: {error}.") from error
    if not isinstance(shot, dict) or type(shot.get("koshi")) is not int or shot["koshi"] != VERSION:
        raise bad_shot(f'{path} is not a Koshi shot of version {VERSION}: it does not begin with {{"koshi": {VERSION}.')
    return carry(shot, path.parent)


def carry(shot: dict[str, Any], folder: Path) -> Carried:
    """What a scene can hold of a shot, whose files are named relative to a folder. Changes the names in `shot`.

    Raises BridgeError "bad_shot".
    """
    for name in shot_fields.FILES:
        field_name = shot_fields.FIELDS[name][0]
        if isinstance(file := shot_fields.find(shot, field_name), str) and file:
            shot_fields.place(shot, field_name, str(folder.absolute() / file))  # they lie beside the shot
    beside = folder.absolute()
    for name in shot_fields.WORDS:
        field_name = shot_fields.FIELDS[name][0]
        if isinstance(words := shot_fields.find(shot, field_name), str):
            shot_fields.place(shot, field_name, shot_fields.with_files(words, lambda file: str(beside / file)))
    for name, part in (("guided_images", "image"), ("loras", "file")):
        for one in shot[name] if isinstance(shot.get(name), list) else ():
            if isinstance(one, dict) and isinstance(one.get(part), str):
                one[part] = str(folder.absolute() / one[part])
    try:
        return _carried(shot)
    except KoshiError as error:
        raise BridgeError("bad_shot", error.message, error.hint) from error


def _carried(shot: dict[str, Any]) -> Carried:
    start = _whole(shot, "frame_start", 0, 0, LAST_FRAME)
    if "frames" in shot:
        frames = _whole(shot, "frames", 1, 1, MAX_FRAMES)
    elif "frame_end" in shot:
        end = _whole(shot, "frame_end", 0, start, LAST_FRAME)
        frames = (end - start) // _whole(shot, "frame_step", 1, 1, MAX_FRAMES) + 1
    else:
        raise bad_shot("The shot does not say how many frames it has.", "Give frames, or frame_start and frame_end.")
    if start + frames - 1 > LAST_FRAME:
        raise bad_shot(f"The shot ends at frame {start + frames - 1}; Blender counts to {LAST_FRAME}.")
    model = shot.get("model", "koshi-tiny")
    if not isinstance(model, str) or not model:
        raise bad_shot(f"The model is {model!r}, not a name or a path.")
    traits = find_traits(model)
    feedback = _table(shot, "feedback")
    carried = Carried(
        model=model,
        width=_whole(shot, "width", 256, 4, 65536),
        height=_whole(shot, "height", 256, 4, 65536),
        fps=_rate(shot.get("fps", 24.0)),
        frame_start=start,
        frames=frames,
        steps=_whole(shot, "steps", traits.steps, 1, 1000),
        condition=_one_of(feedback, "condition", "both" if traits.references else "start"),
        prompts=[],
    )
    _read_settings(carried, shot)
    _read_pictures(carried, shot)
    _read_prompts(carried, shot)
    _read_schedules(carried, shot, {"guidance": traits.guidance, "strength": traits.strength})
    _list_the_rest(carried, shot)
    return carried


def _read_settings(carried: Carried, shot: dict[str, Any]) -> None:
    """What stands in a shot under the words that Blender's settings have, and the motion's source."""
    for section in FIXED:
        _table_at(shot, section)
    for name, (place, default) in shot_fields.FIELDS.items():
        value = shot_fields.find(shot, place)
        carried.settings[name] = default if value is None else value
        kinds: tuple[type, ...] = (type(default),)
        if default is None:
            kinds = (int,) if name in shot_fields.MAY_BE_NONE else (str,)
        if isinstance(default, float):
            kinds = (int, float)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool)):
            raise bad_shot(f"{place} is {value!r}.")
        if value == "schedule" and name == "seed_behavior":
            carried.settings[name] = default  # the schedule says it
        elif name in shot_fields.CHOICES and carried.settings[name] not in shot_fields.CHOICES[name]:
            carried.left.append(place)
            carried.settings[name] = default
    source = _table(shot, "motion").get("source", "2d")
    if isinstance(source, str) and source in SOURCES:
        carried.source = SOURCES[source]
    else:
        carried.left.append("motion.source")
    if carried.settings["hybrid_over"] == "every" and carried.settings["carry"] == "none":
        carried.settings["carry"] = "pixels"  # nothing is carried for as long as that is so


def _read_pictures(carried: Carried, shot: dict[str, Any]) -> None:
    """Where pictures come from, and the lists of pictures and LoRAs."""
    named, alpha = carried.settings, _table(shot, "masking").get("alpha", False)
    if not isinstance(alpha, bool):
        raise bad_shot(f"masking.alpha is {alpha!r}.")
    carried.choices = {
        "video_source": 'FILE' if named["video"] else 'NONE',
        "start": 'IMAGE' if named["init_image"] else 'PROMPT',
        "structure": 'FILE' if named["structure_file"] else 'NONE',
        "mask_source": (
            'WORDS' if named["mask_where"] else 'ALPHA' if alpha else 'FILE' if named["mask_file"] else 'COLLECTION'
        ),
    }
    for k, one in enumerate(_list_of(shot, "guided_images", "image")):
        carried.guided.append((_whole(one, "frame", 0, 0, MAX_FRAMES), one["image"]))
        carried.left += [f"guided_images[{k}].{name}" for name in one if name not in ("frame", "image")]
    named_frames = _table_at(shot, "time.keyframes").get("frames", [])
    if not isinstance(named_frames, list):
        raise bad_shot(f"time.keyframes.frames is {named_frames!r}.")
    carried.keyframes = [float(k in named_frames) for k in range(carried.frames)]
    seed = _whole(shot, "seed", 0, 0, 2**53)
    for k, one in enumerate(_list_of(shot, "loras", "file")):
        weight = one.get("weight", 1.0)
        try:
            weights = text.evaluate(weight, carried.frames, seed=seed)
        except (text.ScheduleError, TypeError) as error:
            raise bad_shot(f"The weight of loras[{k}] cannot be read: {error}") from error
        if not all(-LARGEST_WEIGHT <= value <= LARGEST_WEIGHT for value in weights):
            raise bad_shot(f"The weight of loras[{k}] is not always from {-LARGEST_WEIGHT} to {LARGEST_WEIGHT}.")
        carried.loras.append(CarriedLora(one["file"], weights, course.written(weight, weights, seed)))
        carried.left += [f"loras[{k}].{name}" for name in one if name not in ("file", "weight")]


def _list_of(shot: dict[str, Any], name: str, part: str) -> list[dict[str, Any]]:
    given = shot.get(name, [])
    if not isinstance(given, list) or not all(isinstance(o, dict) and isinstance(o.get(part), str) for o in given):
        raise bad_shot(f'{name} is not a list of objects with "{part}".')
    return given


def _read_prompts(carried: Carried, shot: dict[str, Any]) -> None:
    prompts, seed = shot.get("prompts"), _whole(shot, "seed", 0, 0, 2**53)
    if not isinstance(prompts, list) or not prompts:
        raise bad_shot("The shot has no prompt.", "Add at least one.")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, dict) or not isinstance(prompt.get("text"), str):
            raise bad_shot(f'prompts[{i}] has no text; a prompt is {{"frame": 0, "text": "..."}}.')
        frame, weight = prompt.get("frame", 0), prompt.get("weight")
        try:
            if isinstance(frame, str):  # math
                prompt = {**prompt, "frame": int(text.evaluate(f"0:({frame})", carried.frames, seed=seed)[0])}
            weights = None if weight is None else text.evaluate(weight, carried.frames, seed=seed)
        except (text.ScheduleError, TypeError) as error:
            raise bad_shot(f"prompts[{i}] cannot be read: {error}") from error
        carried.prompts.append(
            CarriedPrompt(
                _whole(prompt, "frame", 0, 0, MAX_FRAMES),
                prompt["text"],
                str(prompt.get("negative") or ""),
                _one_of(prompt, "ease", "hold", tuple(EASINGS)),
                weights,
                None if weights is None else course.written(weight, weights, seed),
            )
        )
        known = {"frame", "text", "negative", "ease", "weight"}
        carried.left += [f"prompts[{i}].{name}" for name in prompt if name not in known]


def _read_schedules(carried: Carried, shot: dict[str, Any], likes: dict[str, float]) -> None:
    table, frames = _table(shot, "schedules"), carried.frames
    seed = _whole(shot, "seed", 0, 0, 2**53)
    turned = _one_of(shot, "strength_convention", "denoise", ("denoise", "deforum")) == "deforum"
    absolute = _table(shot, "motion").get("absolute", [])
    if not isinstance(absolute, list):
        raise bad_shot(f"motion.absolute is {absolute!r}, not a list of curves.")
    given: dict[str, Any] = DEFAULTS | likes | ({"strength": DEFORUM_STRENGTH} if turned else {})
    given |= {name: schedule for name, schedule in table.items() if name in DEFAULTS}
    for name, schedule in given.items():
        try:
            values = text.evaluate(schedule, frames, seed=seed)
        except (text.ScheduleError, TypeError) as error:
            raise bad_shot(f"The schedule {name} cannot be read: {error}") from error
        if name == "strength" and turned:
            values = [1.0 - value for value in values]
        if name in WHOLE:
            values = [float(int(value)) for value in values]
        elif name in absolute:
            values = _moves(name, values, carried.settings["loop"] == "seamless")
        elif (knots := course.written(schedule, values, seed)) is not None:
            carried.keys[name] = knots
        carried.values[name] = values
    scheduled = text.evaluate(table["seed"], frames, seed=seed) if "seed" in table else None
    # One that goes on by itself stays the shot's own: it counts the frames that are made.
    path = seed_path("fixed" if scheduled is None else "schedule", seed, frames, 1, scheduled)
    carried.values["seed"] = [float(value) for value in path]
    carried.left += [f"schedules.{name}" for name in table if name not in DEFAULTS and name != "seed"]


def _moves(name: str, places: list[float], around: bool) -> list[float]:
    """The move into every frame of a curve that holds places; around: into the first one from the last."""
    pairs = itertools.pairwise([places[-1] if around else places[0], *places])
    if name != "zoom":
        return [after - before for before, after in pairs]
    if 0.0 in places:
        raise bad_shot("An absolute zoom is 0.", "A zoom of 0 has no size that the next frame could be compared with.")
    return [after / before for before, after in pairs]


def _list_the_rest(carried: Carried, shot: dict[str, Any]) -> None:
    for section, fixed in FIXED.items():
        table = _table_at(shot, section)
        known = READ.get(section, set()) | set(shot_fields.fields(section))
        for name, value in table.items():
            # A name that no version of this module knows is not silently dropped either.
            if name not in known and not (name in fixed and fixed[name] == value):
                carried.left.append(f"{section}.{name}" if section else name)


def _table_at(shot: dict[str, Any], section: str) -> dict[str, Any]:
    for name in section.split(".") if section else ():
        shot = _table(shot, name)
    return shot


def _table(shot: dict[str, Any], name: str) -> dict[str, Any]:
    table = shot.get(name, {})
    if not isinstance(table, dict):
        raise bad_shot(f"{name} is not an object.")
    return table


def _whole(table: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = table.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_shot(f"{name} is {value!r}, not a whole number from {low} to {high}.")
    return value


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.1 <= value <= 1000:
        raise bad_shot(f"fps is {value!r}, not a number from 0.1 to 1000.")
    return float(value)


def _one_of(
    table: dict[str, Any], name: str, default: str, allowed: tuple[str, ...] = ("start", "reference", "both")
) -> str:
    value = table.get(name, default)
    if value not in allowed:
        raise bad_shot(f"{name} is {value!r}, not one of {', '.join(allowed)}.")
    return str(value)

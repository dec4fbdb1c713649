# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be wrong with a shot's document, in plain words; every check adds its faults to one list."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import BaseModel

from .errors import KoshiError, problem
from .guides import frame_file
from .mask_words import rename_words
from .models.registry import Traits, find_traits
from .schedules import ScheduleError, evaluate
from .settings import (
    ABSOLUTE,
    GUIDE_FILES,
    MAX_SIDE,
    SCHEDULES,
    Camera,
    Depth,
    Feedback,
    GuidedImage,
    Guides,
    Hybrid,
    Keyframes,
    Masking,
    Motion,
    Plane,
    Time,
    per_frame,
)

VERSION = 1  # of the document; Shot.koshi accepts only this one
MAX_FRAMES = 100_000


def resolve_length(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Turn frame_start .. frame_end into frames; refuse a range that runs backwards or disagrees."""
    if "frame_end" not in draft:
        return
    end, start, step = draft.pop("frame_end"), draft.get("frame_start", 0), draft.get("frame_step", 1)
    if not isinstance(end, int) or not isinstance(start, int) or not isinstance(step, int) or step < 1:
        faults.append(problem("frame_end", "frame numbers are whole numbers.", value=end))
        return
    if end < start:
        faults.append(
            problem(
                "frame_end",
                f"the range ends at frame {end}, before it starts at frame {start}.",
                "Make frame_end at least frame_start.",
                value=end,
            )
        )
    elif draft.setdefault("frames", (end - start) // step + 1) != (end - start) // step + 1:
        faults.append(
            problem(
                "frame_end",
                f"frames {start} to {end} are {(end - start) // step + 1}, but frames says {draft['frames']}.",
                "Give one of the two.",
                value=end,
            )
        )
    draft.setdefault("frames", 1)  # so that the faults that follow are about something else


def resolve_model(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Fill in what the model likes where the shot is silent, and refuse what it cannot do."""
    name = draft.get("model", "koshi-tiny")
    if not isinstance(name, str):
        draft.setdefault("steps", 1)  # one fault is enough
        return
    try:
        traits = find_traits(name)
    except KoshiError as error:
        faults.append(problem("model", error.message, error.hint, value=name))
        traits = Traits()
    if draft.get("steps") is None:
        draft["steps"] = traits.steps
    table, feedback = draft.get("schedules", {}), draft.get("feedback", {})
    if isinstance(table, dict):
        likes = {"guidance": traits.guidance}
        if draft.get("strength_convention") != "deforum":
            likes["strength"] = traits.strength
        unusual = {name: value for name, value in likes.items() if value != SCHEDULES[name].default}
        draft["schedules"] = {**unusual, **table}
    if traits.references or not isinstance(feedback, dict):
        return
    guides = draft.get("guides", {})
    if isinstance(guides, dict) and guides.get("structure"):
        hint = "Leave guides.structure out, or choose a FLUX.2 model or FLUX.1 Kontext."
        faults.append(problem("guides.structure", f"{name} cannot be shown pictures.", hint))
    if feedback.get("condition", "start") != "start":
        text = f"{name} cannot be shown reference pictures."
        hint = "Leave condition out or make it 'start', or choose a FLUX.2 model or FLUX.1 Kontext."
        faults.append(problem("feedback.condition", text, hint, value=feedback["condition"]))
    draft["feedback"] = {**feedback, "condition": "start"}


def turn_strength(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Deforum's strength keeps, Koshi's changes. Never guessed: only the stated convention counts."""
    if draft.get("strength_convention") != "deforum":
        return
    draft["strength_convention"] = "denoise"
    table = draft.get("schedules", {})
    if not isinstance(table, dict) or not renderable(draft.get("frames")):
        return
    # A Deforum document that is silent about strength means Deforum's default.
    schedule = table.get("strength", 0.65)
    try:
        turned = [1.0 - value for value in evaluate(schedule, draft["frames"], seed=_seed(draft))]
    except (ScheduleError, TypeError):
        return  # reported by check_schedules
    draft["schedules"] = {**table, "strength": turned}


def check_schedules(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    table, frames = draft.get("schedules", {}), draft.get("frames")
    if not isinstance(table, dict) or not renderable(frames):
        return
    for name, schedule in table.items():
        field = f"schedules.{name}"
        if name not in SCHEDULES:
            near = difflib.get_close_matches(str(name), SCHEDULES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known schedules: {', '.join(SCHEDULES)}."
            faults.append(problem(field, "there is no such schedule.", hint))
            continue
        if not isinstance(schedule, (int, float, str, list, dict)):
            # pydantic would say of each kind in turn that it is not that
            faults[:] = [f for f in faults if not f["field"].startswith(field)]
            kinds = 'Give a number, a text such as "0:(1.0), 24:(1.05)", or a list with one number per frame.'
            faults.append(problem(field, "this is no schedule.", kinds, value=schedule))
            continue
        try:
            values = evaluate(schedule, frames, seed=_seed(draft))
            if name in _absolute(draft):
                values = per_frame(name, values, _around(draft))
        except ZeroDivisionError:
            hint = "A zoom of 0 has no size that the next frame could be compared with."
            faults.append(problem(field, "an absolute zoom is 0.", hint, value=schedule))
            continue
        except ScheduleError as error:
            faults[:] = [f for f in faults if not f["field"].startswith(field)]
            where = "" if error.frame is None else _scene_frame(draft, error.frame)
            faults.append(problem(field, f"{error.message}{where}", error.hint, error.frame, schedule))
            continue
        spec = SCHEDULES[name]
        wrong = [k for k, value in enumerate(values) if not spec.low <= value <= spec.high]
        if wrong:
            more = f" (and at {len(wrong) - 1} more frames)" if len(wrong) > 1 else ""
            faults.append(
                problem(
                    field,
                    f"the value at frame {wrong[0]} is {values[wrong[0]]:g}{more}.{_scene_frame(draft, wrong[0])}",
                    f"Keep it between {spec.low:g} and {spec.high:g}.",
                    wrong[0],
                    values[wrong[0]],
                )
            )


def _seed(draft: dict[str, Any]) -> int:
    """What `s` stands for in expressions."""
    seed = draft.get("seed", 0)
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else 0


def _absolute(draft: dict[str, Any]) -> list[Any]:
    motion = draft.get("motion", {})
    names = motion.get("absolute", []) if isinstance(motion, dict) else []
    return [name for name in names if name in ABSOLUTE] if isinstance(names, list) else []


def _around(draft: dict[str, Any]) -> bool:
    """Whether the last frame goes over into the first."""
    time = draft.get("time", {})
    return isinstance(time, dict) and time.get("loop") == "seamless"


def _scene_frame(draft: dict[str, Any], index: int) -> str:
    """A sentence with the frame's number, where frames are not numbered from 0 anyway."""
    start, step = draft.get("frame_start", 0), draft.get("frame_step", 1)
    told = isinstance(start, int) and isinstance(step, int) and (start or step != 1)
    return f" In the file names it is frame {start + index * step}." if told else ""


def renderable(frames: object) -> TypeGuard[int]:
    """Whether this is a number of frames; checked before anything is made per frame."""
    return isinstance(frames, int) and not isinstance(frames, bool) and 0 < frames <= MAX_FRAMES


def check_files(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Whether the files that a shot names are there; makes their names absolute."""
    motion = draft.get("motion")
    cuts = motion.get("cuts") if isinstance(motion, dict) else None
    begins = {0, *(k for k in cuts if renderable(k))} if isinstance(cuts, list) else {0}
    _check_file(draft, "init_image", "init_image", faults, draft, begins)
    _check_file(draft, "color_image", "color_image", faults, draft, _looked_at(draft))
    if isinstance(given := draft.get("guided_images"), list):
        draft["guided_images"] = given = [dict(one) if isinstance(one, dict) else one for one in given]
        for k, one in enumerate(given):
            if isinstance(one, dict):
                _check_file(one, "image", f"guided_images[{k}].image", faults, draft, {0})
    _check_plain(draft, "audio", "audio", faults)
    if isinstance(time := draft.get("time"), dict):
        draft["time"] = time = dict(time)
        _check_plain(time, "rife", "time.rife", faults)
    guides = draft.get("guides")
    if isinstance(guides, dict):
        draft["guides"] = guides = dict(guides)
        for name in GUIDE_FILES:
            # Which of the video's files are needed is known when all else is (hybrid_checks.py).
            _check_file(guides, name, f"guides.{name}", faults, draft, set() if name == "video" else None)
    if isinstance(masking := draft.get("masking"), dict):
        draft["masking"] = masking = dict(masking)
        rename_words(masking, _whole_path)


def _whole_path(name: str) -> str:
    try:
        return str(Path(name).expanduser().absolute())
    except (OSError, ValueError, RuntimeError):  # of an unknown user
        return name


def _looked_at(draft: dict[str, Any]) -> set[int] | None:
    """The frames whose colours are taken from numbered pictures."""
    every, frames = draft.get("color_every", 1), draft.get("frames")
    return set(range(0, frames, every)) if renderable(every) and renderable(frames) else None


def _check_plain(table: dict[str, Any], name: str, field: str, faults: list[dict[str, Any]]) -> None:
    """A file in whose name # means nothing."""
    given = table.get(name)
    if not isinstance(given, str):
        return
    try:
        path = Path(given).expanduser().absolute()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):
        found = False
    if found:
        table[name] = str(path)
    else:
        faults.append(problem(field, "there is no such file.", "Check the path.", 0, given))


def _check_file(
    table: dict[str, Any],
    name: str,
    field: str,
    faults: list[dict[str, Any]],
    shot: dict[str, Any],
    frames_of: set[int] | None = None,
) -> None:
    """One file, or, with #### in its name, those of a shot's frames: of `frames_of`, or of all."""
    given = table.get(name)
    if not isinstance(given, str):
        return
    numbers = [0]
    if "#" in Path(given).name:
        first, step, frames = shot.get("frame_start", 0), shot.get("frame_step", 1), shot.get("frames")
        if not isinstance(first, int) or not renderable(step) or not renderable(frames):
            return
        numbers = [first + k * step for k in range(frames) if frames_of is None or k in frames_of]
    missing: list[tuple[int, str]] = []
    for number in numbers:
        try:
            path = frame_file(given, number)
            if path.is_file():
                continue
            missing.append((number, path.name))
        except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
            missing.append((number, given))
    if not missing:
        table[name] = str(Path(given).expanduser().absolute())
    elif len(numbers) == 1:
        faults.append(problem(field, "there is no such file.", "Check the path.", 0, given))
    else:
        number, file = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        hint = "There must be one file for each frame of the shot."
        faults.append(problem(field, f"there is no {file}{more}.", hint, number, given))


def explain(error: Any, known: Iterable[str]) -> dict[str, Any]:
    """One of pydantic's errors in Koshi's words. known: the keys of the outermost object."""
    where = [part for part in error["loc"] if part not in ("float", "str", "list[float]", "dict[str,str]")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    kind, value = error["type"], error.get("input")
    frame = where[2] if len(where) > 2 and where[0] == "schedules" and isinstance(where[2], int) else None
    if kind == "missing":
        hint = "Give the number of frames, or frame_start and frame_end." if field == "frames" else ""
        return problem(field, "this is missing.", hint)
    if kind == "extra_forbidden":
        names = _keys_of(where) or known
        near = difflib.get_close_matches(str(where[-1]), names, n=1)
        return problem(
            field, "Koshi does not know this key.", f"Did you mean {near[0]!r}?" if near else "", value=value
        )
    if field in ("width", "height") and isinstance(value, int) and not isinstance(value, bool):
        return problem(field, f"{value} is not a size Koshi can render.", _nearest_side(value), value=value)
    if field == "prompts" and kind == "too_short":
        return problem(field, "there is no prompt.", "Add at least one prompt.")
    if field.endswith(".text") and kind in ("string_too_short", "string_pattern_mismatch"):
        return problem(field, "the prompt is empty.", "Write what the picture shows.", value=value)
    if field == "koshi":
        return problem(
            field, f"this shot is of version {value!r}; this Koshi reads version {VERSION}.", "Update Koshi."
        )
    return problem(field, f"{error['msg'][:1].lower()}{error['msg'][1:]}.", "", frame, value)


def _nearest_side(value: int) -> str:
    low = min(max(value // 16 * 16, 64), MAX_SIDE)
    high = min(max(-(-value // 16) * 16, 64), MAX_SIDE)
    sizes = f"{low}" if low == high else f"{low} or {high}"
    return f"Sides are multiples of 16 from 64 to {MAX_SIDE}: try {sizes}."


def _keys_of(where: list[Any]) -> Iterable[str] | None:
    """The keys of the inner object that a fault lies in."""
    if where[:1] == ["loras"]:
        return ["file", "weight"]
    if where[:1] == ["guided_images"]:
        return list(GuidedImage.model_fields)
    tables: dict[str, type[BaseModel]] = {
        "masking": Masking,
        "feedback": Feedback, "motion": Motion, "depth": Depth, "guides": Guides, "hybrid": Hybrid, "time": Time,
    }  # fmt: skip
    if where[:2] == ["time", "keyframes"]:
        return list(Keyframes.model_fields)
    if where[:2] == ["motion", "cameras"]:
        return list(Camera.model_fields)
    if where[:2] == ["motion", "plane"]:
        return list(Plane.model_fields)
    return list(tables[where[0]].model_fields) if len(where) > 1 and where[0] in tables else None

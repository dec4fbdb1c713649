# SPDX-License-Identifier: GPL-3.0-or-later
"""The Shot: one description of one animation, as a versioned JSON document.

Everything that Koshi renders enters here, from Blender, the command line, Python or a farm. The document is
checked once, on entry; every fault is listed with its field, frame and value.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import KoshiError, problem, raise_problems
from .models.registry import default_steps, find_model
from .schedules import ScheduleError, evaluate

VERSION = 1  # of the document; Shot.koshi accepts only this one
MAX_SIDE = 1792  # pixels; the largest side that FLUX.2 was published for
MAX_FRAMES = 100_000


class ScheduleSpec(NamedTuple):
    """What one schedule may hold."""

    default: float
    low: float
    high: float


# Names and meanings are Deforum's, except `strength`: here it is how much is made anew (0 keeps, 1 regenerates).
SCHEDULES: dict[str, ScheduleSpec] = {
    "zoom": ScheduleSpec(default=1.0, low=0.1, high=10.0),
    "angle": ScheduleSpec(default=0.0, low=-360.0, high=360.0),
    "translation_x": ScheduleSpec(default=0.0, low=-4096.0, high=4096.0),
    "translation_y": ScheduleSpec(default=0.0, low=-4096.0, high=4096.0),
    # At the fixed field of view of 70 degrees Deforum's warp turns the picture inside out at 82.4.
    "translation_z": ScheduleSpec(default=0.0, low=-500.0, high=75.0),
    "transform_center_x": ScheduleSpec(default=0.5, low=-10.0, high=10.0),
    "transform_center_y": ScheduleSpec(default=0.5, low=-10.0, high=10.0),
    "strength": ScheduleSpec(default=0.5, low=0.0, high=1.0),
    "noise": ScheduleSpec(default=0.0, low=0.0, high=1.0),
    "contrast": ScheduleSpec(default=1.0, low=0.0, high=4.0),
    "sharpen": ScheduleSpec(default=0.0, low=0.0, high=4.0),
    "color_match": ScheduleSpec(default=0.3, low=0.0, high=1.0),
    "guidance": ScheduleSpec(default=1.0, low=0.0, high=100.0),
    "seed": ScheduleSpec(default=0.0, low=0.0, high=2.0**53),
}

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
Side = Annotated[int, Field(ge=64, le=MAX_SIDE, multiple_of=16)]


class Prompt(BaseModel):
    """A text that holds from `frame` (counted from 0, the shot's first) until the next prompt."""

    model_config = _STRICT
    frame: Annotated[int, Field(ge=0)] = 0
    text: Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]


class Feedback(BaseModel):
    """How a frame is made from the one before it.

    carry: what comes from the frame before: the decoded, moved picture, or nothing.
    condition: how it enters: as the noised start, as an in-context reference picture, or both (the default: it follows
        the motion best by far, docs/feedback.md).
    color_mode: the space in which colours are matched.
    color_reference: what they are matched to: the model's own picture of the prompt in force (frame 0, until another
        prompt begins), frame 0 for ever, or the frame before.
    noise_type: the pixel noise. noise_mode, noise_delta: how the latent noise changes from frame to frame.
    noise_scale: factor on the latent noise; 1 is what the models are trained for, less blurs.
    """

    model_config = _STRICT
    carry: Literal["pixels", "none"] = "pixels"
    condition: Literal["start", "reference", "both"] = "both"
    position: Literal["grid"] = "grid"
    border: Literal["replicate"] = "replicate"
    color_mode: Literal["LAB", "RGB", "HSV", "none"] = "LAB"
    color_reference: Literal["prompt", "first", "previous"] = "prompt"
    noise_type: Literal["gaussian", "perlin"] = "gaussian"
    noise_mode: Literal["fixed", "incremental", "slerp"] = "incremental"
    noise_delta: Annotated[float, Field(ge=0, le=1)] = 0.05
    noise_scale: Annotated[float, Field(gt=0, le=2)] = 1.0


class Shot(BaseModel):
    """A whole animation. Build one with `load_shot`, which explains what is wrong in plain words."""

    model_config = _STRICT
    koshi: Literal[1] = 1
    model: str = "koshi-tiny"
    width: Side = 256
    height: Side = 256
    fps: Annotated[float, Field(ge=0.1, le=1000)] = 24.0
    frame_start: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)]
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    schedules: dict[str, float | str | list[float]] = {}
    feedback: Feedback = Feedback()
    init_image: str | None = None
    strength_convention: Literal["denoise"] = "denoise"

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Every schedule's value at every frame, defaults included. `seed` defaults to the shot's seed."""
        given = {name: evaluate(schedule, self.frames) for name, schedule in self.schedules.items()}
        for name, spec in SCHEDULES.items():
            default = float(self.seed) if name == "seed" else spec.default
            given.setdefault(name, [default] * self.frames)
        return given

    def prompt_at(self, index: int) -> str:
        """The text in force at a frame. Before the first prompt's frame the first prompt holds."""
        ordered = sorted(self.prompts, key=lambda p: p.frame)
        text = ordered[0].text
        for prompt in ordered:
            if prompt.frame <= index:
                text = prompt.text
        return text

    def number(self, index: int) -> int:
        """The number of a frame in file names and in Blender."""
        return self.frame_start + index

    def as_dict(self) -> dict[str, Any]:
        """The JSON document, defaults written out."""
        return self.model_dump(mode="json")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical document: two shots with the same digest are the same animation."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_shot(data: object) -> Shot:
    """Check a JSON document and make it a Shot.

    A document with `"strength_convention": "deforum"` has its strengths turned round (1 - s); one with `frame_end`
    instead of `frames` gets its length from it; missing steps are the model's own.
    Raises KoshiError("bad_shot") that lists every fault.
    """
    if not isinstance(data, dict):
        raise KoshiError("bad_shot", f"A shot is a JSON object, not {type(data).__name__}.")
    faults: list[dict[str, Any]] = []
    draft = dict(data)
    if isinstance(draft.get("koshi"), bool):
        draft["koshi"] = str(draft["koshi"])  # true is not version 1
    _resolve_length(draft, faults)
    _resolve_model(draft, faults)
    _turn_strength(draft, faults)
    _check_init_image(draft, faults)
    shot: Shot | None = None
    try:
        shot = Shot.model_validate(draft)
    except ValidationError as error:
        named = {f["field"] for f in faults}
        faults += [f for f in map(explain, error.errors()) if f["field"] not in named]
    _check_schedules(draft, faults)
    _check_prompts(draft, faults)
    raise_problems("bad_shot", "This shot", faults)
    assert shot is not None  # without faults the validation above has succeeded
    return shot


def read_shot(path: Path | str) -> Shot:
    """Load a .koshi.json file; a relative init_image is looked for beside it.

    Raises KoshiError("bad_shot") also for a missing file or broken JSON.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KoshiError("bad_shot", f"The shot {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise KoshiError("bad_shot", f"The shot {path} is not text in UTF-8.") from error
    except ValueError as error:
        raise KoshiError("bad_shot", f"{str(path)!r} is not a path.") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise KoshiError(
            "bad_shot",
            f"The shot {path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise KoshiError("bad_shot", f"The shot {path} holds JSON that no shot would: {error}.") from error
    if isinstance(data, dict) and isinstance(image := data.get("init_image"), str):
        data["init_image"] = str(path.parent / Path(image))  # an absolute one stays what it is
    return load_shot(data)


def _resolve_length(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Turn frame_start .. frame_end into frames; refuse a range that runs backwards or disagrees."""
    if "frame_end" not in draft:
        return
    end, start = draft.pop("frame_end"), draft.get("frame_start", 0)
    if not isinstance(end, int) or not isinstance(start, int):
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
    elif draft.setdefault("frames", end - start + 1) != end - start + 1:
        faults.append(
            problem(
                "frame_end",
                f"frames {start} to {end} are {end - start + 1}, but frames says {draft['frames']}.",
                "Give one of the two.",
                value=end,
            )
        )
    draft.setdefault("frames", 1)  # so that the faults that follow are about something else


def _resolve_model(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    name = draft.get("model", "koshi-tiny")
    if not isinstance(name, str):
        draft.setdefault("steps", 1)  # one fault is enough
        return
    try:
        find_model(name)
    except KoshiError as error:
        faults.append(problem("model", error.message, error.hint, value=name))
    if draft.get("steps") is None:
        draft["steps"] = default_steps(name)


def _turn_strength(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Deforum's strength keeps, Koshi's changes. Never guessed: only the stated convention counts."""
    if draft.get("strength_convention") != "deforum":
        return
    draft["strength_convention"] = "denoise"
    table = draft.get("schedules")
    if not isinstance(table, dict) or not _renderable(draft.get("frames")):
        return
    # A Deforum document that is silent about strength means Deforum's default.
    schedule = table.get("strength", 0.65)
    try:
        turned = [1.0 - value for value in evaluate(schedule, draft["frames"])]
    except (ScheduleError, TypeError):
        return  # reported by _check_schedules
    draft["schedules"] = {**table, "strength": turned}


def _check_schedules(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    table, frames = draft.get("schedules", {}), draft.get("frames")
    if not isinstance(table, dict) or not _renderable(frames):
        return
    for name, schedule in table.items():
        field = f"schedules.{name}"
        if name not in SCHEDULES:
            near = difflib.get_close_matches(str(name), SCHEDULES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known schedules: {', '.join(SCHEDULES)}."
            faults.append(problem(field, "there is no such schedule.", hint))
            continue
        if not isinstance(schedule, (int, float, str, list)):
            # pydantic would say of each kind in turn that it is not that
            faults[:] = [f for f in faults if not f["field"].startswith(field)]
            kinds = 'Give a number, a text such as "0:(1.0), 24:(1.05)", or a list with one number per frame.'
            faults.append(problem(field, "this is no schedule.", kinds, value=schedule))
            continue
        try:
            values = evaluate(schedule, frames)
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


def _scene_frame(draft: dict[str, Any], index: int) -> str:
    """A sentence with the frame's number, where frames are not numbered from 0 anyway."""
    start = draft.get("frame_start", 0)
    return f" Numbered from frame_start it is frame {start + index}." if isinstance(start, int) and start else ""


def _renderable(frames: object) -> TypeGuard[int]:
    """Whether this is a number of frames; checked before anything is made per frame."""
    return isinstance(frames, int) and not isinstance(frames, bool) and 0 < frames <= MAX_FRAMES


def _check_init_image(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    image = draft.get("init_image")
    if not isinstance(image, str):
        return
    try:
        path = Path(image).expanduser()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        there = False
    if there:
        draft["init_image"] = str(path.resolve())
    else:
        faults.append(problem("init_image", "there is no such file.", "Check the path.", 0, image))


def _check_prompts(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    prompts = draft.get("prompts")
    if not isinstance(prompts, list):
        return
    seen: set[object] = set()
    for k, prompt in enumerate(prompts):
        frame = prompt.get("frame", 0) if isinstance(prompt, dict) else None
        if isinstance(frame, int) and frame in seen:
            faults.append(
                problem(
                    f"prompts[{k}].frame",
                    f"frame {frame} has two prompts.",
                    "Keep one of them.",
                    frame,
                    frame,
                )
            )
        seen.add(frame if isinstance(frame, int) else None)


def explain(error: Any) -> dict[str, Any]:
    """One of pydantic's errors in Koshi's words."""
    where = [part for part in error["loc"] if part not in ("float", "str", "list[float]")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    kind, value = error["type"], error.get("input")
    frame = where[2] if len(where) > 2 and where[0] == "schedules" and isinstance(where[2], int) else None
    if kind == "missing":
        hint = "Give the number of frames, or frame_start and frame_end." if field == "frames" else ""
        return problem(field, "this is missing.", hint)
    if kind == "extra_forbidden":
        names = Feedback.model_fields if where[0] == "feedback" else Shot.model_fields
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

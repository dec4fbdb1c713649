# SPDX-License-Identifier: GPL-3.0-or-later
"""The Shot: one description of one animation, as a versioned JSON document.

Everything that Koshi renders enters here, from Blender, the command line, Python or a farm. The document is
checked once, on entry; every fault is listed with its field, frame and value.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from .checks import (
    MAX_FRAMES,
    check_files,
    check_prompts,
    check_schedules,
    explain,
    resolve_length,
    resolve_model,
    turn_strength,
)
from .errors import KoshiError, problem, raise_problems
from .guides import frame_file
from .motion_checks import check_motion
from .schedules import evaluate
from .seeds import BEHAVIORS, seed_path
from .settings import GUIDE_FILES, SCHEDULES, STRICT, Depth, Feedback, Guides, Motion, Prompt, Side, per_frame


class Shot(BaseModel):
    """A whole animation. Build one with `load_shot`, which explains what is wrong in plain words."""

    model_config = STRICT
    koshi: Literal[1] = 1
    model: str = "koshi-tiny"
    width: Side = 256
    height: Side = 256
    fps: Annotated[float, Field(ge=0.1, le=1000)] = 24.0
    frame_start: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    frame_step: Annotated[int, Field(ge=1, le=100_000)] = 1
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)]
    time_rounding: Literal["exact", "bfl", "diffusers"] = "exact"
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    schedules: dict[str, float | str | list[float] | dict[str, str]] = {}
    seed_behavior: Literal[BEHAVIORS] = "fixed"  # type: ignore[valid-type]
    seed_iter_n: Annotated[int, Field(ge=1)] = 1
    feedback: Feedback = Feedback()
    motion: Motion = Motion()
    depth: Depth = Depth()
    guides: Guides = Guides()
    init_image: str | None = None
    strength_convention: Literal["denoise"] = "denoise"

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Every schedule's value at every frame, defaults included; of absolute curves, the move into each frame.

        `seed` is what the schedule says, else the path that seed_behavior takes from the shot's seed.
        """
        given = {
            name: evaluate(schedule, self.frames, seed=self.seed) for name, schedule in self.schedules.items()
        }
        for name in self.motion.absolute:
            if name in given:
                given[name] = per_frame(name, given[name])
        behavior = "schedule" if "seed" in given else self.seed_behavior
        path = seed_path(behavior, self.seed, self.frames, self.seed_iter_n, given.get("seed"))
        given["seed"] = [float(seed) for seed in path]
        for name, spec in SCHEDULES.items():
            given.setdefault(name, [spec.default] * self.frames)
        return given

    def prompt_at(self, index: int) -> str:
        """The text in force at a frame. Before the first prompt's frame the first prompt holds."""
        return self._prompt(index).text

    def negative_at(self, index: int) -> str:
        """The negative text in force at a frame."""
        return self._prompt(index).negative

    def _prompt(self, index: int) -> Prompt:
        ordered = sorted(self.prompts, key=lambda p: p.frame)
        return next((prompt for prompt in reversed(ordered) if prompt.frame <= index), ordered[0])

    def number(self, index: int) -> int:
        """The number of a frame in file names and in Blender."""
        return self.frame_start + index * self.frame_step

    def begins(self, index: int) -> bool:
        """Whether a frame is made without one before it: frame 0, and the frames of `motion.cuts`."""
        return index == 0 or index in self._cuts

    def start_of(self, index: int) -> str | None:
        """The picture that a frame is painted over, if it is one that begins: `init_image`'s, after a cut only where
        its name has #### in it."""
        given = self.init_image
        if given is None or not self.begins(index) or (index > 0 and "#" not in Path(given).name):
            return None
        return str(frame_file(given, self.number(index)))

    @cached_property
    def _cuts(self) -> frozenset[int]:
        return frozenset(self.motion.cuts)

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
    resolve_length(draft, faults)
    resolve_model(draft, faults)
    turn_strength(draft, faults)
    check_files(draft, faults)
    shot: Shot | None = None
    try:
        shot = Shot.model_validate(draft)
    except ValidationError as error:
        named = {f["field"] for f in faults}
        found = [explain(e, Shot.model_fields) for e in error.errors()]
        faults += [f for f in found if f["field"] not in named]
    check_schedules(draft, faults)
    check_prompts(draft, faults)
    check_motion(draft, faults)
    _check_seeds(draft, faults)
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
    if isinstance(data, dict):
        _find_beside(path.parent, data, ("init_image",))
        if isinstance(guides := data.get("guides"), dict):
            _find_beside(path.parent, guides, GUIDE_FILES)
    return load_shot(data)


def _find_beside(folder: Path, table: dict[str, Any], names: tuple[str, ...]) -> None:
    """File names in a shot file are meant relative to it; absolute ones stay what they are."""
    for name in names:
        if isinstance(file := table.get(name), str) and file:
            table[name] = str(folder / Path(file))


def _check_seeds(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Whether the path of seeds stays in range; only for a document that has no other fault."""
    if faults:
        return
    try:
        _ = Shot.model_validate(draft).values
    except KoshiError as error:
        faults.append(problem("seed", error.message, error.hint, value=draft.get("seed")))

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pictures show, frame by frame: prompts that take over from one another, or count at once, by weights.

    {"frame": 0, "text": "a calm sea", "ease": "linear"}, {"frame": 48, "text": "a forest"}     from one into the other
    {"frame": 0, "text": "snow", "weight": "0:(0), 30:(0.5)"}                                   on top of those
    {"frame": "max_f/2", "text": "a `3+t/12` storey house --neg people"}                        keyed, counted by math

A frame has one text, or several with shares that sum to 1; the model mixes their conditionings.

No torch: the server process reads this.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .checks import renderable
from .easing import EASINGS, LEAST
from .errors import KoshiError, problem
from .expressions import Expression, ExpressionError, read
from .schedules import ScheduleError, evaluate
from .settings import Prompt

_NAMES = ("t", "max_f", "s")  # in the math within a text; of these, a key's frame knows the last two
_MATH = re.compile(r"`([^`]*)`")
_NEGATIVE = re.compile(r"(?:^|\s)--neg(?:\s|$)")


class Part(NamedTuple):
    """One of a frame's texts. weight: its share. prompt: which of the shot's prompts it is (the first that says so)."""

    text: str
    negative: str
    weight: float
    prompt: int


class Track:
    """A shot's prompts, at every frame. Raises KoshiError where their math or weights have no value.

    mixes: whether a frame may have several.
    """

    def __init__(self, prompts: Sequence[Prompt], frames: int, seed: int) -> None:
        self._prompts, self._names = prompts, {"max_f": frames - 1, "s": seed}
        order = sorted(range(len(prompts)), key=lambda k: prompts[k].frame)
        self._main = [k for k in order if prompts[k].weight is None]
        self._starts = [prompts[k].frame for k in self._main]
        self._weights = {
            k: evaluate(weight, frames, seed=seed)
            for k in order
            if (weight := prompts[k].weight) is not None
        }
        self._texts = [_Text(prompt.text) for prompt in prompts]
        says = [(prompt.text, prompt.negative) for prompt in prompts]
        self._first = [says.index(said) for said in says]
        self.mixes = bool(self._weights) or any(prompts[k].ease != "hold" for k in self._main[:-1])

    def at(self, index: int) -> tuple[Part, ...]:
        """The texts of a frame, the strongest first. Raises KoshiError("bad_prompt") where none has any weight."""
        shares = self._main_shares(index)
        for k, weights in self._weights.items():
            if index >= self._prompts[k].frame:
                shares[k] = weights[index]
        total = sum(shares.values())
        if total <= LEAST:
            raise KoshiError("bad_prompt", f"At frame {index} no prompt has any weight.", "Give one of them some.")
        names = {**self._names, "t": index}
        merged: dict[tuple[str, str], Part] = {}
        for k, weight in shares.items():
            if weight / total > LEAST:
                says = self._texts[k].at(names), self._prompts[k].negative
                same = merged.get(says)
                first, before = (same.prompt, same.weight) if same else (self._first[k], 0.0)
                merged[says] = Part(*says, before + weight / total, first)
        return tuple(sorted(merged.values(), key=lambda part: (-part.weight, part.prompt)))

    def turning(self, index: int, before: int) -> bool:
        """Whether a frame has other prompts than the one that it is made from, or other shares of them."""
        now, then = ({part.prompt: part.weight for part in self.at(k)} for k in (index, before))
        return now != then

    def _main_shares(self, index: int) -> dict[int, float]:
        """Of the prompts that take over from one another. Before the first one's frame it holds, too."""
        if not self._main:
            return {}
        place = max(bisect.bisect_right(self._starts, index) - 1, 0)
        here = self._main[place]
        start, following = self._prompts[here].frame, self._main[place + 1 : place + 2]
        if not following or index <= start:
            return {here: 1.0}
        way = (index - start) / (self._prompts[following[0]].frame - start)
        share = EASINGS[self._prompts[here].ease](way)
        return {here: 1.0 - share, following[0]: share}


class _Text:
    """A text with math in it, in backticks."""

    def __init__(self, text: str) -> None:
        parts = _MATH.split(text)
        self._plain = parts[::2]
        self._math: list[Expression] = [read(math, _NAMES) for math in parts[1::2]]

    def at(self, names: dict[str, int]) -> str:
        said = [f"{math.value(names):.4g}" for math in self._math]
        return "".join(a + b for a, b in zip(self._plain, [*said, ""], strict=True))


def resolve_prompts(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Make frames that are math whole numbers, and take what follows --neg into `negative`, as Deforum writes it."""
    prompts = draft.get("prompts")
    if not isinstance(prompts, list):
        return
    draft["prompts"] = prompts = [dict(p) if isinstance(p, dict) else p for p in prompts]
    frames, seed = draft.get("frames"), draft.get("seed", 0)
    for k, prompt in enumerate(prompts):
        if not isinstance(prompt, dict):
            continue
        if isinstance(frame := prompt.get("frame"), str) and isinstance(frames, int) and isinstance(seed, int):
            try:
                value = read(frame, _NAMES[1:]).value({"max_f": frames - 1, "s": seed})
                prompt["frame"] = int(value)
            except ExpressionError as error:
                faults.append(problem(f"prompts[{k}].frame", f"{error.reason}.", error.hint, value=frame))
                prompt["frame"] = 0
        if isinstance(text := prompt.get("text"), str) and _NEGATIVE.search(text):
            prompt["text"], *negative = (part.strip() for part in _NEGATIVE.split(text))
            prompt["negative"] = ", ".join(filter(None, [str(prompt.get("negative", "")), *negative]))


def check_prompts(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Of prompts that pydantic finds well formed: one text a frame, and math and weights that have values."""
    prompts, frames, seed = draft.get("prompts"), draft.get("frames"), draft.get("seed", 0)
    if not isinstance(prompts, list) or not renderable(frames) or not isinstance(seed, int):
        return
    seen: set[int] = set()
    sound = not any(fault["field"].startswith("prompts") for fault in faults)
    for k, prompt in enumerate(prompts):
        if not isinstance(prompt, dict):
            continue
        frame, weight = prompt.get("frame", 0), prompt.get("weight")
        if weight is None and isinstance(frame, int):
            if frame in seen:
                told = f"frame {frame} has two prompts."
                hint = "Keep one of them, or give one a weight, so that both count."
                faults.append(problem(f"prompts[{k}].frame", told, hint, frame, frame))
            seen.add(frame)
        if sound:
            _check_math(k, prompt, frames, seed, faults)
            _check_weight(k, weight, frames, seed, faults)
    sound = sound and not any(fault["field"].startswith("prompts") for fault in faults)
    if sound and all(prompt.get("weight") is not None for prompt in prompts):
        track = Track([Prompt.model_validate(prompt) for prompt in prompts], frames, seed)
        try:
            for index in range(frames):
                track.at(index)
        except KoshiError as error:
            faults.append(problem("prompts", f"{error.message[:1].lower()}{error.message[1:]}", error.hint, index))


def _check_math(k: int, prompt: dict[str, Any], frames: int, seed: int, faults: list[dict[str, Any]]) -> None:
    field, index = f"prompts[{k}].text", 0
    try:
        if "`" not in prompt["text"]:
            return
        text = _Text(prompt["text"])
        for index in range(min(prompt.get("frame", 0), frames - 1), frames):
            text.at({"max_f": frames - 1, "s": seed, "t": index})
    except ExpressionError as error:
        faults.append(problem(field, f"the math between ` and `: {error.reason}.", error.hint, index, prompt["text"]))


def _check_weight(k: int, weight: Any, frames: int, seed: int, faults: list[dict[str, Any]]) -> None:
    field = f"prompts[{k}].weight"
    if weight is None:
        return
    try:
        values = evaluate(weight, frames, seed=seed)
    except ScheduleError as error:
        faults.append(problem(field, error.message, error.hint, error.frame, weight))
        return
    wrong = [index for index, value in enumerate(values) if not 0.0 <= value <= 1000.0]
    if wrong:
        told = f"the weight at frame {wrong[0]} is {values[wrong[0]]:g}."
        faults.append(problem(field, told, "Keep it between 0 and 1000.", wrong[0], values[wrong[0]]))

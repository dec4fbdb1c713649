# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts of the Deforum family as prompts of a shot, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import expressions
from ..errors import KoshiError
from ..expressions import ExpressionError
from .draft import Draft, NotCarried
from .loose import read_loose
from .loras import carry_loras, without_words

NEGATIVE = "--neg"
EMPTY = "a picture"
MAX_PROMPT = 20_000  # characters, a shot's own limit
_NAMES = ("t", "max_f", "s")
_MATH = re.compile(r"`([^`]*)`")
_EXTRA = re.compile(r"<hypernet[^>]*>")
_WEIGHT = re.compile(r"\([^()]*:\s*[\d.`]+[^()]*\)|\[[^\[\]]+\]|\s(?:AND|BREAK)\s")


def carry_prompts(draft: Draft, key: str, value: Any) -> str:
    """The shot's prompts from `prompts` and what the other prompt keys add to it."""
    table = _by_frame(draft, value)
    if not table:
        raise NotCarried("there is no prompt in it.")
    negatives = _negatives(draft)
    before = _global(draft, "positive_prompts", "animation_prompts_positive")
    after = _global(draft, "negative_prompts", "animation_prompts_negative")
    if not after and isinstance(draft.settings.get("negative_prompt"), str):
        after = draft.settings["negative_prompt"].strip()
    carry_loras(draft, key, {frame: f"{before} {text}" for frame, text in table.items()})
    worded = any(without_words(text) != text for text in table.values())
    prompts: list[dict[str, Any]] = []
    for frame in sorted({*table, *negatives}):
        text = _in_force(table, frame)
        parts = [part.strip() for part in _plain(draft, key, f"{before} {text.strip()}").split(NEGATIVE)]
        negative = ", ".join(part for part in [*parts[1:], _in_force(negatives, frame).strip(), after] if part)
        said = _checked_math(draft, key, parts[0], frame)
        prompt: dict[str, Any] = {"frame": frame, "text": _fitting(draft, key, said)}
        if negative:
            prompt["negative"] = _frozen(draft, key, _plain(draft, key, negative), frame)[:MAX_PROMPT]
        if worded and prompts and {**prompt, "frame": 0} == {**prompts[-1], "frame": 0}:
            continue  # it only stands there for its LoRAs
        prompts.append(prompt)
    if draft.mode == "Interpolation":  # the only mode in which Deforum blends prompts
        for prompt in prompts[:-1]:
            prompt["ease"] = "linear"
    draft.shot["prompts"] = prompts
    return "prompts"


def to_deforum(prompts: list[Mapping[str, Any]]) -> dict[str, str]:
    """Prompts keyed by frame, as webui has them."""
    return {str(prompt["frame"]): with_negative(prompt) for prompt in sorted(prompts, key=lambda p: int(p["frame"]))}


def with_negative(prompt: Mapping[str, Any]) -> str:
    """A prompt and its negative as one text."""
    negative = prompt.get("negative") or ""
    return f"{prompt['text']} {NEGATIVE} {negative}" if negative else str(prompt["text"])


def _by_frame(draft: Draft, value: Any) -> dict[int, str]:
    """Texts by frame, whatever they are written as. The later of two at a frame counts."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("{"):
            try:
                return _by_frame(draft, read_loose(text))
            except KoshiError as error:
                raise NotCarried(f"it cannot be read: {error}") from error
        return {0: text} if text else {}
    if isinstance(value, list):
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) > 1:
            draft.report.leave("prompts", value, "a list says no frames; the first one is carried for all.")
        return {0: texts[0]} if texts else {}
    if not isinstance(value, Mapping):
        raise NotCarried("it is no table of prompts by frame.")
    table: dict[int, str] = {}
    for where, text in value.items():
        frame = frame_of(draft, str(where))
        if frame is None:
            draft.report.leave(f"prompts[{where!r}]", text, "its frame cannot be read.")
        elif isinstance(text, str):
            table[frame] = text
        else:
            draft.report.leave(f"prompts[{where!r}]", text, "it is no text.")
    return table


def frame_of(draft: Draft, text: str) -> int | None:
    """A frame's number, also as an expression; None if it is none."""
    word = text.strip().strip("\"'").strip()
    if word.isascii() and word.isdigit():
        return int(word) if len(word) < 9 else None
    try:
        names = {"max_f": draft.frames - 1, "s": draft.seed}
        frame = int(expressions.read(word, ("max_f", "s")).value(names))
    except ExpressionError:
        return None
    return frame if 0 <= frame < 10**9 else None


def _negatives(draft: Draft) -> dict[int, str]:
    """The notebook's second table."""
    for key in ("neg_prompts", "animation_negative_prompts", "negative_prompts"):
        value = draft.settings.get(key)
        if isinstance(value, Mapping):
            return _by_frame(draft, value)
    return {}


def _global(draft: Draft, *keys: str) -> str:
    for key in keys:
        value = draft.settings.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _in_force(table: dict[int, str], frame: int) -> str:
    """The text that holds at a frame; before the first one's frame the first one."""
    before = [known for known in sorted(table) if known <= frame]
    return table[before[-1]] if before else table[min(table)] if table else ""


def _plain(draft: Draft, key: str, text: str) -> str:
    """A prompt without what only Stable Diffusion's web UI understands; what goes is reported."""
    text = without_words(text)
    if _EXTRA.search(text):
        draft.report.leave(key, text, "hypernetworks are Stable Diffusion's, and are taken out.")
        text = re.sub(r"\s+", " ", _EXTRA.sub("", text))
    if _WEIGHT.search(text):
        why = "FLUX reads sentences: weights such as (word:1.2), [word], AND and BREAK are letters to it."
        draft.report.leave(key, text, f"{why} Say what matters in words, or give a prompt a weight.")
    return text.strip()


def _checked_math(draft: Draft, key: str, text: str, frame: int) -> str:
    """A text whose math has a value at every frame; what has none is taken out and reported."""

    def keep(found: re.Match[str]) -> str:
        try:
            math = expressions.read(found[1], _NAMES)
            for index in range(min(frame, draft.frames - 1), draft.frames):
                math.value({"t": index, "max_f": draft.frames - 1, "s": draft.seed})
        except ExpressionError as error:
            draft.report.leave(key, text, f"the arithmetic {found[0][:40]} is taken out: {error.reason}.")
            return ""
        return found[0]

    return _MATH.sub(keep, text).strip()


def _frozen(draft: Draft, key: str, text: str, frame: int) -> str:
    """A negative text, in which math stays at the value that it has at the prompt's own frame."""
    if _MATH.search(text):
        draft.report.leave(key, text, "arithmetic in a negative prompt stays at its value at the prompt's own frame.")
    names = {"t": frame, "max_f": draft.frames - 1, "s": draft.seed}

    def value(found: re.Match[str]) -> str:
        try:
            return f"{expressions.read(found[1], _NAMES).value(names):.4g}"
        except ExpressionError:
            return ""

    return _MATH.sub(value, text)


def _fitting(draft: Draft, key: str, text: str) -> str:
    if not text:
        draft.report.note(f"A prompt is empty; the shot says {EMPTY!r} instead.")
        return EMPTY
    if len(text) > MAX_PROMPT:
        draft.report.leave(key, text, f"a prompt of {len(text)} characters is cut to {MAX_PROMPT}.")
    return text[:MAX_PROMPT]

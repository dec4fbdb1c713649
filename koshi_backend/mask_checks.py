# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a shot's mask, and its masks in words, fit the rest of it. No torch: the server checks too."""

from __future__ import annotations

from typing import Any

from .checks import renderable
from .errors import KoshiError, problem
from .guides import frame_file
from .mask_words import WORDS, read_place
from .schedules import ScheduleError, evaluate_texts


def check_mask(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Add what is missing, or contradicts the rest of the shot, to `faults`."""
    masking, guides = draft.get("masking", {}), draft.get("guides", {})
    if not (isinstance(masking, dict) and isinstance(guides, dict)):
        return
    if masking.get("alpha") is True:
        _check_alpha(draft, masking, guides, faults)
    for name in WORDS:
        if isinstance(words := masking.get(name), str):
            _check_words(draft, f"masking.{name}", words, faults)


def _check_alpha(
    draft: dict[str, Any], masking: dict[str, Any], guides: dict[str, Any], faults: list[dict[str, Any]]
) -> None:
    text, hint = "", "Give one of the two."
    if guides.get("mask") and not masking.get("where"):
        text = "the mask is a file and init_image's alpha channel at once."
    elif masking.get("where"):
        text, hint = "masking.where says what the mask is.", "Name {init_mask} there, and leave alpha out."
    elif not draft.get("init_image"):
        text, hint = "the mask is init_image's alpha channel, but there is no init_image.", (
            "Name a picture with a transparent part.")  # fmt: skip
    if text:
        faults.append(problem("masking.alpha", text, hint, value=True))


def _check_words(draft: dict[str, Any], field: str, words: str, faults: list[dict[str, Any]]) -> None:
    frames = draft.get("frames")
    if not renderable(frames):
        return
    try:
        texts = evaluate_texts(words, frames, seed=draft["seed"] if isinstance(draft.get("seed"), int) else 0)
    except ScheduleError as error:
        faults.append(problem(field, error.message, error.hint, error.frame, words))
        return
    asked: set[str] = set()
    for frame, text in enumerate(texts):
        if frame and text == texts[frame - 1] and "#" not in text:
            continue
        try:
            place = read_place(text)
        except KoshiError as error:
            faults.append(problem(field, error.message, error.hint, frame, text))
            return
        for leaf in place.leaves():
            asked.add(leaf.op)
            number = _number(draft, frame)
            if leaf.op == "file" and not _is_file(leaf.file, number):
                faults.append(problem(field, f"there is no file {leaf.file}.", "Check the path.", number, leaf.file))
                return
    guides = draft.get("guides", {})
    if "video_mask" in asked and not (isinstance(guides, dict) and guides.get("mask")):
        hint = "Name a picture, numbered pictures or a film in guides.mask."
        faults.append(problem(field, "{video_mask} is guides.mask, of which there is none.", hint, value=words))
    if "init_mask" in asked and not draft.get("init_image"):
        hint = "Name a picture with a transparent part in init_image."
        faults.append(problem(field, "{init_mask} is init_image's alpha channel, of which there is none.", hint,
                              value=words))  # fmt: skip


def _number(draft: dict[str, Any], frame: int) -> int:
    """The number of a frame in file names."""
    start, step = draft.get("frame_start", 0), draft.get("frame_step", 1)
    return (start if isinstance(start, int) else 0) + frame * (step if isinstance(step, int) else 1)


def _is_file(name: str, number: int) -> bool:
    try:
        return frame_file(name, number).is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        return False

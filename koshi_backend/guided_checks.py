# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a shot's guided pictures and colour reference fit the rest of it. No torch: the server checks too."""

from __future__ import annotations

from typing import Any

from .checks import renderable
from .errors import KoshiError, problem
from .models.registry import find_traits


def guided_tables(draft: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of guided_images, as far as they are what they should be."""
    given = draft.get("guided_images")
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def check_guided(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Add what is missing, or contradicts the rest of the shot, to `faults`."""
    _check_pictures(draft, faults)
    _check_colors(draft, faults)


def _check_pictures(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    frames, given = draft.get("frames"), guided_tables(draft)
    for k, one in enumerate(given):
        field, frame, image = f"guided_images[{k}]", one.get("frame", 0), one.get("image")
        if isinstance(image, str) and "#" in image.replace("\\", "/").rpartition("/")[2]:
            hint = "For a picture of its own in each frame use guides.video with hybrid.composite."
            faults.append(problem(f"{field}.image", "a guided picture is one file, without #.", hint, value=image))
        if renderable(frame) and renderable(frames) and frame >= frames:
            text = f"the picture begins at frame {frame}, and the shot has {frames} frames."
            faults.append(problem(f"{field}.frame", text, "Frames count from 0 here.", frame, frame))
    if given and draft.get("guided_as", "mixed") != "mixed" and not _sees(draft):
        hint = "Use 'mixed', or choose a FLUX.2 model or FLUX.1 Kontext."
        text = f"{draft.get('model')} cannot be shown pictures."
        faults.append(problem("guided_as", text, hint, value=draft.get("guided_as")))


def _check_colors(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    feedback = draft.get("feedback", {})
    reference = feedback.get("color_reference") if isinstance(feedback, dict) else None
    if reference == "image" and not draft.get("color_image"):
        hint = "Name a picture, numbered pictures such as look/####.png, or a video."
        faults.append(problem("color_image", "colours are matched to a picture, but none is given.", hint))
    if reference == "guided" and not draft.get("guided_images"):
        hint = "Name some in guided_images, or match colours to something else."
        faults.append(problem("feedback.color_reference", "there are no guided pictures.", hint, value="guided"))


def _sees(draft: dict[str, Any]) -> bool:
    """Whether the model can be shown pictures; of a model that is not known, another check says so."""
    try:
        return find_traits(str(draft.get("model", "koshi-tiny"))).references
    except KoshiError:
        return True

# SPDX-License-Identifier: GPL-3.0-or-later
"""How guided images, masks and colours of files get into a shot. As in carriers.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ..errors import KoshiError
from . import grammar
from .draft import Draft, NotCarried, as_number
from .loose import read_loose
from .prompts import frame_of

# Between the frames of tweening; and the gap between two pictures where there is none after this one.
_ASIDE, _GAP = 0.07, 25
_BLEND = {"blendFactorMax": 0.35, "blendFactorSlope": 0.25, "tweening_frames_schedule": 20}


def looped(draft: Draft, value: Any) -> bool:
    """Whether guided images count."""
    return draft.on("use_looper") and draft.mode in ("2D", "3D")


def pictured(draft: Draft, value: Any = None) -> bool:
    """Whether guided images count, and the shot has some of them. Without any it is as if they were off."""
    return "guided_images" in draft.shot


def masked(draft: Draft, value: Any) -> bool:
    """Whether a mask counts."""
    return draft.on("use_mask") or draft.on("use_mask_video")


def carry_images(draft: Draft, key: str, value: Any) -> str:
    """The pictures by frame. Those on the net are reported; the first one holds from frame 0 on, as there."""
    table = _table(value)
    found: list[dict[str, Any]] = []
    for where, name in table.items():
        frame = frame_of(draft, str(where))
        if frame is None:
            draft.report.leave(f"{key}[{where!r}]", name, "its frame cannot be read.")
            continue
        try:
            found.append({"frame": frame, "image": draft.file(name)})
        except NotCarried as error:
            draft.report.leave(f"{key}[{where!r}]", name, error.why)
    found.sort(key=lambda one: int(one["frame"]))
    if found and len(found) == len(table):
        found[0]["frame"] = 0
    late = [one for one in found if one["frame"] >= draft.frames]
    if late:
        draft.report.note(f"{len(late)} of the guided images come after the last frame, and are left out.")
    found = [one for one in found if one["frame"] < draft.frames]
    if not found:
        raise NotCarried("none of the pictures is a file: save them beside the shot and name them in guided_images.")
    draft.shot["guided_images"] = found
    return "guided_images"


def carry_use(draft: Draft, key: str, value: Any) -> str:
    _need_pictures(draft)
    return "guided_images"


def carry_image_strength(draft: Draft, key: str, value: Any) -> str:
    """It takes the place of the strength, at the first frame too."""
    _need_pictures(draft)
    schedule, values = draft.values(key, value)
    if draft.keeps:
        schedule = grammar.turned(schedule, draft.frames, draft.seed)
        values = grammar.turned_values(values)
    return draft.put_curve("strength", key, schedule, values)


def carry_share(draft: Draft, key: str, value: Any) -> str:
    """How much of the picture in force is mixed in, at every frame: max - slope * cos over the tweening frames, and
    little after them (generate.py of sd-webui-deforum)."""
    _need_pictures(draft)
    most, slope, length = (draft.values(name, draft.settings.get(name, known))[1] for name, known in _BLEND.items())
    named = [frame_of(draft, str(where)) for where in _table(draft.settings.get("init_images"))]
    starts = sorted(frame for frame in named if frame is not None)
    shares = []
    for frame in range(draft.frames):
        gaps = [after - before for before, after in itertools.pairwise(starts) if before <= frame <= after]
        share, tween = _ASIDE, length[frame]
        if tween > 0.0 and frame % max(gaps[-1] if gaps else _GAP, 1) <= tween:
            share = most[frame] - slope[frame] * math.cos((frame % tween) / (tween / 2))
        shares.append(min(max(share, 0.0), 1.0))
    return draft.put_curve("guided", key, shares, shares)


def carry_color_share(draft: Draft, key: str, value: Any) -> str:
    """How far colours are drawn to those of the picture in force."""
    _need_pictures(draft)
    if draft.part("feedback").get("color_mode", "none") != "none":
        raise NotCarried(
            "colours are matched once, here as color_coherence says; feedback.color_reference guided matches them to "
            "the guided pictures."
        )
    schedule, values = draft.values(key, value)
    draft.part("feedback").update(color_mode="LAB", color_reference="guided")
    draft.put_curve("color_match", key, schedule, values)
    return "schedules.color_match, feedback.color_reference"


def carry_mask_file(draft: Draft, key: str, value: Any) -> str:
    draft.part("guides")["mask"] = draft.file(value)
    return "guides.mask"


def carry_alpha(draft: Draft, key: str, value: Any) -> str:
    if not draft.shot.get("init_image"):
        raise NotCarried("it is the initial picture's, which is not carried.")
    draft.part("masking")["alpha"] = True
    draft.part("guides").pop("mask", None)
    return "masking.alpha"


def carry_use_mask(draft: Draft, key: str, value: Any) -> str:
    if draft.part("guides").get("mask"):
        return "guides.mask"
    if draft.part("masking").get("alpha"):
        return "masking.alpha"
    raise NotCarried("the mask itself is not carried: name one in guides.mask.")


def carry_masking(name: str, low: float, high: float) -> Any:
    """A number that says what is made of the mask."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        number = as_number(value)
        if number is None or not low <= number <= high:
            raise NotCarried(f"Koshi takes {low:g} to {high:g}.")
        draft.part("masking")[name] = number
        return f"masking.{name}"

    return carry


def carry_invert(draft: Draft, key: str, value: Any) -> str:
    draft.part("masking")["invert"] = True
    return "masking.invert"


def match_to_file(draft: Draft, word: str) -> str:
    """color_coherence Image or Video Input: matched to a file, wholly, in LAB. Raises NotCarried."""
    name = "color_coherence_image_path" if word == "IMAGE" else "video_init_path"
    try:
        draft.shot["color_image"] = draft.file(draft.settings.get(name))
    except NotCarried as error:
        raise NotCarried(f"of the file {name}: {error.why} Name it in color_image.") from error
    draft.part("feedback").update(color_mode="LAB", color_reference="image")
    draft.shot["schedules"]["color_match"] = 1.0
    return "color_image, feedback.color_mode, color_reference, schedules.color_match"


def carry_color_image(draft: Draft, key: str, value: Any) -> str:
    if "color_image" not in draft.shot:
        raise NotCarried("there is no such file here: name it in color_image.")
    return "color_image"


def carry_color_every(draft: Draft, key: str, value: Any) -> str:
    if "color_image" not in draft.shot:
        raise NotCarried("colours are not matched to a video here: name it in color_image.")
    draft.shot["color_every"] = draft.whole(key, value, 1, 10**9)
    return "color_every"


def _need_pictures(draft: Draft) -> None:
    if not pictured(draft):
        raise NotCarried("it belongs to the guided images, of which none is carried.")


def _table(value: Any) -> Mapping[str, Any]:
    """Pictures by frame, as a table or as its text. Raises NotCarried."""
    if isinstance(value, str):
        try:
            value = read_loose(value)
        except KoshiError as error:
            raise NotCarried(f"it cannot be read: {error}") from error
    if not isinstance(value, Mapping) or not value:
        raise NotCarried("it is no table of pictures by frame.")
    return value

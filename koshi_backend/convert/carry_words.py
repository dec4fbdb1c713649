# SPDX-License-Identifier: GPL-3.0-or-later
"""How masks in words get into a shot: webui's mask_schedule and noise_mask_schedule. As in carriers.py.

webui's {video_mask} is the mask video, and its {init_mask} the alpha channel of init_image, or else mask_file. Koshi's
{video_mask} is guides.mask, whichever that is, and {init_mask} always the alpha channel.
"""

from __future__ import annotations

from typing import Any

from ..errors import KoshiError
from ..mask_words import EVERYWHERE, Place, read_place, without
from ..schedule_text import Key, ParsedSchedule, ScheduleError, parse_texts
from . import carry_guided as guided
from .draft import Draft, NotCarried

_VIDEO = Place("video_mask")


def carry_where(draft: Draft, key: str, value: Any) -> str:
    """What the mask is. Where that is guides.mask or the alpha channel alone, the shot need not say it."""
    parsed = _read(draft, value)
    said = {_place(one) for one in parsed.keys}
    guides, masking = draft.part("guides"), draft.part("masking")
    if said == {_VIDEO} and guides.get("mask"):
        return "guides.mask"
    if said == {Place("init_mask")}:
        guides.pop("mask", None)
        masking["alpha"] = True
        return "masking.alpha"
    if _VIDEO in {leaf for place in said for leaf in place.leaves()}:
        if not guides.get("mask"):
            raise NotCarried("the mask file that it needs is not carried: name it in guides.mask.")
    else:
        guides.pop("mask", None)  # which then is asked for nowhere
    masking.pop("alpha", None)
    masking["where"] = str(parsed)
    return "masking.where"


def carry_use_mask(draft: Draft, key: str, value: Any) -> str:
    where = "masking.where" if draft.part("masking").get("where") else guided.carry_use_mask(draft, key, value)
    _noise_by_mask(draft)
    return where


def carry_noise(draft: Draft, key: str, value: Any) -> str:
    """Where noise is added: the words, turned round by invert_mask."""
    return _carry_noise(draft, _read(draft, value))


def carry_noise_switch(draft: Draft, key: str, value: Any) -> str:
    if draft.part("masking").get("noise") is None and "noise_mask_schedule" not in draft.report.carried:
        raise NotCarried("the noise is the same all over the picture.")
    return draft.report.carried["noise_mask_schedule"]


def _noise_by_mask(draft: Draft) -> None:
    """webui adds noise where the mask is, unless another one is named for it."""
    if draft.on("use_noise_mask") or "mask_schedule" not in draft.settings or not _noisy(draft):
        return
    try:
        parsed = _read(draft, draft.settings["mask_schedule"])
    except NotCarried:
        return  # told of the mask already
    try:
        where = _carry_noise(draft, parsed)
    except NotCarried as error:
        draft.report.note(f"Noise is added all over the picture, and not where the mask is as in webui: {error.why}")
        return
    if where == "masking.noise":
        draft.report.note("Noise is added where the mask is, as in webui: masking.noise.")


def _carry_noise(draft: Draft, parsed: ParsedSchedule) -> str:
    places = [_place(one) for one in parsed.keys]
    if draft.on("invert_mask"):
        places = [without(place) for place in places]
    if not any(place not in (EVERYWHERE, without(EVERYWHERE)) for place in places):
        return "schedules.noise"  # a mask that is all black is left out in webui
    try:
        keys = tuple(_said(one, place) for one, place in zip(parsed.keys, places, strict=True))
    except KoshiError as error:
        raise NotCarried(f"{error.message} {error.hint}") from error
    if _VIDEO in {leaf for place in places for leaf in place.leaves()} and not draft.part("guides").get("mask"):
        name = "video_mask_path" if _film(draft) else "mask_file"
        draft.part("guides")["mask"] = draft.file(draft.settings.get(name))
    draft.part("masking")["noise"] = str(ParsedSchedule(keys))
    return "masking.noise"


def _read(draft: Draft, value: Any) -> ParsedSchedule:
    """A schedule of words, in Koshi's words. Raises NotCarried."""
    try:
        parsed = parse_texts(str(value))
        keys = tuple(_said(one, _ours(draft, _place(one))) for one in parsed.keys)
    except ScheduleError as error:
        raise NotCarried(f"it cannot be read: {error}") from error
    except KoshiError as error:
        raise NotCarried(f"{error.message} {error.hint}") from error
    return ParsedSchedule(keys)


def _place(key: Key) -> Place:
    return read_place(str(key.value))


def _said(key: Key, place: Place) -> Key:
    """A key with other words. Raises KoshiError where they cannot be read again: each ! that came in is a mark more,
    and a folder's name may have a bracket in it."""
    read_place(str(place))
    return Key(key.frame, str(place))


def _ours(draft: Draft, place: Place) -> Place:
    """webui's names as they are said in the shot."""
    film, alpha = _film(draft), draft.on("use_alpha_as_mask") and "init_image" in draft.shot
    still = draft.on("use_mask") and not alpha
    if place == _VIDEO and not film:
        # Alone it is left out, since it is all black, and the mask is the file or the alpha channel.
        return _VIDEO if still else Place("init_mask") if alpha else EVERYWHERE

    def change(leaf: Place) -> Place:
        if leaf.op == "file":
            return Place("file", file=draft.file(leaf.file))
        if leaf == _VIDEO and not film:
            return without(EVERYWHERE)
        if leaf.op == "init_mask" and not alpha:
            if not still:
                raise NotCarried("there is no {init_mask}: neither a mask file nor the alpha channel of init_image.")
            return Place("file", file=draft.file(draft.settings.get("mask_file"))) if film else _VIDEO
        return leaf

    return place.replaced(change)


def _film(draft: Draft) -> bool:
    return draft.on("use_mask_video")


def _noisy(draft: Draft) -> bool:
    """Whether any noise is added."""
    try:
        return any(draft.values("noise_schedule", draft.settings.get("noise_schedule", 0))[1])
    except NotCarried:
        return False

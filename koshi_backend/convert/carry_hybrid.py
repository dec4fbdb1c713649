# SPDX-License-Identifier: GPL-3.0-or-later
"""How settings of films and hybrids get into a shot. As in carriers.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import KoshiError
from .draft import NONE, Draft, NotCarried, as_number

COMPOSITES = {"normal": "normal", "before motion": "before_motion", "after generation": "after_generation"}
MASKS = {"depth": "depth", "video depth": "video_depth", "blend": "blend", "difference": "difference"}
EQUALIZE = ("before", "after", "both")


def is_hybrid(draft: Draft, value: Any = None) -> bool:
    """Whether webui takes anything from a film, the mode Video Input aside."""
    return draft.mode in ("2D", "3D") and (draft.on("hybrid_composite") or draft.on("hybrid_motion"))


def first_of_film(draft: Draft, value: Any = None) -> bool:
    """Whether frame 0 is painted over the film's first frame."""
    return is_hybrid(draft) and draft.on("hybrid_use_first_frame_as_init_image")


def mixes(draft: Draft, value: Any = None) -> bool:
    """Whether the shot mixes its film in."""
    return "composite" in draft.shot.get("hybrid", {})


def masked(draft: Draft, value: Any = None) -> bool:
    """Whether it does so by a mask."""
    return "mask" in draft.shot.get("hybrid", {})


def take_film(draft: Draft) -> None:
    """Name the film in the shot. Raises NotCarried."""
    try:
        draft.part("guides")["video"] = draft.file(draft.settings.get("video_init_path"))
    except NotCarried as error:
        raise NotCarried(f"of the film video_init_path: {error.why}") from error


def carry_first_frame(draft: Draft, key: str, value: Any) -> str:
    take_film(draft)
    if draft.shot.pop("init_image", None) is not None:
        draft.report.note("The film's first frame goes before init_image, as in webui.")
    draft.part("hybrid")["over"] = "first"
    return "hybrid.over"


def carry_composite(draft: Draft, key: str, value: Any) -> str:
    composite = COMPOSITES.get(str(value).strip().lower())
    if composite is None:
        raise NotCarried(f"Koshi has {', '.join(COMPOSITES)}.")
    if draft.on("hybrid_use_init_image"):
        raise NotCarried("one picture is mixed into all frames by guided_images, with the curve guided.")
    take_film(draft)
    draft.part("hybrid")["composite"] = composite
    if composite == "before_motion" and draft.on("hybrid_motion"):
        draft.report.note("Before Motion mixes in the film's frame of the picture that is moved; webui the next one, "
                          "which it then moves too far.")  # fmt: skip
    if composite == "after_generation":
        draft.report.note("After Generation mixes the film into frame 0 too; webui leaves that one out.")
    return "hybrid.composite"


def carry_mask_type(draft: Draft, key: str, value: Any) -> str:
    kind = MASKS.get(str(value).strip().lower())
    if kind is None:
        raise NotCarried(f"Koshi has {', '.join(MASKS)}.")
    if kind in ("depth", "video_depth") and draft.mode == "3D" and not draft.on("use_depth_warping"):
        raise NotCarried("a mask by depth would need depth.source model, which moves the picture, too.")
    draft.part("hybrid")["mask"] = kind
    if kind in ("depth", "video_depth"):
        draft.part("depth").setdefault("source", "model")
    return "hybrid.mask"


def carry_equalize(draft: Draft, key: str, value: Any) -> str:
    word = str(value).strip().lower()
    if word not in EQUALIZE:
        raise NotCarried(f"Koshi has {', '.join(EQUALIZE)}.")
    draft.part("hybrid")["equalize"] = word
    return "hybrid.equalize"


def carry_switch(name: str) -> Any:
    """A switch of the shot's part `hybrid`."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        draft.part("hybrid")[name] = True
        return f"hybrid.{name}"

    return carry


def carry_cutoff(name: str) -> Any:
    """A schedule of percentiles, of which webui takes the whole part."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        schedule, values = draft.values(key, value)
        whole = [float(int(v)) for v in values]
        return draft.put_curve(name, key, schedule if whole == values else whole, whole)

    return carry


def carry_timing(draft: Draft, key: str, value: Any) -> str:
    """extract_from_frame, extract_nth_frame and extract_to_frame, which count together."""
    if draft.shot.get("guides", {}).get("video") is None:
        raise NotCarried("no film is carried that it could be of.")
    first, every, last = extracted(draft)
    if last is not None and last < first:
        raise NotCarried("no frame of the film is left; webui refuses it, too.")
    guides = draft.part("guides")
    guides.update({"video_first": first} if first else {}, **({"video_every": every} if every > 1 else {}))
    if last is not None and first + (draft.frames - 1) * every <= last:
        guides["video_last"] = last
    elif last is not None:
        draft.report.leave("extract_to_frame", last, "the shot needs frames of the film after that one.")
    if first != int(as_number(draft.settings.get("extract_from_frame")) or 0):
        draft.report.note(f"Of every {every} frames webui takes those whose number is a multiple: frame {first} first.")
    return "guides.video_first, video_every, video_last"


def extracted(draft: Draft) -> tuple[int, int, int | None]:
    """Which frames of a film webui takes: the first, every so manieth, the last or None.

    It takes those from extract_from_frame on whose number is a multiple of extract_nth_frame.
    """
    given = [as_number(draft.settings.get(f"extract_{name}_frame")) for name in ("from", "nth", "to")]
    start, every = max(int(given[0] or 0), 0), max(int(given[1] or 1), 1)
    last = None if given[2] is None or given[2] < 0 else int(given[2])
    return -(-start // every) * every, every, last


def film_length(draft: Draft) -> int | None:
    """How many frames webui makes of the film, which is the length of the animation; None where nobody knows, or the
    film has no say. A film that is not there is taken to be long enough."""
    if not (draft.mode == "Video Input" or (is_hybrid(draft) and not draft.on("hybrid_use_init_image"))):
        return None
    first, every, last = extracted(draft)
    ends = [end for end in (_count(draft), None if last is None else last + 1) if end is not None]
    return len(range(first, min(ends), every)) or None if ends else None


def _count(draft: Draft) -> int | None:
    """How many frames the film has, if it is there."""
    given = draft.settings.get("video_init_path")
    if not isinstance(given, str) or "://" in given or not given.strip():
        return None
    path = Path(given.strip()).expanduser()
    path = path if path.is_absolute() else draft.folder / path
    from ..video_reader import READABLE, VideoReader  # takes a second, and most settings have no film

    try:
        return VideoReader(path).count if path.suffix.lower() in READABLE and path.is_file() else None
    except (KoshiError, OSError, ValueError):
        return None


def carry_sound_of(draft: Draft, key: str, value: Any) -> str:
    """"Init Video": the film's own sound."""
    if str(value).strip().lower() == "init video":
        try:
            draft.shot["audio"] = draft.file(draft.settings.get("video_init_path"))
        except NotCarried as error:
            raise NotCarried(f"of the film video_init_path: {error.why}") from error
    return "audio"


def has_sound(draft: Draft, value: Any) -> bool:
    film = draft.mode == "Video Input" or is_hybrid(draft)
    return value not in NONE and ("audio" in draft.shot or (film and str(value).strip().lower() == "init video"))

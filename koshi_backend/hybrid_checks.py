# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a shot's video can do what is asked of it. Nothing here decodes it: the server process checks shots too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import renderable
from .errors import problem
from .schedules import ScheduleError, evaluate
from .settings import SCHEDULES

if TYPE_CHECKING:
    from .shot import Shot

FOLLOWERS = ("flow", "affine", "perspective")  # motion sources that follow the video
_GIVE = "Name a video file, or numbered pictures such as clip/####.png."


def resolve_hybrid(draft: dict[str, Any]) -> None:
    """Frames that are painted over the video's own carry nothing, unless the shot says otherwise."""
    hybrid, feedback = draft.get("hybrid"), draft.get("feedback", {})
    if isinstance(hybrid, dict) and hybrid.get("over") == "every" and isinstance(feedback, dict):
        draft["feedback"] = {"carry": "none", **feedback}


def check_hybrid(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Add what contradicts the rest of the shot to `faults`."""
    hybrid, guides, feedback, depth = (draft.get(name, {}) for name in ("hybrid", "guides", "feedback", "depth"))
    if not all(isinstance(part, dict) for part in (hybrid, guides, feedback, depth)):
        return
    first, last = guides.get("video_first", 0), guides.get("video_last")
    if isinstance(last, int) and isinstance(first, int) and last < first:
        text = f"the video's last frame, {last}, comes before its first, {first}."
        faults.append(problem("guides.video_last", text, "Frames of the video count from 0.", value=last))
    over, composite = hybrid.get("over", "none"), hybrid.get("composite", "none")
    if over == composite == "none":
        return
    if not guides.get("video"):
        faults.append(problem("guides.video", "hybrid takes pictures from a video, but none is given.", _GIVE))
    carry = feedback.get("carry", "pixels")
    if over != "none" and draft.get("init_image") is not None:
        text = "frames cannot be painted over the video's and over init_image."
        faults.append(problem("hybrid.over", text, "Leave one of them out.", value=over))
    if over == "every" and carry != "none":
        text = "every frame is painted over the video's own, so nothing can be carried into it."
        faults.append(problem("feedback.carry", text, 'Leave it out, or make it "none".', value=carry))
    if composite in ("before_motion", "normal") and carry == "none":
        text = "nothing is carried into which the video could be mixed."
        hint = 'Use "after_generation", or carry pixels.'
        faults.append(problem("hybrid.composite", text, hint, value=composite))
    by_depth = hybrid.get("mask") in ("depth", "video_depth") and composite != "none"
    if by_depth and depth.get("source") not in ("model", "groups") and not guides.get("depth"):
        hint = 'Make depth.source "model", or give guides.depth.'
        faults.append(problem("hybrid.mask", "there is no depth to make a mask of.", hint, value=hybrid["mask"]))
    if hybrid.get("auto_contrast") is True:
        _check_cutoffs(draft, faults)


def _check_cutoffs(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    frames, table = draft.get("frames"), draft.get("schedules", {})
    if not renderable(frames) or not isinstance(table, dict):
        return
    names = ("hybrid_cutoff_low", "hybrid_cutoff_high")
    try:
        low, high = (evaluate(table.get(name, SCHEDULES[name].default), frames) for name in names)
    except (ScheduleError, TypeError, AttributeError):
        return  # reported by check_schedules
    wrong = next((k for k in range(frames) if low[k] >= high[k]), None)
    if wrong is not None:
        text = f"at frame {wrong} the lower cutoff is {low[wrong]:g} and the higher one {high[wrong]:g}."
        faults.append(problem("schedules.hybrid_cutoff_low", text, "The lower one must be lower.", wrong, low[wrong]))


def frames_of_video(shot: Shot) -> list[int]:
    """The frames of the shot for which the video must have one, in order."""
    if shot.motion.source in FOLLOWERS:
        return list(range(shot.frames))
    needed = {k for k in shot.made if shot.begins_in_video(k)}
    needed |= {at for k in shot.made if (at := mixed_from(shot, k)) is not None}
    return sorted(needed)


def mixed_from(shot: Shot, index: int) -> int | None:
    """The frame of the shot whose picture of the video is mixed into a made frame; None where none is."""
    composite = shot.hybrid.composite
    if composite == "none" or shot.values["hybrid_alpha"][index] == 0.0:
        return None
    if composite == "after_generation":
        return index
    if shot.begins(index):
        return None
    return shot.before(index) if composite == "before_motion" else index


def check_video(shot: Shot, faults: list[dict[str, Any]]) -> None:
    """Add what the video lacks to `faults`, as far as names and numbers tell. How long a file is, rendering finds out
    before its first frame (footage.py)."""
    given, last = shot.guides.video, shot.guides.video_last
    if given is None:
        return
    needed = frames_of_video(shot)
    if last is not None and (late := [k for k in needed if shot.video_frame(k) > last]):
        faults.append(problem("guides.video_last", *too_short(shot, late, last + 1), late[0], last))
    elif "#" in Path(given).name:
        missing = [k for k in needed if not shot.video_file(k).is_file()]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            text = f"there is no {shot.video_file(missing[0]).name}{more}, for {spans(missing)} of the shot."
            hint = "Give the missing pictures, or make the shot as long as the video."
            faults.append(problem("guides.video", text, hint, shot.number(missing[0]), given))


def too_short(shot: Shot, late: list[int], length: int) -> tuple[str, str]:
    """What to say of a video of `length` frames that has none for the frames `late` of the shot; and what helps."""
    guides = shot.guides
    taken = f" (every {guides.video_every}. from {guides.video_first} on)" if shot.video_frame(1) != 1 else ""
    text = f"the video ends after {length} frames, and {spans(late)} of the shot{taken} would be later."
    return text, f"Make the shot {late[0]} frames long, or give a longer video." if late[0] else "Give a longer video."


def spans(frames: list[int]) -> str:
    """Frames in words: "frames 3, 5 to 9"."""
    found: list[str] = []
    for _, group in itertools.groupby(enumerate(frames), lambda pair: pair[1] - pair[0]):
        run = [frame for _, frame in group]
        found.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    shown = ", ".join(found[:4]) + (" and more" if len(found) > 4 else "")
    return f"frame{'s' if len(frames) > 1 else ''} {shown}"

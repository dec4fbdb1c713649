# SPDX-License-Identifier: GPL-3.0-or-later
"""From a scene's prompts to a shot's. No bpy.

A shot counts frames from 0, its first; prompts may begin before that, and may go over into one after its end. Where a
shot begins between two prompts that go over into one another, their shares are written out as weights.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..koshi_backend.easing import EASINGS, LEAST


@dataclass(frozen=True)
class Spot:
    """A prompt at one of its frames. weights: of one that takes no turns, a number for each frame of the shot."""

    frame: int
    text: str
    negative: str = ""
    ease: str = "hold"
    weights: tuple[float, ...] | None = None

    def says(self) -> dict[str, Any]:
        """What the shot says of it beside its frame, its ease and its weight."""
        text, negative = self.text.strip(), self.negative.strip()
        return {"text": text, **({"negative": negative} if negative else {})}


def in_shot(
    spots: Sequence[Spot], first: int, last: int, step: int, notes: list[str]
) -> tuple[list[dict[str, Any]], list[int]]:
    """The prompts of the shot of every `step`-th scene frame from `first` to `last`; and the shot's frames, from 0, at
    which one begins, if the prompts themselves do not say.

    notes: gets remarks on prompts that are read otherwise than they stand.
    """
    main = sorted((spot for spot in spots if spot.weights is None), key=lambda spot: spot.frame)
    count = (last - first) // step + 1
    beside = [spot for spot in spots if spot.weights is not None and spot.frame <= last]
    told = [
        {"frame": max(_index(spot.frame, first, step), 0), **spot.says(), "weight": short(list(spot.weights or ()))}
        for spot in beside
    ]
    told = [prompt for prompt in told if prompt["frame"] < count]
    late = [spot for spot in spots if spot.weights is not None and spot.frame > last]
    if not main:
        _tell_late(late, last, notes)
        return told, []
    place = max(bisect.bisect_right([spot.frame for spot in main], first) - 1, 0)
    if main[place].frame > first:
        notes.append(f"The first prompt stands at frame {main[0].frame}; it also holds from frame {first} on.")
    after = [spot for spot in main[place + 1 :] if spot.frame <= last]
    beyond = [spot for spot in main[place + 1 :] if spot.frame > last]
    eased = ([main[place], *after][-1]).ease != "hold"
    _tell_late([*beyond[1 if eased else 0 :], *late], last, notes)
    if main[place].ease != "hold" and main[place].frame < first and main[place + 1 :]:
        columns = shares(main, [first + k * step for k in range(count)])
        told = [
            {"frame": 0, **spot.says(), "weight": short(column)}
            for spot, column in zip(main, columns, strict=True)
            if max(column) > LEAST
        ] + told
        return told, [k for k in (_index(spot.frame, first, step) for spot in after) if 0 < k < count]
    begin = min(max(_index(main[place].frame, first, step), 0), count - 1) if main[place].ease != "hold" else 0
    turns = {begin: main[place]}  # before its frame it holds, too
    # From the next frame on that is made; of two in between, the later one holds.
    turns |= {_index(spot.frame, first, step): spot for spot in after}
    if eased and beyond:
        turns[max(_index(beyond[0].frame, first, step), count)] = beyond[0]
    kept = {k: spot for k, spot in turns.items() if k < count or spot in beyond}
    return [_turn(k, spot, k == max(kept)) for k, spot in kept.items()] + told, []


def shares(main: Sequence[Spot], frames: Sequence[int]) -> list[list[float]]:
    """How much of each of the prompts that take turns, sorted by their frames, there is at each frame."""
    starts = [spot.frame for spot in main]
    columns = [[0.0] * len(frames) for _ in main]
    for k, frame in enumerate(frames):
        here = max(bisect.bisect_right(starts, frame) - 1, 0)
        share = 0.0
        if here + 1 < len(main) and frame > starts[here]:
            share = EASINGS[main[here].ease]((frame - starts[here]) / (starts[here + 1] - starts[here]))
            columns[here + 1][k] = round(share, 7)
        columns[here][k] = round(1.0 - share, 7)
    return columns


def counted_from(text: str, ahead: int, frames: int) -> str:
    """A text whose math counts frames from `ahead` frames before the shot's first, in a film of so many frames: what a
    part of a scene's range says is what the whole says there."""

    def math_of(found: re.Match[str]) -> str:
        inside = re.sub(r"\bt\b", f"(t+{ahead})", found[1]) if ahead else found[1]
        return "`" + re.sub(r"\bmax_f\b", str(frames - 1), inside) + "`"

    return re.sub(r"`([^`]*)`", math_of, text)


def short(column: list[Any]) -> Any:
    """One number instead of a list that never changes: easier to read, and the same to the backend."""
    return column[0] if len(set(column)) == 1 else column


def _turn(index: int, spot: Spot, last: bool) -> dict[str, Any]:
    ease = {"ease": spot.ease} if spot.ease != "hold" and not last else {}
    return {"frame": index, **spot.says(), **ease}


def _index(frame: int, first: int, step: int) -> int:
    return -((first - frame) // step)


def _tell_late(late: list[Spot], last: int, notes: list[str]) -> None:
    if late:
        frames = ", ".join(str(spot.frame) for spot in sorted(late, key=lambda spot: spot.frame))
        notes.append(f"Prompts after the last frame {last} are not used (frame {frames}).")

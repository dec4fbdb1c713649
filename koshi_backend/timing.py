# SPDX-License-Identifier: GPL-3.0-or-later
"""Which frames the model makes, and what is shown when: cadence, loops and interpolation as numbers alone.

Frames are made from one another in order; every other picture of the film lies between two of them. Nothing here knows
pictures. Standard library only.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple


class Spot(NamedTuple):
    """One picture of the film.

    place: its time, in frames. first, second: the made frames that it lies between; the same one twice if it is that
    frame. In a seamless loop `second` may be the shot's length: frame 0 again.
    """

    place: Fraction
    first: int
    second: int

    @property
    def share(self) -> float:
        """How far it is on the way from the first to the second, 0..1."""
        return 0.0 if self.first == self.second else float((self.place - self.first) / (self.second - self.first))


def made_frames(frames: int, cadence: Sequence[float], needed: Iterable[int], cuts: Iterable[int]) -> list[int]:
    """The frames that are made, in order: from each one the next is as many on as the whole part of `cadence` says.

    Those in `needed` are made in any case, and so is each scene's first and last frame: what lies between two made
    frames then never reaches over a cut, and no frame of the shot is lost (Deforum drops those after its last whole
    step).
    """
    always = {0, frames - 1}
    for cut in cuts:
        always |= {cut, cut - 1}
    stops = sorted(k for k in always.union(needed) if 0 <= k < frames)
    made = [0]
    for stop in stops:
        while made[-1] < stop:
            made.append(min(made[-1] + max(1, int(cadence[made[-1]])), stop))
    return made


def film_length(frames: int, loop: str, interpolation: int) -> int:
    """How many pictures come out. loop: "none", "back" (the two ends are shown once) or "seamless"."""
    if loop == "none":
        return (frames - 1) * interpolation + 1
    return max(1, 2 * frames - 2 if loop == "back" else frames) * interpolation


def film(
    frames: int, made: Sequence[int], cuts: Iterable[int], loop: str = "none", interpolation: int = 1
) -> Iterator[Spot]:
    """Every picture of the film, in the order in which it is shown. A picture holds until a cut."""
    begins = {0, *cuts}
    for index in range(film_length(frames, loop, interpolation)):
        place = Fraction(index, interpolation)
        if loop == "back" and place > frames - 1:
            place = 2 * (frames - 1) - place
        if frames == 1:
            place = Fraction(0)
        before = made[bisect.bisect_right(made, place) - 1]
        if place == before:
            yield Spot(place, before, before)
            continue
        after = next_made(made, before, frames)
        yield Spot(Fraction(before), before, before) if after in begins else Spot(place, before, after)


def next_made(made: Sequence[int], at: int, frames: int) -> int:
    """The made frame after one; after the last the shot's length, which is frame 0 again."""
    place = bisect.bisect_right(made, at)
    return made[place] if place < len(made) else frames


def seam_start(frames: int, seam: int, cuts: Iterable[int]) -> int:
    """The first frame of a seamless loop that is drawn towards frame 0: the last `seam` ones, but none that begins
    anew."""
    return max(frames - seam, 1 + max((k for k in cuts if k < frames), default=0))


def seam_share(index: int, before: int, start: int, frames: int) -> float:
    """How much of frame 0 is mixed into a frame that is made from frame `before`, 0..1.

    What is left of the old way falls evenly to nothing in the shot's last frame, whichever of them are made.
    """
    if index < start:
        return 0.0
    left = [1.0 - drawn(k, start, frames) for k in (before, index)]
    return 1.0 - left[1] / left[0]


def drawn(index: int, start: int, frames: int) -> float:
    """How far a frame has come on the way to frame 0: 0 before the seam starts, 1 in the shot's last frame."""
    return 0.0 if index < start else (index - start + 1) / (frames - start)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeds from frame to frame: Deforum's behaviours, step for step (sd-webui-deforum seed.py), and Parseq's fractions.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from .errors import KoshiError

BEHAVIORS = ("iter", "fixed", "random", "ladder", "alternate", "schedule")
LARGEST = 2**53  # every whole number up to here is exact as a float, which is what schedules hold
RANDOM_BITS = 32  # as in Deforum, whose random seeds are 0 .. 2^32 - 1


def seed_path(
    behavior: str, seed: int, frames: int, iter_n: int = 1, schedule: Sequence[float] | None = None
) -> list[int]:
    """The seed of every made frame 0 .. frames-1. With cadence, count the frames that the model makes.

    iter: one more after each `iter_n` frames; as in Deforum the first seed is used once only: 100, 101, 101, 101, 102
    for iter_n 3. ladder: 100, 102, 101, 103, 102. alternate: 100, 101, 100, 101. fixed: always the first.
    random: any; after the first seed they are drawn from it, so that the same seed gives the same path again.
    schedule: the whole part of `schedule`'s value in each frame; -1 means a random one, drawn from `seed`.

    seed: 0 .. 2^53. Raises KoshiError("bad_seed") for an unknown behaviour, for seeds out of that range on the way,
    for iter_n below 1, and for a schedule that is missing or has another length.
    """
    if behavior not in BEHAVIORS:
        raise KoshiError("bad_seed", f"The seed behaviour {behavior!r} is unknown.", f"Use {_list(BEHAVIORS)}.")
    if isinstance(iter_n, bool) or not isinstance(iter_n, int) or iter_n < 1:
        raise KoshiError("bad_seed", f"seed_iter_N is {iter_n!r}.", "Use a whole number from 1.")
    _checked(seed, "The seed")
    if behavior == "schedule":
        return _scheduled(seed, frames, schedule)
    if behavior == "random":
        return [seed if frame == 0 else _drawn(seed, frame) for frame in range(frames)]
    if behavior == "iter":
        path = [seed + (frame + iter_n - 1) // iter_n for frame in range(frames)]
    elif behavior == "ladder":
        path = [seed + frame // 2 + 2 * (frame % 2) for frame in range(frames)]
    elif behavior == "alternate":
        path = [seed + frame % 2 for frame in range(frames)]
    else:
        path = [seed] * frames
    for frame, value in enumerate(path):
        _checked(value, f"The seed of frame {frame}")
    return path


def split_seed(seed: float) -> tuple[int, int, float]:
    """A fractional seed as (seed, subseed, subseed_strength), as Parseq reads it: 3.25 is a quarter of the way from 3
    to 4. The subseed is the seed rounded up, the strength its fraction.

    Raises KoshiError("bad_seed") for numbers outside 0 .. 2^53.
    """
    value = float(seed) if isinstance(seed, (int, float)) and abs(seed) <= LARGEST else math.nan
    if not 0.0 <= value <= LARGEST:
        raise KoshiError("bad_seed", f"The seed is {_shown(seed)}.", f"Use a number from 0 to {LARGEST}.")
    whole = math.floor(value)
    return whole, math.ceil(value), value - whole


def _scheduled(seed: int, frames: int, schedule: Sequence[float] | None) -> list[int]:
    if schedule is None:
        raise KoshiError(
            "bad_seed",
            "The seed behaviour is schedule, but there is no seed schedule.",
            "Give a seed schedule, or choose another behaviour.",
        )
    if len(schedule) != frames:
        raise KoshiError(
            "bad_seed",
            f"The seed schedule has {len(schedule)} values for {frames} frames.",
            "Give one value per frame.",
        )
    path = []
    for frame, value in enumerate(schedule):
        if not math.isfinite(value):
            raise KoshiError("bad_seed", f"The seed of frame {frame} is {value}.", "Use a finite number.")
        whole = int(value)  # towards zero, as Deforum rounds
        path.append(_drawn(seed, frame) if whole == -1 else _checked(whole, f"The seed of frame {frame}"))
    return path


def _drawn(seed: int, frame: int) -> int:
    """A random seed that depends on nothing but the shot's seed and the frame."""
    digest = hashlib.sha256(f"{seed}:{frame}:seed".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - RANDOM_BITS)


def _checked(seed: int, what: str) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST:
        raise KoshiError("bad_seed", f"{what} is {_shown(seed)}.", f"Use a whole number from 0 to {LARGEST}.")
    return seed


def _shown(value: object) -> str:
    return repr(value)[:40]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"

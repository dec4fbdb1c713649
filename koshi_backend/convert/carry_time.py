# SPDX-License-Identifier: GPL-3.0-or-later
"""How settings of time get into a shot: cadence, keyframes, interpolation, sound. As in carriers.py."""

from __future__ import annotations

from typing import Any

from ..settings import SCHEDULES
from . import grammar
from .draft import NONE, Draft, NotCarried, as_number


def carry_cadence(draft: Draft, key: str, value: Any) -> str:
    schedule, values = draft.values(key, value)
    return draft.put_curve("cadence", key, schedule, [max(v, 1.0) for v in values])


def carry_inbetween(draft: Draft, key: str, value: Any) -> str:
    """Any kind of optical flow is Koshi's own here; without one, pictures are faded."""
    flow = value not in NONE
    draft.part("time")["inbetween"] = "flow" if flow else "blend"
    return "time.inbetween"


def carry_distribution(draft: Draft, key: str, value: Any) -> str:
    """Forge's keyframes are the frames at which prompts begin, the first and the last."""
    kind = str(value).strip().lower()
    if kind not in ("keyframes only", "additive", "redistributed"):
        raise NotCarried("Koshi knows Keyframes Only and Additive.")
    draft.part("time")["keyframes"] = {"prompts": True}
    if kind == "keyframes only":
        longest = SCHEDULES["cadence"].high
        draft.shot["schedules"]["cadence"] = longest
        if draft.frames - 1 > longest:
            draft.report.note(f"Where prompts are more than {longest:g} frames apart, one is painted between them.")
    if kind == "redistributed":
        draft.report.leave(key, value, "frames of the cadence are not moved onto those of the prompts: both are made.")
    return "time.keyframes"


def carry_keyframe_strength(draft: Draft, key: str, value: Any) -> str:
    schedule, values = draft.values(key, value)
    if draft.keeps:
        schedule = grammar.turned(schedule, draft.frames, draft.seed)
        values = grammar.turned_values(values)
    return draft.put_curve("keyframe_strength", key, schedule, values)


def carry_interpolation(draft: Draft, key: str, value: Any) -> str:
    times = as_number(value)
    if times not in (2, 4, 8):
        raise NotCarried("Koshi interpolates 2, 4 or 8 times (time.interpolation).")
    draft.part("time")["interpolation"] = int(times)
    return "time.interpolation"


def carry_sound(draft: Draft, key: str, value: Any) -> str:
    draft.shot["audio"] = draft.file(value)
    return "audio"

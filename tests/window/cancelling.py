# SPDX-License-Identifier: GPL-3.0-or-later
"""The Cancel button, pressed with the mouse."""

from __future__ import annotations

import time

import eyes
import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Reports how long it takes from the hands.click to the end, and what is kept."""
    yield from hands.set_the_stage(frames, seed, 64, 8, "cancelling.blend")
    hands.render()
    yield from hands.wait_for_frames(2)
    place = yield from eyes.find_button(hands.area('VIEW_3D'), "koshi.cancel")
    yield from hands.click(*place)
    begin = time.monotonic()
    yield from hands.until(lambda: not hands.status().busy, 10, every=0.005)
    seconds = time.monotonic() - begin
    yield 0.3
    hands.shot("cancelled")
    return {"seconds": seconds, **hands.outcome()}

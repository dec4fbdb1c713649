# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-Q while a render is under way."""

from __future__ import annotations

import time

import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Press the hands.key and report the job and the time; Blender ends after that."""
    yield from hands.set_the_stage(frames, seed, 64, 8, "closing.blend")
    hands.render()
    yield from hands.wait_for_frames(2)
    hands.key('Q', hands.middle(hands.area('VIEW_3D')), ctrl=True)
    return {"job": hands.told()["job"], "done": hands.told()["done"], "at": time.monotonic()}

# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend is killed while it renders; Render is pressed again once there is a new one."""

from __future__ import annotations

import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Reports what the panel said, and the take."""
    yield from hands.set_the_stage(frames, seed, 64, 8, "killed.blend")
    hands.render()
    yield from hands.wait_for_frames(3)
    yield from hands.ask("kill the backend")
    yield from hands.wait_for_the_end(10)
    yield 0.3
    hands.shot("killed")
    killed = {"told": hands.told(), "shown": len(hands.strips()[0]["files"])}
    yield from hands.ask("start the backend")
    hands.render()
    yield from hands.wait_for_the_end()
    return {"killed": killed, **hands.outcome()}

# SPDX-License-Identifier: GPL-3.0-or-later
"""The playhead is moved, and the animation played, while a render is under way."""

from __future__ import annotations

import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Reports the frames that were passed, and the take."""
    yield from hands.set_the_stage(frames, seed, 64, 4, "playback.blend")
    scene = hands.window().scene
    hands.render()
    yield from hands.wait_for_frames(3)
    for frame in (2, frames, 1, 3):
        scene.frame_set(frame)
        yield 0.1
    scene.frame_set(1)
    hands.key('SPACE', hands.middle(hands.area('VIEW_3D')))
    passed = set()
    for _ in range(20):
        yield 0.1
        passed.add(scene.frame_current)
    playing = hands.window().screen.is_animation_playing
    hands.shot("playing")
    hands.key('SPACE', hands.middle(hands.area('VIEW_3D')))
    yield 0.2
    stopped = not hands.window().screen.is_animation_playing
    yield from hands.wait_for_the_end()
    return {"passed": sorted(passed), "playing": playing, "stopped": stopped, **hands.outcome()}

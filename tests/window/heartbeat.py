# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders from beginning to end, while a timer of 1 ms measures how long the main thread is away."""

from __future__ import annotations

import hands


def steps(fast: int, slow: int, seed: int) -> hands.Steps:
    """Four frames, which make the scene's first strip; then fast ones; then the same ones from the store; then slow
    ones. Reports the gaps of each, and of the idle window.

    The first strip is apart: it switches the scene to the Standard view, for which Blender draws the 3D view anew
    (eight times, smoothing its edges), and the first picture of a session makes it load its colour configuration.
    """
    yield from hands.set_the_stage(4, seed, 64, 1, "heartbeat.blend")
    yield 2.0  # what loading a file leaves to be drawn is no part of the renders
    scene, seen = hands.window().scene, {}
    heart = hands.Heartbeat()
    yield 1.0
    seen["idle"] = heart.stop()
    seen["first"] = yield from measure()
    yield 3.0
    scene.frame_end = fast
    yield 1.0  # Blender draws what has changed
    seen["fast"] = yield from measure()
    hands.shot("heartbeat-fast")
    editor = scene.sequence_editor
    taken = hands.koshi("operators.compat").strips(editor)
    taken.remove(taken[-1])
    yield 1.0
    seen["stored"] = yield from measure()
    scene.frame_end, scene.koshi.steps = slow, 8
    scene.render.resolution_x = scene.render.resolution_y = 128
    yield 1.5
    seen["slow"] = yield from measure()
    hands.shot("heartbeat-slow")
    return {**seen, "strips": hands.strips()}


def measure() -> hands.Steps:
    """Render, and report the gaps and the operator's own figure."""
    heart = hands.Heartbeat()
    hands.render()
    yield from hands.wait_for_the_end()
    yield 0.5
    return {**heart.stop(), "told": hands.told()}

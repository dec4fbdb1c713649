# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders from beginning to end, while a timer of 1 ms measures how long the main thread is away."""

from __future__ import annotations

import beginning
import bpy
import hands


def steps(fast: int, slow: int, seed: int) -> hands.Steps:
    """Four frames of a new Koshi project, and of Blender's own first scene; then fast ones; then the same ones from
    the store; then slow ones. Reports the gaps of each, and of the idle window.

    First strips are apart: the first picture of a session makes Blender load its colour configuration, and Blender's
    scene is switched to the Standard view, for which the 3D view is drawn anew (eight times, smoothing its edges).
    """
    seen = {"project": (yield from in_a_project(seed))}
    yield from hands.set_the_stage(4, seed, 64, 1, "heartbeat.blend")
    yield 2.0  # what loading a file leaves to be drawn is no part of the renders
    scene = hands.window().scene
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


def in_a_project(seed: int) -> hands.Steps:
    """The first render of a new project, whose keyed camera is followed."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.3
    bpy.ops.koshi.new_project()
    yield from hands.until(beginning.in_order, 20)
    scene = hands.window().scene
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.frame_end, scene.koshi.steps, scene.koshi.seed, scene.koshi.start = 4, 1, seed, 'PROMPT'
    scene.koshi.motion_source = 'CAMERA'
    yield 3.0
    return (yield from measure())


def measure() -> hands.Steps:
    """Render, and report the gaps, how often the 3D view was drawn, and the operator's own figure."""
    drawn: list[None] = []
    view = bpy.types.SpaceView3D
    watch = view.draw_handler_add(lambda: drawn.append(None), (), 'WINDOW', 'POST_PIXEL')
    heart = hands.Heartbeat()
    hands.render()
    yield from hands.wait_for_the_end()
    yield 0.5
    view.draw_handler_remove(watch, 'WINDOW')
    return {**heart.stop(), "views": len(drawn), "told": hands.told()}

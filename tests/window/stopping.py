# SPDX-License-Identifier: GPL-3.0-or-later
"""F12 and Esc on a real keyboard, while the KOSHI engine paints. Blender ends after this chapter, because it takes no
simulated events any more."""

from __future__ import annotations

import time
from typing import Any

import bpy
import hands
import keyboard


def steps(seed: int) -> hands.Steps:
    """Reports how long Esc takes, what becomes of the job, and whether the next F12 works. Ends Blender during one."""
    yield from hands.set_the_stage(2, seed, 64, 1, "stopping.blend")
    hands.render()
    yield from hands.wait_for_the_end()
    scene, ended = hands.window().scene, []
    scene.render.engine = 'KOSHI'
    scene.frame_end, scene.koshi.steps = 40, 8
    scene.frame_set(40)
    for name in ("complete", "cancel"):
        getattr(bpy.app.handlers, f"render_{name}").append(lambda *_, name=name: ended.append(name))
    yield 0.5
    bpy.app.use_event_simulate = False
    keyboard.press("F12")
    yield from hands.until(lambda: bpy.app.is_job_running('RENDER'), 20)
    yield from hands.until(lambda: job()["frames"] == 40 and job()["done"] >= 2, 120, every=0.1)
    hands.shot("engine-under-way")
    during = scene.render.use_sequencer
    with bpy.context.temp_override(window=hands.window()):
        bpy.ops.ed.undo_push(message="Meanwhile")
    scene.name = "Renamed"
    keyboard.press("ESC")
    begin = time.monotonic()
    yield from hands.until(lambda: not bpy.app.is_job_running('RENDER'), 30, every=0.005)
    seen: dict[str, Any] = {"seconds": time.monotonic() - begin, "ended": ended[:]}
    yield from hands.until(lambda: job()["state"] != "running", 20, every=0.1)
    seen["job"] = job()
    yield 0.5
    hands.shot("engine-stopped")
    # A take is in it, for which Blender would not ask the engine.
    seen["sequencer"] = [during, scene.render.use_sequencer]
    hands.window().scene.frame_set(2)
    ended.clear()
    # Blender's render operator is in the window that F12 opened, and ends with the first event there, seconds after the
    # job has ended if need be. If that is a key, it does nothing else: the next one begins a render.
    for _ in range(5):
        if not ended and not bpy.app.is_job_running('RENDER'):
            keyboard.press("F12")
            yield 3.0
    yield from hands.until(lambda: ended and not bpy.app.is_job_running('RENDER'), 60)
    yield 0.5
    seen |= {"then": ended[:], "again": job()}
    hands.shot("engine-again")
    with bpy.context.temp_override(window=hands.window()):
        bpy.ops.ed.undo_push(message="Afterwards")
        bpy.ops.ed.undo()  # to what was pushed meanwhile
    seen["sequencer"].append(hands.window().scene.render.use_sequencer)
    yield 0.5
    scene = hands.window().scene
    scene.frame_end, scene.koshi.seed = 40, seed + 1
    scene.frame_set(40)
    for _ in range(5):
        if job()["frames"] != 40:
            keyboard.press("F12")
            yield 3.0
    yield from hands.until(lambda: job()["frames"] == 40 and job()["done"] >= 1, 120, every=0.1)
    seen["last"] = job()["id"]
    bpy.app.timers.register(lambda: bpy.ops.wm.quit_blender() and None, first_interval=0.5)
    return seen


def job() -> dict[str, Any]:
    """The backend's newest job."""
    with hands.koshi("bridge_server.client").Client() as client:
        return (client.jobs() or [{"frames": 0, "done": 0, "state": "none"}])[-1]

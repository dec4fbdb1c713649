# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls from the render thread to Blender's main thread, which alone may move the playhead.

A timer on the main thread carries them out. It runs while a scene uses the Koshi engine: it is started when someone
chooses the engine, loads such a file, or enables Koshi beside one, because adding a timer from another thread races
with Blender's own loop.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator

import bpy

from . import engine_strips
from .engine_session import ENGINE

PERIOD = 0.1  # seconds between two looks at the queue
WAIT = 0.05  # seconds between two looks at whether the caller has been stopped

_calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_owner = object()  # of the message bus subscription
_told: list[Callable[[], None]] = []


def call(function: Callable[[], None], stopped: Callable[[], bool]) -> bool:
    """Run `function` on the main thread and wait for it; False if `stopped` said so first. Passes its error on."""
    if threading.current_thread() is threading.main_thread():
        function()
        return True
    done, given_up = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            if not given_up.is_set():
                function()
        except Exception as error:  # it belongs to the thread that asked
            failed.append(error)
        finally:
            done.set()

    _calls.put(run)
    if not bpy.app.timers.is_registered(_serve):  # the engine was set by a script, say
        _start()
    while not done.wait(WAIT):
        if stopped():
            given_up.set()
            return False
    if failed:
        raise failed[0]
    return True


def run_through(steps: Generator[str, None, None], stopped: Callable[[], bool], tell: Callable[[str], None]) -> bool:
    """Run an iterator to its end on the main thread, a step at a time; False if `stopped` said so first."""
    told = ""
    lines: list[str | None] = []
    while call(lambda: lines.append(next(steps, None)), stopped):
        line = lines.pop()
        if line is None:
            return True
        if line != told:  # every telling makes Blender draw
            told = line
            tell(line)
    _calls.put(steps.close)  # not waited for: the main thread may be waiting for this one to end
    return False


def watch(chosen: Callable[[], None]) -> None:
    """Call `chosen` whenever a person chooses a render engine; serve calls while Koshi is one that is used."""
    unwatch()
    if bpy.app.background:  # neither messages nor timers come there
        return
    _told[:] = [chosen]
    bpy.msgbus.subscribe_rna(
        key=(bpy.types.RenderSettings, "engine"), owner=_owner, args=(), notify=_engine_changed
    )
    # While add-ons are enabled, they meet a `bpy.data` without scenes: then the timer's first tick looks.
    if not hasattr(bpy.data, "scenes") or _in_use():
        _start()


def unwatch() -> None:
    """Undo `watch`."""
    bpy.msgbus.clear_by_owner(_owner)
    if bpy.app.timers.is_registered(_serve):
        bpy.app.timers.unregister(_serve)


def _engine_changed() -> None:
    for chosen in _told:
        chosen()
    if _in_use():
        _start()


def _in_use() -> bool:
    return any(scene.render.engine == ENGINE for scene in bpy.data.scenes)


def _start() -> None:
    if not bpy.app.timers.is_registered(_serve):
        bpy.app.timers.register(_serve, persistent=True)


def _serve() -> float | None:
    """The timer: do what is asked for; ends itself when no scene uses the engine any more."""
    if not bpy.app.is_job_running('RENDER'):  # a render that failed before its first frame tells nobody
        engine_strips.wake(*bpy.data.scenes)
    while True:
        try:
            run = _calls.get_nowait()
        except queue.Empty:
            return PERIOD if _in_use() else None
        run()

# SPDX-License-Identifier: GPL-3.0-or-later
"""How large the frame store is, and emptying it. Both look at many files, so a thread does it."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import bpy

from ..koshi_backend.paths import prompts_folder, store_folder
from . import pumped, state

FRESH = 30.0  # seconds for which a measurement holds
TICK = 0.2
_FRAME = re.compile(r"[0-9a-f]{64}\.safetensors")


@dataclass(frozen=True)
class Figures:
    """What is in the store: frames, and their size in bytes. at: time.monotonic."""

    frames: int
    size: int
    at: float


_figures: Figures | None = None
_thread: threading.Thread | None = None


def figures() -> Figures | None:
    """The store's size, None if it is not known yet; measured again in a thread when that was long ago."""
    if _thread is None and (_figures is None or time.monotonic() - _figures.at > FRESH):
        _begin(clear=False)
    return _figures


def measure(folder: Path, clear: bool = False) -> Figures:
    """Count the frames in a store's folder, or delete them: only files that have a frame's name."""
    frames = size = 0
    for shelf in _entries(folder):
        if not re.fullmatch(r"[0-9a-f]{2}", shelf.name):
            continue
        for entry in _entries(Path(shelf.path)):
            if not _FRAME.fullmatch(entry.name):
                continue
            with suppress(OSError):  # the backend may just have taken it away, or read it (Windows)
                bytes_ = entry.stat().st_size
                if clear:
                    os.unlink(entry.path)
                else:
                    frames, size = frames + 1, size + bytes_
    return measure(folder) if clear else Figures(frames, size, time.monotonic())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # not there yet
        return []


def _begin(clear: bool) -> None:
    global _thread
    folder = store_folder()

    def work() -> None:
        global _figures
        _figures = measure(folder, clear)
        if clear:
            measure(prompts_folder(), clear)

    _thread = threading.Thread(target=work, name="koshi-store", daemon=True)
    _thread.start()
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=TICK, persistent=True)


def _tick() -> float | None:
    """Show the figures once they are there."""
    if _thread is not None and _thread.is_alive():
        return TICK
    finish()
    pumped.redraw()
    return None


def finish() -> None:
    """Wait for the thread."""
    global _thread
    if _thread is not None:
        _thread.join()
        _thread = None


class KOSHI_OT_clear_store(bpy.types.Operator):
    """Delete all stored frames and encoded prompts. Takes keep theirs; what is rendered again is made anew"""

    bl_idname = "koshi.clear_store"
    bl_label = "Clear Frame Store"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(
            self, event, title="Clear Frame Store", message=f"Delete all frames in {store_folder()}?",
            confirm_text="Clear", icon='WARNING',
        )  # fmt: skip

    def execute(self, context: bpy.types.Context) -> set[str]:
        finish()
        _begin(clear=True)
        if bpy.app.background:
            finish()
        return {'FINISHED'}


_register, _unregister = bpy.utils.register_classes_factory((KOSHI_OT_clear_store,))


def register() -> None:
    """Add the operator."""
    _register()


def unregister() -> None:
    """Remove it, and what still measures."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    finish()
    _unregister()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows how far a set-up is, in the preferences and the status bar, whichever Blender began it."""

from __future__ import annotations

import time

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.setup import start
from ..bridge_server.setup.place import Status
from . import pumped

TICK = 0.2  # seconds
# What the set-up's program says, which knows no Blender, in English.
STAGES = (
    n_("Starting"),
    n_("Looking for a Python"),
    n_("Making the environment"),
    n_("Renewing pip"),
    n_("Installing PyTorch"),
    n_("for the NVIDIA card, some 3 GB"),
    n_("for the processor, some 200 MB"),
    n_("Installing the other packages"),
    n_("Trying it: koshi-tiny draws a picture"),
    n_("Clearing up"),
    n_("Removing the backend"),
    n_("The backend is set up"),
    n_("The backend is removed"),
    n_("Cancelled"),
)

_status: Status | None = None
_looked = float("-inf")


def status() -> Status | None:
    """How the set-up stands that is under way, or how the last one ended; read anew a few times a second."""
    global _status, _looked
    if time.monotonic() - _looked > TICK / 2:
        _status, _looked = start.look(), time.monotonic()
    return _status


def running() -> bool:
    """Whether a set-up is under way."""
    now = status()
    return now is not None and now.phase == "running"


def watch() -> None:
    """Follow a set-up with a timer until it ends. In background mode there are none."""
    global _looked
    _looked = float("-inf")
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=TICK, persistent=True)


def stop() -> None:
    """Stop following."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
        _write_status_bar(None)


def line(now: Status) -> str:
    """The state in one line; what an installer says is as it says it."""
    return f"{iface_(now.text)} ({iface_(now.detail)})" if now.detail else iface_(now.text)


def _tick() -> float | None:
    now = status()
    pumped.redraw()
    if now is not None and now.phase == "running":
        _write_status_bar(f"Koshi: {line(now)}, {now.fraction:.0%}")
        return TICK
    _write_status_bar(None)
    return None


def _write_status_bar(text: str | None) -> None:
    """The status bar of every window; None gives it back to Blender."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        window.workspace.status_text_set(text)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The preview that is wanted: read from the scene in portions, asked for by the link's thread, shown when it comes.

There is one at a time, and a newer one takes its place. Its figures are its own: a render's are in `state`. Plain
Python, names instead of Blender's objects, nothing of it is saved in the .blend.
"""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.protocol import BridgeError, cache_folder
from . import preview_image, preview_shot, settings, state
from .preview_link import Ask, Link

BUDGET = 0.006  # seconds of the main thread at a time; with what cannot be divided a tick stays under 10 ms
KINDS = {"preview": "Preview", "motion": "Motion Preview"}


@dataclass
class Status:
    """How a preview goes, as the panels show it.

    phase: "idle", "waiting" (for a render), "reading", "making", "done", "cancelled" or "failed".
    frame: the scene's; begins: where the preview's shot begins. done, frames: of its shot. path: what is shown.
    """

    phase: str = "idle"
    kind: str = "preview"
    scene: str = ""
    frame: int = 0
    begins: int = 0
    message: str = ""
    job_id: str = ""
    done: int = 0
    frames: int = 0
    path: str = ""
    error: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a preview is under way."""
        return self.phase in ("waiting", "reading", "making")


status = Status()
_link: Link | None = None
_preparing: Generator[str, None, dict[str, Any]] | None = None
_number = 0  # of the newest preview
_shot: dict[str, Any] = {}


def want(kind: str, scene: bpy.types.Scene, frame: int = 0, budget: float = BUDGET) -> None:
    """Want a preview of a frame, or the motion's, and no other one any more. budget: seconds of the main thread at a
    time. Raises nothing: errors are in `status`."""
    global status, _number, _preparing
    _drop()
    _number += 1
    begins = scene.frame_start if kind == "motion" else preview_shot.block_start(scene, frame)
    status = Status("reading", kind, scene.name, frame, begins, "Reading the curves")
    if kind == "motion":
        _preparing = preview_shot.motion_shot(scene, budget)
    else:
        _preparing = preview_shot.frame_shot(scene, frame, budget)


def cancel() -> None:
    """Want nothing any more."""
    _drop()
    if status.busy:
        status.phase, status.message = "cancelled", n_("Cancelled")


def close() -> None:
    """End everything."""
    global _link
    cancel()
    if _link is not None:
        _link.close()
        _link = None


def part() -> None:
    """Wait a moment until the backend knows that nothing is wanted: background Blender may end at once."""
    if _link is not None:
        _link.close()
        _link.wait()


def hindrance() -> str:
    """What a preview has to wait for just now, or ""."""
    if state.status.busy:
        return n_("Waits until Koshi's render is over")
    # Blender's own render reads the scene in another thread, which nobody may change meanwhile.
    if not bpy.app.background and bpy.app.is_job_running('RENDER'):
        return state.WAITS
    return ""


def pump(wait: float = 0.0) -> bool:
    """Go on for a few milliseconds, after waiting up to `wait` seconds for a message. True if anything has changed."""
    if not status.busy:
        return False
    if told := hindrance():
        if status.phase != "waiting":
            _drop()
            status.phase, status.message, status.done = "waiting", told, 0
            return True
        return False
    if status.phase == "waiting":
        scene = bpy.data.scenes.get(status.scene)
        if scene is None:
            cancel()
        else:
            want(status.kind, scene, status.frame)
        return True
    if _preparing is not None:
        _go_on()
        return True
    return _take(wait)


def run() -> None:
    """Do all of it now."""
    while status.busy:
        pump(wait=0.1)


def _drop() -> None:
    global _preparing
    if _preparing is not None:
        _preparing.close()
        _preparing = None
    if _link is not None:
        _link.drop()


def _fail(error: BridgeError) -> None:
    _drop()
    status.phase, status.message, status.error = "failed", "", error.as_dict()


def _go_on() -> None:
    """One more step of what has to be read and rendered in Blender; then ask the backend."""
    global _preparing, _link, _shot
    assert _preparing is not None
    try:
        status.message = next(_preparing)
        return
    except StopIteration as end:
        _preparing, _shot = None, end.value
    except BridgeError as error:
        _preparing = None
        return _fail(error)
    except Exception:  # the step's edge: it runs in a timer, where it would end the preview without a word
        _preparing = None
        state.log().exception("preparing a preview failed")
        sentence = "Something unexpected went wrong while Blender prepared the preview."
        return _fail(BridgeError("internal", sentence, f"Details: {state.log_file()}"))
    state.log()  # the thread logs; its file must be set up here
    status.phase, status.message = "making", n_("Asking the backend")
    status.frames, status.begins = _shot["frames"], _shot["frame_start"]
    ask = Ask(_number, status.kind, _shot, cache_folder() / "previews" / status.kind)
    if _link is None or not _link.ask(ask):
        _link = Link(settings.backend())
        _link.ask(ask)


def _take(wait: float) -> bool:
    """Handle what has come. True if anything has."""
    changed, until = False, time.monotonic() + wait + BUDGET
    while status.busy and _link is not None:
        try:
            number, kind, *data = _link.messages.get(timeout=wait) if wait else _link.messages.get_nowait()
        except queue.Empty:
            break
        wait = 0.0
        if number == _number:  # else of one that is no longer wanted
            changed = True
            _handle(kind, *data)
        if time.monotonic() > until:
            break
    return changed


def _handle(kind: str, *data: Any) -> None:
    match kind:
        case "stage":
            status.message = data[0]
        case "accepted":
            status.job_id, status.message = data[0]["id"], n_("Waiting for the backend")
        case "progress":
            text = str(data[0].get("message", ""))
            # "frame 12" and "starting" say less than the bar does.
            told = text[:1].upper() + text[1:] if text.startswith(("loading", "waiting")) else ""
            status.message = told or status.message
        case "frame":
            status.done = max(status.done, data[0] + 1)
            status.message = ""
        case "done":
            _show(data[0])
        case "failed":
            status.phase, status.message, status.error = "failed", "", data[0]
        case "cancelled":
            status.phase, status.message = "cancelled", n_("Cancelled by another program")


def _show(path: str) -> None:
    status.path, status.message = path, ""
    try:
        if status.kind == "preview":
            preview_image.show_picture(Path(path))
        else:
            _play(Path(path))
    except BridgeError as error:
        return _fail(error)
    status.phase = "done"


def _play(path: Path) -> None:
    step = int(_shot.get("frame_step", 1))
    preview_image.show_film(path, int(_shot["frame_start"]), (int(_shot["frames"]) - 1) * step + 1)
    if not bpy.app.background:
        # In a tick of its own: starting to play takes 6 ms.
        bpy.app.timers.register(functools.partial(preview_image.play, status.scene), first_interval=0.0)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What is going on right now: the running job and its figures. Plain Python, never saved in the .blend."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from .. import __package__ as base_package
from ..bridge_server import protocol
from ..bridge_server.protocol import BridgeError

if TYPE_CHECKING:
    from .job import Job

BUSY = ("starting", "rendering", "cancelling")
WAITS = n_("Waits until Blender's render is over")


@dataclass
class Status:
    """Figures of the last or running render, as the panels show them.

    phase: "idle", "starting", "rendering", "cancelling", "done", "cancelled" or "failed".
    scene: name of the rendered scene; names only, because Blender's objects may vanish between two ticks.
    kept: how many of the shot's first frames are meant to come from an earlier take as they are.
    done, frames, made, stored: counts of frames; seconds: of the whole render, once it is over.
    first_made: when the first frame was made (time.monotonic), to tell how long the rest takes.
    longest_tick: seconds of the operator's longest tick in the window. waits: for a render of Blender's own to end,
    before what arrives can be shown.
    folder: where the frames lie. error: the last error as {"code", "message", "hint", "problems"}.
    notes: remarks on the shot that do not stop it.
    """

    phase: str = "idle"
    scene: str = ""
    message: str = ""
    job_id: str = ""
    digest: str = ""
    attached: bool = False
    done: int = 0
    frames: int = 0
    made: int = 0
    stored: int = 0
    seconds: float = 0.0
    kept: int = 0
    longest_tick: float = 0.0
    waits: bool = False
    folder: str = ""
    strip: str = ""
    server: str = ""
    first_made: float = 0.0
    error: dict | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether a render (or the way to one) is under way."""
        return self.phase in BUSY

    def count(self, index: int, stored: bool) -> None:
        """A frame has arrived."""
        self.done = max(self.done, index + 1)
        self.stored += stored
        self.made += not stored
        if not stored and not self.first_made:
            self.first_made = time.monotonic()

    def note(self, text: str) -> None:
        """A remark, told once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def left(self) -> str:
        """How much longer the render takes, in words, once that can be told; or what it waits for."""
        if self.waits:
            return iface_(WAITS)
        if self.phase != "rendering" or self.made < 2:
            return ""
        seconds = (time.monotonic() - self.first_made) / (self.made - 1) * (self.frames - self.done)
        if seconds >= 3600:
            return iface_("About {:.1f} hours left").format(seconds / 3600)
        if seconds >= 100:
            return iface_("About {:.0f} minutes left").format(seconds / 60)
        return iface_("About {:.0f} s left").format(seconds)


def duration(seconds: float) -> str:
    """A time as one would say it."""
    if seconds >= 3600:
        return iface_("{:.1f} hours").format(seconds / 3600)
    if seconds >= 100:
        return iface_("{:.0f} minutes").format(seconds / 60)
    return iface_("{:.1f} s").format(seconds)


status = Status()
parting = ""  # what to tell of a render that goes on without the file that is being closed
job: Job | None = None
report: dict | None = None  # of the last diagnostics, as `cli_doctor.run` gives it


def idle(operator: type) -> bool:
    """For an operator's `poll`: whether no render is under way, and if one is, the reason."""
    if status.busy:
        operator.poll_message_set("A Koshi render is running; wait for it or cancel it")  # type: ignore[attr-defined]
    return not status.busy


def begin(new_job: Job, scene: str, message: str, notes: list[str] | None = None) -> None:
    """Make `new_job` the current one and forget the figures of the last."""
    global job, parting, status
    job, parting = new_job, ""
    status = Status(
        phase="starting", scene=scene, message=message, notes=list(notes or ()), server=status.server
    )


def fail(error: BridgeError) -> None:
    """Show an error that came before any job was started."""
    global status
    status = Status(phase="failed", error=error.as_dict(), server=status.server)


def forget() -> None:
    """Another file is open: what was told of the one before is none of its business, but for a render of its that goes
    on in the backend."""
    global parting, status
    if not status.busy:
        status = Status(server=status.server, notes=[parting] if parting else [])
    parting = ""


def let_go() -> None:
    """Stop watching the current job; the backend goes on with it."""
    global job
    if job is not None:
        job.detach()
        job = None
    if status.busy:
        status.phase, status.message = "idle", ""


def log_file() -> Path:
    """Where tracebacks go."""
    return protocol.cache_folder() / "blender.log"


def log() -> logging.Logger:
    """The add-on's logger; it writes to `log_file`, so that an artist never sees a traceback."""
    logger = logging.getLogger(base_package)
    if not logger.handlers:
        try:
            log_file().parent.mkdir(parents=True, exist_ok=True)
            handler: logging.Handler = logging.FileHandler(log_file(), encoding="utf-8", delay=True)
        except OSError:
            handler = logging.NullHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    return logger


def close_log() -> None:
    """Close the log file, so that the extension can be removed or updated."""
    logger = logging.getLogger(base_package)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()

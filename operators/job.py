# SPDX-License-Identifier: GPL-3.0-or-later
"""One job: a reader thread on one side, `pump` on Blender's main thread on the other.

The modal operator pumps a few milliseconds at a time, background mode pumps until the job is over; what a
message does is the same in both. What starts one is in start.py.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.protocol import BridgeError
from . import reader, sequencer, state, strip_about

BUDGET = 0.008  # seconds of the main thread per tick, which with what cannot be divided stays under 10 ms
MANY = 20  # messages
GRACE = 0.8  # seconds a cancelled job may take to say so before the artist gets the button back
# What the reader thread says, which knows no Blender, in English; panels translate what they show.
STAGES = (
    n_("Handing over the shot"),
    n_("Trying the backend: it draws a small picture"),
    n_("Looking for the backend"),
    n_("Starting the backend"),
)


Work = tuple[Any, ...]  # a worker of `reader` and its arguments
Deliver = Callable[[bpy.types.Scene, sequencer.Footage], str]


class Job:
    """A reader thread and its messages. Create and use it on the main thread only.

    work: a worker of `reader` and its arguments; or what Blender itself has to do first, a step at a time: that yields
    a line for the panel after each step, and returns the work.
    deliver: gets the pictures once all of them are there, and returns a remark for the artist; without it they appear
    in a strip of their own as they come.
    """

    def __init__(
        self, scene: bpy.types.Scene, work: Work | Generator[str, None, Work], deliver: Deliver | None = None
    ) -> None:
        self.over = False
        self._deliver = deliver
        self._footage: sequencer.Footage | None = None
        self.jobs: list[dict[str, Any]] = []  # the server's job records, once `reader.connect` has them
        self._name, self._uid = scene.name, scene.session_uid
        self._prepare = None if isinstance(work, tuple) else work
        self._work = work if isinstance(work, tuple) else ()
        self._signals = reader.Signals()
        self._cancelled_at: float | None = None
        self._first = 0  # the number of the shot's first frame
        self._timing: tuple[int, int] | None = None  # its frame step and its interpolation
        self._about: dict[str, Any] = {}  # what its strips say of it

    @property
    def scene(self) -> bpy.types.Scene | None:
        """The scene that gets the frames, whatever it is called by now. None: it is gone."""
        named = bpy.data.scenes.get(self._name)
        if named is None or named.session_uid != self._uid:
            named = next((scene for scene in bpy.data.scenes if scene.session_uid == self._uid), named)
        return named

    def start(self) -> None:
        """Start: the thread, or the first step of what comes before it. Raises BridgeError if that fails."""
        state.log()  # the thread logs; its file must be set up here
        if self._prepare is None:
            reader.start(*self._work, signals=self._signals)
            return
        try:
            state.status.message = next(self._prepare)
        except StopIteration as end:
            self._prepare, self._work = None, end.value
            reader.start(*self._work, signals=self._signals)

    def _go_on_preparing(self) -> None:
        """One more step of what has to be made first."""
        try:
            self.start()
        except BridgeError as error:
            self._drop_preparation()
            self._handle("failed", error.as_dict())
        except Exception:  # the step's edge: it runs in a timer, where it would end the job without a word
            self._drop_preparation()
            state.log().exception("preparing the shot failed")
            sentence = "Something unexpected went wrong while Blender prepared the shot."
            self._handle("failed", BridgeError("internal", sentence, f"Details: {state.log_file()}").as_dict())

    def _drop_preparation(self) -> None:
        if self._prepare is not None:
            self._prepare.close()
            self._prepare = None

    def cancel(self) -> None:
        """Ask the backend to stop the job. Finished frames are kept."""
        if self._cancelled_at is None and not self.over:
            self._cancelled_at = time.monotonic()
            self._signals.cancel.set()
            self._signals.leave.set()
            if self._prepare is not None:
                self._drop_preparation()
                self._handle("cancelled")
                return
            state.status.phase, state.status.message = "cancelling", n_("Cancelling")

    def detach(self) -> None:
        """Stop watching; the backend goes on."""
        self._drop_preparation()
        self._signals.leave.set()
        self.over = True

    @property
    def is_behind(self) -> bool:
        """Whether more has come, or has to be made first, than a pump now and then keeps up with."""
        return self._prepare is not None or self._signals.messages.qsize() > MANY

    def pump(self, budget: float = BUDGET, wait: float = 0.0) -> bool:
        """Handle messages for `budget` seconds, after waiting up to `wait` for one. True if any came."""
        if self._prepare is not None:
            self._go_on_preparing()
            return True
        changed = False
        until = time.monotonic() + wait + budget
        while not self.over:
            try:
                message = (
                    self._signals.messages.get(timeout=wait) if wait else self._signals.messages.get_nowait()
                )
            except queue.Empty:
                break
            wait, changed = 0.0, True
            self._handle(*message)
            if time.monotonic() > until:
                break
        if not self.over and self._cancelled_at is not None and time.monotonic() > self._cancelled_at + GRACE:
            # Still starting the backend or waiting for an answer: the thread sees the flag when that is over.
            self._handle("cancelled")
            changed = True
        return changed

    def run(self, tick: Callable[[], None] | None = None) -> None:
        """Pump until the job is over, calling `tick` after every batch of messages."""
        while not self.over:
            if self.pump(budget=0.5, wait=0.1) and tick is not None:
                tick()

    def _handle(self, kind: str, *data: Any) -> None:
        status = state.status
        self.over = kind in reader.LAST
        match kind:
            case "stage":
                status.message = data[0]
            case "accepted":
                record, status.attached, status.folder = data
                status.job_id, status.digest = record["id"], record["digest"]
                status.frames, self._first = record["frames"], record["frame_start"]
                self._learn(Path(status.folder))
                if status.phase == "starting":
                    status.phase = "rendering"
                status.message = n_("Waiting for the first frame")
            case "progress":
                status.message = _sentence(data[0].get("message", ""))
            case "frame":
                self._show(*data)
            case "report":
                state.report = data[0]
            case "server":
                status.server = server_line(data[0])
                self.jobs = data[1]
            case "done":
                status.phase, status.seconds = "done", float(data[0].get("seconds", 0.0))
                status.made, status.stored = int(data[0].get("made", 0)), int(data[0].get("stored", 0))
                status.message = _told_end(status)
                self._hand_over()
            case "failed":
                status.phase, status.error, status.message = "failed", data[0], ""
            case "cancelled":
                status.phase = "cancelled"
                status.message = (
                    iface_("Cancelled; {} of {} frames are kept").format(status.done, status.frames)
                    if status.frames
                    else n_("Cancelled")
                )
            case "finished":
                status.phase, status.message = "idle", data[0]

    def _show(self, index: int, number: int, path: str, stored: bool) -> None:
        status, scene = state.status, self.scene
        status.count(index, stored)
        if index < status.kept and not stored:
            status.note(
                n_(
                    "Earlier frames had to be made again, as what Blender renders of the scene has changed, or they "
                    "are no longer kept"
                )
            )
        if scene is None:
            gone = iface_('The scene "{}" is gone; its frames still arrive in {}')
            status.note(gone.format(self._name, status.folder))
            return
        step, interpolation = self._timing or ((number - self._first) // index if index else 1, 1)
        folder = Path(path).parent
        footage = sequencer.Footage(status.digest, folder, self._first, status.frames, step, interpolation, self._about)
        self._footage = footage
        if self._deliver is None:
            status.strip = sequencer.show_frame(scene, footage, index, status.notes)

    def _hand_over(self) -> None:
        """All pictures are there."""
        if self._deliver is not None and self._footage is not None and (scene := self.scene) is not None:
            try:
                state.status.note(self._deliver(scene, self._footage))
            except BridgeError as error:
                state.status.phase, state.status.error, state.status.message = "failed", error.as_dict(), ""

    def _learn(self, folder: Path) -> None:
        """Frame step and interpolation of the shot that is rendered, and what its strips say of it, if anything here
        tells."""
        take = next((part for part in self._work if isinstance(part, reader.Take)), None)
        try:
            # Of a job that was joined: whoever sent it has left the shot beside the frames.
            shot = (take and take.shot) or json.loads(reader.shot_file(folder).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self._timing = int(shot.get("frame_step", 1)), int(shot.get("time", {}).get("interpolation", 1))
        self._about = strip_about.told(shot, dict(take.side) if take is not None else None)


def _told_end(status: state.Status) -> str:
    """What came of a render, in a sentence."""
    took = state.duration(status.seconds)
    if status.frames == 1:
        kept = iface_("1 frame in {}, kept from before")
        return (kept if status.stored else iface_("1 frame in {}")).format(took)
    if status.stored:
        return iface_("{} frames in {}, {} of them kept from before").format(status.frames, took, status.stored)
    return iface_("{} frames in {}").format(status.frames, took)


def server_line(status: dict[str, Any]) -> str:
    """The server's state in a few words."""
    running = sum(job.get("state") in ("queued", "running") for job in status.get("jobs", ()))
    work = {0: "idle", 1: "1 render under way"}.get(running, f"{running} renders under way")
    return f"{status.get('software', 'Koshi backend')}, process {status.get('pid', '?')}, {work}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

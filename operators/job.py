# SPDX-License-Identifier: GPL-3.0-or-later
"""One job: a reader thread on one side, `pump` on Blender's main thread on the other.

The modal operator pumps a few milliseconds at a time, background mode pumps until the job is over; what a
message does is the same in both.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import guides, reader, sample, sequencer, settings, state

BUDGET = 0.01  # seconds of the main thread per tick
GRACE = 0.8  # seconds a cancelled job may take to say so before the artist gets the button back


class Job:
    """A worker of `reader` and its messages. Create and use it on the main thread only.

    scene: name of the scene that gets the frames. prepare: what Blender itself has to make first, a step at a time;
    it yields a line for the panel after each.
    """

    def __init__(self, scene: str, work: Any, *arguments: Any, prepare: Iterator[str] | None = None) -> None:
        self.scene = scene
        self.over = False
        self._prepare = prepare
        self.jobs: list[dict[str, Any]] = []  # the server's job records, once `reader.connect` has them
        self._signals = reader.Signals()
        self._cancelled_at: float | None = None
        self._first = 0  # the number of the shot's first frame
        self._work, self._arguments = work, arguments

    def start(self) -> None:
        """Start the reader thread, unless something has to be prepared first."""
        state.log()  # the thread logs; its file must be set up here
        if self._prepare is None:
            reader.start(self._work, *self._arguments, signals=self._signals)

    def _go_on_preparing(self) -> None:
        """One more step of what has to be made first; after the last one the reader starts."""
        assert self._prepare is not None
        try:
            state.status.message = next(self._prepare)
        except StopIteration:
            self._prepare = None
            self.start()
        except BridgeError as error:
            self._drop_preparation()
            self._handle("failed", error.as_dict())
        except Exception:
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
            state.status.phase, state.status.message = "cancelling", "Cancelling"

    def detach(self) -> None:
        """Stop watching; the backend goes on."""
        self._drop_preparation()
        self._signals.leave.set()
        self.over = True

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
                if status.phase == "starting":
                    status.phase = "rendering"
                status.message = "Waiting for the first frame"
            case "progress":
                status.message = _sentence(data[0].get("message", ""))
            case "frame":
                self._show(*data)
            case "server":
                status.server = server_line(data[0])
                self.jobs = data[1]
            case "done":
                status.phase, status.seconds = "done", float(data[0].get("seconds", 0.0))
                status.made, status.stored = int(data[0].get("made", 0)), int(data[0].get("stored", 0))
                kept = f", {status.stored} of them kept from before" if status.stored else ""
                status.message = f"{status.frames} frames in {status.seconds:.1f} s{kept}"
            case "failed":
                status.phase, status.error, status.message = "failed", data[0], ""
            case "cancelled":
                status.phase = "cancelled"
                status.message = (
                    f"Cancelled; {status.done} of {status.frames} frames are kept"
                    if status.frames
                    else "Cancelled"
                )
            case "finished":
                status.phase, status.message = "idle", data[0]

    def _show(self, index: int, number: int, path: str, stored: bool) -> None:
        status = state.status
        status.count(index, stored)
        scene = bpy.data.scenes.get(self.scene)
        if scene is None:
            note = f'The scene "{self.scene}" is gone; its frames still arrive in {status.folder}.'
            if note not in status.notes:
                status.notes.append(note)
            return
        step = (number - self._first) // index if index else 1
        status.strip = sequencer.show_frame(
            scene, status.digest, Path(path).parent, index, self._first, status.frames, status.notes, step
        )


def start_render(scene: bpy.types.Scene, frame_start: int | None = None, frame_end: int | None = None) -> Job:
    """Sample the scene and start rendering it. Raises BridgeError for what is wrong to begin with."""
    if state.status.busy:
        raise BridgeError("busy", "A Koshi render is already running.", "Wait for it, or cancel it first.")
    sampled = sample.shot_from_scene(scene, frame_start, frame_end)
    base, note = sequencer.takes_folder()
    take = reader.Take(base, sequencer.take_stem(scene), shot=sampled.shot)
    folder = guides.guides_folder(scene)
    prepare = guides.render_guides(scene, sampled.shot, folder) if sampled.guides else None
    job = Job(scene.name, reader.render, settings.backend(), take, prepare=prepare)
    state.begin(job, scene.name, "Starting", [*sampled.notes, *([note] if note else [])])
    state.status.frames = sampled.shot["frames"]
    job.start()
    return job


def start_connect(scene: bpy.types.Scene) -> Job:
    """Look for the backend, starting it if needed."""
    job = Job(scene.name, reader.connect, settings.backend())
    state.begin(job, scene.name, "Looking for the backend")
    job.start()
    return job


def start_stop(scene: bpy.types.Scene) -> Job:
    """Stop the backend."""
    job = Job(scene.name, reader.stop)
    state.begin(job, scene.name, "Stopping the backend")
    state.status.server = ""
    job.start()
    return job


def start_attach(scene: bpy.types.Scene, record: dict[str, Any]) -> Job:
    """Follow a job that the backend renders already, from its first frame on."""
    base, note = sequencer.takes_folder()
    take = reader.Take(base, sequencer.take_stem(scene), job_id=record["id"])
    job = Job(scene.name, reader.render, settings.backend(), take)
    state.begin(job, scene.name, "Joining the running render", [note] if note else [])
    job.start()
    return job


def running_job_of(scene: bpy.types.Scene, jobs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest queued or running job that this scene's strips or frame folders belong to."""
    base, _ = sequencer.takes_folder()
    stem = sequencer.take_stem(scene)
    known = sequencer.shot_digests(scene)
    for record in reversed(jobs):
        if record.get("state") not in ("queued", "running"):
            continue
        digest = str(record.get("digest", ""))
        if digest in known or reader.take_folder(base, stem, digest).is_dir():
            return record
    return None


def server_line(status: dict[str, Any]) -> str:
    """The server's state in a few words."""
    running = sum(job.get("state") in ("queued", "running") for job in status.get("jobs", ()))
    work = {0: "idle", 1: "1 render under way"}.get(running, f"{running} renders under way")
    return f"{status.get('software', 'Koshi backend')}, process {status.get('pid', '?')}, {work}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's memory: jobs, their queue, and what each client has been told about them.

Plain state without I/O or event loop. Pictures are not kept here beyond a small cache: a client that is slow
or comes back later gets them from the frame store, so that no reader makes the server grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .protocol import BridgeError, Header

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["render", "preview", "motion"]

KINDS: tuple[Kind, ...] = ("render", "preview", "motion")

MAX_QUEUED = 200  # jobs
KEPT = 50  # ended jobs whose records stay
CACHE = 64 * 1024**2  # bytes of recent pictures per running job


@dataclass(frozen=True)
class FrameRecord:
    """A finished frame: its number in file names, its key in the store, whether it came from there."""

    number: int
    key: str
    stored: bool


@dataclass
class Job:
    """One shot on its way. `listeners` are called after every change; seconds are Unix time.

    kind: "render"; "preview", which renders too but is a job of its own, so that whoever cancels it takes no render
    away from anybody; "motion", the moved picture without a model.
    """

    id: str
    digest: str
    shot: Header
    frames: int
    frame_start: int
    model: str
    device: str | None = None  # None: the best there is
    kind: Kind = "render"
    submitted: float = field(default_factory=time.time)
    state: State = "queued"
    log: list[FrameRecord] = field(default_factory=list)
    error: Header | None = None
    progress: Header | None = None
    changes: int = 0  # counts progress reports, so that a subscription sees whether there is a newer one
    started: float = 0.0
    ended: float = 0.0
    listeners: set[Callable[[], None]] = field(default_factory=set)
    _pictures: dict[int, bytes] = field(default_factory=dict)
    _cached: int = 0

    @property
    def active(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def made(self) -> int:
        return sum(not frame.stored for frame in self.log)

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        return round((self.ended or time.time()) - self.started, 3) if self.started else 0.0

    def record(self) -> Header:
        """What clients see of a job."""
        return {
            "id": self.id,
            "kind": self.kind,
            "digest": self.digest,
            "state": self.state,
            "frames": self.frames,
            "done": len(self.log),
            "made": self.made,
            "stored": len(self.log) - self.made,
            "model": self.model,
            "frame_start": self.frame_start,
            "submitted": self.submitted,
        }

    def start(self) -> None:
        self.state, self.started = "running", time.time()
        self.say("starting")

    def say(self, message: str, index: int | None = None, step: int = 0, steps: int = 0) -> None:
        """Reports progress; only the newest report is kept."""
        at = len(self.log) if index is None else index
        self.progress = {"index": min(at, self.frames - 1), "step": step, "steps": steps, "message": message}
        self.changes += 1
        self._tell()

    def add_frame(self, index: int, frame: FrameRecord, png: bytes) -> bool:
        """Takes the next frame; False if it is known (a new worker begins from the first frame again).

        Raises BridgeError "internal" if frames came out of order.
        """
        if index < len(self.log):
            return False
        if index != len(self.log) or index >= self.frames:
            raise BridgeError("internal", f"Frame {index} came when frame {len(self.log)} was due.")
        self.log.append(frame)
        self._pictures[index] = png
        self._cached += len(png)
        while self._cached > CACHE and len(self._pictures) > 1:
            self._cached -= len(self._pictures.pop(next(iter(self._pictures))))
        self._tell()
        return True

    def picture(self, index: int) -> bytes | None:
        """The PNG of a recent frame; None means: look in the store."""
        return self._pictures.get(index)

    def end(self, state: Literal["done", "failed", "cancelled"], error: Header | None = None) -> None:
        """Ends the job once; later calls change nothing."""
        if not self.active:
            return
        self.state, self.error, self.ended = state, error, time.time()
        self._pictures.clear()
        self._cached = 0
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class Queue:
    """All jobs the server knows, in the order they were submitted; one runs at a time."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._count = 0

    @property
    def active(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.active]

    def submit(
        self,
        digest: str,
        shot: Header,
        frames: int,
        frame_start: int,
        model: str,
        device: str | None = None,
        kind: Kind = "render",
    ) -> tuple[Job, bool]:
        """The job of this kind for this shot, and whether it was there before. Raises BridgeError "queue_full"."""
        active = self.active
        for job in active:
            if (job.digest, job.device, job.kind) == (digest, device, kind):
                return job, True
        if len(active) >= MAX_QUEUED:
            message = f"{MAX_QUEUED} jobs are waiting already."
            raise BridgeError("queue_full", message, "Cancel some of them, or wait until some are done.")
        self._count += 1
        job = Job(f"{digest[:16]}-{self._count}", digest, shot, frames, frame_start, model, device, kind)
        self.jobs[job.id] = job
        if active:
            job.say(f"waiting for {len(active)} other job" + "s" * (len(active) > 1))
        self._forget()
        return job, False

    def find(self, job_id: object) -> Job:
        """Raises BridgeError "unknown_job"."""
        job = self.jobs.get(job_id) if isinstance(job_id, str) else None
        if job is None:
            hint = "The server may have been started anew: submit the shot again, finished frames are kept."
            raise BridgeError("unknown_job", f"The server knows no job {job_id!s:.40}.", hint)
        return job

    def take(self) -> Job | None:
        """Starts the job that has waited longest."""
        job = next((job for job in self.jobs.values() if job.state == "queued"), None)
        if job:
            job.start()
        return job

    def _forget(self) -> None:
        ended = [job.id for job in self.jobs.values() if not job.active]
        for job_id in ended[: max(0, len(ended) - KEPT)]:
            del self.jobs[job_id]


class Subscription:
    """What one client has seen of one job. `next` gives what it should see next."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.finished = False
        self._sent = 0
        self._changes = 0

    def next(self) -> Header | None:
        """The next event, or None when there is nothing new.

        Frames come first and each of them once, then the newest progress, at last the end. A "frame" header
        comes without its picture: the caller adds the payload.
        """
        job = self.job
        if self._sent < len(job.log):
            index, self._sent = self._sent, self._sent + 1
            frame = job.log[index]
            return {
                "type": "frame",
                "job": job.id,
                "index": index,
                "number": frame.number,
                "key": frame.key,
                "stored": frame.stored,
            }
        if self.finished:
            return None
        if not job.active:
            self.finished = True
            return self._ending()
        if job.progress and self._changes != job.changes:
            self._changes = job.changes
            counts = {"done": len(job.log), "frames": job.frames, "seconds": job.seconds}
            return {"type": "progress", "job": job.id, **job.progress, **counts}
        return None

    def _ending(self) -> Header:
        job = self.job
        if job.state == "failed":
            return {"type": "failed", "job": job.id, "error": job.error}
        if job.state == "cancelled":
            return {"type": "cancelled", "job": job.id}
        counts = {"frames": job.frames, "made": job.made, "stored": job.frames - job.made}
        return {"type": "done", "job": job.id, **counts, "seconds": job.seconds}

# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of the worker process: start it, feed it one job at a time, replace it when it dies or hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

from . import protocol
from .jobs import FrameRecord, Job, Queue
from .launcher import detached_flags
from .protocol import BridgeError, Header, Message

log = logging.getLogger(__name__)
worker_log = logging.getLogger("koshi.worker")

CANCEL_GRACE = 10.0  # seconds a cancelled job may take to stop before its worker is killed
MAX_DEATHS = 3  # without a new frame in between
TAIL = 12  # lines of the worker's output that a crash report shows


class WorkerProcess:
    """One worker process and the pipes to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.tail: deque[str] = deque(maxlen=TAIL)
        # Bounded, so that a worker faster than the server waits in its pipe instead of filling memory.
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(16)
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    @classmethod
    async def start(cls, log_path: Path | None) -> WorkerProcess:
        """Starts a worker with this Python. Raises OSError if the system refuses."""
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bridge_server.worker",
            str(log_path or ""),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"},
            limit=1 << 20,
            creationflags=detached_flags(),
        )
        log.info("worker %s started", process.pid)
        return cls(process)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def send(self, header: Header) -> None:
        """Queues a message without waiting; a dead worker is noticed by `receive`."""
        assert self.process.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # RuntimeError: the pipe was closed already
            self.process.stdin.write(protocol.pack(header))

    async def receive(self) -> Message | None:
        """The worker's next message; None once it has died."""
        message = await self._messages.get()
        if message is None:
            self._messages.put_nowait(None)  # for whoever asks again
            await self.process.wait()
        return message

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    async def stop(self, patience: float = 3.0) -> None:
        """Ends the worker: asked by closing its stdin, then by force."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            log.warning("worker %s does not end and is killed", self.process.pid)
            self.kill()
            await self.process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        decoder = protocol.Decoder()
        try:
            while data := await self.process.stdout.read(1 << 18):
                decoder.feed(data)
                while message := decoder.next():
                    await self._messages.put(message)
        except BridgeError as error:
            log.error("worker %s sent what cannot be read: %s", self.process.pid, error)
            self.kill()
        await self._messages.put(None)

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        # Not readline: a progress bar may go on for long without a line end.
        while data := await self.process.stderr.read(1 << 16):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            if len(rest) > 1 << 16:
                lines, rest = [*lines, rest], b""
            for line in filter(None, lines):
                text = line.decode(errors="replace").rstrip()
                self.tail.append(text)
                worker_log.info("%s", text)


class Supervisor:
    """Runs the queue's jobs one after the other in a worker process."""

    def __init__(self, jobs: Queue, log_path: Path | None = None, cancel_grace: float = CANCEL_GRACE) -> None:
        self._jobs = jobs
        self._log_path = log_path
        self._grace = cancel_grace
        self._work = asyncio.Event()
        self._worker: WorkerProcess | None = None
        self._current: Job | None = None
        self._deaths = 0

    def status(self) -> Header:
        """What `status` says about the worker: state, pid, job, how often one died."""
        worker = self._worker if self._worker and self._worker.alive else None
        return {
            "state": "busy" if self._current else "ready" if worker else "stopped",
            "pid": worker.process.pid if worker else None,
            "job": self._current.id if self._current else None,
            "deaths": self._deaths,
        }

    def wake(self) -> None:
        """A job was queued."""
        self._work.set()

    def cancel(self, job: Job) -> None:
        """Ends the job for its clients now; its worker gets some seconds to stop, then is killed."""
        was_running = job is self._current
        job.end("cancelled")
        if was_running and self._worker:
            self._worker.send({"type": "cancel", "job": job.id})
            asyncio.get_running_loop().call_later(self._grace, self._kill_if_still_at, job, self._worker)

    def release(self) -> None:
        """Has the worker let go of its models, unless it is at work: the next job loads its own again."""
        if self._worker is not None and self._current is None:
            self._worker.send({"type": "release"})

    async def run(self) -> None:
        """Works until cancelled, then ends the worker."""
        try:
            while True:
                while job := self._jobs.take():
                    self._current = job
                    try:
                        await self._carry_out(job)
                    except Exception:  # one job's trouble must not end the queue
                        log.exception("job %s", job.id)
                        job.end("failed", _internal("The server could not run this job.", self._log_path))
                    finally:
                        self._current = None
                self._work.clear()
                await self._work.wait()
        finally:
            if self._worker:
                await self._worker.stop()

    async def _carry_out(self, job: Job) -> None:
        """Gives the job to workers until it has ended, be it the third worker that finishes it."""
        deaths, done_before = 0, 0
        log.info("job %s starts: %d frames", job.id, job.frames)
        while job.active:
            if self._worker is None or not self._worker.alive:
                if self._worker:
                    await self._worker.stop()
                self._worker = await WorkerProcess.start(self._log_path)
            worker = self._worker
            if job.state != "running":  # cancelled while the worker started
                break
            order = {"type": "render", "job": job.id, "shot": job.shot, "device": job.device, "kind": job.kind}
            worker.send(order)
            if await self._follow(worker, job) or not job.active:
                break
            self._deaths += 1
            deaths = 1 if len(job.log) > done_before else deaths + 1
            done_before = len(job.log)
            log.error("worker %s died in job %s (%s)", worker.process.pid, job.id, worker.process.returncode)
            if deaths >= MAX_DEATHS:
                job.end("failed", self._crashed(worker).as_dict())
            else:
                job.say("the render process stopped and is started again")
        log.info("job %s: %s, %d/%d frames, %s s", job.id, job.state, len(job.log), job.frames, job.seconds)

    async def _follow(self, worker: WorkerProcess, job: Job) -> bool:
        """Passes the worker's messages on to the job. True when the worker is free, False when it died."""
        while message := await worker.receive():
            header, payload = message
            if header.get("job") != job.id:
                continue  # "ready"
            kind = header["type"]
            if kind == "done" and job.active and len(job.log) < job.frames:
                job.end("failed", _internal("The job ended before its last frame.", self._log_path))
            elif kind in ("done", "cancelled"):
                job.end(kind)
            elif kind == "failed":
                job.end("failed", BridgeError.from_dict(header.get("error")).as_dict())
            elif job.active and kind == "progress":
                job.say(str(header["message"]), header["index"], header["step"], header["steps"])
            elif job.active and kind == "frame":
                frame = FrameRecord(int(header["number"]), str(header["key"]), bool(header["stored"]))
                job.add_frame(int(header["index"]), frame, payload)
            if kind in ("done", "failed", "cancelled"):
                return True
        return False

    def _kill_if_still_at(self, job: Job, worker: WorkerProcess) -> None:
        if self._current is job and self._worker is worker and worker.alive:
            log.warning("worker %s goes on with cancelled job %s and is killed", worker.process.pid, job.id)
            worker.kill()

    def _crashed(self, worker: WorkerProcess) -> BridgeError:
        message = f"The render process stopped {MAX_DEATHS} times without finishing a frame."
        where = f" The details are in {self._log_path}." if self._log_path else ""
        hint = f"{_reason(worker.process.returncode)}{where} Finished frames are kept."
        return BridgeError("worker_crashed", message, hint, protocol.log_problems(list(worker.tail)))


def _internal(message: str, log_path: Path | None) -> Header:
    return BridgeError("internal", message, f"The details are in {log_path}." if log_path else "").as_dict()


def _reason(code: int | None) -> str:
    """The likely cause of an exit code, as a sentence with what to do."""
    memory = "Try a smaller size or a smaller model, and close other programs that use the GPU."
    if code in (-9, 137):
        return f"The system stopped it, most often because memory ran out. {memory}"
    if code in (-11, -6, -7, 3221225477, -1073741819):
        return f"It crashed in the graphics driver or a library (exit code {code}). {memory}"
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"It was ended by {signal.Signals(-code).name}."
    return f"Its exit code was {code}."

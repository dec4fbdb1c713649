# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader threads: they talk to the backend, write frame files, and report in plain tuples.

Nothing here touches `bpy`, nor any object of Blender's: such objects may vanish at any moment, and only the
main thread may look at them. Every worker takes `Signals` and gives messages to `Signals.put`:

    ("stage", text)                                     what is being waited for
    ("accepted", job record, attached, folder)
    ("progress", event header)
    ("frame", index, number, file path, stored)         the file is complete
    ("server", status header, job records)              answer of `connect`
    ("done", event header) | ("failed", error) | ("cancelled",) | ("finished", text)        the last one
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bridge_server.client import Client, ask_backend, read_connection, start_server
from ..bridge_server.protocol import BridgeError, Connection
from .field_names import in_words

_log = logging.getLogger(__name__)

LAST = ("done", "failed", "cancelled", "finished")


@dataclass
class Signals:
    """How the main thread and one reader thread talk: messages one way, two flags the other.

    leave: stop watching. cancel: stop the job itself, too.
    """

    messages: queue.SimpleQueue[tuple[Any, ...]] = field(default_factory=queue.SimpleQueue)
    leave: threading.Event = field(default_factory=threading.Event)
    cancel: threading.Event = field(default_factory=threading.Event)

    def put(self, *message: Any) -> None:
        """Send one message to the main thread."""
        self.messages.put(message)


@dataclass(frozen=True)
class Backend:
    """How to start the backend if none runs: its Python, the folder with its source, environment variables.

    trouble: why it could not be started, raised only when it has to be; unreachable: it has to be in any case.
    remote: a backend on another computer, which is never started from here.
    """

    python: str
    source: Path
    trouble: BridgeError | None = None
    unreachable: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    remote: Connection | None = None


@dataclass(frozen=True)
class Take:
    """What to render or to follow, and where its files go: `base`/`stem`_<8 digits of the shot's digest>.

    side: what of the scene the shot cannot say (strip_about.scene_side), for its strip.
    """

    base: Path
    stem: str
    shot: dict[str, Any] | None = None
    job_id: str = ""
    side: dict[str, str] = field(default_factory=dict)


def take_folder(base: Path, stem: str, digest: str) -> Path:
    """The folder of one shot's frames."""
    return base / f"{stem}_{digest[:8]}"


def shot_file(folder: Path) -> Path:
    """Where a take's shot lies, as it was sent: beside the folder with its frames."""
    return folder.with_name(folder.name + ".koshi.json")


def frame_name(number: int) -> str:
    """The file name of a frame: its number, at least four digits."""
    return f"{number:04d}.png"


def render(backend: Backend, take: Take, signals: Signals) -> None:
    """Submit the take's shot, or join its job, and deliver its frames."""
    with reach(backend, signals) as client:
        if signals.cancel.is_set():
            signals.put("cancelled")
            return
        signals.put("stage", "Handing over the shot")
        reply = client.submit(take.shot) if take.shot is not None else client.attach(take.job_id)
        record = reply["job"]
        folder = take_folder(take.base, take.stem, record["digest"])
        if take.shot is not None:
            write_whole(shot_file(folder), (json.dumps(take.shot, indent=1) + "\n").encode())
        signals.put("accepted", record, bool(reply.get("attached", take.shot is None)), str(folder))
        if _deliver(client, folder, signals) or not signals.cancel.is_set():
            return
        client.cancel(record["id"])
        # Frames that were finished before the cancel are still on their way.
        if not _deliver(client, folder, signals, patience=2.0):
            signals.put("cancelled")


def connect(backend: Backend, signals: Signals) -> None:
    """Reach the backend, starting it if needed, and report what it is and what it does."""
    with reach(backend, signals) as client:
        status = client.status()
        signals.put("server", status, client.jobs())
    signals.put("finished", "")


def stop(signals: Signals) -> None:
    """Stop the backend if it runs."""
    try:
        with Client(read_connection()) as client:
            client.shutdown()
    except BridgeError as error:
        # A server that hangs up instead of answering has done what it was asked to.
        if error.code not in ("server_not_running", "connection_lost"):
            raise
    signals.put("finished", "The Koshi backend is stopped.")


def diagnose(python: str, source: Path, report: dict[str, Any], signals: Signals) -> None:
    """Add the backend's own examination to `report`, and hand it over."""
    signals.put("stage", "Trying the backend: it draws a small picture")
    if python:
        try:
            report["backend"] = doctor(python, source)
        except BridgeError as error:
            found = {"name": "backend", "ok": False, "found": error.message, "hint": error.hint}
            report["blender"]["checks"].append(found)
    signals.put("report", report)
    signals.put("finished", "The diagnostics are in Koshi's preferences")


def doctor(python: str, source: Path) -> dict[str, Any]:
    """What `koshi doctor` says, run by the backend's Python. Raises BridgeError "backend_broken"."""
    out, said = ask_backend(python, source, "doctor", "--json")
    try:
        report = json.loads((out.splitlines() or [""])[-1])
    except ValueError as error:  # no JSON: it did not come so far
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        hint = "Press Repair in Koshi's preferences, or choose another Backend Python."
        raise BridgeError("backend_broken", f"{python} cannot run the backend: {last}", hint) from error
    if not isinstance(report, dict) or not isinstance(report.get("checks"), list):
        error = BridgeError.from_dict(report.get("error") if isinstance(report, dict) else None)
        raise BridgeError("backend_broken", f"The backend's own check failed: {error.message}", error.hint)
    return report


def reach(backend: Backend, signals: Signals) -> Client:
    """A connected client; the backend is started if none runs. Raises BridgeError."""
    signals.put("stage", "Looking for the backend")
    if backend.remote is not None:
        return _elsewhere(backend.remote)
    if backend.trouble is not None and backend.unreachable:
        raise backend.trouble
    try:
        return _connected(Client(read_connection()))
    except BridgeError as error:
        if error.code != "server_not_running":
            raise
    if backend.trouble is not None:
        raise backend.trouble
    signals.put("stage", "Starting the backend")
    return _connected(Client(start_server(backend.python, backend.source, variables=backend.variables)))


def _elsewhere(connection: Connection) -> Client:
    try:
        return _connected(Client(connection))
    except BridgeError as error:
        if error.code in ("server_not_running", "no_answer", "wrong_token"):
            error.hint = (
                "Run `koshi serve` there, see that this computer may reach it, and copy its connection file again: "
                "each start has a new port and secret."
            )
        raise


def _connected(client: Client) -> Client:
    client.connect()
    return client


def _deliver(client: Client, folder: Path, signals: Signals, patience: float | None = None) -> bool:
    """Pass the job's events on until it ends (True), or until asked to leave or out of patience (False)."""
    leave = signals.leave if patience is None else None
    for event, payload in client.events(timeout=patience, stop=leave):
        match event["type"]:
            case "frame":
                path = folder / frame_name(event["number"])
                write_whole(path, payload)
                signals.put("frame", event["index"], event["number"], str(path), bool(event.get("stored")))
            case "progress":
                signals.put("progress", event)
            case "done":
                signals.put("done", event)
                return True
            case "failed":
                signals.put("failed", in_words(BridgeError.from_dict(event.get("error")).as_dict()))
                return True
            case "cancelled":
                signals.put("cancelled")
                return True
    return False


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. A file that holds these very bytes is left alone.

    Raises BridgeError "cannot_write" that names the file and the reason.
    """
    try:
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(data)
        for patience in (0.05, 0.2, 1.0):
            try:
                os.replace(aside, path)
                return
            except PermissionError:  # Windows: Blender or a virus scanner reads the old file just now
                time.sleep(patience)
        os.replace(aside, path)
    except OSError as error:
        raise BridgeError(
            "cannot_write",
            f"{path} cannot be written: {error.strerror or error}.",
            "Check that there is room on the disk and that the folder may be written to.",
        ) from error


def start(work: Any, *arguments: Any, signals: Signals) -> threading.Thread:
    """Run one of the workers above in a thread that never raises: errors become ("failed", error)."""

    def run() -> None:
        try:
            work(*arguments, signals)
        except BridgeError as error:
            _log.info("%s: %s", error.code, error)
            signals.put("failed", in_words(error.as_dict()))
        except OSError as error:
            _log.exception("reader thread")
            signals.put(
                "failed",
                BridgeError(
                    "cannot_write",
                    f"{error.filename or 'A file'}: {error.strerror}.",
                    "Check the folder's permissions and the room on the disk.",
                ).as_dict(),
            )
        except Exception as error:  # the thread's edge: whatever it was must reach the artist, and the log
            _log.exception("reader thread")
            signals.put(
                "failed",
                BridgeError(
                    "internal",
                    f"Koshi met an error it does not know: {error}.",
                    "The details are in Koshi's log file.",
                ).as_dict(),
            )

    thread = threading.Thread(target=run, name="koshi-reader", daemon=True)
    thread.start()
    return thread

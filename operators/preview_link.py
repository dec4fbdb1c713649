# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread that asks the backend for previews: one at a time, and only the newest.

It keeps its connection for a while, so that scrubbing does not dial for every frame. A job that is no longer wanted is
cancelled before the next one is asked for. Nothing here touches Blender.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bridge_server.client import Client
from ..bridge_server.protocol import BridgeError
from . import reader
from .field_names import in_words
from .reader import Backend, frame_name, write_whole

_log = logging.getLogger(__name__)

IDLE = 5.0  # seconds after which the thread ends
PARTING = 0.8  # seconds that a closing Blender waits for its job to be cancelled
TRIES = 3
KEPT_PICTURES = 256
KEPT_FILMS = 8


@dataclass(frozen=True)
class Ask:
    """A preview that is wanted.

    number: by which its messages are told from those of others. kind: "preview" gives the shot's last frame alone,
    "motion" all frames, each as often as the shot's frame step says, numbered from 1. folder: where files go.
    """

    number: int
    kind: str
    shot: dict[str, Any]
    folder: Path


class Link:
    """`messages` holds (number, kind, ...) with these kinds:

    ("stage", text), ("accepted", job record), ("progress", event), ("frame", index), and one of ("done", path),
    ("failed", error), ("cancelled",) as the last one of a number. path: the picture, or the film's first file.
    """

    def __init__(self, backend: Backend) -> None:
        self.messages: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._backend = backend
        self._lock = threading.Lock()
        self._news = threading.Event()  # what is being done is no longer wanted
        self._ask: Ask | None = None
        self._closed = self._over = False
        self._number = 0  # of what is being done
        self._thread = threading.Thread(target=self._run, name="koshi-preview", daemon=True)
        self._thread.start()

    def ask(self, ask: Ask) -> bool:
        """Want this and nothing else. False if the thread has ended: make another Link."""
        with self._lock:
            if self._over or self._closed:
                return False
            self._ask = ask
            self._news.set()
            return True

    def drop(self) -> None:
        """Want nothing any more."""
        with self._lock:
            self._ask = None
            self._news.set()

    def close(self) -> None:
        """Want nothing, and end."""
        with self._lock:
            self._closed = True
            self._ask = None
            self._news.set()

    def wait(self) -> None:
        """Wait a moment for the thread to end: a Blender that ends would take it along."""
        self._thread.join(PARTING)

    def put(self, *message: Any) -> None:
        """Send a message about what is being done."""
        self.messages.put((self._number, *message))

    def _run(self) -> None:
        client: Client | None = None
        try:
            while (ask := self._next()) is not None:
                self._number, kept = ask.number, client is not None
                try:
                    client = client or reader.reach(self._backend, self)
                    self._follow(client, ask)
                except BridgeError as error:
                    _log.info("%s: %s", error.code, error)
                    client = _closed(client)
                    if kept and error.code == "connection_lost":
                        self._once_more(ask)  # the backend was started anew meanwhile
                    else:
                        self.put("failed", in_words(error.as_dict()))
                except Exception as error:  # the thread's edge: whatever it was must reach the artist, and the log
                    _log.exception("preview thread")
                    sentence = f"Koshi met an error it does not know: {error}."
                    hint = "The details are in Koshi's log file."
                    self.put("failed", BridgeError("internal", sentence, hint).as_dict())
                    client = _closed(client)
        finally:
            _closed(client)

    def _next(self) -> Ask | None:
        """The next one that is wanted; None when nothing was for some time."""
        until = time.monotonic() + IDLE
        while True:
            self._news.wait(max(until - time.monotonic(), 0.0))
            with self._lock:
                ask, self._ask = self._ask, None
                self._news.clear()
                if ask is None and (self._closed or time.monotonic() >= until):
                    self._over = True
                    return None
            if ask is not None:
                return ask

    def _once_more(self, ask: Ask) -> None:
        with self._lock:
            if self._ask is None and not self._closed:
                self._ask = ask
                self._news.set()

    def _follow(self, client: Client, ask: Ask) -> None:
        """Ask for one and deliver it, until it is over or something else is wanted."""
        for _ in range(TRIES):
            self.put("stage", "Handing over the shot")
            reply = client.submit(ask.shot, kind=ask.kind)
            record = reply["job"]
            self.put("accepted", record)
            ended = self._deliver(client, ask, record)
            if ended == "":
                if not reply.get("attached"):  # else another Blender waits for it, too
                    with suppress(BridgeError):
                        client.cancel(record["id"])
                self.put("cancelled")
                return
            if ended != "cancelled":
                return
            # Another Blender had asked for the same and wants it no more: make it for us.
        self.put("cancelled")

    def _deliver(self, client: Client, ask: Ask, record: dict[str, Any]) -> str:
        """Pass the events of a job on. Returns its last one's type, or "" if something else is wanted now."""
        film = ask.folder / str(record["digest"])[:16]
        path = film / frame_name(1)
        step = int(ask.shot.get("frame_step", 1))
        for event, payload in client.events(stop=self._news):
            if self._news.is_set():
                return ""
            if event.get("job") != record["id"]:
                continue  # the one before, which was cancelled
            match event["type"]:
                case "frame" if ask.kind == "motion":
                    last = event["index"] + 1 == record["frames"]
                    for place in range(1 if last else step):
                        write_whole(film / frame_name(event["index"] * step + place + 1), payload)
                    self.put("frame", event["index"])
                case "frame":
                    if event["index"] + 1 == record["frames"]:
                        path = ask.folder / f"{event['key'][:32]}.png"
                        write_whole(path, payload)
                    self.put("frame", event["index"])
                case "progress":
                    self.put("progress", event)
                case "done":
                    _tidy(ask.folder, path if ask.kind == "preview" else film)
                    self.put("done", str(path))
                    return "done"
                case "failed":
                    self.put("failed", in_words(BridgeError.from_dict(event.get("error")).as_dict()))
                    return "failed"
                case "cancelled":
                    return "cancelled"
        return ""


def _closed(client: Client | None) -> None:
    """Close a connection; what is left of it."""
    if client is not None:
        client.close()


def _tidy(folder: Path, newest: Path) -> None:
    """Keep the files, or films, that were used last."""
    with suppress(OSError):
        os.utime(newest)
        kept = KEPT_PICTURES if newest.is_file() else KEPT_FILMS
        found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in found[kept:]:
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()

# SPDX-License-Identifier: GPL-3.0-or-later
"""One job of the render engine: a thread asks the backend for a shot, and the engine takes the frames as they come.

The thread does all the waiting (starting a backend takes seconds), so that the engine can look every moment whether
Esc was pressed. It touches nothing of Blender's. Frames that nobody has taken yet are few: beyond that the thread
stops reading, and the server keeps the rest in its store.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from ..bridge_server.protocol import BridgeError
from . import reader
from .field_names import in_words
from .reader import Backend

AHEAD = 8  # frames
PARTING = 0.8  # seconds

_parting: list[threading.Thread] = []  # those that were left, and may still have to tell the backend so


class Link:
    """`take` gives, in this order: ("stage", text), ("progress", event), ("frame", event, png), and one of ("done",),
    ("failed", BridgeError), ("cancelled",) as the last one."""

    def __init__(self, backend: Backend, shot: dict[str, Any], device: str | None) -> None:
        self._messages: queue.Queue[tuple[Any, ...]] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._cancel = False
        self._before = _parting[:]
        arguments = (backend, shot, device)
        self._thread = threading.Thread(target=self._run, args=arguments, name="koshi-engine", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> tuple[Any, ...] | None:
        """The next message, or None if none comes within `timeout` seconds."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def leave(self, cancel: bool, wait: bool) -> None:
        """Stop listening. cancel: stop the job too, unless another program had asked for it before. wait: a moment,
        until the backend knows. Background Blender may end at once; in the window Esc would take that much longer."""
        self._cancel = cancel
        self._stop.set()
        _parting[:] = [thread for thread in _parting if thread.is_alive()] + [self._thread]
        if cancel and wait:
            see_off()

    def put(self, *message: Any) -> None:
        """Hand a message over; waits while the engine is busy, gives up when it has left."""
        while not self._stop.is_set():
            try:
                return self._messages.put(message, timeout=0.1)
            except queue.Full:
                continue

    def _run(self, backend: Backend, shot: dict[str, Any], device: str | None) -> None:
        try:
            self._follow(backend, shot, device)
        except BridgeError as error:
            self.put("failed", BridgeError.from_dict(in_words(error.as_dict())))
        except Exception as error:  # the thread's edge: whatever it was must reach a person
            self.put("failed", BridgeError("internal", f"Koshi met an error it does not know: {error}."))

    def _follow(self, backend: Backend, shot: dict[str, Any], device: str | None) -> None:
        for thread in self._before:  # what it cancels may be this very shot
            thread.join(PARTING)
        with reader.reach(backend, self) as client:  # says by `put` what it waits for
            if self._stop.is_set():
                return
            reply = client.submit(shot, device)
            wanted = True
            self.put("stage", "Waiting for the first frame")
            for event, payload in client.events(stop=self._stop):
                match event["type"]:
                    case "frame":
                        wanted = event["index"] + 1 < reply["job"]["frames"]
                        self.put("frame", event, payload)
                    case "progress":
                        self.put("progress", event)
                    case "failed":
                        return self.put("failed", BridgeError.from_dict(in_words(event.get("error") or {})))
                    case "done" | "cancelled":
                        return self.put(event["type"])
            if self._cancel and wanted and not reply.get("attached"):
                client.cancel(reply["job"]["id"])


def see_off() -> None:
    """Wait a moment for those that were left: a Blender that ends takes them along."""
    until = time.monotonic() + PARTING
    for thread in _parting:
        thread.join(max(until - time.monotonic(), 0.0))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's end of the socket, as Blender and the command line use it. Standard library only.

    with Client(read_connection()) as client:
        client.submit(shot)
        for event, png in client.events():
            ...

No thread is started. Whichever thread waits for something reads the socket and hands out what is for others,
so one thread may iterate over `events` while others send requests. It waits: keep off Blender's main thread.
"""

from __future__ import annotations

import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from . import protocol
from .dial import dial, read_connection
from .launcher import ask_backend, start_server
from .protocol import BridgeError, Connection, Decoder, Header, Message

__all__ = ["BridgeError", "Client", "Connection", "ask_backend", "read_connection", "start_server"]

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL = 0.1  # seconds between two looks at `stop` and at the clock
SUBMIT_TIMEOUT = 60.0  # validating a long shot on a busy machine takes its time
ENDINGS = ("done", "failed", "cancelled")


class Client:
    """One connection to a server. A context manager: entering connects and shakes hands, leaving closes.

    timeout: seconds to wait for connecting and for each reply.
    Every method raises BridgeError: "server_not_running", "wrong_token", "protocol_mismatch" on connecting,
    "connection_lost" when the server goes away, "no_answer" when a reply takes too long, or the server's own.
    """

    def __init__(self, connection: Connection | None = None, timeout: float = 5.0) -> None:
        self.connection = connection or read_connection()
        self.timeout = timeout
        self.server: Header = {}  # the server's welcome: pid, software
        self._socket: socket.socket | None = None
        self._selector = selectors.DefaultSelector()  # select.select cannot watch descriptors over 1023
        self._decoder = Decoder()
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._state = threading.Condition()  # guards everything below
        self._reading = False
        self._lost: BridgeError | None = None
        self._expected: set[int] = set()
        self._replies: dict[int, Header] = {}
        self._events: deque[Message] = deque()
        self._followed: set[str] = set()

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connects and shakes hands; both sides prove that they know the token."""
        self._socket, self._decoder, self.server = dial(self.connection, self.timeout)
        self._selector.register(self._socket, selectors.EVENT_READ)

    def close(self) -> None:
        """Closes the connection; jobs go on. May be called from any thread, and twice."""
        with self._state:
            closed = BridgeError("connection_closed", "This connection to the Koshi server was closed.")
            self._lost = self._lost or closed
            self._state.notify_all()
        if self._socket is not None:
            with suppress(OSError):  # the other side may have hung up first
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        with self._state:
            self._state.wait_for(lambda: not self._reading, timeout=1.0)
        if self._socket is not None:
            self._socket.close()
        self._selector.close()

    def submit(self, shot: Header, device: str | None = None, kind: str = "render") -> Header:
        """Asks for `shot` to be rendered and follows the job; returns {"job": record, "attached": bool, ...}.

        device: "cpu", "cuda", "cuda:1", "mps"; None: the best there is. The job fails if it is not there.
        kind: "render"; "preview", the same as a job of its own; "motion", how the picture moves, without a model.

        The same shot again joins the job of its kind that is queued or running: its frames so far arrive as events
        first. Raises BridgeError "bad_shot" with every fault in `problems`, "old_backend" if the server knows no kinds.
        """
        chosen = {name: value for name, value in (("device", device), ("kind", kind)) if value and value != "render"}
        reply = self._request({"type": "submit", "shot": shot, **chosen}, max(self.timeout, SUBMIT_TIMEOUT))
        record = reply.get("job")
        if kind != "render" and isinstance(record, dict) and record.get("kind") != kind:
            if not reply.get("attached"):
                self.cancel(str(record.get("id")))
            message = "The Koshi backend that is running is older than this add-on and makes no previews."
            raise BridgeError("old_backend", message, "Stop the backend in Koshi's preferences, then try again.")
        return reply

    def attach(self, job: str) -> Header:
        """Follows the job with this id from its first frame on. Raises BridgeError "unknown_job"."""
        return self._request({"type": "attach", "job": job})

    def cancel(self, job: str) -> Header:
        """Stops a job for everybody, at once; finished frames are kept. Raises BridgeError "unknown_job"."""
        return self._request({"type": "cancel", "job": job})

    def jobs(self) -> list[Header]:
        """The records of the jobs the server knows, oldest first."""
        jobs = self._request({"type": "jobs"}).get("jobs")
        return jobs if isinstance(jobs, list) else []

    def status(self) -> Header:
        """The server's state: pid, software, worker, jobs."""
        return self._request({"type": "status"})

    def release(self) -> Header:
        """Has a backend that is idle give its memory back; its next render loads the model again."""
        return self._request({"type": "release"})

    def shutdown(self) -> Header:
        """Stops the server and whatever it renders; finished frames are kept."""
        return self._request({"type": "shutdown"})

    def events(self, timeout: float | None = None, stop: threading.Event | None = None) -> Iterator[Message]:
        """Yields (event, png) until every job this client follows has ended; the last event is yielded too.

        Ends early, without an error, when `stop` is set or when no event comes for `timeout` seconds.
        Raises BridgeError "connection_lost" if the server goes away.
        """
        while True:
            with self._state:
                if not self._followed and not self._events:
                    return
            message = self._wait(lambda: self._events.popleft() if self._events else None, timeout, stop)
            if message is None:
                return
            event = message[0]
            if event["type"] in ENDINGS:
                with self._state:
                    self._followed.discard(str(event.get("job")))
            yield message

    # Inside

    def _request(self, header: Header, timeout: float | None = None) -> Header:
        number = next(self._numbers)
        with self._state:
            self._expected.add(number)
        try:
            self._send({**header, "id": number})
            reply = self._wait(lambda: self._replies.pop(number, None), timeout or self.timeout, None)
        finally:
            with self._state:
                self._expected.discard(number)
                self._replies.pop(number, None)
        if reply is None:
            raise BridgeError("no_answer", f"The Koshi server at {self.connection} does not answer.")
        if reply["type"] == "error":
            raise BridgeError.from_dict(reply.get("error"))
        return reply

    def _send(self, header: Header) -> None:
        data = protocol.pack(header)
        with self._state:
            if self._lost:
                raise self._lost
        try:
            with self._sending:  # two messages must not mix
                self._connected().sendall(data)
        except OSError as error:
            raise self._lose(error) from error

    def _wait(
        self, take: Callable[[], T | None], timeout: float | None, stop: threading.Event | None
    ) -> T | None:
        """Waits until `take`, called under the lock, gives something; None on `timeout` or `stop`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._state:
                found = take()
                if found is not None:
                    return found
                if self._lost:
                    raise self._lost
                left = POLL if deadline is None else min(POLL, deadline - time.monotonic())
                if left <= 0 or (stop is not None and stop.is_set()):
                    return None
                if self._reading:  # another thread reads, and hands out what is ours
                    self._state.wait(left)
                    continue
                self._reading = True
            try:
                self._receive(left)
            finally:
                with self._state:
                    self._reading = False
                    self._state.notify_all()

    def _receive(self, timeout: float) -> None:
        """Reads what is there, waiting at most `timeout` seconds, and sorts it into replies and events."""
        try:
            if not self._selector.select(timeout):
                return
            data = self._connected().recv(1 << 18)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._decoder.feed(data)
            while message := self._decoder.next():
                with self._state:
                    self._sort(message)
        except (OSError, ValueError, BridgeError) as error:  # ValueError: the selector was closed meanwhile
            self._lose(error)

    def _sort(self, message: Message) -> None:
        header = message[0]
        number = header.get("id")
        if number is None:
            self._events.append(message)
        elif number in self._expected:
            job = header.get("job")
            if header["type"] == "accepted" and isinstance(job, dict):
                self._followed.add(str(job.get("id")))
            self._replies[number] = header

    def _lose(self, cause: Exception) -> BridgeError:
        message = f"The connection to the Koshi server (process {self.connection.pid}) was lost."
        hint = "Finished frames are kept: render again and the work goes on where it stopped."
        with self._state:
            if self._lost is None:
                log.info("connection lost: %s", cause)
                self._lost = BridgeError("connection_lost", message, hint)
            return self._lost

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise OSError("not connected")
        return self._socket

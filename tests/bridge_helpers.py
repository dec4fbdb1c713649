# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for the bridge tests, and the certainty that none of their processes outlives a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bridge_server import launcher, protocol
from bridge_server.client import BridgeError, Client, Connection, read_connection

ROOT = Path(__file__).resolve().parents[1]
Event = tuple[dict[str, Any], bytes]
T = TypeVar("T")


def shot(frames: int = 3, *, seed: int = 1, size: int = 64, steps: int = 1, **more: Any) -> dict[str, Any]:
    """A small shot; more `steps` and `size` give a test time to interfere."""
    document = {"koshi": 1, "model": "koshi-tiny", "width": size, "height": size, "frames": frames}
    document |= {"seed": seed, "steps": steps, "frame_start": 11, "schedules": {"zoom": 1.02, "angle": 0.5}}
    return {**document, "prompts": [{"frame": 0, "text": "a calm sea at dawn"}], **more}


def slow_shot(frames: int = 6, seed: int = 1) -> dict[str, Any]:
    """Long enough per frame, some tenths of a second, to interfere in the middle of one."""
    return shot(frames, seed=seed, size=128, steps=8)


def until(check: Callable[[], T], seconds: float = 20.0) -> T:
    """Waits for a true value."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def frames_of(events: list[Event]) -> dict[int, bytes]:
    """The pictures by index; checks that each came once and in order."""
    indices = [event["index"] for event, _ in events if event["type"] == "frame"]
    assert indices == list(range(len(indices)))
    return {event["index"]: png for event, png in events if event["type"] == "frame"}


class Rig:
    """A folder of its own for store, cache and connection file, and the servers started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection_path = folder / "connection.json"
        self.log = folder / "server.log"
        self.store = folder / "store"
        self.environment = {
            "KOSHI_STORE": str(self.store),
            "KOSHI_CACHE": str(folder / "cache"),
            "KOSHI_CONNECTION": str(self.connection_path),
            # OpenMP's threads wait for each other busily: on a loaded machine two are slower than one.
            "OMP_NUM_THREADS": "1",
        }
        self.server: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()

    def start(self, *options: str, **more: Any) -> Connection:
        """Starts `koshi serve` and waits until it answers."""
        self.server = self.spawn("--log", str(self.log), *options, **more)
        server = self.server

        def answers() -> Connection | None:
            assert server.poll() is None, self.log.read_text()
            try:
                connection = read_connection(self.connection_path)
                return connection if connection.pid == server.pid else None
            except BridgeError:
                return None

        return until(answers)

    def spawn(self, *options: str, **more: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "koshi_backend", "serve", *options],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            **more,
        )
        self._pids.add(process.pid)
        return process

    def connect(self) -> Client:
        return Client(read_connection(self.connection_path))

    def watch(self, pid: int) -> int:
        """Takes care that this process too is gone in the end."""
        self._pids.add(pid)
        return pid

    def worker(self) -> int:
        """The running worker's process number, waiting for it."""

        def pid() -> int | None:
            with self.connect() as client:
                found: int | None = client.status()["worker"]["pid"]
                return found

        found = until(pid)
        assert found is not None
        return self.watch(found)

    def stranger(self) -> socket.socket:
        """A bare connection to the server, before any handshake."""
        address = read_connection(self.connection_path).address
        assert not isinstance(address, str)
        return socket.create_connection(address, 10)

    def close(self) -> None:
        """Ends every process, politely first."""
        if self.server and self.server.poll() is None:
            with suppress(BridgeError), self.connect() as client:
                self.watch(client.status()["worker"]["pid"] or self.server.pid)
            self.server.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.server.wait(8)
        for started in launcher._started:
            if started.poll() is None:
                started.kill()
                started.wait()
        for pid in self._pids:
            if not gone(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.server:
            self.server.wait()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A place for servers of this test's own."""
    rig = Rig(tmp_path)
    for name, value in rig.environment.items():
        monkeypatch.setenv(name, value)
    try:
        yield rig
    finally:
        rig.close()


def receive(peer: socket.socket, decoder: protocol.Decoder) -> dict[str, Any]:
    """The next header on a bare connection. Raises EOFError when the server hangs up."""
    while (message := decoder.next()) is None:
        data = peer.recv(1 << 16)
        if not data:
            raise EOFError
        decoder.feed(data)
    return message[0]


@contextmanager
def before_kinds(server: Connection) -> Iterator[Connection]:
    """The way to a server as it was before jobs had kinds: the real one, and between, somebody who leaves them out."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        decoder = protocol.Decoder()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                decoder.feed(data)
                while message := decoder.next():
                    header = {name: value for name, value in message[0].items() if name != "kind"}
                    if isinstance(job := header.get("job"), dict):
                        header["job"] = {name: value for name, value in job.items() if name != "kind"}
                    sink.sendall(protocol.pack(header, message[1]))
        sink.close()

    def meet() -> None:
        here, _ = door.accept()
        there = socket.create_connection(server.address, 10)
        for ends in ((here, there), (there, here)):
            threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=meet, daemon=True).start()
        yield Connection(door.getsockname(), server.token, server.pid, server.started)

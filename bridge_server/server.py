# SPDX-License-Identifier: GPL-3.0-or-later
"""The server process: accepts clients, keeps the queue, supervises the worker. It never imports torch.

It stays small and alive whatever the GPU does; everything that can crash lives in the worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from koshi_backend.errors import KoshiError
from koshi_backend.store import FrameStore

from . import protocol
from .jobs import Queue
from .launcher import ALREADY_RUNNING, rotate
from .lock import FileLock
from .protocol import BridgeError, Connection, Header
from .session import Session
from .supervisor import Supervisor

log = logging.getLogger(__name__)

MAX_CLIENTS = 64

Report = Callable[[Header], None]


class Server:
    """Everything the sessions share. `run` serves until `stop` is called."""

    def __init__(self, connection_path: Path, log_path: Path | None = None) -> None:
        self.connection_path = connection_path
        self.token = secrets.token_hex(32)
        self.jobs = Queue()
        self.supervisor = Supervisor(self.jobs, log_path)
        self.store = FrameStore()
        self.log_hint = f"The details are in {log_path}." if log_path else ""
        self._sessions: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._busy_at = time.monotonic()

    @property
    def full(self) -> bool:
        return len(self._sessions) > MAX_CLIENTS

    def status(self) -> Header:
        """The reply to `status`, without its type."""
        jobs = [job.record() for job in self.jobs.jobs.values()]
        worker = self.supervisor.status()
        return {"pid": os.getpid(), "software": protocol.SOFTWARE, "worker": worker, "jobs": jobs}

    def stop(self) -> None:
        self._stopping.set()

    async def run(
        self, host: str, unix: Path | None, idle_exit: float, ready: Callable[[Connection], None] | None = None
    ) -> None:
        """Serves on `unix` or on a free port of `host`; 0 seconds of `idle_exit` mean for ever.

        ready: called once clients can connect.
        """
        listener, address = await self._listen(host, unix)
        supervision = asyncio.create_task(self.supervisor.run())
        background = [supervision, asyncio.create_task(self._watch_idle(idle_exit))]
        connection = Connection(address, self.token, os.getpid(), time.time())
        try:
            connection.write(self.connection_path)
            log.info("Koshi server %s at %s, process %d", protocol.SOFTWARE, connection, os.getpid())
            if ready:
                ready(connection)
            await self._stopping.wait()
            log.info("stopping")
        finally:
            listener.close()
            self.connection_path.unlink(missing_ok=True)
            if unix:
                unix.unlink(missing_ok=True)
            for task in (*self._sessions, *background):
                task.cancel()
            await asyncio.gather(*self._sessions, *background, return_exceptions=True)

    async def _listen(self, host: str, unix: Path | None) -> tuple[asyncio.Server, protocol.Address]:
        if unix is None:
            listener = await asyncio.start_server(self._serve, host, 0)
            port = listener.sockets[0].getsockname()[1]
            # A wildcard is no address one can connect to.
            return listener, ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
        if sys.platform == "win32":
            raise OSError("Unix sockets are not available on Windows")
        _clear_stale_socket(unix)
        listener = await asyncio.start_unix_server(self._serve, unix)
        unix.chmod(0o600)
        return listener, str(unix)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # asyncio runs this as a task
        self._sessions.add(task)
        try:
            with suppress(asyncio.CancelledError):  # the server stops; asyncio would log it as an error
                await Session(self, reader, writer).run()
        finally:
            self._sessions.discard(task)

    async def _watch_idle(self, limit: float) -> None:
        while limit > 0:
            if self._sessions or self.jobs.active:
                self._busy_at = time.monotonic()
            elif time.monotonic() - self._busy_at >= limit:
                log.info("nothing to do for %g s", limit)
                self.stop()
            await asyncio.sleep(min(1.0, limit / 4))


def _clear_stale_socket(path: Path) -> None:
    """Removes the socket file a killed server left. Raises OSError if it is in use, or not a socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"another program listens at {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="koshi serve", description="Render shots for Blender.")
    add = parser.add_argument
    add("--connection-file", type=Path, metavar="PATH", help="where to say how the server is reached")
    add("--unix", type=Path, metavar="PATH", help="listen on a Unix socket instead of a local TCP port")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="listen there (default: this computer only)")
    add("--idle-exit", type=float, default=0.0, metavar="SECONDS", help="end after so long without work")
    add("--json", action="store_true", help="print one JSON object when clients can connect, or why they cannot")
    add("--log", type=Path, metavar="FILE", help="write the log to this file instead of the terminal")
    return parser


def _start_logging(log_path: Path | None) -> None:
    if log_path:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_path)
        with log_path.open("ab") as file:  # as descriptors 1 and 2: a crash's last words land there too
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)


async def _serve(options: argparse.Namespace, connection_path: Path, report: Report) -> None:
    server = Server(connection_path, options.log)
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(server.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)  # works on Windows too, which loop.add_signal_handler does not

    def ready(connection: Connection) -> None:
        report({"ok": True, "address": connection.address, "pid": connection.pid, "connection": str(connection_path)})

    await server.run(options.host, options.unix, options.idle_exit, ready)


def main(argv: list[str] | None = None) -> int:
    """The `koshi serve` command: 0 after a clean stop, 1 if it cannot start, 3 if another server runs."""
    options = _parser().parse_args(argv)
    for name in ("connection_file", "unix", "log"):
        if path := getattr(options, name):
            setattr(options, name, path.expanduser().absolute())
    report = _reporter(options.json)
    connection_path: Path = options.connection_file or protocol.connection_file().absolute()
    try:
        _start_logging(options.log)
        if not protocol.is_loopback(options.host):
            log.warning(
                "listening on %s: other computers can reach this server. Only holders of its connection file "
                "can use it, but pictures and prompts travel unencrypted; an SSH tunnel is safer.",
                options.host,
            )
        connection_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(connection_path.with_name(connection_path.name + ".lock")) as lock:
            if not lock.held:
                error = _already_running(connection_path)
                print(error, file=sys.stderr)
                report({"ok": False, "error": error.as_dict()})
                return ALREADY_RUNNING
            asyncio.run(_serve(options, connection_path, report))
            return 0
    except (OSError, KoshiError) as error:
        log.error("the server cannot start: %s", error)
        failure = error if isinstance(error, KoshiError) else KoshiError("server_start_failed", f"{error}.")
        report({"ok": False, "error": failure.as_dict()})
        return 1


def _reporter(wanted: bool) -> Report:
    """Prints JSON on the stdout of this moment, which `--log` takes away later; does nothing if not wanted."""
    if not wanted:
        return lambda _: None
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    return lambda result: print(json.dumps(result), file=out, flush=True)


def _already_running(connection_path: Path) -> BridgeError:
    try:
        first = Connection.read(connection_path)
        where = f"It is process {first.pid} at {first}."
    except (FileNotFoundError, BridgeError):
        where = "It is just starting."
    message = f"A Koshi server with the connection file {connection_path} is already running."
    return BridgeError("already_running", message, where)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the server as a program of its own, from its own Python. Standard library only."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from . import protocol
from .dial import dial, read_connection
from .lock import FileLock
from .protocol import BridgeError, Connection

log = logging.getLogger(__name__)

ALREADY_RUNNING = 3  # the server's exit code when another one holds the same connection file
LOG_LIMIT = 8 * 1024**2  # bytes; a longer log is set aside as NAME.1 before a server starts
TAIL = 12  # lines of the log that an error shows

_started: list[subprocess.Popen[bytes]] = []  # kept so that an ended server is reaped and Popen does not warn


def start_server(
    python: str,
    source: Path,
    *,
    connection: Path | None = None,
    idle_exit: float = 600,
    log: Path | None = None,
    wait: float = 30,
    variables: Mapping[str, str] | None = None,
) -> Connection:
    """The running server's connection; starts a server if there is none. Not for a main thread: it waits.

    python: the interpreter of the environment that holds the backend.
    source: the folder with koshi_backend and bridge_server.
    connection: the connection file, default `protocol.connection_file()`.
    idle_exit: seconds without client and job after which a new server ends; 0 means never.
    log: the new server's log file, default server.log in the cache folder.
    wait: seconds the start may take.
    variables: environment variables for a new server.

    Safe when two programs call it at once: one of them starts the server, both get it.
    Raises BridgeError "server_start_failed" (with the log's last lines) or "protocol_mismatch".
    """
    path = connection or protocol.connection_file()
    log_path = log or protocol.cache_folder() / "server.log"
    deadline = time.monotonic() + wait
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        # One caller starts it, the others wait: a surplus server could win the file later, after a shutdown.
        with FileLock(path.with_name(path.name + ".start")) as lock:
            if lock.held:
                return _live(path) or _start(python, source, path, idle_exit, log_path, deadline, variables or {})
        if time.monotonic() >= deadline:
            raise _too_slow(log_path)
        time.sleep(0.05)


def ask_backend(python: str, source: Path, *arguments: str, patience: float = 300) -> tuple[str, str]:
    """Run one of the backend's commands to its end; returns what it wrote to stdout and stderr. Waits.

    python, source: as for `start_server`. patience: seconds; a first import of torch on a cold disk can take a minute.
    Raises BridgeError "backend_broken" if it cannot be run at all.
    """
    try:
        ended = subprocess.run(
            [python, "-m", "koshi_backend", *arguments],
            env=clean_environment(source),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            check=False,
            creationflags=detached_flags(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{python} cannot run the backend: {error}."
        raise BridgeError("backend_broken", message, "Run Koshi's set-up again.") from error
    return ended.stdout, ended.stderr


def _start(
    python: str,
    source: Path,
    path: Path,
    idle_exit: float,
    log_path: Path,
    deadline: float,
    variables: Mapping[str, str],
) -> Connection:
    arguments = [python, "-m", "koshi_backend", "serve", "--connection-file", str(path.absolute())]
    arguments += ["--idle-exit", f"{idle_exit:g}", "--log", str(log_path.absolute())]
    stale = _read(path)
    process, log_start = _spawn(arguments, source, log_path, variables)
    while time.monotonic() < deadline:
        # "Already running" means that one was started by hand just now: it answers in a moment.
        news = process.poll() == ALREADY_RUNNING or _read(path) != stale
        if news and (found := _live(path)):
            return found
        if process.poll() not in (None, ALREADY_RUNNING):
            raise _start_failed(python, process.returncode, log_path, log_start)
        time.sleep(0.05)
    raise _too_slow(log_path)


def _read(path: Path) -> Connection | None:
    try:
        return Connection.read(path)
    except (FileNotFoundError, BridgeError):
        return None


def _live(path: Path) -> Connection | None:
    """The server that answers at the connection file. Raises if one answers that we cannot talk to."""
    try:
        connection = read_connection(path)
        dial(connection, timeout=2.0)[0].close()
        return connection
    except BridgeError as error:
        if error.code == "protocol_mismatch":
            raise
        return None  # no server, or the remains of one; the new server's lock decides


def _spawn(
    arguments: list[str], source: Path, log_path: Path, variables: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts the program detached. Returns it and where in the log its own lines begin."""
    for process in list(_started):
        if process.poll() is not None:
            _started.remove(process)
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_path)
        # Its first words too must land in the log: a missing package shows before it can open the log itself.
        with log_path.open("ab") as output:
            start = output.seek(0, os.SEEK_END)
            started = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log_path.parent,
                env={**clean_environment(source), **variables},
                creationflags=detached_flags(),
                start_new_session=sys.platform != "win32",
            )
    except OSError as error:
        message = f"The Koshi server cannot be started with {arguments[0]} ({error.strerror or error})."
        hint = "Choose the Python of Koshi's environment in the add-on's preferences, or run its set-up."
        raise BridgeError("server_start_failed", message, hint) from error
    _started.append(started)
    return started, start


def clean_environment(source: Path) -> dict[str, str]:
    """Environment variables for a Python that finds `source`: nothing of Blender's Python may leak into it."""
    blenders = ("PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in blenders}
    environment["PYTHONPATH"] = str(source.absolute())
    environment["PYTHONUTF8"] = "1"  # user names and paths are not ASCII everywhere
    environment["PYTHONSAFEPATH"] = "1"  # do not import what happens to lie in the working folder
    # Nothing is written beside the add-on's code.
    environment["PYTHONPYCACHEPREFIX"] = str(protocol.cache_folder().absolute() / "pycache")
    return environment


def detached_flags() -> int:
    """Flags for a process without a console window and without our Ctrl-C; 0 except on Windows."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def rotate(log_path: Path) -> None:
    """Sets a long log aside as NAME.1. Quietly does nothing where it cannot (Windows: the file is open)."""
    try:
        if log_path.stat().st_size > LOG_LIMIT:
            os.replace(log_path, log_path.with_name(log_path.name + ".1"))
    except OSError as error:
        log.debug("log not rotated: %s", error)


def _too_slow(log_path: Path) -> BridgeError:
    hint = f"Try again in a moment: a first start can be slow. Its log is {log_path}."
    return BridgeError("server_start_failed", "The Koshi server has not answered in time.", hint)


def _start_failed(python: str, code: int | None, log_path: Path, log_start: int) -> BridgeError:
    try:
        with log_path.open("rb") as file:
            file.seek(log_start)
            lines = file.read(1 << 20).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    message = f"The Koshi server stopped while starting (exit code {code})."
    hint = f"{_likely_cause(lines, python)} Its log is {log_path}."
    return BridgeError("server_start_failed", message, hint, protocol.log_problems(lines[-TAIL:]))


def _likely_cause(lines: list[str], python: str) -> str:
    for line in reversed(lines):
        if found := re.search(r"No module named '?([\w.]+)", line):
            if found[1].startswith(("koshi_backend", "bridge_server")):
                return "Koshi's backend was not found in the chosen source folder: install the add-on again."
            package = found[1].split(".")[0]
            return f"The environment of {python} lacks the package {package}: run Koshi's set-up again."
        if "Permission denied" in line or "Read-only file system" in line:
            return f"A file could not be written: {line.strip()[:200]}."
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"It said: {last[:300]}" if last else "It said nothing; try to run `koshi doctor` in a terminal."

# SPDX-License-Identifier: GPL-3.0-or-later
"""How the set-up runs other programs: it reads what they say, tells how far they are, and ends them when asked to."""

from __future__ import annotations

import queue
import re
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..launcher import detached_flags
from . import place
from .place import Status

LOOK = 0.1  # seconds between two looks whether to stop
TELL = 0.15  # between two writings of the status
TAIL = 400  # lines that are kept of what a program says


class Stopped(Exception):
    """Somebody pressed Cancel."""


class Runner:
    """Runs programs one after the other, with `status` as its voice. Everything also goes into the log."""

    def __init__(self, status: Status, log: Path) -> None:
        self.status, self._log = status, log
        self._begun, self._told = time.monotonic(), 0.0

    def tell(self, text: str | None, detail: str = "", fraction: float = 0.0) -> None:
        """Show where the set-up is; None: the text stays, and if told often, only now and then."""
        now = time.monotonic()
        if text is None and now - self._told < TELL:
            return
        if text is not None:
            self.note(f"---- {text} {detail}")
            self.status.text = text
        self.status.detail = detail
        self.status.fraction = max(self.status.fraction, fraction)
        self.status.seconds = now - self._begun
        self._told = now
        with suppress(OSError):  # a full disk: the set-up itself will say so
            self.status.write()

    def end(self, phase: str, text: str = "") -> None:
        """Show how it ended."""
        self.status.phase, self.status.text, self.status.detail = phase, text or self.status.text, ""
        self.note(f"==== {phase} {self.status.error or ''} {self.status.note}")
        with suppress(OSError):
            self.status.write()

    def note(self, line: str) -> None:
        """Write a line into the log; addresses without their passwords."""
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(re.sub(r"://[^/@\s]+@", "://***@", line) + "\n")

    def stop_if_asked(self) -> None:
        """Raises Stopped once somebody has pressed Cancel."""
        if place.cancel_path().exists():
            raise Stopped

    def run(
        self, command: list[str], environ: dict[str, str], read: Callable[[str], None] | None = None
    ) -> tuple[int, str]:
        """Run a program to its end; returns its exit code and the last it said. Raises Stopped, having ended it."""
        self.note(f"$ {shlex.join(command)}")
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                creationflags=detached_flags(),
            )
        except OSError as error:
            self.note(str(error))
            return 127, str(error)
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(process, lines), daemon=True).start()
        tail: deque[str] = deque(maxlen=TAIL)
        looked = 0.0
        try:
            while True:
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self.stop_if_asked()
                try:
                    line = lines.get(timeout=LOOK)
                except queue.Empty:
                    continue
                if line is None:
                    break
                if read is not None:
                    read(line)
                if not line.startswith("Progress "):
                    tail.append(line)
                    self.note(line)
            code = process.wait()
        except BaseException:  # Stopped, Ctrl-C: what was started must not go on alone
            process.kill()
            process.wait()
            raise
        if code < 0:
            tail.append(f"Killed by signal {-code}.")
        self.note(f"[exit code {code}]")
        return code, "\n".join(tail)


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip())
    lines.put(None)

# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a pull is: bytes, speed and time left, told a few times a second."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .pull_plan import Plan
from .pull_words import size

log = logging.getLogger(__name__)

TELL = 0.2  # seconds between two words on how far it is
WINDOW = 5.0  # seconds that the speed is the mean of


@dataclass(frozen=True)
class Progress:
    """How far a pull is. done, total: bytes. speed: bytes a second just now. left: seconds, None while not known."""

    done: int = 0
    total: int = 0
    speed: float = 0.0
    left: float | None = None
    file: str = ""

    def __str__(self) -> str:
        share = f"{size(self.done)} of {size(self.total)}"
        if not self.speed:
            return f"{share}, waiting for {self.file}" if self.file else share
        left = "" if self.left is None else f", {_duration(self.left)} left"
        return f"{share}, {size(self.speed)}/s{left}, {self.file}"


Tell = Callable[[Progress], None]


class LogProgress:
    """For `pull(tell=...)` in a program that nobody watches: a line in the log every tenth."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth != self._told:
            self._told = tenth
            log.info("fetching: %s", progress)


class Count:
    """What has arrived. done: bytes that are here, of those that were planned; fetched: that were not here before."""

    def __init__(self, plan: Plan) -> None:
        self.done = self.fetched = 0
        self.file = ""
        self._old = 0  # bytes of a file that were here before, and are counted again as they are read
        self._plan = plan

    def begin(self, name: str, there: int = 0) -> None:
        self.file, self._old = name, there

    def arrived(self, count: int) -> None:
        self.done += count
        known = min(self._old, count) if count > 0 else 0
        self._old -= known
        self.fetched += max(0, count - known)


@contextmanager
def telling(plan: Plan, tell: Tell) -> Iterator[Count]:
    """Count, and tell a few times a second how far it is, also while nothing comes."""
    count, over = Count(plan), threading.Event()
    seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def speak() -> None:
        now, fetched = time.monotonic(), count.fetched
        seen.append((now, fetched))
        while len(seen) > 2 and now - seen[0][0] > WINDOW:
            seen.popleft()
        (begin, before), begun = seen[0], count.done
        speed = max(0.0, (fetched - before) / (now - begin)) if now > begin else 0.0
        left = (plan.total - begun) / speed if speed else None
        tell(Progress(min(begun, plan.total), plan.total, speed, left, count.file))

    def go_on() -> None:
        while not over.wait(TELL):
            speak()

    thread = threading.Thread(target=go_on, name="koshi-pull", daemon=True)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
    speak()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

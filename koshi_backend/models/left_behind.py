# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that waits for a network, in threads that are left behind when somebody wants to stop.

Nothing else ends a wait for bytes that do not come: Python's sockets cannot be woken from outside, on Windows not even
by Ctrl-C. So whoever waits is left alone; it finds out when it wakes, and must then change nothing any more.

One that is left inside the hub client's download of a small file holds that client's own lock until its request times
out, which takes about a minute: a second pull in the same process waits for it there, and can be cancelled meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..errors import Cancelled

LOOK = 0.1  # seconds between two looks whether to stop
FAREWELL = 0.3  # seconds that work has to end by itself once it is left

_T = TypeVar("_T")
_Item = TypeVar("_Item")


def stoppable(work: Callable[[Callable[[], bool]], _T], cancelled: Callable[[], bool]) -> _T:
    """Do `work` in a thread of its own, and give back what it returns or raises.

    work is given a function that tells whether it has been left behind. Raises Cancelled within a fraction of a second
    when cancelled() turns true, and passes on Ctrl-C as soon, whatever `work` waits for.
    """
    left = threading.Event()
    ended: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((work(left.is_set), None))
        except BaseException as error:  # whatever it is, it is raised where somebody waits for it
            ended.put((None, error))

    # A daemon: a program that was stopped must not wait for it either.
    thread = threading.Thread(target=run, name="koshi-network", daemon=True)
    thread.start()
    try:
        while True:
            if cancelled():
                raise Cancelled
            try:
                made, error = ended.get(timeout=LOOK)
                break
            except queue.Empty:
                continue
    except BaseException:  # Cancelled, Ctrl-C
        left.set()
        thread.join(FAREWELL)
        raise
    if error is not None:
        raise error
    return made  # type: ignore[return-value]


def for_each(items: Iterable[_Item], do: Callable[[_Item], object], at_once: int, left: Callable[[], bool]) -> None:
    """Do it to all items, several at once, in threads that no program waits for when it ends.

    (concurrent.futures' are waited for.) The first error ends it, as being left does; it is raised once all are still.
    """
    waiting: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    errors: list[BaseException] = []

    def run() -> None:
        while not errors and not left():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                do(item)
            except BaseException as error:  # raised below
                errors.append(error)

    threads = [threading.Thread(target=run, name="koshi-network", daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    if left():
        raise Cancelled

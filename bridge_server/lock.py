# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock between processes that the system releases by itself, even when its holder is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType


class FileLock:
    """Tries once to lock `path`; `held` says whether it worked.

    The file is created, and never removed: removing it would let two holders in. A context manager. Raises
    OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = False
        self._file = -1

    def __enter__(self) -> FileLock:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock()
            self.held = True
        except OSError:  # someone else holds it
            self.held = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)  # releases the lock
        self.held = False

    def _lock(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

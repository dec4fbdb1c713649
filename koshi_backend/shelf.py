# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of files by their keys, of bounded size: written aside and renamed into place, the least recently used ones
go first. Standard library only."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

SUFFIX = ".safetensors"


class Shelf:
    """Where things are kept that can be made again.

    root: the folder, made when needed. limit: bytes above which old entries go.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit
        self._bytes: int | None = None  # running total; None until the folder has been walked

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}{SUFFIX}"

    def _keep(self, path: Path, payload: bytes) -> None:
        """Write an entry, and let old ones go. Raises OSError."""
        self._write(path, payload)
        if self._bytes is not None:
            self._bytes += len(payload)
        self._evict(keep=path)

    def _write(self, path: Path, payload: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def _used(self, path: Path) -> None:
        """An entry was read: the eviction goes by the time of its file."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def _entries(self) -> list[tuple[float, int, Path]]:
        found: list[tuple[float, int, Path]] = []
        for path in self.root.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _sweep(self) -> None:
        """Remove what killed writers have left behind; an hour is longer than any write takes."""
        for path in self.root.glob("??/.part-*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - 3600:
                    path.unlink()

    def _evict(self, keep: Path) -> None:
        """Remove the least recently used entries, down to nine tenths of the limit so that it is not done each time."""
        if self._bytes is None:
            self._sweep()
            self._bytes = sum(size for _, size, _ in self._entries())
        if self._bytes <= self.limit:
            return
        entries = sorted(self._entries())
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._bytes <= self.limit * 0.9:
                break
            if path == keep:
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                self._bytes -= size

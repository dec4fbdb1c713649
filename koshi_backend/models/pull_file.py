# SPDX-License-Identifier: GPL-3.0-or-later
"""One large file from the hub: it goes on where it was broken off, and counts only if its checksum is right.

The hub's client does the talking (`http_get`), into a file of a fixed name, for the one that `hf_hub_download` writes
has a new name each time and is deleted when anything goes wrong (huggingface_hub 2.4, `_download_to_tmp_and_move`).
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ..errors import Cancelled, KoshiError

log = logging.getLogger(__name__)

PARTIAL = ".incomplete"  # after the checksum: the hub's own ending for such files, which `hf cache` knows
CHUNK = 1 << 20  # bytes that arrive at once; the client's own 10 MB are a minute on a slow line
TRIES = 3  # of connections that break without a byte in between, on top of the client's own
# Seconds between the tries to move a file in place that another thread has open, which Windows refuses.
MOVES = (0.1, 0.2, 0.4, 0.8)


class Arriving(io.RawIOBase):
    """A partial file that is written to, and the checksum of all that is in it.

    arrived: called with the bytes that are new, less than none where the server begins again. left: whether whoever
    asked for it is gone: then Cancelled is raised before anything more of the file is changed, which may be another
    download's by now.
    """

    def __init__(self, path: Path, arrived: Callable[[int], None], left: Callable[[], bool]) -> None:
        super().__init__()
        self._file = path.open("ab", buffering=0)  # what write() returns is on its way to the disk, kill -9 or not
        self._arrived, self._left = arrived, left
        self._sum = hashlib.sha256()
        try:
            with path.open("rb") as there:
                while data := there.read(CHUNK):
                    self._stop_if_left()
                    self._sum.update(data)
                    arrived(len(data))
            self.length = self._file.tell()
        except BaseException:  # nobody gets it who could close it; Windows moves no file that is open
            self._file.close()
            raise

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            self._stop_if_left()
            count = self._file.write(rest[:CHUNK])
            self._sum.update(rest[:count])
            self.length += count
            self._arrived(count)
            rest = rest[count:]
        return len(data)

    def tell(self) -> int:
        return self.length

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Only to the beginning: the client does so where a server does not give the rest of a file."""
        if offset or whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a download is written from its beginning or at its end")
        self._stop_if_left()
        self._arrived(-self.length)
        self._file.truncate(0)
        self._file.seek(0)
        self._sum, self.length = hashlib.sha256(), 0
        return 0

    def truncate(self, size: int | None = None) -> int:
        return self.length

    def sync(self) -> None:
        """Have it on the disk: a name that is moved in place must not stand for bytes that a power cut has lost."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        super().close()

    def _stop_if_left(self) -> None:
        _stop_if(self._left)


def fetch(
    url: str,
    name: str,
    place: Path,
    size: int,
    sha256: str,
    arrived: Callable[[int], None],
    left: Callable[[], bool],
) -> None:
    """Fetch a file to `place`, whose folder is made.

    name: in its repository, for messages. size, sha256: as the hub gives them. arrived, left: as in `Arriving`.
    Raises KoshiError("bad_checksum"), Cancelled, and what the client and the disk raise; what was fetched is kept
    beside `place`, but for a file of the wrong checksum.
    """
    _stop_if(left)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(sha256 + PARTIAL)
    resumed = False
    if partial.is_file():
        resumed = 0 < partial.stat().st_size <= size
        if not resumed:
            partial.unlink()
    arrived_sum = _arrive(url, partial, size, arrived, left)
    _stop_if(left)  # the disk may have taken longer than anybody waits
    found = partial.stat().st_size
    # The sum is that of what came here: a thread that was left behind may have added something of its own.
    if arrived_sum != sha256 or found != size:
        arrived(-found)
        partial.unlink()
        if resumed:  # the old part may be to blame
            log.warning("%s arrived damaged and is fetched anew", name)
            fetch(url, name, place, size, sha256, arrived, left)
            return
        raise KoshiError(
            "bad_checksum",
            f"{name} arrived damaged: its checksum is not the one that the hub gives. The file was removed.",
            "Pull again. If it comes damaged again, a proxy or a virus scanner may change it on its way.",
        )
    _move(partial, place, left)


def _move(partial: Path, place: Path, left: Callable[[], bool]) -> None:
    for wait in MOVES:
        _stop_if(left)
        try:
            os.replace(partial, place)
            return
        except PermissionError:
            time.sleep(wait)
    _stop_if(left)
    os.replace(partial, place)


def _stop_if(left: Callable[[], bool]) -> None:
    if left():
        raise Cancelled


def _arrive(url: str, partial: Path, size: int, arrived: Callable[[int], None], left: Callable[[], bool]) -> str:
    """Fetch what is missing; returns the whole file's checksum."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    with Arriving(partial, arrived, left) as file:
        tries = TRIES
        while file.length < size:
            before = file.length
            try:
                http_get(
                    url,
                    cast(Any, file),
                    resume_size=file.length,
                    headers=build_hf_headers(),
                    expected_size=size,
                    displayed_filename=partial.name,
                    tqdm_class=_Silent,
                )
            except Exception as error:  # of several HTTP libraries; those that may pass are told by their names
                tries = TRIES if file.length > before else tries - 1
                if not tries or not _passes(error):
                    raise
                log.info("the connection broke (%s); it is taken up again", type(error).__name__)
        file.sync()
        return file.sha256


def _passes(error: BaseException) -> bool:
    """Whether it is worth another try: a broken connection, as against a refusal or a server that is silent."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"ReadError", "RemoteProtocolError"})


@contextmanager
def small_chunks() -> Iterator[None]:
    """Let the hub's client hand on `CHUNK` bytes at a time."""
    from huggingface_hub import constants

    usual = constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = usual


class _Silent:
    """In the place of the client's progress bar: Koshi has its own."""

    def __init__(self, *given: Any, **more: Any) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *given: Any) -> None:
        pass

    def update(self, count: float | None = 1) -> None:
        pass

    def close(self) -> None:
        pass

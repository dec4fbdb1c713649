# SPDX-License-Identifier: GPL-3.0-or-later
"""One large file, and those who fetch it: a thread that was left behind changes nothing any more."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repository, serve

from koshi_backend.errors import Cancelled, KoshiError
from koshi_backend.models import pull_file
from koshi_backend.models.left_behind import stoppable
from koshi_backend.models.pull_file import PARTIAL, Arriving, fetch

DATA = bytes(range(256)) * 512
SUM = hashlib.sha256(DATA).hexdigest()
NAME = "a.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({"a/b": Repository({NAME: DATA})})) as served:
        yield served


def get(place: Path, left: Callable[[], bool] = lambda: False, hub: Hub | None = None) -> None:
    url = f"{hub.address}/a/b/resolve/main/{NAME}" if hub else "http://127.0.0.1:1/"  # where nothing is to be asked
    fetch(url, NAME, place, len(DATA), SUM, lambda count: None, left)


def partial_of(place: Path, data: bytes) -> Path:
    partial = place.with_name(SUM + PARTIAL)
    partial.write_bytes(data)
    return partial


def flushing(patch: pytest.MonkeyPatch, *do: Callable[[], object]) -> None:
    """What happens while the disk flushes, the first time, the second time..."""
    usual, first = os.fsync, list(do)

    def fsync(file: int) -> None:
        usual(file)
        if first:
            first.pop(0)()

    patch.setattr(os, "fsync", fsync)


def test_who_is_left_while_the_disk_flushes_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes longer than the farewell; it is done while the same file is fetched again."""
    place, flushes, done, over = tmp_path / "whole", threading.Event(), threading.Event(), threading.Event()
    partial = partial_of(place, DATA)
    errors: list[BaseException] = []

    def slow() -> None:
        flushes.set()
        assert done.wait(30)

    def meanwhile() -> None:
        done.set()
        assert over.wait(30)
        assert partial.is_file() and not place.exists()

    def work(left: Callable[[], bool]) -> None:
        try:
            get(place, left)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            over.set()

    flushing(monkeypatch, slow, meanwhile)
    with pytest.raises(Cancelled):
        stoppable(work, flushes.is_set)
    get(place)
    assert place.read_bytes() == DATA and not partial.exists()
    assert [type(error) for error in errors] == [Cancelled]


@pytest.mark.parametrize("data", [b"", DATA, DATA + b"more", b"x" * len(DATA)])
def test_who_is_left_begins_no_other_file(data: bytes, tmp_path: Path) -> None:
    partial = partial_of(tmp_path / "whole", data)
    with pytest.raises(Cancelled):
        get(tmp_path / "new" / "whole", lambda: True)
    with pytest.raises(Cancelled):
        get(tmp_path / "whole", lambda: True)
    assert list(tmp_path.iterdir()) == [partial] and partial.read_bytes() == data


def test_who_is_left_removes_nothing_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    partial = partial_of(tmp_path / "whole", b"x" * len(DATA))
    flushing(monkeypatch, gone.set)
    with pytest.raises(Cancelled):
        get(tmp_path / "whole", gone.is_set)
    assert partial.stat().st_size == len(DATA)


@pytest.mark.parametrize("resumed", [True, False])
def test_what_another_has_added_is_no_part_of_the_file(
    resumed: bool, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of what came is right, and the file is not."""
    place = tmp_path / "whole"
    partial = place.with_name(SUM + PARTIAL)
    if resumed:
        partial_of(place, DATA[:1000])

    def add() -> None:
        with partial.open("ab") as other:
            other.write(b"late")

    flushing(monkeypatch, add)
    if resumed:
        get(place, hub=hub)
        assert place.read_bytes() == DATA
    else:
        with pytest.raises(KoshiError, match="arrived damaged"):
            get(place, hub=hub)
        assert not place.exists()
    assert not partial.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed by Linux")
def test_no_file_stays_open_where_it_ends_before_it_begins(tmp_path: Path) -> None:
    """Windows would move and delete it nowhere."""
    partial = partial_of(tmp_path / "whole", DATA)
    with pytest.raises(Cancelled) as caught:
        Arriving(partial, lambda count: None, lambda: True)
    there = {os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()}
    assert str(partial) not in there and caught.value  # which holds all that was made until then


@pytest.mark.parametrize("times", [2, 99])
def test_a_file_that_another_has_open_still_is_moved_later(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows refuses it."""
    place, usual, refused = tmp_path / "whole", os.replace, []
    partial_of(place, DATA)

    def replace(source: Path, target: Path) -> None:
        if len(refused) < times:
            refused.append(source)
            raise PermissionError(13, "used by another process")
        usual(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(pull_file, "MOVES", (0.01, 0.02, 0.04))
    if times == 2:
        get(place)
        assert place.read_bytes() == DATA
    else:
        with pytest.raises(PermissionError):
            get(place)
        assert len(refused) == 4 and place.with_name(SUM + PARTIAL).is_file()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame store: what goes in comes out, damage is noticed, old entries go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from koshi_backend.errors import KoshiError
from koshi_backend.store import Entry, FrameStore

KEY = "ab" * 32


def entry(seed: int = 0, side: int = 16) -> Entry:
    generator = np.random.default_rng(seed)
    return Entry(
        generator.integers(0, 65536, (side, side, 3), dtype=np.uint16),
        b"\x89PNG" + generator.bytes(100),
        generator.normal(size=6),
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    store, first = FrameStore(tmp_path), entry()
    store.put(KEY, first)
    again = FrameStore(tmp_path).get(KEY)
    assert again is not None
    assert np.array_equal(again.picture, first.picture)
    assert again.png == first.png == store.png(KEY)
    assert np.array_equal(again.anchor, first.anchor)
    assert store.get("cd" * 32) is None


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flipped_bit_or_a_cut_counts_as_missing(tmp_path: Path, place: float) -> None:
    store = FrameStore(tmp_path)
    for damage in ("flip", "cut"):
        store.put(KEY, entry())
        path = store.path(KEY)
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[int(len(data) * place)] ^= 0x10
        else:
            data = data[: int(len(data) * place)]
        path.write_bytes(bytes(data))
        assert store.get(KEY) is None
        assert not path.exists()


def test_an_entry_under_another_key_is_not_believed(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    store.put(KEY, entry())
    other = "ac" * 32
    store.path(other).parent.mkdir(parents=True, exist_ok=True)
    os.replace(store.path(KEY), store.path(other))
    assert store.get(other) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    size = 64 * 64 * 6 + 800
    store = FrameStore(tmp_path, limit_gb=10 * size / 1e9)
    keys = [f"{k:064x}" for k in range(16)]
    for age, key in enumerate(keys):
        store.put(key, entry(age, 64))
        if store.path(keys[0]).exists():
            store.get(keys[0])  # used all the time
        for path in tmp_path.rglob("*.safetensors"):  # make times differ on coarse file systems
            stamp = path.stat().st_mtime - 10
            os.utime(path, (stamp, stamp))
        os.utime(store.path(key))
        os.utime(store.path(keys[0]))
    kept = {path.stem for path in tmp_path.rglob("*.safetensors")}
    assert keys[0] in kept
    assert keys[-1] in kept
    assert keys[1] not in kept
    assert sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors")) <= store.limit


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(KoshiError, match="cannot be written") as caught:
        FrameStore(blocked).put(KEY, entry())
    assert caught.value.code == "store_write"


@pytest.mark.parametrize("text", ["x", "0", "-3", "nan"])
def test_a_bad_limit_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KOSHI_STORE_GB", text)
    with pytest.raises(KoshiError, match="KOSHI_STORE_GB"):
        FrameStore()


def test_kill_9_while_writing_leaves_whole_entries_only(tmp_path: Path) -> None:
    """A writer is killed in mid-flight a few times; what is there afterwards is readable, or not there."""
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from koshi_backend.store import Entry, FrameStore\n"
        "store = FrameStore(Path(sys.argv[1])); print('go', flush=True); k = 0\n"
        "while True:\n"
        "    store.put(f'{k % 50:064x}', Entry(np.full((256, 256, 3), k, np.uint16), bytes(9), np.zeros(6))); k += 1\n"
    )
    for delay in (0.03, 0.11, 0.27):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    store = FrameStore(tmp_path)
    entries = list(tmp_path.rglob("*.safetensors"))
    assert entries
    assert all(store.get(path.stem) is not None for path in entries)

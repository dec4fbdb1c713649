# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame store: finished frames on disk, by the frame chain's key.

One entry is one safetensors file with the picture in 16 bits (what the next frame is made from), the PNG that is
handed out, and the colour anchor. Writes are atomic, a damaged entry is noticed by its checksum and counts as
missing, and the least recently used entries go when the store outgrows its limit. No torch: the server process
reads PNGs from here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import KoshiError
from .paths import store_folder
from .shelf import Shelf

log = logging.getLogger(__name__)

DEFAULT_LIMIT_GB = 20.0
_STATE = "state."


@dataclass(frozen=True)
class Entry:
    """One finished frame.

    picture: uint16 [H, W, 3], sRGB, 0..65535: the exact picture that the next frame starts from.
    png: the same in 8 bits, as a PNG file.
    anchor: float64 vector that colours are matched to; its layout is the feedback module's business.
    state: what else the next frame goes on from, by name, such as the noise that is carried along.
    """

    picture: np.ndarray
    png: bytes
    anchor: np.ndarray
    state: dict[str, np.ndarray] = field(default_factory=dict)


class FrameStore(Shelf):
    """A folder of entries.

    root: the folder, made when needed; default KOSHI_STORE, else the user's cache folder.
    limit_gb: size in 10^9 bytes above which old entries go; default KOSHI_STORE_GB, else 20.
    """

    def __init__(self, root: Path | None = None, limit_gb: float | None = None) -> None:
        limit = int((limit_gb if limit_gb is not None else _limit_from_environment()) * 1e9)
        super().__init__(Path(root) if root is not None else store_folder(), limit)

    def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none or it is damaged (it is then removed)."""
        tensors = self._read(key)
        if tensors is None:
            return None
        state = {name.removeprefix(_STATE): array for name, array in tensors.items() if name.startswith(_STATE)}
        return Entry(tensors["picture"], tensors["png"].tobytes(), tensors["anchor"], state)

    def png(self, key: str) -> bytes | None:
        """The PNG alone, checked, without reading the large picture."""
        tensors = self._read(key, ("png",))
        return None if tensors is None else tensors["png"].tobytes()

    def put(self, key: str, entry: Entry) -> None:
        """Write an entry: aside, to the disk, then renamed into place.

        Raises KoshiError("store_write") when the disk is full or the folder cannot be written.
        """
        tensors: dict[str, np.ndarray] = {
            "picture": np.ascontiguousarray(entry.picture, dtype=np.uint16),
            "png": np.frombuffer(entry.png, dtype=np.uint8),
            "anchor": np.ascontiguousarray(entry.anchor, dtype=np.float64),
            **{_STATE + name: np.ascontiguousarray(array) for name, array in entry.state.items()},
        }
        sums = {name: _checksum(tensors[name]) for name in tensors}
        payload = save(tensors, metadata={"key": key, "sha256": json.dumps(sums)})
        try:
            self._keep(self.path(key), payload)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise KoshiError(
                "store_write",
                f"The frame store {self.root} cannot be written: {error.strerror}.",
                "Free some disk space, or set KOSHI_STORE to a folder on another disk."
                if full
                else "Set KOSHI_STORE to a folder that you may write to.",
            ) from error

    def _read(self, key: str, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray] | None:
        """Some tensors of an entry, or all of them."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                meta: dict[str, Any] = file.metadata() or {}
                sums = json.loads(meta.get("sha256", "{}"))
                tensors = {name: file.get_tensor(name) for name in names or file.keys()}
            damaged = meta.get("key") != key or any(sums.get(n) != _checksum(t) for n, t in tensors.items())
            damaged |= names is None and sums.keys() != tensors.keys()
        except FileNotFoundError:
            return None  # evicted by another process just now
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("store entry %s cannot be read: %s", key[:12], error)
            damaged = True
        if damaged:
            log.warning("store entry %s is damaged and will be made again", key[:12])
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self._used(path)
        return tensors


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _limit_from_environment() -> float:
    text = os.environ.get("KOSHI_STORE_GB", "")
    if not text:
        return DEFAULT_LIMIT_GB
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1e9:
        raise KoshiError("bad_setting", f"KOSHI_STORE_GB is {text!r}.", "Set it to a positive number of gigabytes.")
    return limit

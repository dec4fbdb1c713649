# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file holds, as a hash: the same for two renders of the same picture. Standard library and NumPy only."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from .exr import content_hash as exr_hash

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"tIME")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; of OpenEXR and PNG without the texts, where Blender notes how long the render took."""
    path = Path(path)
    ending = path.suffix.lower()
    known = exr_hash(path) if ending == ".exr" else _png_hash(path.read_bytes()) if ending == ".png" else None
    if known is not None:
        return known
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _png_hash(data: bytes) -> str | None:
    """None for what is no sound PNG file."""
    if not data.startswith(_PNG):
        return None
    found, place = hashlib.sha256(), len(_PNG)
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind not in _TEXTS:
            found.update(data[place : place + 12 + size])
        place += 12 + size
    return found.hexdigest() if place == len(data) else None

# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenEXR files to arrays: single and multi-layer, single and multi-part, as every Blender version writes them.

OpenCV's wheels are built without OpenEXR from version 5 on and read only four channels before it, hence this reader.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import KoshiError
from .codecs import COMPRESSIONS, Channel, Compression, raw_size

_MAGIC = 20000630
_LARGEST_SIDE = 16384
_LARGEST_BYTES = 1 << 31  # of the arrays made from one file
_READABLE = "Save it from Blender as OpenEXR with the codec ZIP."


@dataclass(frozen=True)
class _Part:
    """One picture of the file. window, display: x and y of the first and of the last pixel."""

    channels: list[Channel]
    compression: Compression
    window: tuple[int, int, int, int]
    display: tuple[int, int, int, int]
    chunks: int

    @property
    def width(self) -> int:
        return self.window[2] - self.window[0] + 1

    @property
    def height(self) -> int:
        return self.window[3] - self.window[1] + 1


def read_exr(path: str | Path, wanted: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
    """The channels of an OpenEXR file by their full names ("ViewLayer.Depth.Z"), each [H, W], top line first.

    Half and float become float32, unsigned integers uint32. All arrays have the size of the whole picture: where a
    border render stored less, the rest is 0. wanted: which channel names to read, all without it.
    Codecs: NONE, RLE, ZIPS, ZIP, PIZ, PXR24. Prefer ZIP: a float channel of 1024 x 1024 takes 60 ms, with PIZ 1.1 s.
    Raises KoshiError("bad_exr").
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise KoshiError("bad_exr", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise KoshiError("bad_exr", f"{path} cannot be read: {error}.", "Check the path.") from error
    try:
        return _read(data, wanted or (lambda name: True))
    except (struct.error, zlib.error, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise KoshiError(
            "bad_exr", f"{path} is damaged, cut short or no OpenEXR file ({error}).", "Render it again."
        ) from error
    except _Unreadable as error:
        raise KoshiError("bad_exr", f"{path} {error}.", _READABLE) from error


def content_hash(path: str | Path) -> str | None:
    """SHA-256 of what a file holds, but for the texts in its header: Blender writes there how long the render took, so
    that no two files of the same picture are the same. None for what is no such file as `read_exr` reads."""
    data = Path(path).read_bytes()
    found = hashlib.sha256()
    try:
        parts, place = _parts(data, lambda name, kind, value: found.update(name + kind + value))
    except (struct.error, ValueError, IndexError, OverflowError, _Unreadable):
        return None
    # The table of places comes next: those move with the length of the texts.
    found.update(data[place + 8 * sum(part.chunks for part in parts) :])
    return found.hexdigest()


class _Unreadable(Exception):
    """A sound file of a kind that this reader does not know; the message goes on after the file's name."""


def _parts(
    data: bytes, tell: Callable[[bytes, bytes, bytes], None] | None = None
) -> tuple[list[_Part], int]:
    """The pictures of a file, and where their tables of chunks begin. tell: gets name, type and value of whatever is
    not text for people."""
    magic, version = struct.unpack_from("<II", data)
    if magic != _MAGIC:
        raise ValueError("it does not begin as one")
    if version & 0xFF != 2 or version & 0xA00:
        raise _Unreadable("holds tiles or deep pixels" if version & 0xA00 else f"is of version {version & 0xFF}")
    several = bool(version & 0x1000)
    parts, place = [], 8
    while not (several and data[place] == 0):
        part, place = _header(data, place, tell)
        parts.append(part)
        if not several:
            break
    return parts, place + several


def _read(data: bytes, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    parts, place = _parts(data)
    several = bool(data[5] & 0x10)
    out: dict[str, np.ndarray] = {}
    for part in parts:
        offsets = struct.unpack_from(f"<{part.chunks}Q", data, place)
        place += 8 * part.chunks
        names = [channel.name for channel in part.channels if wanted(channel.name)]
        if names:
            out |= _pixels(data, part, offsets, names, 4 * several, sum(a.nbytes for a in out.values()))
    return out


def _header(
    data: bytes, place: int, tell: Callable[[bytes, bytes, bytes], None] | None = None
) -> tuple[_Part, int]:
    fields: dict[str, bytes] = {}
    while data[place]:
        name, place = _text(data, place)
        kind, place = _text(data, place)
        (size,) = struct.unpack_from("<I", data, place)
        fields[name] = data[place + 4 : place + 4 + size]
        place += 4 + size
        if tell is not None and (kind != "string" or name in ("name", "type")):
            tell(name.encode(), kind.encode(), fields[name])
        if name == "type" and fields[name] not in (b"scanlineimage", b"scanlineimage\0"):
            raise _Unreadable("holds tiles or deep pixels")
    for name in ("channels", "compression", "dataWindow", "displayWindow"):
        if name not in fields:
            raise ValueError(f"the header lacks {name}")
    number = fields["compression"][0]
    if number >= len(COMPRESSIONS):
        raise _Unreadable(f"is packed by an unknown codec ({number})")
    window = struct.unpack("<4i", fields["dataWindow"])
    display = struct.unpack("<4i", fields["displayWindow"])
    for box in (window, display):
        for first, last in (box[::2], box[1::2]):
            if not 0 <= last - first < _LARGEST_SIDE:
                raise ValueError(f"a side of {last - first + 1} pixels")
    compression = COMPRESSIONS[number]
    chunks = -(-(window[3] - window[1] + 1) // compression.lines)
    return _Part(_channels(fields["channels"]), compression, window, display, chunks), place + 1


def _channels(data: bytes) -> list[Channel]:
    channels, place = [], 0
    while data[place]:
        name, place = _text(data, place)
        kind, _, across, down = struct.unpack_from("<I4sII", data, place)
        place += 16
        if kind > 2 or (across, down) != (1, 1):
            raise _Unreadable(f"stores the channel {name} in an unusual way")
        channels.append(Channel(name, kind))
    return channels


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(b"\0", place, place + 256)
    return data[place:end].decode("utf-8", "replace"), end + 1


def _pixels(
    data: bytes, part: _Part, offsets: tuple[int, ...], names: list[str], skip: int, held: int
) -> dict[str, np.ndarray]:
    decode = part.compression.decode
    if decode is None:
        raise _Unreadable(f"is packed by {part.compression.name}, which loses depth or is not read by Koshi")
    if held + 4 * len(names) * part.width * part.height > _LARGEST_BYTES:
        raise _Unreadable("is larger than 2 GiB unpacked")
    out = {
        channel.name: np.zeros((part.height, part.width), np.uint32 if channel.kind == 0 else np.float32)
        for channel in part.channels
        if channel.name in names
    }
    left = set(range(0, part.height, part.compression.lines))
    for offset in offsets:
        y, size = struct.unpack_from("<iI", data, offset + skip)
        y -= part.window[1]
        if y not in left:
            raise ValueError("a chunk is missing")
        left.remove(y)
        lines = min(part.compression.lines, part.height - y)
        chunk = data[offset + skip + 8 : offset + skip + 8 + size]
        # A chunk that would not have become smaller is stored as it is.
        if size != raw_size(part.channels, part.width, lines):
            chunk = decode(chunk, part.channels, part.width, lines)
        table = np.frombuffer(chunk, np.uint8).reshape(lines, -1)
        place = 0
        for channel in part.channels:
            end = place + part.width * channel.size
            if channel.name in out:
                out[channel.name][y : y + lines] = np.ascontiguousarray(table[:, place:end]).view(channel.dtype)
            place = end
    return {name: _on_display(array, part) for name, array in out.items()}


def _on_display(array: np.ndarray, part: _Part) -> np.ndarray:
    """From the window that was stored to the whole picture."""
    if part.window == part.display:
        return array
    left, top, right, bottom = part.display
    out = np.zeros((bottom - top + 1, right - left + 1), array.dtype)
    x0, y0 = max(left, part.window[0]), max(top, part.window[1])
    x1, y1 = min(right, part.window[2]) + 1, min(bottom, part.window[3]) + 1
    if x0 < x1 and y0 < y1:
        x, y = part.window[:2]
        out[y0 - top : y1 - top, x0 - left : x1 - left] = array[y0 - y : y1 - y, x0 - x : x1 - x]
    return out

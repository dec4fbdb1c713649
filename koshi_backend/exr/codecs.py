# SPDX-License-Identifier: GPL-3.0-or-later
"""The lossless ways in which an OpenEXR chunk is packed (and PXR24, which only rounds floats to 24 bits).

Every decoder turns a chunk into the bytes of the uncompressed form: line by line, and in a line channel by channel.
A chunk that cannot be what the header says raises ValueError or zlib.error.
Source of the formats: the OpenEXR file layout document and OpenEXRCore's internal_{rle,zip,pxr24}.c.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .piz import unpack_piz


@dataclass(frozen=True)
class Channel:
    """name: as in the file. kind: 0 unsigned integers, 1 half, 2 float."""

    name: str
    kind: int

    @property
    def size(self) -> int:
        """Bytes of one value."""
        return 2 if self.kind == 1 else 4

    @property
    def dtype(self) -> str:
        return ("<u4", "<f2", "<f4")[self.kind]


Decoder = Callable[[bytes, list[Channel], int, int], bytes]


@dataclass(frozen=True)
class Compression:
    """lines: of the picture in one chunk. decode: None where Koshi cannot read it."""

    name: str
    lines: int
    decode: Decoder | None


def raw_size(channels: list[Channel], width: int, lines: int) -> int:
    """Bytes of an uncompressed chunk."""
    return width * lines * sum(channel.size for channel in channels)


def _inflate(data: bytes, size: int) -> bytes:
    """zlib, never more than `size` bytes, whatever the file claims."""
    out = zlib.decompressobj().decompress(data, size)
    if len(out) != size:
        raise ValueError("a chunk is too short")
    return out


def _unpredict(data: bytes) -> bytes:
    """Undo the byte differences, then the split into even and odd bytes."""
    coded = np.frombuffer(data, np.uint8)
    # Each byte is stored as its difference to the one before plus 128: the sum has 128 too much at odd places.
    plain = np.cumsum(coded, dtype=np.uint8)
    plain[1::2] ^= 0x80
    out = np.empty_like(plain)
    half = (len(plain) + 1) // 2
    out[0::2], out[1::2] = plain[:half], plain[half:]
    return out.tobytes()


def _plain(data: bytes, channels: list[Channel], width: int, lines: int) -> bytes:
    raise ValueError("a chunk has the wrong length")  # an uncompressed one of the right length never comes here


def _zip(data: bytes, channels: list[Channel], width: int, lines: int) -> bytes:
    return _unpredict(_inflate(data, raw_size(channels, width, lines)))


def _rle(data: bytes, channels: list[Channel], width: int, lines: int) -> bytes:
    size = raw_size(channels, width, lines)
    out = bytearray()
    place = 0
    while place < len(data) and len(out) <= size:
        count = data[place]
        if count > 127:  # a signed byte below zero: that many bytes as they are
            out += data[place + 1 : place + 257 - count]
            place += 257 - count
        else:
            out += data[place + 1 : place + 2] * (count + 1)
            place += 2
    if len(out) != size:
        raise ValueError("a chunk has the wrong length")
    return _unpredict(bytes(out))


def _pxr24(data: bytes, channels: list[Channel], width: int, lines: int) -> bytes:
    """Planes of bytes, highest first, as differences along the line; floats lack their lowest byte."""
    stored = [3 if channel.kind == 2 else channel.size for channel in channels]
    table = np.frombuffer(_inflate(data, width * lines * sum(stored)), np.uint8).reshape(lines, -1)
    out, place = [], 0
    for channel, count in zip(channels, stored, strict=True):
        planes = table[:, place : place + count * width].reshape(lines, count, width).astype(np.uint32)
        place += count * width
        top = 8 * (channel.size - 1)
        steps = sum(planes[:, k] << np.uint32(top - 8 * k) for k in range(count))
        values = np.cumsum(steps, axis=1, dtype=np.uint32)
        out.append(values.astype(f"<u{channel.size}").view(np.uint8))
    return np.concatenate(out, axis=1).tobytes()


def _piz(data: bytes, channels: list[Channel], width: int, lines: int) -> bytes:
    return unpack_piz(data, [channel.size // 2 for channel in channels], width, lines)


# By the number in the file's header.
COMPRESSIONS = (
    Compression("NONE", 1, _plain),
    Compression("RLE", 1, _rle),
    Compression("ZIPS", 1, _zip),
    Compression("ZIP", 16, _zip),
    Compression("PIZ", 32, _piz),
    Compression("PXR24", 16, _pxr24),
    Compression("B44", 32, None),
    Compression("B44A", 32, None),
    Compression("DWAA", 32, None),
    Compression("DWAB", 256, None),
    Compression("HTJ2K", 256, None),
    Compression("HTJ2K", 32, None),
)

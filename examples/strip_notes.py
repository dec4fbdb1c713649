# SPDX-License-Identifier: GPL-3.0-or-later
"""Take out of pictures what Blender notes in them: where the file lay, when it was rendered, how long that took.

    python examples/strip_notes.py FILE ...

PNG and OpenEXR, in place; no pixel is touched. Standard library only: make_guides.py does this inside of Blender.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_PNG = b"\x89PNG\r\n\x1a\n"
_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
_EXR, _SEVERAL_PARTS = 20000630, 0x1000


def strip(path: Path) -> int:
    """Strip one file; how many bytes that made it smaller. Raises ValueError for another kind of file."""
    data = path.read_bytes()
    if data.startswith(_PNG):
        kept = _strip_png(data)
    elif data[:4] == struct.pack("<I", _EXR):
        kept = _strip_exr(data)
    else:
        raise ValueError(f"{path} is no PNG and no OpenEXR.")
    if kept != data:
        path.write_bytes(kept)
    return len(data) - len(kept)


def _strip_png(data: bytes) -> bytes:
    kept, at = [_PNG], len(_PNG)
    while at < len(data):
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if data[at + 4 : at + 8] not in _NOTES:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _strip_exr(data: bytes) -> bytes:
    """Without its texts, but for the one by which Blender knows its own layers. The table of places is moved up."""
    if struct.unpack_from("<I", data, 4)[0] & _SEVERAL_PARTS:
        raise ValueError("OpenEXR files of several parts are not stripped.")
    kept, at = [data[:8]], 8
    while data[at]:
        kind = data.index(b"\0", at) + 1
        size = data.index(b"\0", kind) + 1
        end = size + 4 + struct.unpack_from("<I", data, size)[0]
        if data[kind : size - 1] != b"string" or data[at:].startswith(b"Blender"):
            kept.append(data[at:end])
        at = end
    header = b"".join(kept) + b"\0"
    start, less = at + 1, at + 1 - len(header)
    # The first row of pixels lies behind the table, so its place says how long that is.
    count = (struct.unpack_from("<Q", data, start)[0] - start) // 8
    places = struct.unpack_from(f"<{count}Q", data, start)
    if min(places) != start + 8 * count:
        raise ValueError("its rows are not in order.")
    return header + struct.pack(f"<{count}Q", *(place - less for place in places)) + data[start + 8 * count :]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {strip(Path(name))} bytes less")

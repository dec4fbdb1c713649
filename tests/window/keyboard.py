# SPDX-License-Identifier: GPL-3.0-or-later
"""A real key on the X server's keyboard, where simulated events do not reach: Blender stops a render of its own at an
Esc that comes from the window system, and at no other."""

from __future__ import annotations

import os
import socket
import struct

CODES = {"ESC": 9, "F12": 96}  # of a PC's keyboard, which Xvfb has


def press(*names: str) -> None:
    """Press and release keys, by the XTEST extension; what is under the mouse gets them."""
    number = os.environ["DISPLAY"].partition(":")[2].partition(".")[0]
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(10)
        server.connect(f"/tmp/.X11-unix/X{number}")
        server.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        accepted, _, _, more = struct.unpack("<BxHHH", _take(server, 8))
        assert accepted == 1
        _take(server, 4 * more)
        server.sendall(struct.pack("<BxHHxx8s", 98, 4, 5, b"XTEST"))  # QueryExtension
        present, opcode = _take(server, 32)[8:10]
        assert present
        for name in names:
            for kind in (2, 3):  # pressed, released
                server.sendall(struct.pack("<BBHBBxxII8xhh7xB", opcode, 2, 9, kind, CODES[name], 0, 0, 0, 0, 0))
        server.sendall(struct.pack("<BxH", 43, 1))  # a question, so that the answer tells that all of it was done
        _take(server, 32)


def _take(server: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = server.recv(count - len(data))
        assert more, "the X server hung up"
        data += more
    return data

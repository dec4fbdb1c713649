# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire protocol of Koshi: framed messages, the handshake, and the connection file.

Nothing here does I/O on a socket: a `Decoder` takes bytes in any portions and gives messages, `pack` makes
the bytes of one message. Client, server and worker share both, so there is one reading of the format.
Standard library only, because this module runs inside Blender's Python. docs/protocol.md describes the
format.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import struct
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

PROTOCOL = 1
SOFTWARE = "koshi 0.1.0"
MAGIC = b"KSH1"
PREFIX = struct.Struct("!4sIQ")  # magic, header length, payload length

Header = dict[str, Any]
Message = tuple[Header, bytes]
Address = str | tuple[str, int]


class Limits(NamedTuple):
    """The longest header and payload (bytes) a reader accepts."""

    header: int
    payload: int


LIMITS = Limits(16 * 1024**2, 256 * 1024**2)
# A stranger who has not shown the token yet may not make us hold more than this.
HANDSHAKE_LIMITS = Limits(64 * 1024, 0)


class BridgeError(Exception):
    """What goes wrong between Blender and the server, in words an artist can act on.

    `code` is for programs, `message` says what happened, `hint` what to do; `problems` lists single faults.
    """

    def __init__(self, code: str, message: str, hint: str = "", problems: list[Header] | None = None) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint
        self.problems = list(problems or [])

    def as_dict(self) -> Header:
        """The error as it travels: {"code", "message", "hint", "problems"}."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "problems": self.problems}

    @classmethod
    def from_dict(cls, data: object) -> BridgeError:
        """The error another process sent; unknown or missing parts get harmless defaults."""
        fields = data if isinstance(data, dict) else {}
        problems = fields.get("problems")
        return cls(
            str(fields.get("code") or "unknown"),
            str(fields.get("message") or "The Koshi server reported an error without saying which."),
            str(fields.get("hint") or ""),
            [p for p in problems if isinstance(p, dict)] if isinstance(problems, list) else [],
        )


def log_problems(lines: list[str]) -> list[Header]:
    """Lines of a log in the form of `BridgeError.problems`."""
    return [{"field": "log", "frame": None, "value": None, "message": line, "hint": ""} for line in lines]


# Framing


def pack(header: Mapping[str, Any], payload: bytes = b"", limits: Limits = LIMITS) -> bytes:
    """The bytes of one message. Raises BridgeError "message_too_large" or "bad_message" (no JSON)."""
    try:
        # NaN passes: the shot's validator names the field and the frame, a framing error could not.
        text = json.dumps(header, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BridgeError("bad_message", f"This message cannot be written as JSON: {error}.") from error
    _check_sizes(len(text), len(payload), limits)
    return b"".join((PREFIX.pack(MAGIC, len(text), len(payload)), text, payload))


class Decoder:
    """Turns a stream of bytes, cut anywhere, back into messages.

    `feed` adds bytes, `next` takes the first whole message out. Sizes are checked as soon as the 16-byte
    prefix is there, before anything is kept for them. After an error the stream is lost: close the
    connection. `limits` may be changed between two messages.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished message are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Adds bytes as they came from the stream."""
        self._buffer += data

    def next(self) -> Message | None:
        """The next message, None while incomplete. Raises BridgeError "bad_message", "message_too_large"."""
        start = bytes(self._buffer[: len(MAGIC)])
        if start != MAGIC[: len(start)]:
            raise BridgeError("bad_message", "The other side does not speak Koshi's protocol.")
        if len(self._buffer) < PREFIX.size:
            return None
        _, header_size, payload_size = PREFIX.unpack_from(self._buffer)
        _check_sizes(header_size, payload_size, self.limits)
        body = PREFIX.size + header_size
        if len(self._buffer) < body + payload_size:
            return None
        with memoryview(self._buffer) as view:
            text, payload = bytes(view[PREFIX.size : body]), bytes(view[body : body + payload_size])
        del self._buffer[: body + payload_size]
        return _parse_header(text), payload


def _check_sizes(header: int, payload: int, limits: Limits) -> None:
    for name, size, limit in (("header", header, limits.header), ("payload", payload, limits.payload)):
        if size > limit:
            message = f"A message {name} of {size} bytes is over the limit of {limit}."
            raise BridgeError("message_too_large", message)


def _parse_header(text: bytes) -> Header:
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BridgeError("bad_message", "A message header is not valid JSON.") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise BridgeError("bad_message", 'A message header is not an object with a "type".')
    return header


# Handshake: both sides show that they know the token without sending it.


def new_nonce() -> str:
    """A fresh challenge: 32 hex digits."""
    return secrets.token_hex(16)


def is_nonce(value: object) -> bool:
    """Whether `value` is a challenge of the right form."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) is not None


def proof(token: str, side: str, client_nonce: str, server_nonce: str) -> str:
    """What `side` ("client" or "server") sends to show it knows the token: an HMAC-SHA256 in hex."""
    message = f"{side}:{client_nonce}:{server_nonce}".encode()
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()


def same_proof(expected: str, given: object) -> bool:
    """Compares two proofs in constant time; `given` may be anything a stranger sent."""
    return isinstance(given, str) and hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def hello(nonce: str) -> Header:
    """The client's first message."""
    return {"type": "hello", "protocol": PROTOCOL, "software": SOFTWARE, "nonce": nonce}


def protocol_mismatch(client: object, server: object) -> BridgeError:
    """The error for two protocol numbers that differ; its hint says which side to update."""
    message = f"The Koshi add-on speaks protocol {client!s:.20}, the Koshi backend protocol {server!s:.20}."
    older_client = isinstance(client, int) and isinstance(server, int) and client < server
    if older_client or not isinstance(client, int):
        hint = "Update the Koshi add-on in Blender, then try again."
    else:
        hint = "Update the Koshi backend (run its set-up again) and stop the old server, then try again."
    return BridgeError("protocol_mismatch", message, hint)


# Where things lie


def cache_folder() -> Path:
    """The folder for what Koshi can make again: KOSHI_CACHE, else the user's cache folder of this system."""
    if chosen := os.environ.get("KOSHI_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "koshi"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "koshi"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koshi"


def connection_file() -> Path:
    """The file that says where the server is: KOSHI_CONNECTION, else connection.json in the cache folder."""
    chosen = os.environ.get("KOSHI_CONNECTION")
    return Path(chosen).expanduser() if chosen else cache_folder() / "connection.json"


@dataclass(frozen=True)
class Connection:
    """How to reach one running server.

    address: (host, port), or the path of a Unix socket. started: Unix time.
    """

    address: Address
    token: str
    pid: int
    started: float
    protocol: int = PROTOCOL
    software: str = SOFTWARE

    def __str__(self) -> str:
        return self.address if isinstance(self.address, str) else "{}:{}".format(*self.address)

    def __repr__(self) -> str:
        return f"<Connection {self}, process {self.pid}>"  # never the token: this text may reach a log

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine, so that its process number means something here."""
        return isinstance(self.address, str) or is_loopback(self.address[0])

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all, readable by its owner only."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # created with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file, indent=1)
            os.replace(aside, path)
        except BaseException:  # whatever happened, leave no half file with a token in it; the error goes on
            Path(aside).unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: Path) -> Connection:
        """The connection `path` describes. Raises FileNotFoundError, or BridgeError "bad_connection_file"."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            address = data["address"] if isinstance(data["address"], str) else _host_and_port(data["address"])
            numbers = int(data["pid"]), float(data["started"]), int(data["protocol"])
            return cls(address, str(data["token"]), *numbers, str(data.get("software", "")))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            hint = "Stop the Koshi server if it still runs, delete this file, and start the server again."
            message = f"The connection file {path} cannot be read."
            raise BridgeError("bad_connection_file", message, hint) from error


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) is reached from this machine only."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _host_and_port(value: object) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("an address is a path or [host, port]")
    return str(value[0]), int(value[1])


def process_alive(pid: int) -> bool:
    """Whether a process with this number exists. It may be a stranger that got the number later."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        import ctypes

        # os.kill(pid, 0) would send Ctrl-C on Windows.
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return False
        code = ctypes.c_ulong()
        ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        ctypes.windll.kernel32.CloseHandle(handle)
        return code.value == 259  # STILL_ACTIVE
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True

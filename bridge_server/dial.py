# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a server and opening a proven connection to it. Standard library only."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

from . import protocol
from .protocol import BridgeError, Connection, Decoder, Header

log = logging.getLogger(__name__)

START_HINT = "Press Start Server in Koshi's panel, or run `koshi serve` in a terminal."


def read_connection(path: Path | None = None) -> Connection:
    """Where the running server is, from its connection file (default: `protocol.connection_file()`).

    Raises BridgeError "server_not_running" if there is no file or its process is gone, "bad_connection_file"
    if the file is damaged. Only `dial` shows that the process is really a Koshi server: numbers get used
    again.
    """
    try:
        connection = Connection.read(path or protocol.connection_file())
    except FileNotFoundError:
        raise BridgeError("server_not_running", "No Koshi server is running.", START_HINT) from None
    if connection.local and not protocol.process_alive(connection.pid):
        message = f"The Koshi server (process {connection.pid}) is not running any more."
        raise BridgeError("server_not_running", message, START_HINT)
    return connection


def dial(connection: Connection, timeout: float = 5.0) -> tuple[socket.socket, Decoder, Header]:
    """Connects and shakes hands within `timeout` seconds; both sides prove that they know the token.

    Returns the socket, the decoder that has read from it, and the server's welcome. Raises BridgeError
    "server_not_running", "no_answer", "wrong_token" or "protocol_mismatch".
    """
    try:
        opened = _open(connection, timeout)
    except OSError as error:
        message = f"No Koshi server answers at {connection} ({error.strerror or error})."
        raise BridgeError("server_not_running", message, START_HINT) from error
    try:
        decoder = Decoder(protocol.HANDSHAKE_LIMITS)
        welcome = _shake_hands(opened, decoder, connection, time.monotonic() + timeout)
        opened.settimeout(timeout)
        return opened, decoder, welcome
    except BaseException:  # an interrupt too must not leave the socket open; the error goes on
        opened.close()
        raise


def _open(connection: Connection, timeout: float) -> socket.socket:
    if not isinstance(connection.address, str):
        opened = socket.create_connection(connection.address, timeout)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system's Python has no Unix sockets")
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(timeout)
        opened.connect(connection.address)
    except BaseException:  # as above
        opened.close()
        raise
    return opened


def _shake_hands(opened: socket.socket, decoder: Decoder, connection: Connection, deadline: float) -> Header:
    mine = protocol.new_nonce()
    try:
        opened.sendall(protocol.pack(protocol.hello(mine)))
        challenge = _answer(opened, decoder, "challenge", deadline)
        if challenge.get("protocol") != protocol.PROTOCOL:
            raise protocol.protocol_mismatch(protocol.PROTOCOL, challenge.get("protocol"))
        theirs = str(challenge.get("nonce"))
        expected = protocol.proof(connection.token, "server", mine, theirs)
        if not protocol.is_nonce(theirs) or not protocol.same_proof(expected, challenge.get("proof")):
            raise _wrong_token(connection)
        answer = protocol.proof(connection.token, "client", mine, theirs)
        opened.sendall(protocol.pack({"type": "proof", "proof": answer}))
        decoder.limits = protocol.LIMITS
        return _answer(opened, decoder, "welcome", deadline)
    except TimeoutError as error:
        raise BridgeError("no_answer", f"The program at {connection} does not answer.", START_HINT) from error
    except (OSError, BridgeError) as error:
        if isinstance(error, BridgeError) and error.code in ("protocol_mismatch", "wrong_token", "busy"):
            raise
        # A stale connection file whose port belongs to another program by now.
        message = f"What answers at {connection} is not a Koshi server."
        log.info("%s (%s)", message, error)
        raise BridgeError("server_not_running", message, START_HINT) from error


def _answer(opened: socket.socket, decoder: Decoder, wanted: str, deadline: float) -> Header:
    while (message := decoder.next()) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        opened.settimeout(left)
        data = opened.recv(1 << 16)
        if not data:
            raise ConnectionResetError("hung up during the handshake")
        decoder.feed(data)
    header = message[0]
    if header["type"] == "error":
        raise BridgeError.from_dict(header.get("error"))
    if header["type"] != wanted:
        raise BridgeError("bad_message", f"Expected {wanted}, got {header['type']}.")
    return header


def _wrong_token(connection: Connection) -> BridgeError:
    message = f"The program at {connection} does not know the secret in the connection file."
    hint = "The file is out of date: stop the old Koshi server and start it again."
    return BridgeError("wrong_token", message, hint)

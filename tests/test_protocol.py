# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire format, the handshake's arithmetic and the connection file, without any process."""

from __future__ import annotations

import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_server import client, protocol
from bridge_server.jobs import FrameRecord, Queue, Subscription
from bridge_server.lock import FileLock
from bridge_server.protocol import BridgeError, Connection, Decoder, Limits, pack

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
headers = st.dictionaries(st.text(), json_values, max_size=5).flatmap(
    lambda rest: st.text(max_size=9).map(lambda kind: {**rest, "type": kind})
)
messages = st.lists(st.tuples(headers, st.binary(max_size=300)), max_size=5)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def drain(decoder: Decoder) -> list[tuple[dict[str, object], bytes]]:
    found = []
    while message := decoder.next():
        found.append(message)
    return found


@given(messages, st.lists(st.integers(0, 10**6), max_size=30))
def test_any_split_of_the_stream_gives_the_same_messages(
    sent: list[tuple[dict[str, object], bytes]], places: list[int]
) -> None:
    stream = b"".join(pack(header, payload) for header, payload in sent)
    decoder, received = Decoder(), []
    for portion in cut(stream, places):
        decoder.feed(portion)
        received += drain(decoder)
    assert received == sent
    assert decoder.pending == 0


@given(headers, st.binary(max_size=100))
def test_no_message_before_its_last_byte(header: dict[str, object], payload: bytes) -> None:
    stream = pack(header, payload)
    decoder = Decoder()
    for byte in stream[:-1]:
        decoder.feed(bytes([byte]))
        assert decoder.next() is None
    decoder.feed(stream[-1:])
    assert decoder.next() == (header, payload)


@given(st.binary(min_size=1, max_size=200))
def test_garbage_is_refused_or_waited_for_but_never_read(noise: bytes) -> None:
    decoder = Decoder(Limits(100, 100))
    decoder.feed(noise)
    try:
        message = decoder.next()
    except BridgeError as error:
        assert error.code in ("bad_message", "message_too_large")
    else:
        assert message is None and protocol.MAGIC.startswith(noise[:4])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_declared_sizes_are_held_to_the_limits(header: int, payload: int) -> None:
    decoder = Decoder(Limits(1000, 5000))
    decoder.feed(protocol.PREFIX.pack(protocol.MAGIC, header, payload))
    if header > 1000 or payload > 5000:
        with pytest.raises(BridgeError, match="over the limit"):
            decoder.next()
    elif header:
        assert decoder.next() is None


def test_an_oversized_message_is_refused_before_memory_is_taken() -> None:
    decoder = Decoder()
    tracemalloc.start()
    try:
        decoder.feed(protocol.PREFIX.pack(protocol.MAGIC, 10, protocol.LIMITS.payload + 1))
        with pytest.raises(BridgeError) as caught:
            decoder.next()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert caught.value.code == "message_too_large"


def test_a_sender_refuses_what_the_other_side_would() -> None:
    with pytest.raises(BridgeError) as caught:
        pack({"type": "x", "text": "a" * 100}, b"", Limits(50, 0))
    assert caught.value.code == "message_too_large"
    with pytest.raises(BridgeError) as caught:
        pack({"type": "x", "what": object()})
    assert caught.value.code == "bad_message"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"null", b'{"type": 3}', b'{"kind": "x"}', b"\xff\xfe", b"[" * 50_000]
)
def test_a_header_must_be_an_object_with_a_type(text: bytes) -> None:
    decoder = Decoder()
    decoder.feed(protocol.PREFIX.pack(protocol.MAGIC, len(text), 0) + text)
    with pytest.raises(BridgeError) as caught:
        decoder.next()
    assert caught.value.code == "bad_message"


def test_text_of_any_language_survives() -> None:
    header = {"type": "submit", "prompt": "море 海 🌊 é \ud800"}  # a lone surrogate
    decoder = Decoder()
    decoder.feed(pack(header))
    assert decoder.next() == (header, b"")


# Handshake


@given(st.text(min_size=1), st.text(min_size=1))
@settings(max_examples=30)
def test_a_proof_depends_on_token_side_and_nonces(token: str, other: str) -> None:
    token, other = token.encode(errors="replace").decode(), other.encode(errors="replace").decode()
    a, b = protocol.new_nonce(), protocol.new_nonce()
    mine = protocol.proof(token, "client", a, b)
    assert protocol.same_proof(protocol.proof(token, "client", a, b), mine)
    assert not protocol.same_proof(protocol.proof(token, "server", a, b), mine)
    assert not protocol.same_proof(protocol.proof(token, "client", b, a), mine)
    assert (token == other) or not protocol.same_proof(protocol.proof(other, "client", a, b), mine)
    assert token not in mine or len(token) < 4


@pytest.mark.parametrize("given_proof", [None, 3, "", "é", "\ud800", ["x"]])
def test_a_proof_of_any_kind_may_be_compared(given_proof: object) -> None:
    assert not protocol.same_proof("00", given_proof)


def test_nonces() -> None:
    assert protocol.is_nonce(protocol.new_nonce())
    assert protocol.new_nonce() != protocol.new_nonce()
    for wrong in (None, "", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n", 5):
        assert not protocol.is_nonce(wrong)


def test_a_mismatch_says_which_side_to_update() -> None:
    assert "Update the Koshi add-on" in protocol.protocol_mismatch(1, 2).hint
    assert "Update the Koshi backend" in protocol.protocol_mismatch(2, 1).hint
    assert "Update the Koshi add-on" in protocol.protocol_mismatch(None, 1).hint


def test_an_error_travels_whole() -> None:
    error = BridgeError("bad_shot", "No.", "Do this.", [{"field": "seed"}])
    again = BridgeError.from_dict(json.loads(json.dumps(error.as_dict())))
    assert again.as_dict() == error.as_dict()
    assert str(error) == "No. Do this."
    assert str(BridgeError("x", "No.")) == "No."
    for odd in (None, 3, [], {}, {"problems": 3}, {"problems": [3]}, {"message": None}):
        assert BridgeError.from_dict(odd).message


# Connection file


def connection(address: protocol.Address = ("127.0.0.1", 5), pid: int | None = None) -> Connection:
    return Connection(address, "secret", pid or os.getpid(), 12.5)


@pytest.mark.parametrize("address", [("127.0.0.1", 4711), "/run/日本 é/koshi.sock"])
def test_the_connection_file_reads_back(tmp_path: Path, address: protocol.Address) -> None:
    path = tmp_path / "new folder" / "connection.json"
    connection(address).write(path)
    assert Connection.read(path) == connection(address)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_token_stays_out_of_logs() -> None:
    assert "secret" not in f"{connection()!r} {connection()}"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"address": 3}', '{"address": ["h"], "token": "t", "pid": 1, "started": 1}']
)
def test_a_damaged_connection_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "connection.json"
    path.write_text(text)
    with pytest.raises(BridgeError) as caught:
        client.read_connection(path)
    assert caught.value.code == "bad_connection_file" and str(path) in caught.value.message


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(BridgeError) as caught:
        client.read_connection(tmp_path / "none.json")
    assert caught.value.code == "server_not_running" and "Start Server" in caught.value.hint


def test_a_dead_servers_file(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    connection(pid=ended.pid).write(tmp_path / "c.json")
    with pytest.raises(BridgeError, match="not running any more"):
        client.read_connection(tmp_path / "c.json")
    # On another machine the number means nothing.
    connection(("render.example", 5), ended.pid).write(tmp_path / "c.json")
    assert client.read_connection(tmp_path / "c.json").pid == ended.pid


def test_process_alive() -> None:
    assert protocol.process_alive(os.getpid())
    for pid in (0, -1, 2**40):
        assert not protocol.process_alive(pid)


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KOSHI_CACHE", str(tmp_path))
    monkeypatch.delenv("KOSHI_CONNECTION", raising=False)
    assert protocol.connection_file() == tmp_path / "connection.json"
    monkeypatch.setenv("KOSHI_CONNECTION", str(tmp_path / "x.json"))
    assert protocol.connection_file() == tmp_path / "x.json"
    monkeypatch.delenv("KOSHI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert protocol.cache_folder() == tmp_path / "xdg" / "koshi"


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True)])
def test_loopback(host: str, local: bool) -> None:
    assert protocol.is_loopback(host) is local


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "127.evil.example", "::", "127.0.0.1.example"])
def test_not_loopback(host: str) -> None:
    assert not protocol.is_loopback(host)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path) as first, FileLock(path) as second:
        assert (first.held, second.held) == (True, False)
    with FileLock(path) as again:
        assert again.held


# What answers is not always a Koshi server


def answer_once(reply: bytes) -> tuple[int, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.recv(1 << 16)
            peer.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return listener.getsockname()[1], thread


def refusal(reply: bytes) -> BridgeError:
    port, thread = answer_once(reply)
    with pytest.raises(BridgeError) as caught:
        client.Client(connection(("127.0.0.1", port)), timeout=2).connect()
    thread.join(5)
    return caught.value


def test_a_web_server_on_a_stale_port() -> None:
    assert refusal(b"HTTP/1.1 400 Bad Request\r\n\r\n").code == "server_not_running"
    assert refusal(b"").code == "server_not_running"


def test_a_giant_answer_before_the_handshake_is_refused() -> None:
    huge = protocol.PREFIX.pack(protocol.MAGIC, protocol.HANDSHAKE_LIMITS.header + 1, 0)
    assert refusal(huge).code == "server_not_running"


def test_a_server_that_does_not_know_the_token_learns_nothing() -> None:
    challenge = {"type": "challenge", "protocol": 1, "nonce": protocol.new_nonce(), "proof": "0" * 64}
    error = refusal(pack(challenge))
    assert error.code == "wrong_token"


def test_a_newer_server() -> None:
    error = refusal(pack({"type": "error", "error": protocol.protocol_mismatch(1, 2).as_dict()}))
    assert error.code == "protocol_mismatch" and "add-on" in error.hint


def test_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dumb = client.Client(connection(listener.getsockname()[:2]), timeout=0.2)
        with pytest.raises(BridgeError) as caught:
            dumb.connect()
    assert caught.value.code == "no_answer"


# Jobs


def test_a_job_is_joined_while_it_is_active() -> None:
    queue = Queue()
    job, attached = queue.submit("d" * 64, {}, 2, 5, "koshi-tiny")
    assert not attached and queue.submit("d" * 64, {}, 2, 5, "koshi-tiny") == (job, True)
    assert queue.take() is job and queue.take() is None
    job.end("done")
    assert queue.submit("d" * 64, {}, 2, 5, "koshi-tiny")[0].id == "d" * 16 + "-2"


@given(st.lists(st.integers(0, 7), max_size=40), st.booleans())
def test_every_frame_once_in_order_however_events_interleave(moves: list[int], late: bool) -> None:
    """Frames come, come again after a worker's death, with progress in between; the reader reads at will."""
    job, _ = Queue().submit("d" * 64, {}, 8, 1, "koshi-tiny")
    subscription = None if late else Subscription(job)
    seen: list[dict[str, object]] = []

    def read() -> None:
        nonlocal subscription
        subscription = subscription or Subscription(job)
        while event := subscription.next():
            seen.append(event)

    for move in moves:
        if move <= len(job.log) and len(job.log) < 8:
            fresh = move == len(job.log)
            assert job.add_frame(move, FrameRecord(move + 1, "k", False), b"png") is fresh
        job.say("working")
        if move % 3 == 0 and not late:
            read()
    job.end("done")
    read()
    indices = [event["index"] for event in seen if event["type"] == "frame"]
    assert indices == list(range(len(job.log)))
    assert [event["type"] for event in seen][-1] == "done"
    assert sum(event["type"] == "done" for event in seen) == 1


def test_a_frame_out_of_order_is_an_error() -> None:
    job, _ = Queue().submit("d" * 64, {}, 8, 1, "koshi-tiny")
    with pytest.raises(BridgeError):
        job.add_frame(1, FrameRecord(1, "k", False), b"")


def test_pictures_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_server.jobs.CACHE", 1000)
    job, _ = Queue().submit("d" * 64, {}, 8, 1, "koshi-tiny")
    for index in range(8):
        job.add_frame(index, FrameRecord(index, "k", False), bytes(400))
    assert [job.picture(index) is not None for index in range(8)] == [False] * 6 + [True] * 2


def test_old_records_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_server.jobs.KEPT", 3)
    monkeypatch.setattr("bridge_server.jobs.MAX_QUEUED", 2)
    queue = Queue()
    for number in range(10):
        queue.submit(f"{number:064}", {}, 1, 1, "koshi-tiny")[0].end("cancelled")
    assert len(queue.jobs) <= 4
    queue.submit("a" * 64, {}, 1, 1, "koshi-tiny")
    queue.submit("b" * 64, {}, 1, 1, "koshi-tiny")
    with pytest.raises(BridgeError) as caught:
        queue.submit("c" * 64, {}, 1, 1, "koshi-tiny")
    assert caught.value.code == "queue_full"

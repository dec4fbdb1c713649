# SPDX-License-Identifier: GPL-3.0-or-later
"""How a render server begins and ends: started once, stopped, killed, left idle, or not started at all and why."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bridge_helpers import ROOT, Rig, frames_of, gone, shot, slow_shot, until

from bridge_server.client import BridgeError, Client, read_connection, start_server
from bridge_server.protocol import Connection

pytest_plugins = ("bridge_helpers",)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_stopping_cleanly_and_one_server_per_connection_file(rig: Rig) -> None:
    connection = rig.start()
    assert stat.S_IMODE(rig.connection_path.stat().st_mode) == 0o600
    second = rig.spawn(stderr=subprocess.PIPE)
    text = second.communicate(timeout=20)[1].decode()
    assert second.returncode == 3
    assert f"process {connection.pid}" in text and str(connection) in text
    with rig.connect() as client:
        client.submit(slow_shot(60))
        worker = rig.worker()
        assert rig.server is not None
        rig.server.send_signal(signal.SIGTERM)
        with pytest.raises(BridgeError) as caught:
            list(client.events())
        assert caught.value.code == "connection_lost"
    assert rig.server.wait(10) == 0
    assert not rig.connection_path.exists()
    assert gone(worker)
    assert "Traceback" not in rig.log.read_text()


def test_an_idle_backend_gives_its_models_memory_back(rig: Rig) -> None:
    rig.start()
    with rig.connect() as client:

        def render(seed: int) -> int:
            client.submit(shot(2, seed=seed))
            return len(frames_of(list(client.events())))

        assert client.release() and "unloaded" not in rig.log.read_text()  # no worker yet
        assert render(1) == 2
        worker = rig.worker()
        client.release()
        until(lambda: "unloaded, to make room: 1" in rig.log.read_text())
        client.release()
        until(lambda: "unloaded, to make room: 0" in rig.log.read_text())
        assert render(2) == 2 and rig.worker() == worker  # the model is loaded again
        client.submit(slow_shot(seed=3))
        list(zip(range(2), client.events()))  # noqa: B905  # some events, so that it renders
        client.release()  # not now
        assert list(client.events())[-1][0]["type"] == "done"
        assert rig.log.read_text().count("unloaded") == 2


def test_kill_9_of_the_server_takes_the_worker_along_and_leaves_no_trap(rig: Rig) -> None:
    rig.start()
    with rig.connect() as client:
        client.submit(slow_shot(60))
        list(zip(range(3), client.events()))  # noqa: B905  # some events, so that it renders
        worker = rig.worker()
        assert rig.server is not None
        rig.server.kill()
        rig.server.wait()
        until(lambda: gone(worker), 5)
        with pytest.raises(BridgeError) as caught:
            list(client.events())
        assert caught.value.code == "connection_lost"
    assert rig.connection_path.exists()
    with pytest.raises(BridgeError) as caught:
        read_connection(rig.connection_path)
    assert caught.value.code == "server_not_running"
    # The number and the port may belong to strangers by now. Two callers start one server all the same.
    stale = Connection.read(rig.connection_path)
    with socket.create_server(("127.0.0.1", 0)) as other:  # accepts, and never says a word
        address = other.getsockname()[:2]
        Connection(address, stale.token, os.getpid(), stale.started).write(rig.connection_path)
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: start_server(sys.executable, ROOT, idle_exit=30), range(2))
    rig.watch(first.pid)
    assert first == second == read_connection(rig.connection_path)
    assert start_server(sys.executable, ROOT) == first
    with Client(first) as client:
        assert client.server["pid"] == first.pid
        client.shutdown()
    until(lambda: gone(first.pid), 10)
    assert not rig.connection_path.exists()
    assert (rig.folder / "cache" / "server.log").exists()


def test_a_server_that_cannot_start_says_why(rig: Rig) -> None:
    empty = rig.folder / "empty"
    empty.mkdir()
    # A Python in which a package is missing.
    python = rig.folder / "python"
    python.write_text(f"#!/bin/sh\nshift 2\nexec {sys.executable} -c 'import pydanticc' \"$@\"\n")
    python.chmod(0o700)
    with pytest.raises(BridgeError) as caught:
        start_server(str(python), empty, wait=20)
    assert caught.value.code == "server_start_failed"
    assert "lacks the package pydanticc" in caught.value.hint and "server.log" in caught.value.hint
    assert any("pydanticc" in problem["message"] for problem in caught.value.problems)
    with pytest.raises(BridgeError) as caught:
        start_server(str(rig.folder / "no python"), ROOT)
    assert caught.value.code == "server_start_failed" and "no python" in caught.value.message


def test_unix_socket_and_idle_exit(rig: Rig) -> None:
    path = rig.folder / "koshi.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    connection = rig.start("--unix", str(path), "--idle-exit", "1")
    assert connection.address == str(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
    with rig.connect() as client:
        time.sleep(1.5)  # a client keeps it alive
        assert client.status()["pid"] == connection.pid
    assert rig.server is not None and rig.server.wait(10) == 0
    assert not path.exists() and not rig.connection_path.exists()


def test_other_computers_are_let_in_only_by_name(rig: Rig) -> None:
    connection = rig.start("--host", "0.0.0.0")
    assert connection.address[0] == "127.0.0.1" and connection.local
    assert "other computers can reach this server" in rig.log.read_text()
    with rig.connect() as client:
        assert client.status()["worker"]["state"] == "stopped"


def test_an_address_that_cannot_be_used(rig: Rig) -> None:
    taken = rig.folder / "a file"
    taken.write_text("precious")
    refused = rig.spawn("--unix", str(taken), stderr=subprocess.PIPE)
    text = refused.communicate(timeout=20)[1].decode()
    assert refused.returncode == 1 and "is not a socket" in text and "Traceback" not in text
    assert taken.read_text() == "precious" and not rig.connection_path.exists()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The server, its worker and real clients: what happens when any of them dies, hangs, lies or comes back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bridge_helpers import ROOT, Rig, before_kinds, frames_of, gone, receive, resident_mib, shot, slow_shot, until

from bridge_server import dial, protocol
from bridge_server.client import BridgeError, Client, read_connection
from bridge_server.protocol import Connection, pack
from koshi_backend.errors import KoshiError

pytest_plugins = ("bridge_helpers",)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One server for all tests that leave it alive."""
    rig = Rig(tmp_path_factory.mktemp("shared é"))
    try:
        rig.start()
        yield rig
    finally:
        rig.close()


# A shot's way


def test_a_shot_comes_back_frame_by_frame_and_again_from_the_store(shared: Rig) -> None:
    with shared.connect() as client:
        reply = client.submit(shot(3))
        assert reply["attached"] is False and reply["job"]["state"] == "queued"
        events = list(client.events())
        pictures = frames_of(events)
        assert [e["number"] for e, _ in events if e["type"] == "frame"] == [11, 12, 13]
        assert all(png.startswith(b"\x89PNG") for png in pictures.values())
        assert events[-1][0] | {"seconds": 0} == {
            "type": "done", "job": reply["job"]["id"], "frames": 3, "made": 3, "stored": 0, "seconds": 0,
        }  # fmt: skip
        assert any(e["type"] == "progress" and e["frames"] == 3 for e, _ in events)
        again = client.submit(shot(3))
        assert again["attached"] is False and again["job"]["id"] != reply["job"]["id"]
        events = list(client.events())
        assert frames_of(events) == pictures
        assert (events[-1][0]["made"], events[-1][0]["stored"]) == (0, 3)
        assert list(client.events()) == []  # nothing is followed any more
        # A job that has ended can still be read from the start.
        client.attach(reply["job"]["id"])
        assert frames_of(list(client.events())) == pictures


def test_only_the_worker_loads_torch(shared: Rig) -> None:
    with shared.connect() as client:
        client.submit(shot(1))
        list(client.events())
    assert "libtorch" in Path(f"/proc/{shared.worker()}/maps").read_text()
    assert shared.server is not None
    assert "libtorch" not in Path(f"/proc/{shared.server.pid}/maps").read_text()


def test_a_bad_shot_is_refused_before_anything_runs(shared: Rig) -> None:
    with shared.connect() as client:
        before = len(client.jobs())
        with pytest.raises(BridgeError) as caught:
            client.submit(shot(3, width=33) | {"schedules": {"zoom": [1.0, float("nan"), 1.0]}})
        assert caught.value.code == "bad_shot"
        assert {problem["field"] for problem in caught.value.problems} >= {"width"}
        assert any("zoom" in problem["field"] for problem in caught.value.problems)
        with pytest.raises(BridgeError) as caught:
            client._request({"type": "submit"})
        assert caught.value.code == "bad_shot"
        for call in (client.attach, client.cancel):
            with pytest.raises(BridgeError) as caught:
                call("no-such-job")
            assert caught.value.code == "unknown_job"
        with pytest.raises(BridgeError) as caught:
            client._request({"type": "dance"})
        assert caught.value.code == "unknown_request"
        assert len(client.jobs()) == before


def test_a_device_that_is_not_there_fails_the_job_and_only_it(shared: Rig) -> None:
    with shared.connect() as client:
        for kind in ("render", "preview", "motion"):
            client.submit(shot(1, seed=77), "cuda:99", kind)
            events = list(client.events())
            assert events[-1][0]["type"] == "failed" and not frames_of(events)
            error = events[-1][0]["error"]
            assert error["code"] == "bad_device" and "no device 'cuda:99'" in error["message"] and error["hint"]
        client.submit(shot(1, seed=77), "cpu")
        assert len(frames_of(list(client.events()))) == 1


def test_a_server_that_knows_no_kinds_is_told_of(shared: Rig) -> None:
    """It would render what was meant as motion: the job is cancelled, and the artist hears what to do."""
    with before_kinds(read_connection(shared.connection_path)) as older, Client(older) as client:
        one = client.submit(shot(1, seed=78))["job"]["id"]  # as older clients say it
        assert len(frames_of(list(client.events()))) == 1
        with pytest.raises(BridgeError) as caught:
            client.submit(slow_shot(seed=79), kind="motion")
        assert caught.value.code == "old_backend"
    with shared.connect() as client:
        first, second = client.jobs()[-2:]
        assert (first["id"], first["state"], second["kind"]) == (one, "done", "render")
        until(lambda: client.jobs()[-1]["state"] == "cancelled")


def test_two_clients_two_jobs_and_a_third_looks_on(shared: Rig) -> None:
    with shared.connect() as one, shared.connect() as two, shared.connect() as three:
        first = one.submit(slow_shot(5, seed=21))["job"]["id"]
        second = two.submit(shot(3, seed=22))["job"]["id"]
        joined = three.submit(slow_shot(5, seed=21))
        assert joined["attached"] and joined["job"]["id"] == first
        with ThreadPoolExecutor(3) as pool:
            a, b, c = pool.map(lambda client: list(client.events(timeout=60)), (one, two, three))
        assert frames_of(a) == frames_of(c) and len(frames_of(a)) == 5
        assert a[-1][0] == c[-1][0] and a[-1][0]["made"] == 5
        assert any("waiting for 1 other job" in e.get("message", "") for e, _ in b)
        assert (b[-1][0]["type"], b[-1][0]["job"], b[-1][0]["made"]) == ("done", second, 3)


def test_a_client_that_dies_comes_back_to_its_job(shared: Rig) -> None:
    program = (
        "import sys, json; from pathlib import Path\n"
        "from bridge_server.client import Client, read_connection\n"
        "client = Client(read_connection(Path(sys.argv[1]))).__enter__()\n"
        "client.submit(json.loads(sys.argv[2]))\n"
        "for event, png in client.events():\n"
        "    if event['type'] == 'frame': print('frame', flush=True)\n"
    )
    job = slow_shot(6, seed=31)
    blender = subprocess.Popen(
        [sys.executable, "-c", program, str(shared.connection_path), json.dumps(job)],
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    shared.watch(blender.pid)
    assert blender.stdout is not None
    assert blender.stdout.readline() == b"frame\n"
    blender.kill()
    blender.wait()
    blender.stdout.close()
    with shared.connect() as client:
        reply = client.submit(job)
        assert reply["attached"] is True and reply["job"]["done"] >= 1
        events = list(client.events(timeout=60))
        assert len(frames_of(events)) == 6
        assert (events[-1][0]["made"], events[-1][0]["stored"]) == (6, 0)


def test_a_worker_killed_in_the_middle_of_a_frame(shared: Rig) -> None:
    job, k = slow_shot(6, seed=41), 3
    with shared.connect() as client:
        worker = None
        client.submit(job)
        events = []
        for event, png in client.events(timeout=60):
            events.append((event, png))
            if worker is None and event["type"] == "progress" and event["index"] == k and event["step"] >= 4:
                worker = shared.worker()
                os.kill(worker, signal.SIGKILL)
        assert worker is not None and gone(worker) and shared.worker() != worker
        assert any("started again" in e.get("message", "") for e, _ in events)
        assert (events[-1][0]["type"], events[-1][0]["made"]) == ("done", 6)
        interrupted = frames_of(events)
        shutil.rmtree(shared.store)
        client.submit(job)
        undisturbed = list(client.events(timeout=60))
        assert undisturbed[-1][0]["made"] == 6
        assert frames_of(undisturbed) == interrupted  # bit for bit


def test_a_worker_that_never_gets_anywhere(shared: Rig) -> None:
    """And the server and its next job are none the worse for it."""
    with shared.connect() as client, shared.connect() as watcher:
        os.kill(shared.worker(), signal.SIGKILL)
        client.submit(shot(2, seed=51))
        killed: set[int] = set()
        while len(killed) < 3:
            status = watcher.status()["worker"]
            if status["job"] and status["pid"] and status["pid"] not in killed:
                os.kill(status["pid"], signal.SIGKILL)
                killed.add(status["pid"])
        ending = list(client.events(timeout=60))[-1][0]
        assert ending["type"] == "failed" and ending["error"]["code"] == "worker_crashed"
        assert str(shared.log) in ending["error"]["hint"] and "memory" in ending["error"]["hint"]
        client.submit(shot(2, seed=51))
        assert list(client.events(timeout=60))[-1][0]["type"] == "done"


def test_cancel_is_answered_at_once_also_while_the_model_loads(shared: Rig) -> None:
    with shared.connect() as client:
        os.kill(shared.worker(), signal.SIGKILL)  # so that a worker has to start and load
        for progress in ("starting", "loading", "frame"):
            job = client.submit(slow_shot(40, seed=61))["job"]["id"]
            for event, _ in client.events(timeout=30):
                if progress in event.get("message", ""):
                    break
            asked = time.monotonic()
            reply = client.cancel(job)
            assert time.monotonic() - asked < 1.0
            assert reply["job"]["state"] == "cancelled"
            assert list(client.events(timeout=5))[-1][0] == {"type": "cancelled", "job": job}
            assert client.cancel(job)["job"]["state"] == "cancelled"  # twice does no harm
        queued_behind = client.submit(shot(1, seed=62))["job"]["id"]
        assert list(client.events(timeout=60))[-1][0]["job"] == queued_behind
        # The worker obeyed each time: nobody had to kill it.
        assert "is killed" not in shared.log.read_text()


def test_one_thread_reads_while_another_asks_and_stops(shared: Rig) -> None:
    with shared.connect() as client:
        job = client.submit(slow_shot(30, seed=71))["job"]["id"]
        stop, events = threading.Event(), []
        reader = threading.Thread(target=lambda: events.extend(client.events(stop=stop)))
        reader.start()
        for _ in range(20):
            assert client.status()["pid"] == client.server["pid"]
        stop.set()
        reader.join(2)
        assert not reader.is_alive()
        client.cancel(job)
        assert list(client.events(timeout=5))[-1][0]["type"] == "cancelled"


def test_closing_wakes_the_reader(shared: Rig) -> None:
    client = shared.connect()
    client.connect()
    job = client.submit(slow_shot(30, seed=72))["job"]["id"]
    caught: list[BridgeError] = []

    def read() -> None:
        try:
            list(client.events())
        except BridgeError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    client.close()
    reader.join(2)
    assert not reader.is_alive() and caught[0].code == "connection_closed"
    with shared.connect() as other:
        assert other.cancel(job)["job"]["state"] == "cancelled"


# Strangers and bad manners


def test_a_wrong_token_is_refused_by_both_sides(shared: Rig) -> None:
    right = read_connection(shared.connection_path)
    with pytest.raises(BridgeError) as caught:
        Client(Connection(right.address, "0" * 64, right.pid, right.started)).connect()
    assert caught.value.code == "wrong_token"
    with shared.stranger() as peer:
        decoder = protocol.Decoder()
        peer.sendall(pack(protocol.hello(protocol.new_nonce())))
        assert receive(peer, decoder)["type"] == "challenge"
        peer.sendall(pack({"type": "proof", "proof": "0" * 64}))
        assert receive(peer, decoder)["error"]["code"] == "wrong_token"
        with pytest.raises(EOFError):
            receive(peer, decoder)
    assert right.token not in shared.log.read_text()


@pytest.mark.parametrize(("theirs", "side"), [(0, "add-on"), (2, "backend"), ("x", "add-on")])
def test_another_protocol_number_says_which_side_to_update(shared: Rig, theirs: object, side: str) -> None:
    with shared.stranger() as peer:
        peer.sendall(pack({**protocol.hello(protocol.new_nonce()), "protocol": theirs}))
        error = receive(peer, protocol.Decoder())["error"]
    assert error["code"] == "protocol_mismatch" and f"Update the Koshi {side}" in error["hint"]


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        pack({"type": "status", "id": 1}),
        pack({"type": "hello", "protocol": 1, "nonce": 5}),
        protocol.PREFIX.pack(protocol.MAGIC, 64 * 1024 + 1, 0),
        protocol.PREFIX.pack(protocol.MAGIC, 20, 1),
    ],
    ids=["http", "random", "too early", "no nonce", "long header", "payload"],
)
def test_strangers_are_shown_out(shared: Rig, noise: bytes) -> None:
    with shared.stranger() as peer:
        peer.sendall(noise)
        decoder = protocol.Decoder()
        assert receive(peer, decoder)["type"] == "error"
        with pytest.raises((EOFError, ConnectionResetError)):
            receive(peer, decoder)
    with shared.connect() as client:
        assert client.status()["pid"]


def test_who_asks_and_never_listens_costs_nobody_anything(shared: Rig) -> None:
    assert shared.server is not None
    connection = read_connection(shared.connection_path)
    rude, _, _ = dial.dial(connection)
    with rude, shared.connect() as client:
        before = resident_mib(shared.server.pid)
        rude.settimeout(0.5)
        request = b"".join(pack({"type": "jobs", "id": number}) for number in range(2000))
        with pytest.raises(TimeoutError):  # the server stops reading from who does not read
            for _ in range(100):
                rude.sendall(request)
        client.submit(shot(3, seed=81))
        assert list(client.events(timeout=60))[-1][0]["type"] == "done"
        assert resident_mib(shared.server.pid) - before < 20


def test_a_client_that_takes_nothing_for_long_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_server.session.STALLED", 0.3)
    from bridge_server.server import Server

    async def scene() -> None:
        server = Server(rig.connection_path)
        serving = asyncio.create_task(server.run("127.0.0.1", None, 0))
        await until_async(rig.connection_path.exists)
        rude, _, _ = await asyncio.to_thread(dial.dial, read_connection(rig.connection_path))
        with rude:
            assert len(server._sessions) == 1
            rude.setblocking(False)
            request = pack({"type": "jobs", "id": 1, "filler": "x" * 1000})
            end = time.monotonic() + 15
            while server._sessions:
                assert time.monotonic() < end
                try:
                    rude.send(request * 100)
                except (BlockingIOError, ConnectionError):
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0)
        server.stop()
        await serving
        assert not rig.connection_path.exists()

    asyncio.run(scene())


def test_a_worker_that_ignores_a_cancel_is_killed(rig: Rig) -> None:
    from bridge_server.jobs import Queue
    from bridge_server.supervisor import Supervisor
    from koshi_backend.shot import load_shot

    async def scene() -> None:
        jobs, document = Queue(), slow_shot(50)
        supervisor = Supervisor(jobs, cancel_grace=0.5)
        running = asyncio.create_task(supervisor.run())
        try:
            job, _ = jobs.submit(load_shot(document).digest, document, 50, 1, "koshi-tiny")
            supervisor.wake()
            await until_async(lambda: supervisor.status()["pid"])
            pid = rig.watch(supervisor.status()["pid"])
            os.kill(pid, signal.SIGSTOP)
            supervisor.cancel(job)
            assert job.state == "cancelled" and not gone(pid)
            await until_async(lambda: gone(pid) and supervisor.status()["job"] is None)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KoshiError("out_of_memory", "Too large.", "Make it smaller."), "out_of_memory", "Make it smaller."),
        (RuntimeError("tensor a (3) must match tensor b (4)"), "internal", "/logs/server.log"),
        (ModuleNotFoundError("No module named 'timm'", name="timm.models"), "missing_package", "set-up"),
    ],
    ids=["typed", "unexpected", "package"],
)
def test_the_worker_turns_every_error_into_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, raised: Exception, code: str, says: str
) -> None:
    from bridge_server.worker import Worker

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("koshi_backend.chain.render_shot", fail)
    worker = Worker(-1, -1, "/logs/server.log")
    ending = worker._render("job", shot(1))
    assert ending["type"] == "failed" and ending["error"]["code"] == code and says in ending["error"]["hint"]
    assert "tensor" not in json.dumps(ending) and "Traceback" not in json.dumps(ending)
    assert code == "out_of_memory" or "Traceback" in caplog.text  # the log has it


async def until_async(check: object) -> None:
    end = time.monotonic() + 20
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)

# SPDX-License-Identifier: GPL-3.0-or-later
"""One client's connection to the server: handshake, requests, and the events of the jobs it follows.

Two tasks run: one reads requests, one writes. The writer pulls: replies first, then whatever the followed
jobs have that this client has not seen. So a slow client holds at most one message of memory and delays
nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from koshi_backend.errors import KoshiError
from koshi_backend.shot import load_shot

from . import protocol
from .jobs import KINDS, Kind, Subscription
from .protocol import BridgeError, Decoder, Header

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0  # seconds
STALLED = 60.0  # seconds without one byte taken after which a client is dropped
CHUNK = 1 << 18  # bytes written between two looks at the clock
MAX_REPLIES = 64  # unsent replies; beyond, no further request is read


class Session:
    """Serves one client until it hangs up, misbehaves or stops reading."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder(protocol.HANDSHAKE_LIMITS)
        self._replies: deque[Header] = deque()
        self._subscriptions: dict[str, Subscription] = {}
        self._wake = asyncio.Event()  # something may be there to write
        self._room = asyncio.Event()  # the writer has sent replies
        writer.transport.set_write_buffer_limits(high=CHUNK)

    async def run(self) -> None:
        """Serves; always leaves the connection closed."""
        try:
            if await self._shake_hands():
                self._decoder.limits = protocol.LIMITS
                await self._serve()
        except TimeoutError:  # before OSError, of which it is a kind
            log.warning("client dropped: it did not read for %s s", STALLED)
            self._writer.transport.abort()  # closing would wait for it to read
        except (OSError, EOFError) as error:
            log.info("client gone: %s", str(error) or "hung up")
        except BridgeError as error:
            log.warning("client refused: %s", error)
            await self._part(error)
        finally:
            for subscription in self._subscriptions.values():
                subscription.job.listeners.discard(self._wake.set)
            self._writer.close()

    # Handshake

    async def _shake_hands(self) -> bool:
        """Whether the client is one of ours; False when it is silent. Raises BridgeError for a stranger."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                return await self._exchange_proofs()
        except TimeoutError:
            log.warning("client dropped: no handshake within %s s", HANDSHAKE_TIMEOUT)
            return False

    async def _exchange_proofs(self) -> bool:
        hello = await self._receive()
        if hello["type"] != "hello":
            raise BridgeError("bad_message", "The first message must be a hello.")
        if hello.get("protocol") != protocol.PROTOCOL:
            raise protocol.protocol_mismatch(hello.get("protocol"), protocol.PROTOCOL)
        theirs, mine, token = hello.get("nonce"), protocol.new_nonce(), self._server.token
        if not isinstance(theirs, str) or not protocol.is_nonce(theirs):
            raise BridgeError("bad_message", "The hello carries no nonce.")
        if self._server.full:
            message = "Too many programs are connected to the Koshi server."
            raise BridgeError("busy", message, "Close some of them.")
        challenge = {"type": "challenge", "protocol": protocol.PROTOCOL, "software": protocol.SOFTWARE}
        await self._send({**challenge, "nonce": mine, "proof": protocol.proof(token, "server", theirs, mine)})
        answer = await self._receive()
        expected = protocol.proof(token, "client", theirs, mine)
        if answer["type"] != "proof" or not protocol.same_proof(expected, answer.get("proof")):
            hint = "Read the server's connection file again; it changes with every start."
            raise BridgeError("wrong_token", "This program does not know the server's secret.", hint)
        await self._send({"type": "welcome", "pid": os.getpid(), "software": protocol.SOFTWARE})
        return True

    # Reading

    async def _receive(self) -> Header:
        while (message := self._decoder.next()) is None:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError
            self._decoder.feed(data)
        return message[0]

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(self._read_requests()), asyncio.create_task(self._write())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_requests(self) -> None:
        while True:
            request = await self._receive()
            number = request.get("id")
            if isinstance(number, bool) or not isinstance(number, int):
                raise BridgeError("bad_message", "A request needs an id.")
            try:
                reply = await self._answer(request)
            except (BridgeError, KoshiError) as error:
                reply = {"type": "error", "error": error.as_dict()}
            except Exception:  # a strange request must not end the client's other jobs
                log.exception("request %s", request["type"])
                message, hint = "The server could not handle this request.", self._server.log_hint
                reply = {"type": "error", "error": BridgeError("internal", message, hint).as_dict()}
            self._replies.append({**reply, "id": number})
            self._wake.set()
            while len(self._replies) >= MAX_REPLIES:
                self._room.clear()
                await self._room.wait()

    async def _answer(self, request: Header) -> Header:
        jobs, supervisor = self._server.jobs, self._server.supervisor
        match request["type"]:
            case "submit":
                data, kind = _asked(request)
                # In a thread: checking a very long shot must not hold up the other clients.
                shot = await asyncio.to_thread(load_shot, data)
                device = request.get("device")
                if device is not None and not isinstance(device, str):
                    raise BridgeError("bad_message", "The device of a job is text, such as cuda:1.")
                job, attached = jobs.submit(
                    shot.digest,
                    data,
                    shot.film_frames,
                    shot.frame_start,
                    "" if kind == "motion" else shot.model,
                    device or None,
                    kind,
                )
                supervisor.wake()
                return {"type": "accepted", **self._follow(job.id), "attached": attached}
            case "attach":
                return {"type": "accepted", **self._follow(request.get("job")), "attached": True}
            case "cancel":
                job = jobs.find(request.get("job"))
                supervisor.cancel(job)
                return {"type": "cancelled", "job": job.record()}
            case "jobs":
                return {"type": "jobs", "jobs": [job.record() for job in jobs.jobs.values()]}
            case "status":
                return {"type": "status", **self._server.status()}
            case "release":
                supervisor.release()
                return {"type": "released"}
            case "shutdown":
                asyncio.get_running_loop().call_later(0.1, self._server.stop)  # after this reply
                return {"type": "stopping"}
        message = f"The server does not know the request {request['type']!r:.40}."
        raise BridgeError("unknown_request", message, "Update the Koshi backend (run its set-up again).")

    def _follow(self, job_id: object) -> Header:
        """Subscribes from the first frame on; asking again starts over."""
        job = self._server.jobs.find(job_id)
        self._subscriptions[job.id] = Subscription(job)
        job.listeners.add(self._wake.set)
        return {"job": job.record()}

    # Writing

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            idle = True
            while self._replies:
                await self._send(self._replies.popleft())
                self._room.set()
            for subscription in tuple(self._subscriptions.values()):
                if self._replies:
                    break  # replies go first, so that a cancel is answered in the midst of a long replay
                if event := subscription.next():
                    idle = False
                    await self._send_event(subscription, event)
            if idle and not self._replies:
                await self._wake.wait()

    async def _send_event(self, subscription: Subscription, event: Header) -> None:
        job, payload = subscription.job, b""
        if event["type"] == "frame":
            png = job.picture(event["index"]) or await asyncio.to_thread(self._server.store.png, event["key"])
            if png is None:
                # The store's size limit has taken it meanwhile.
                event, payload = {"type": "failed", "job": job.id, "error": _lost_frame(event).as_dict()}, b""
                subscription.finished = True
            else:
                payload = png
        if event["type"] in ("done", "failed", "cancelled"):
            self._forget(subscription)
        await self._send(event, payload)

    def _forget(self, subscription: Subscription) -> None:
        job = subscription.job
        if self._subscriptions.get(job.id) is subscription:  # it may have been asked for anew meanwhile
            del self._subscriptions[job.id]
            job.listeners.discard(self._wake.set)

    async def _send(self, header: Header, payload: bytes = b"") -> None:
        """Writes one message in portions. Raises TimeoutError when the client takes nothing for long."""
        data = memoryview(protocol.pack(header, payload))
        for start in range(0, len(data), CHUNK):
            self._writer.write(data[start : start + CHUNK])
            async with asyncio.timeout(STALLED):
                await self._writer.drain()

    async def _part(self, error: BridgeError) -> None:
        """Tells a client why the connection ends, as far as it still listens."""
        with suppress(OSError, TimeoutError):
            await self._send({"type": "error", "error": error.as_dict()})


def _asked(request: Header) -> tuple[Any, Kind]:
    """The document that a submit brings, and the kind of job. Raises BridgeError "unknown_kind"."""
    data: Any = request.get("shot")
    kind = request.get("kind", "render")
    if kind not in KINDS:
        message = f"The server does not know jobs of the kind {kind!r:.40}."
        raise BridgeError("unknown_kind", message, "Update the Koshi backend (run its set-up again).")
    if kind == "motion" and isinstance(data, dict):
        # Motion needs no model, not even one that could be asked what it can do.
        data = {name: value for name, value in data.items() if name != "model"}
    return data, kind


def _lost_frame(event: Header) -> BridgeError:
    message = f"Frame {event['number']} is no longer in the frame store."
    return BridgeError("frame_lost", message, "Render again: it is made anew. A larger store prevents this.")

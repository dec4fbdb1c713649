# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub of models on 127.0.0.1, over real HTTP, as huggingface_hub's own client expects one.

It serves folders as repositories: small files as git's, weights as large files behind a redirect, with ranges. It can
be gated, ask for tokens, be slow, fall silent and speak again, hang up, send wrong bytes, and tell a wrong size; it
notes all that was asked and sent. As a program it serves one repository until it is ended: `python hub_server.py
REPOSITORY FOLDER`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors",)
PIECE = 1 << 16


@dataclass
class Repository:
    """files: by their names. gated: as the hub's API says it, False or "auto". sizes: told instead of the true ones."""

    files: dict[str, bytes]
    gated: bool | str = False
    sizes: dict[str, int] = field(default_factory=dict)
    commit: str = COMMIT

    @classmethod
    def of(cls, folder: Path, **more: Any) -> Repository:
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return cls(files, **more)

    def sha256(self, name: str) -> str:
        return _sha256(self.files[name])

    def blob(self, name: str) -> str:
        return _blob(self.files[name])


@functools.cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.cache
def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """tokens: those that are known; welcome: those that gated repositories let in. rate: bytes a second, 0: any.

    silent_after, cut_after: bytes of a large file after which nothing comes any more, or the line is cut, once or
    `times` times; the rest comes once `speak` is said. mute: a part of paths that get no answer. wrong: names of files
    whose bytes are changed on the way. down: answer 503 to everything.
    asked: (method, path, range) of all requests; sent: bytes of each large file.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {"hf_good"})
    welcome: set[str] = field(default_factory=lambda: {"hf_good"})
    rate: float = 0.0
    silent_after: int | None = None
    cut_after: int | None = None
    times: int = 1
    speak: bool = False
    mute: str | None = None
    wrong: set[str] = field(default_factory=set)
    down: bool = False
    address: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def forget(self) -> None:
        """Clear the notes."""
        self.asked.clear()
        self.sent.clear()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve until the end of the block; `hub.address` is what HF_ENDPOINT has to be."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    hub.over.clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *given: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        assert not (path.startswith("/cdn/") and "Authorization" in self.headers), "the token went to another host"
        if path.startswith("/_set/"):  # for tests whose other end is in another process
            vars(hub).update(json.loads(path.removeprefix("/_set/")))
            self._json(200, {"total": hub.total})
        elif hub.mute and hub.mute in path:
            hub.over.wait(60)
            self.close_connection = True
        elif hub.down:
            self._json(503, {"error": "down"})
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._large(found[1], found[2])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(.*))?", path):
            self._api(found[1], found[2] or "")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[3])
        else:
            self._json(404, {"error": "Not Found"})

    def _api(self, name: str, rest: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if rest == "auth-check":
            if self._let_in(repository):
                self._json(200, {})
        elif rest.startswith("tree/"):
            listed = []
            for file, data in sorted(repository.files.items()):
                size = repository.sizes.get(file, len(data))
                entry: dict[str, Any] = {"type": "file", "path": file, "size": size, "oid": repository.blob(file)}
                if file.endswith(LARGE):
                    entry["lfs"] = {"oid": repository.sha256(file), "size": size, "pointerSize": 134}
                listed.append(entry)
            self._json(200, listed)
        else:
            siblings = [{"rfilename": file} for file in repository.files]
            about = {"_id": "1", "id": name, "modelId": name, "sha": repository.commit, "private": False}
            self._json(200, {**about, "gated": repository.gated, "siblings": siblings, "tags": [], "downloads": 0})

    def _resolve(self, name: str, file: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._let_in(repository):
            return
        if file not in repository.files:
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        told = {"X-Repo-Commit": repository.commit}
        if file.endswith(LARGE):
            size = repository.sizes.get(file, len(repository.files[file]))
            told |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{repository.sha256(file)}"'}
            # By another name of this computer: large files come from another host than the hub, without the token.
            store = self.hub.address.replace("127.0.0.1", "localhost")
            self._answer(302, b"", {**told, "Location": f"{store}/cdn/{name}/{file}"})
            return
        data = repository.files[file]
        if file in self.hub.wrong:
            data = bytes([data[0] ^ 1]) + data[1:]
        self._answer(200, data, {**told, "ETag": f'"{repository.blob(file)}"'})

    def _large(self, name: str, file: str) -> None:
        hub, data = self.hub, self.hub.repositories[name].files[file]
        if file in hub.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        told = {"Content-Length": str(len(data) - begin), "Accept-Ranges": "bytes"}
        if "Range" in self.headers:
            told["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._head(206 if begin else 200, told)
        if self.command == "HEAD":
            return
        for at in range(begin, len(data), PIECE):
            for limit, silent in ((hub.silent_after, True), (hub.cut_after, False)):
                if limit is not None and at >= limit and hub.times > 0:
                    hub.times -= 1
                    while silent and not hub.speak and not hub.over.wait(0.05):
                        pass
                    if silent and not hub.over.is_set():
                        continue
                    self.close_connection = True
                    return
            piece = data[at : at + PIECE]
            try:
                self.wfile.write(piece)
            except OSError:  # whoever asked is gone
                self.close_connection = True
                return
            hub.sent[file] = hub.sent.get(file, 0) + len(piece)
            if hub.rate:
                time.sleep(len(piece) / hub.rate)

    def _repository(self, name: str) -> Repository | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            text = "Invalid credentials in Authorization header"
            self._json(401, {"error": text}, {"X-Error-Message": text})
        elif name not in self.hub.repositories:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        else:
            return self.hub.repositories[name]
        return None

    def _let_in(self, repository: Repository) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not repository.gated or token in self.hub.welcome:
            return True
        text = f"Access to model is restricted{'' if token else ' and you must be authenticated'}"
        self._json(403 if token else 401, {"error": text}, {"X-Error-Code": "GatedRepo", "X-Error-Message": text})
        return False

    def _json(self, status: int, data: Any, told: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(data).encode(), {"Content-Type": "application/json", **(told or {})})

    def _answer(self, status: int, data: bytes, told: dict[str, str]) -> None:
        self._head(status, {**told, "Content-Length": str(len(data))})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, told: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()


if __name__ == "__main__":
    with serve(Hub({sys.argv[1]: Repository.of(Path(sys.argv[2]))})) as served:
        print(served.address, flush=True)
        served.over.wait()

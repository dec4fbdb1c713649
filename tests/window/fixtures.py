# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Blender window on a display of its own, with the backend beside it. See CONTRIBUTING.md.

KOSHI_BLENDER names the program: a path, or a command whose last word is the program ("wrapper blender"). Xvfb is
started with the same words in front.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridge_helpers import Rig
from conftest import ROOT
from PIL import Image

from bridge_server.client import BridgeError, read_connection

HERE = Path(__file__).resolve().parent
SIZE = (1024, 640)  # small: drawing by software takes as long as there are pixels
WALK_SIZE = (1440, 900)  # of the window in the guide's pictures
MORE = 100  # the display is higher, as Blender's file browser opens 364 pixels from the bottom and is 625 high


class Window:
    """A Blender that plays chapters (see boot.py). Started at the first one, and again after one that ended it."""

    def __init__(self, command: list[str], folder: Path, rig: Rig, size: tuple[int, int] = SIZE) -> None:
        self.before, self.program = command[:-1], command[-1]
        self.folder, self.rig, self.size = folder, rig, size
        (folder / "profile").mkdir()
        self.environment = {
            **os.environ,
            **rig.environment,
            "BLENDER_USER_RESOURCES": str(folder / "profile"),
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "KOSHI_DATA": str(folder / "data"),  # where no backend has been set up
            "KOSHI_WINDOW_SCREEN": str(folder / "Xvfb_screen0"),
        }
        self.blender: subprocess.Popen[bytes] | None = None
        self._room = folder  # where this Blender's requests and answers lie
        self._display: subprocess.Popen[bytes] | None = None
        self._number = self._starts = self._told = 0

    def build(self, folder: Path) -> Path:
        """Build the extension's zip."""
        folder.mkdir(exist_ok=True)
        self._run("--command", "extension", "build", "--source-dir", str(ROOT), "--output-dir", str(folder))
        (made,) = folder.glob("koshi-*.zip")
        return made

    def install(self) -> None:
        """Build the extension and install it into the profile, which is a clean one."""
        made = str(self.build(self.folder))
        self._run("--command", "extension", "install-file", "--repo", "user_default", "--enable", made)

    def _run(self, *arguments: str) -> None:
        ended = subprocess.run(
            [*self.before, self.program, *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def open_display(self) -> None:
        """Start an X server on a free number; it keeps its picture in a file."""
        reading, writing = os.pipe()
        screen = f"{self.size[0]}x{self.size[1] + MORE}x24"
        arguments = ("-displayfd", str(writing), "-screen", "0", screen, "-fbdir", str(self.folder))
        with (self.folder / "display.log").open("wb") as log:
            self._display = subprocess.Popen(
                [*self.before, "Xvfb", *arguments, "-nocursor", "-noreset", "-nolisten", "tcp"],
                env=self.environment, cwd=ROOT, pass_fds=(writing,), stdout=log, stderr=log,
            )  # fmt: skip
        os.close(writing)
        with os.fdopen(reading) as numbers:
            number = numbers.readline().strip()
        assert number, (self.folder / "display.log").read_text()
        self.environment["DISPLAY"] = f":{number}"

    def start(self) -> None:
        """Start Blender's window."""
        self._room = self.folder / f"room-{self._starts}"
        self._room.mkdir()
        self._starts, self._number, self._told = self._starts + 1, 0, 0
        self.environment["KOSHI_WINDOW"] = str(self._room)
        geometry = ("--window-geometry", "0", "0", str(self.size[0]), str(self.size[1]))
        options = ("--gpu-backend", "opengl", "--no-window-focus", *geometry, "--enable-event-simulate")
        with (self._room / "blender.log").open("wb") as log:
            self.blender = subprocess.Popen(
                [*self.before, self.program, *options, "--python-exit-code", "3", "--python", str(HERE / "boot.py")],
                env=self.environment, cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def play(self, chapter: str, seconds: float = 540, **arguments: Any) -> Any:
        """Play tests/window/CHAPTER.py and return what it returns. Fails if it raises, or if Blender ends."""
        if self.blender is None or self.blender.poll() is not None:
            self.start()
        assert self.blender is not None
        request = self._room / f"request-{self._number}.part"
        request.write_text(json.dumps({"chapter": chapter, "arguments": arguments}))
        request.rename(request.with_suffix(".json"))
        answer = self._room / f"answer-{self._number}.json"
        self._number += 1
        end = time.monotonic() + seconds
        while not answer.is_file():
            self._help()
            if self.blender.poll() is not None and not answer.is_file():
                pytest.fail(f"Blender ended with {self.blender.returncode} in {chapter}:\n{self.log()}")
            if time.monotonic() > end:
                self.blender.kill()
                pytest.fail(f"{chapter} took over {seconds:g} s:\n{self.log()}")
            time.sleep(0.02)
        self._keep_pictures()
        told = json.loads(answer.read_text())
        if "error" in told:
            pytest.fail(f"{chapter}: {told['error']}\n{self.log()}")
        return told["result"]

    def _help(self) -> None:
        """Do what the chapter asks for (hands.ask)."""
        asked = self._room / f"ask-{self._told}.json"
        if not asked.is_file():
            return
        wishes: dict[str, Callable[[], Any]] = {
            "kill the backend": self._kill_backend,
            "start the backend": lambda: self.rig.start(start_new_session=True).pid,
        }
        answer = self._room / f"told-{self._told}.part"
        answer.write_text(json.dumps(wishes[json.loads(asked.read_text())]()))
        answer.rename(answer.with_suffix(".json"))
        self._told += 1

    def _kill_backend(self) -> None:
        assert self.rig.server is not None
        self.rig.server.kill()
        self.rig.server.wait()

    def _keep_pictures(self) -> None:
        """Turn the chapters' screenshots into PNG files, in KOSHI_WINDOW_PICTURES if that is set."""
        folder = Path(os.environ.get("KOSHI_WINDOW_PICTURES") or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._room.glob("*.xwd"):
            picture_of_screen(path).save(folder / f"{path.stem}.png")
            path.unlink()

    def log(self) -> str:
        """The end of what Blender said."""
        return (self._room / "blender.log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End Blender and the display."""
        for process in (self.blender, self._display):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def picture_of_screen(path: Path) -> Image.Image:
    """An X window dump of a 24-bit screen, such as Xvfb's -fbdir keeps, as a picture."""
    data = path.read_bytes()
    header = np.frombuffer(data[:100], ">u4")
    begin = int(header[0] + 12 * header[19])  # the header, then 12 bytes for each colour of the map
    width, height, line = int(header[4]), int(header[5]), int(header[12])
    rows = np.frombuffer(data, np.uint8, height * line, begin).reshape(height, line)[:, : 4 * width]
    return Image.fromarray(np.ascontiguousarray(rows.reshape(height, width, 4)[..., 2::-1]))


def find_blender() -> list[str]:
    """The command that KOSHI_BLENDER names. Skips the test where there is none, or no Xvfb to show it on."""
    command = shlex.split(os.environ.get("KOSHI_BLENDER", ""))
    command[:1] = [os.path.expanduser(word) for word in command[:1]]
    needed = [*command[:1], "Xvfb"] if len(command) == 1 else command[:1]
    absent = [program for program in needed if shutil.which(program) is None]
    if command and not absent:
        return command
    why = f"there is no {' and no '.join(absent)}" if absent else "KOSHI_BLENDER names no Blender program"
    if os.environ.get("KOSHI_REQUIRE_WINDOW") == "1":
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that a chroot shares, with a short path: sockets' names are limited, and pytest's folders long."""
    folder = Path(tempfile.mkdtemp(prefix="koshi-window-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_blender(folder: Path) -> Iterator[Window]:
    """A Blender as it comes, in a clean profile without Koshi. The backend that it starts ends with it."""
    rig = Rig(folder)
    window = Window(find_blender(), folder, rig, WALK_SIZE)
    try:
        window.open_display()
        yield window
    finally:
        window.close()
        with suppress(BridgeError), rig.connect() as client:
            rig.watch(read_connection(rig.connection_path).pid)
            if worker := client.status()["worker"]["pid"]:
                rig.watch(worker)
            client.shutdown()
        rig.close()


@pytest.fixture(scope="session")
def backend() -> Iterator[Rig]:
    """The backend that the window's Koshi finds; a Blender in a chroot could not start it."""
    find_blender()
    with short_folder() as folder:
        rig = Rig(folder)
        try:
            rig.start(start_new_session=True)  # as Blender starts it
            yield rig
        finally:
            rig.close()


@pytest.fixture(scope="session")
def window(backend: Rig) -> Iterator[Window]:
    """A Blender window with Koshi installed from its zip in a clean profile."""
    window = Window(find_blender(), backend.folder, backend)
    try:
        window.install()
        window.open_display()
        yield window
    finally:
        window.close()


@pytest.fixture
def bare_window() -> Iterator[Window]:
    """A Blender window for the artist's walk."""
    with short_folder() as folder, new_blender(folder) as window:
        yield window

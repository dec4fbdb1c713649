#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: the whole way of an artist, headless, with a clean Blender profile and nothing left running.

Builds the extension, installs it into Blender, makes a keyframed scene, renders it through the Koshi backend
into the sequencer, lets Blender encode the video, and checks what came out. All of it lies in out/ and dist/.
Run it with `make demo` or `python tools/make.py demo`, which see to the Python environments first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contact_sheet import contact_sheet, frames_in
from interpreters import ROOT, SetupError, clean_environ
from setup_env import blender_command

OUT = ROOT / "out"
LOG = OUT / "demo.log"
SCENE = OUT / "demo.blend"
FRAMES = OUT / "koshi"
VIDEO = OUT / "demo.mp4"
SHEET = OUT / "contact_sheet.png"
CONNECTION = OUT / "connection.json"
ZIP = ROOT / "dist" / "koshi-0.1.0.zip"
FRAME_COUNT = 48
STEP_LIMIT = 1800  # seconds; nothing here takes a tenth of it, but nothing may hang for ever either

# Run inside Blender: how many pictures lie on the sequencer's strips of images.
COUNT_STRIP = """
import bpy
editor = bpy.context.scene.sequence_editor
strips = getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", []) if editor else []
frames = max((len(strip.elements) for strip in strips if strip.type == "IMAGE"), default=0)
print("KOSHI_STRIP_FRAMES", frames, flush=True)
"""


class DemoError(Exception):
    """A step did not do what it should; the text says what."""


class Demo:
    """The steps and what they share: the Blender to start, its environment, and the log."""

    def __init__(self, blender: list[str]) -> None:
        self.blender = blender
        self.frames = FRAMES  # the render step learns the real folder inside it
        self.environ = clean_environ(
            BLENDER_USER_RESOURCES=str(OUT / "profile"),
            KOSHI_PYTHON=sys.executable,
            KOSHI_CONNECTION=str(CONNECTION),
            KOSHI_STORE=str(OUT / "store"),
            KOSHI_CACHE=str(OUT / "cache"),
            PYTHONUNBUFFERED="1",
        )

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Every step with its name, in order."""
        return [
            ("build the extension with Blender's own builder", self.build),
            ("install it into a clean Blender profile", self.install),
            ("make a scene with keyframed curves and prompts", self.scene),
            (f"render {FRAME_COUNT} frames with koshi-tiny into the sequencer", self.render),
            ("encode the video with Blender's sequencer", self.encode),
            ("lay out the contact sheet", self.sheet),
            ("check what was made", self.check),
        ]

    def run_blender(self, *arguments: str) -> str:
        """Run Blender; returns what it printed, which also goes to the log. Raises DemoError if it fails."""
        with LOG.open("ab") as log:
            log.write(f"\n$ blender {' '.join(arguments)}\n".encode())
            log.flush()
            begin = log.tell()
            # Straight into a file, not a pipe: the backend that Blender starts must not keep this step open.
            process = subprocess.Popen(
                [*self.blender, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environ,
                cwd=ROOT,
            )
            code = wait_showing_progress(process)
        output = LOG.read_bytes()[begin:].decode("utf-8", "replace")
        if code is None:
            raise DemoError(f"Blender was still at it after {STEP_LIMIT} seconds and was stopped.")
        if code:
            raise DemoError(f"Blender ended with exit code {code}.")
        return output

    def build(self) -> None:
        ZIP.parent.mkdir(exist_ok=True)
        ZIP.unlink(missing_ok=True)
        build = ["--source-dir", str(ROOT), "--output-dir", str(ZIP.parent)]
        self.run_blender("--command", "extension", "build", *build)
        require(ZIP, "the extension")

    def install(self) -> None:
        install = ["extension", "install-file", "--repo", "user_default", "--enable", str(ZIP)]
        self.run_blender("--command", *install)

    def scene(self) -> None:
        script = ROOT / "examples" / "make_demo_scene.py"
        self.run_blender("-b", "--python-exit-code", "1", "-P", str(script), "--", str(SCENE))
        require(SCENE, "the Blender file")

    def render(self) -> None:
        report = last_json(
            self.run_blender("-b", str(SCENE), "--command", "koshi", "render", "--save", "--json")
        )
        if not report.get("ok", True):
            raise DemoError(f"Koshi reports: {json.dumps(report.get('error', report), ensure_ascii=False)}")
        self.frames = Path(report.get("out", FRAMES))
        if not self.frames.is_relative_to(FRAMES):
            raise DemoError(f"The frames went to {self.frames}, outside {FRAMES}.")

    def encode(self) -> None:
        # An absolute path: Blender would read a relative one from the .blend file's folder.
        self.run_blender("-b", str(SCENE), "-o", str(VIDEO), "-a")
        require(VIDEO, "the video")

    def sheet(self) -> None:
        contact_sheet(frames_in(self.frames)[::4]).save(SHEET)

    def check(self) -> None:
        numbers = [int(path.stem) for path in frames_in(self.frames)]
        if numbers != list(range(1, FRAME_COUNT + 1)):
            raise DemoError(f"{self.frames} holds {len(numbers)} frames, not 1 to {FRAME_COUNT}.")
        if (shown := video_frames(VIDEO)) != FRAME_COUNT:
            raise DemoError(f"{VIDEO} has {shown} frames, not {FRAME_COUNT}.")
        said = self.run_blender("-b", str(SCENE), "--python-exit-code", "1", "--python-expr", COUNT_STRIP)
        if f"KOSHI_STRIP_FRAMES {FRAME_COUNT}" not in said:
            raise DemoError(
                f"The saved Blender file has no image strip with {FRAME_COUNT} frames in its sequencer."
            )


def wait_showing_progress(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process that writes to the log, showing its newest line on a terminal.

    Returns the exit code, or None if it took longer than STEP_LIMIT seconds and was stopped.
    """
    began = time.monotonic()
    while time.monotonic() - began < STEP_LIMIT:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            show_over(last_lines(1))
        except KeyboardInterrupt:
            process.kill()
            raise
    process.kill()
    process.wait()
    return None


def show_over(text: str) -> None:
    """Show a line that the next one replaces; nothing where the output is not a terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 5
        print(f"\r\033[K    {text.strip()[:width]}", end="", flush=True)


def last_lines(count: int) -> str:
    """The last lines of the log that are not empty."""
    if not LOG.exists():
        return ""
    with LOG.open("rb") as log:
        log.seek(max(0, LOG.stat().st_size - 16_384))
        lines = log.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])


def last_json(output: str) -> dict[str, Any]:
    """The last line of a command's output that is a JSON object; raises DemoError if there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    raise DemoError("`blender --command koshi render --json` printed no JSON object.")


def require(path: Path, what: str) -> None:
    """Raise DemoError unless the file is there and not empty."""
    if not path.is_file() or not path.stat().st_size:
        raise DemoError(f"{what} was not written: {path} is missing or empty.")


def video_frames(path: Path) -> int:
    """How many frames of a video can really be decoded."""
    import av

    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def stop_backend() -> None:
    """Stop the backend that this demo, or an interrupted one before it, has started."""
    if not CONNECTION.exists():
        return
    from bridge_server.client import Client, read_connection
    from bridge_server.protocol import BridgeError

    try:
        with Client(read_connection(CONNECTION)) as client:
            client.shutdown()
    except BridgeError as error:
        if error.code != "server_not_running":
            print(f"The backend could not be stopped: {error}")
    deadline = time.monotonic() + 15
    while CONNECTION.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def clear() -> None:
    """Remove what an earlier demo has left, the stored frames too: every demo shows the whole way."""
    OUT.mkdir(exist_ok=True)
    stop_backend()
    for path in (OUT / "profile", OUT / "store", OUT / "cache", FRAMES):
        shutil.rmtree(path, ignore_errors=True)
    for path in (SCENE, SCENE.with_suffix(".blend1"), VIDEO, SHEET, LOG, CONNECTION):
        path.unlink(missing_ok=True)


def run_steps(demo: Demo) -> bool:
    """Run every step, printing its name and time; stops at the first that fails and says why."""
    steps = demo.steps()
    for number, (name, step) in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {name} ...", end="", flush=True)
        began = time.monotonic()
        try:
            step()
        except (DemoError, OSError, ValueError) as error:
            over = "\r\033[K" if sys.stdout.isatty() else "\n"
            print(f"{over}FAILED: {name}. {error}\n\nThe last lines of the log:\n")
            print("\n".join("    " + line for line in last_lines(25).splitlines()))
            print(f"\nThe whole log: {LOG}")
            return False
        over = f"\r\033[K[{number}/{len(steps)}] {name} ..." if sys.stdout.isatty() else ""
        print(f"{over} {time.monotonic() - began:.1f} s", flush=True)
    return True


def main() -> int:
    """Run the demo; returns 0 only if everything was made and checked."""
    began = time.monotonic()
    try:
        blender, name = blender_command()
    except SetupError as error:
        print(error)
        return 1
    print(f"Koshi's demo with {name}; the log is {LOG}", flush=True)
    clear()
    demo = Demo(blender)
    try:
        done = run_steps(demo)
    except KeyboardInterrupt:
        print("\nStopped.")
        done = False
    finally:
        stop_backend()
    if not done:
        return 1
    print(f"\nDone in {time.monotonic() - began:.0f} s. Everything lies in the checkout:\n")
    print(f"  the extension      {shown(ZIP)}")
    print(f"  the Blender file   {shown(SCENE)}   (its sequencer holds the strip)")
    print(f"  the frames         {shown(demo.frames)}{os.sep}0001.png to {FRAME_COUNT:04d}.png")
    print(f"  the video          {shown(VIDEO)}")
    print(f"  the contact sheet  {shown(SHEET)}")
    return 0


def shown(path: Path) -> str:
    """The path as a person in the checkout types it."""
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    raise SystemExit(main())

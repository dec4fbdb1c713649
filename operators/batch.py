# SPDX-License-Identifier: GPL-3.0-or-later
"""`--command koshi render`: one shot, or several scenes and files one after the other.

A shot that fails does not stop the others; it is told again at the end, and the exit code says that there was one.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import job, start, state
from .cli_output import say

INTERRUPTED = 130


def render(arguments: argparse.Namespace) -> dict[str, Any]:
    """Render what the arguments name. For one shot the result is that shot's; for a batch {"ok", "done", "failed",
    "skipped", "shots": [the same, with "file", and "error" for what failed]}."""
    if arguments.save and not arguments.files and not bpy.data.filepath:
        raise BridgeError(
            "not_saved", "There is no .blend file to save.", "Name one: blender -b FILE.blend --command ..."
        )
    with Interrupts() as interrupts:
        if arguments.files or arguments.all_scenes or len(arguments.scene or ()) > 1:
            return _batch(arguments, interrupts)
        name = arguments.scene[0] if arguments.scene else None
        result = _render(scene_named(name), arguments, interrupts)
        if arguments.save and result["done"]:
            save("")
        return result


def scene_named(name: str | None) -> bpy.types.Scene:
    """The scene, or the active one. Raises BridgeError "no_scene"."""
    if name is None:
        return bpy.context.scene
    scene = bpy.data.scenes.get(name)
    if scene is None:
        names = ", ".join(f'"{scene.name}"' for scene in bpy.data.scenes)
        raise BridgeError("no_scene", f'There is no scene "{name}" in this file.', f"It has {names}.")
    return scene


def frame_range(arguments: argparse.Namespace) -> tuple[int | None, int | None]:
    """First and last frame as the arguments say; None: the scene's."""
    first, last = arguments.range or (None, None)
    return (
        arguments.frame_start if arguments.frame_start is not None else first,
        arguments.frame_end if arguments.frame_end is not None else last,
    )


def save(path: str) -> None:
    """Save the .blend, or as `path`. Raises BridgeError "cannot_save"."""
    try:
        if path:
            bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(path))
        else:
            bpy.ops.wm.save_mainfile()
    except RuntimeError as error:
        raise BridgeError("cannot_save", f"The .blend cannot be saved: {error}", "The frames are kept.") from error


class Interrupts:
    """Ctrl-C while this is entered: cancels the running job, and is remembered."""

    def __init__(self) -> None:
        self.hit = False
        self.job: job.Job | None = None
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before if self._before is not None else signal.SIG_DFL)

    def _interrupt(self, number: int, frame: Any) -> None:
        self.hit = True
        if self.job is not None:
            self.job.cancel()


def _render(scene: bpy.types.Scene, arguments: argparse.Namespace, interrupts: Interrupts) -> dict[str, Any]:
    """One shot. Raises BridgeError for what stops it, but for Ctrl-C."""
    name = scene.name
    running = start.render(scene, *frame_range(arguments))
    for note in state.status.notes:
        say(note)
    _follow(running, interrupts)
    status = state.status
    if status.phase == "failed":
        raise BridgeError.from_dict(status.error)
    result = {
        "ok": status.phase == "done" and status.done == status.frames,
        "scene": name,
        "job": status.job_id,
        "digest": status.digest,
        "attached": status.attached,
        "frames": status.frames,
        "done": status.done,
        "made": status.made,
        "stored": status.stored,
        "seconds": round(status.seconds, 3),
        "out": status.folder,
        "strip": status.strip,
        "notes": status.notes,
    }
    if interrupts.hit:
        result["exit_code"] = INTERRUPTED
    say(status.message)
    if status.folder:
        say(f"Frames: {status.folder}")
    return result


def _follow(running: job.Job, interrupts: Interrupts) -> None:
    """Pump the job to its end, telling how it goes."""
    told = ""

    def tell() -> None:
        nonlocal told
        status = state.status
        line = f"{status.done} of {status.frames} frames" if status.done else status.message
        if line != told and not running.over:
            told = line
            say(line)

    interrupts.job = running
    if interrupts.hit:  # while the scene was sampled
        running.cancel()
    try:
        running.run(tell)
    finally:
        interrupts.job = None


# Several shots


def _batch(arguments: argparse.Namespace, interrupts: Interrupts) -> dict[str, Any]:
    shots: list[dict[str, Any]] = []
    skipped: list[str] = []
    for file in arguments.files or [""]:
        if interrupts.hit:
            shots.append(_failed(file, None, _not_begun()))
        else:
            shots += _file(file, arguments, interrupts, skipped)
    failed = [shot for shot in shots if not shot["ok"]]
    for name in skipped:
        say(f"Skipped {name}: it has no prompt.")
    say(f"{len(shots) - len(failed)} of {len(shots)} shots are rendered.")
    for shot in failed:
        why = BridgeError.from_dict(shot["error"]) if shot.get("error") else "it was stopped."
        say(f"Failed: {_where(shot)}: {why}")
    result = {
        "ok": not failed and bool(shots),
        "done": len(shots) - len(failed),
        "failed": len(failed),
        "skipped": skipped,
        "shots": shots,
    }
    return result | ({"exit_code": INTERRUPTED} if interrupts.hit else {})


def _file(
    file: str, arguments: argparse.Namespace, interrupts: Interrupts, skipped: list[str]
) -> list[dict[str, Any]]:
    """All the shots of one file (""; the open one)."""
    try:
        if file:
            _open(file)
        names = list(_scenes(arguments, skipped, file))
    except BridgeError as error:
        return [_failed(file, None, error)]
    shots = []
    for name in names:
        if interrupts.hit:
            shots.append(_failed(file, name, _not_begun()))
            continue
        say(f"Rendering {_where({'file': file, 'scene': name})}")
        try:
            shots.append({"file": file, **_render(scene_named(name), arguments, interrupts)})
        except BridgeError as error:
            shots.append(_failed(file, name, error))
        except Exception as error:  # one shot's edge: the others go on
            state.log().exception("batch: %s, %s", file, name)
            sentence = f"Koshi met an error it does not know: {error}."
            hint = f"The details are in {state.log_file()}."
            shots.append(_failed(file, name, BridgeError("internal", sentence, hint)))
    if arguments.save and any(shot.get("done") for shot in shots):
        try:
            save("")
        except BridgeError as error:
            shots.append(_failed(file, None, error))
    return shots


def _open(file: str) -> None:
    if not Path(file).is_file():
        raise BridgeError("cannot_open", f"There is no file {file}.", "Check the path.")
    try:
        bpy.ops.wm.open_mainfile(filepath=os.path.abspath(file))
    except RuntimeError as error:
        told = str(error).strip().removeprefix("Error: ")
        raise BridgeError("cannot_open", f"{file} cannot be opened: {told}") from error


def _scenes(arguments: argparse.Namespace, skipped: list[str], file: str) -> Iterator[str]:
    if not arguments.all_scenes:
        yield from arguments.scene or [bpy.context.scene.name]
        return
    for scene in bpy.data.scenes:
        if len(scene.koshi.prompts):
            yield scene.name
        else:
            skipped.append(_where({"file": file, "scene": scene.name}))


def _failed(file: str, scene: str | None, error: BridgeError) -> dict[str, Any]:
    say(f"Error: {error}")
    return {"file": file, "scene": scene, "ok": False, "error": error.as_dict()}


def _not_begun() -> BridgeError:
    return BridgeError("cancelled", "The batch was stopped before this.", "Run it again: finished frames are kept.")


def _where(shot: dict[str, Any]) -> str:
    scene = f'scene "{shot["scene"]}"' if shot["scene"] else ""
    return ", ".join(filter(None, (shot["file"], scene))) or "the open file"

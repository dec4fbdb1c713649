# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `blender -b FILE.blend --command koshi render | sample`.

Progress and messages go to stderr. With --json the last line on stdout is one JSON object. The exit code is 0
only if everything was done: 1 for an error, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import guides, job, sample, state

_handle: Any = None


def register() -> None:
    """Add the `koshi` command."""
    global _handle
    _handle = bpy.utils.register_cli_command("koshi", main)


def unregister() -> None:
    """Remove the `koshi` command."""
    global _handle
    if _handle is not None:
        bpy.utils.unregister_cli_command(_handle)
        _handle = None


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code and never raises."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:  # Blender would print it as an error of Koshi's
        return end.code if isinstance(end.code, int) else 1
    try:
        result = arguments.run(arguments)
    except BridgeError as error:
        return _refuse(error.as_dict(), arguments)
    except Exception as error:  # the program's edge: a traceback belongs into the log
        state.log().exception("command %s", argv)
        return _refuse(
            BridgeError(
                "internal",
                f"Koshi met an error it does not know: {error}.",
                f"The details are in {state.log_file()}.",
            ).as_dict(),
            arguments,
        )
    if arguments.json:
        _print_json(result)
    return 0 if result["ok"] else int(result.get("exit_code", 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blender -b FILE.blend --command koshi",
        description="Koshi without Blender's window.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="render the shot into the sequencer and beside the .blend")
    render.set_defaults(run=_render)
    render.add_argument("--save", action="store_true", help="save the .blend with the new strip afterwards")
    sampled = commands.add_parser("sample", help="write the shot as JSON and render nothing")
    sampled.set_defaults(run=_sample)
    sampled.add_argument("-o", "--output", metavar="FILE", type=Path, help="file to write (default: stdout)")
    for command in (render, sampled):
        command.add_argument(
            "--scene", metavar="NAME", help="scene to render (default: the file's active scene)"
        )
        command.add_argument(
            "--frame-start", metavar="N", type=int, help="first frame (default: the scene's)"
        )
        command.add_argument("--frame-end", metavar="N", type=int, help="last frame (default: the scene's)")
        command.add_argument(
            "--json", action="store_true", help="print one JSON object as the last line on stdout"
        )
    return parser


def _render(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.save and not bpy.data.filepath:
        raise BridgeError(
            "not_saved", "There is no .blend file to save.", "Name one: blender -b FILE.blend --command ..."
        )
    scene = _scene(arguments.scene)
    running = job.start_render(scene, arguments.frame_start, arguments.frame_end)
    for note in state.status.notes:
        _say(note)
    interrupted = _follow(running)
    status = state.status
    if status.phase == "failed":
        raise BridgeError.from_dict(status.error)
    result = {
        "ok": status.phase == "done" and status.done == status.frames,
        "scene": scene.name,
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
    if interrupted:
        result["exit_code"] = 130
    _say(status.message)
    if status.folder:
        _say(f"Frames: {status.folder}")
    if arguments.save and status.done:
        try:
            bpy.ops.wm.save_mainfile()
        except RuntimeError as error:
            raise BridgeError(
                "cannot_save", f"The .blend cannot be saved: {error}", "The frames are kept."
            ) from error
    return result


def _follow(running: job.Job) -> bool:
    """Pump the job to its end, telling how it goes; Ctrl-C cancels it (True)."""
    interrupted = False
    told = ""

    def interrupt(number: int, frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        running.cancel()

    def tell() -> None:
        nonlocal told
        status = state.status
        line = f"{status.done} of {status.frames} frames" if status.done else status.message
        if line != told and not running.over:
            told = line
            _say(line)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        running.run(tell)
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
    return interrupted


def _sample(arguments: argparse.Namespace) -> dict[str, Any]:
    scene = _scene(arguments.scene)
    shot, notes, needs_guides = sample.shot_from_scene(scene, arguments.frame_start, arguments.frame_end)
    for note in notes:
        _say(note)
    if arguments.output is None:
        if needs_guides:
            raise BridgeError(
                "guides",
                "This shot needs renders of the scene, which take files of their own.",
                "Name a file with --output; they are written beside it.",
            )
        if not arguments.json:
            _print_json(shot)
        return {"ok": True, "notes": notes, "shot": shot}
    if needs_guides:
        folder = arguments.output.parent / (arguments.output.name.split(".")[0] + "_guides")
        for line in guides.render_guides(scene, shot, folder.resolve()):
            _say(line)
        relative = Path(folder.name)  # read relative to the shot's own file
        shot |= guides.guides_of(relative, "guides" in shot, "init_image" in shot)
    try:
        arguments.output.write_text(json.dumps(shot, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BridgeError(
            "cannot_write",
            f"{arguments.output} cannot be written: {error.strerror}.",
            "Choose another place.",
        ) from error
    _say(f"Wrote {arguments.output}")
    return {"ok": True, "notes": notes, "out": str(arguments.output.resolve())}


def _scene(name: str | None) -> bpy.types.Scene:
    if name is None:
        return bpy.context.scene
    scene = bpy.data.scenes.get(name)
    if scene is None:
        names = ", ".join(f'"{scene.name}"' for scene in bpy.data.scenes)
        raise BridgeError("no_scene", f'There is no scene "{name}" in this file.', f"It has {names}.")
    return scene


def _refuse(error: dict[str, Any], arguments: argparse.Namespace) -> int:
    _say(f"Error: {BridgeError.from_dict(error)}")
    if arguments.json:
        _print_json({"ok": False, "error": error})
    return 1


def _print_json(data: dict[str, Any]) -> None:
    # Blender prints to stdout too, so the object must be one line of its own.
    print(json.dumps(data), flush=True)


def _say(text: str) -> None:
    if text:
        print(f"koshi: {text}", file=sys.stderr, flush=True)

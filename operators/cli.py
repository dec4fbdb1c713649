# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `blender -b FILE.blend --command koshi render | sample | export | import | doctor`.

Progress and messages go to stderr. With --json the last line on stdout is one JSON object. The exit code is 0
only if everything was done: 1 for an error, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import batch, cli_doctor, exchange, state
from .cli_output import print_json, say

RANGE = re.compile(r"(\d+)(?:-(\d+))?")

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
        return _refuse(error, arguments)
    except KeyboardInterrupt:  # Blender as a Python module, between two renders
        _refuse(BridgeError("cancelled", "Stopped.", "Finished frames are kept."), arguments)
        return batch.INTERRUPTED
    except Exception as error:  # the program's edge: a traceback belongs into the log
        state.log().exception("command %s", argv)
        sentence = f"Koshi met an error it does not know: {error}."
        return _refuse(BridgeError("internal", sentence, f"The details are in {state.log_file()}."), arguments)
    if arguments.json:
        print_json(result)
    return 0 if result["ok"] else int(result.get("exit_code", 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blender -b FILE.blend --command koshi",
        description="Koshi without Blender's window.",
        epilog="Every command has a --help of its own.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line on stdout")
        return command

    render = add("render", batch.render, "render shots into the sequencer and beside the .blend")
    render.add_argument(
        "files", metavar="FILE.blend", nargs="*", help="files to render one after the other (default: the open one)"
    )
    render.add_argument("--all-scenes", action="store_true", help="render every scene that has a prompt")
    render.add_argument("--save", action="store_true", help="save each .blend with its new strips afterwards")
    sampled = add("sample", exchange.write, "write the shot as JSON and render nothing")
    sampled.add_argument("-o", "--output", metavar="FILE", type=Path, help="file to write (default: stdout)")
    exported = add("export", exchange.write, "write the shot to a .koshi.json file, what it needs beside it")
    exported.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="file to write")
    for command, kind in ((render, "append"), (sampled, "store"), (exported, "store")):
        again = "; may be repeated" if kind == "append" else ""
        command.add_argument(
            "--scene", metavar="NAME", action=kind, help=f"a scene (default: the file's active one){again}"
        )
        command.add_argument("--range", metavar="A-B", type=_range, help="frames (default: the scene's)")
        command.add_argument("--frame-start", metavar="N", type=int, help="the first of them alone")
        command.add_argument("--frame-end", metavar="N", type=int, help="the last of them alone")
    imported = add("import", exchange.read_into_scene, "make a shot's JSON the scene's: keyframes, prompts, sizes")
    imported.add_argument("file", metavar="SHOT.koshi.json", type=Path)
    imported.add_argument("--scene", metavar="NAME", help="scene to fill (default: the file's active one)")
    imported.add_argument(
        "--partial", action="store_true", help="take over what a scene can hold although the shot has more"
    )
    imported.add_argument("--save", metavar="FILE.blend", nargs="?", const="", help="save the .blend, or as this one")
    add("doctor", cli_doctor.run, "check Blender's side and the backend")
    return parser


def _range(text: str) -> tuple[int, int]:
    found = RANGE.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of frames such as 1-48")
    return int(found[1]), int(found[2] or found[1])


def _refuse(error: BridgeError, arguments: argparse.Namespace) -> int:
    say(f"Error: {error}")
    if arguments.json:
        print_json({"ok": False, "error": error.as_dict()})
    return 1

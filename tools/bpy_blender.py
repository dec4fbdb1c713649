#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for `blender -b ...` made of the `bpy` package from PyPI: real Blender, without its program.

    python tools/bpy_blender.py [-b] [FILE.blend] [--factory-startup] [--addons a,b] [-y] [--offline-mode]
        [-S SCENE] [-E ENGINE] [-o OUT] [-s N] [-e N] [-j STEP] [-f N | -a]
        [-P FILE.py] [--python-expr CODE] [--python-exit-code N]
        [-c | --command NAME ARGUMENTS...] [-- ARGUMENTS...]

Arguments act in order, as they do in Blender, and mean what they mean there. `--command extension` knows
build, validate and the other commands of Blender's own extension tool, and `install-file`; `--command koshi`
(or whatever an extension registers) calls the extension. Unlike the module, and like the program, it loads
the user's preferences, so extensions that were installed and enabled once stay enabled;
BLENDER_USER_RESOURCES chooses another profile.

The process ends with os._exit: some versions of the module crash or hang at a normal exit after a Python
driver ran.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = {
    "-b", "--background", "--factory-startup", "-noaudio", "-q", "--quiet", "--offline-mode", "--online-mode",
    "-Y", "--disable-autoexec",
}  # fmt: skip
AUTOEXEC = {"-y", "--enable-autoexec"}


class Finished(Exception):
    """Ends the run with an exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Blender:
    """One run of Blender: `run` handles the arguments from left to right."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        end = arguments.index("--") if "--" in arguments else len(arguments)
        self.todo = arguments[:end]  # what follows "--" is for scripts, which find it in sys.argv
        self.python_exit_code = 0
        self.commands: dict[str, Callable[[list[str]], int]] = {}

    def run(self) -> int:
        """Act on all arguments; returns the exit code."""
        import bpy

        if hasattr(bpy.app, "binary_path"):
            bpy.app.binary_path = os.path.abspath(__file__)  # scripts start Blender again by it
        sys.argv[:] = ["blender", *self.arguments]
        self._collect_commands()
        if "--factory-startup" not in self.todo:
            load_preferences()
        if AUTOEXEC & set(self.todo):
            bpy.context.preferences.filepaths.use_scripts_auto_execute = True
        try:
            while self.todo:
                self._act(self.todo.pop(0))
        except Finished as end:
            return end.code
        return 0

    def _act(self, argument: str) -> None:
        import bpy

        scene = bpy.context.scene
        match argument:
            case _ if argument in FLAGS or argument in AUTOEXEC:
                pass
            case "-v" | "--version":
                print("Blender", bpy.app.version_string)
                raise Finished(0)
            case "--python-exit-code":
                self.python_exit_code = int(self._next(argument))
            case "--addons":
                import addon_utils

                for module in self._next(argument).split(","):
                    addon_utils.enable(module, default_set=True)
            case "-S" | "--scene":
                bpy.context.window.scene = bpy.data.scenes[self._next(argument)]
            case "-E" | "--engine":
                scene.render.engine = self._next(argument)
            case "-o" | "--render-output":
                scene.render.filepath = self._next(argument)
            case "-s" | "--frame-start":
                scene.frame_start = int(self._next(argument))
            case "-e" | "--frame-end":
                scene.frame_end = int(self._next(argument))
            case "-a" | "--render-anim":
                render_animation()
            case "-j" | "--frame-jump":
                scene.frame_step = int(self._next(argument))
            case "-f" | "--render-frame":
                render_frame(scene, int(self._next(argument)))
            case "-P" | "--python":
                path = self._next(argument)
                self._script(lambda: runpy.run_path(path, run_name="__main__"))
            case "--python-expr":
                code = compile(self._next(argument), "<string>", "exec")
                self._script(lambda: exec(code, {"__name__": "__main__"}))
            case "-c" | "--command":
                raise Finished(self._command(self._next(argument)))
            case _ if argument.startswith("-"):
                print(f"bpy_blender: {argument} is ignored", file=sys.stderr)
            case _:
                open_file(argument)

    def _next(self, argument: str) -> str:
        if not self.todo:
            print(f"bpy_blender: {argument} needs a value", file=sys.stderr)
            raise Finished(1)
        return self.todo.pop(0)

    def _script(self, run: Callable[[], object]) -> None:
        """Run a script; an exception counts only if --python-exit-code came before it, as in Blender."""
        try:
            run()
        except SystemExit:
            raise
        except BaseException:  # whatever the script did wrong, Blender prints it and goes on
            traceback.print_exc()
            if self.python_exit_code:
                raise Finished(self.python_exit_code) from None

    def _collect_commands(self) -> None:
        """Remember what extensions register: the module has nothing that would call it."""
        import bpy

        register = bpy.utils.register_cli_command

        def remember(name: str, execute: Callable[[list[str]], int]) -> Any:
            self.commands[name] = execute
            return register(name, execute)

        bpy.utils.register_cli_command = remember

    def _command(self, name: str) -> int:
        # A command takes all that follows, "--" included.
        position = next(i for i, a in enumerate(self.arguments) if a in ("-c", "--command"))
        rest = self.arguments[position + 2 :]
        if name == "extension":
            return install_file(rest[1:]) if rest[:1] == ["install-file"] else extension_tool(rest)
        if name not in self.commands:
            known = ", ".join(sorted({*self.commands, "extension"}))
            print(f'bpy_blender: there is no command "{name}", only {known}', file=sys.stderr)
            return 1
        return int(self.commands[name](rest) or 0)


def load_preferences() -> None:
    """Read the user's preferences and enable the extensions they name, as Blender does on its start."""
    import addon_utils
    import bpy

    if not (Path(bpy.utils.user_resource('CONFIG')) / "userpref.blend").is_file():
        return
    if bpy.app.version >= (4, 5, 0):
        bpy.ops.wm.read_userpref()
        addon_utils.reset_all(reload_scripts=False)
        return
    # Reading them crashes the module of 4.2: enable what is installed instead.
    for repository in bpy.context.preferences.extensions.repos:
        folder = Path(repository.directory)
        for manifest in sorted(folder.glob("*/blender_manifest.toml")) if repository.enabled else ():
            addon_utils.enable(f"bl_ext.{repository.module}.{manifest.parent.name}", default_set=True)


def install_file(arguments: list[str]) -> int:
    """`extension install-file --repo ID [--enable] FILE`: install a zip and remember it as enabled."""
    import bpy

    parser = argparse.ArgumentParser(prog="blender --command extension install-file")
    parser.add_argument("-r", "--repo", required=True)
    parser.add_argument("-e", "--enable", action="store_true")
    parser.add_argument("--no-prefs", action="store_true")
    parser.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    try:
        bpy.ops.extensions.package_install_files(
            filepath=str(given.file.resolve()), repo=given.repo, enable_on_install=given.enable
        )
    except RuntimeError as error:  # how an operator's report of an error reaches Python
        print(error, file=sys.stderr)
        return 1
    if not given.no_prefs:
        bpy.ops.wm.save_userpref()
    return 0


def extension_tool(arguments: list[str]) -> int:
    """build, validate, server-generate ...: Blender's own tool, which runs with any Python."""
    import bpy

    scripts = Path(bpy.utils.system_resource('SCRIPTS'))
    tool = scripts / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"
    return subprocess.run([sys.executable, str(tool), *arguments], check=False).returncode


def open_file(path: str) -> None:
    """Load a .blend, or end with 1 if that fails."""
    import bpy

    try:
        bpy.ops.wm.open_mainfile(filepath=os.path.abspath(path))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise Finished(1) from None


def render_animation() -> None:
    """-a: render the scene's range; ends with 1 if an engine reports an error."""
    import bpy

    try:
        bpy.ops.render.render(animation=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise Finished(1) from None


def render_frame(scene: Any, number: int) -> None:
    """-f: one frame, named as in an animation; the scene's own range stays what it is, as in Blender."""
    import bpy

    render = scene.render
    before = render.filepath
    render.filepath = render.frame_path(frame=number)
    scene.frame_set(number)
    try:
        bpy.ops.render.render(write_still=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise Finished(1) from None
    finally:
        render.filepath = before


def leave(code: int) -> None:
    """End the process at once, after what a normal exit would have done."""
    bpy = sys.modules.get("bpy")
    if bpy is not None:
        shutil.rmtree(bpy.app.tempdir, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Run, and never return."""
    try:
        code = Blender(sys.argv[1:]).run()
    except SystemExit as end:  # sys.exit in a script ends Blender with this code
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # a fault of this stand-in itself; os._exit below must be reached all the same
        traceback.print_exc()
        code = 1
    leave(code)


if __name__ == "__main__":
    main()

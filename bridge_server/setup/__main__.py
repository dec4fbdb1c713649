# SPDX-License-Identifier: GPL-3.0-or-later
"""The set-up's program: `python -m bridge_server.setup install | remove --folder FOLDER --source SOURCE`.

With `pull | verify | delete --model NAME --title TITLE --python PYTHON` it does that to a model instead.

It goes on when the Blender that started it ends. Exit codes: 0 done, 1 failed, 2 cancelled, 3 another one is under way.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from ..launcher import rotate
from ..protocol import BridgeError
from . import models, place
from .install import Installer
from .place import Status
from .running import Runner, Stopped
from .tidy import remove

PATIENCE = 20.0  # seconds for a cancelled set-up to clear up


def main(arguments: list[str]) -> int:
    """Do one task, with its status on show; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bridge_server.setup")
    parser.add_argument("task", choices=("install", "remove", *place.MODEL_TASKS))
    parser.add_argument("--folder", type=Path, required=True, help="the set-up's folder")
    parser.add_argument("--source", type=Path, required=True, help="the folder with koshi_backend and bridge_server")
    parser.add_argument("--model", default="", help="a model's name")
    parser.add_argument("--title", default="", help="that name for people")
    parser.add_argument("--python", default="", help="of the backend's environment")
    parser.add_argument("--repair", action="store_true", help="fetch again what is damaged")
    options = parser.parse_args(arguments)
    until = time.monotonic() + PATIENCE
    while True:
        with place.lock() as lock:
            if lock.held:
                return _do(options)
        if time.monotonic() > until:
            print("Another set-up is under way.", file=sys.stderr)
            return 3
        time.sleep(0.1)


def _do(options: argparse.Namespace) -> int:
    status = Status(task=options.task, folder=str(options.folder), text="Starting", pid=os.getpid())
    status.model = options.model
    log = place.log_path()
    rotate(log)
    runner = Runner(status, log)
    runner.note(f"==== {time.ctime()}: {options.task} {options.folder}, Python {sys.version}")
    try:
        runner.tell("Starting")
        folder = Path(os.path.abspath(options.folder))
        if options.task in place.MODEL_TASKS:
            title, python = options.title or options.model, options.python
            text = models.run(options.task, options.model, title, python, options.source, options.repair, runner)
        elif options.task == "install":
            status.note = Installer(folder, options.source, runner).install()
            text = "The backend is set up"
        else:
            status.note = remove(folder, runner)
            text = "The backend is removed"
        status.fraction = 1.0
        runner.end("done", text)
    except (Stopped, KeyboardInterrupt):
        runner.end("cancelled", "Cancelled")
    except BridgeError as error:
        status.error = error.as_dict()
        runner.end("failed")
    except Exception as error:  # the program's edge: whatever it was must reach a person
        runner.note(traceback.format_exc())
        message = f"The set-up met an error it does not know: {error}"
        status.error = BridgeError("internal", message, f"The log has the details: {log}.").as_dict()
        runner.end("failed")
    place.cancel_path().unlink(missing_ok=True)
    return {"done": 0, "failed": 1}.get(status.phase, 2)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

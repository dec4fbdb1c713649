# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's end of a set-up: starts its program, looks how far it is, ends it. Nothing here waits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..launcher import clean_environment, detached_flags
from ..protocol import BridgeError
from . import place
from .place import Status

_started: list[subprocess.Popen[bytes]] = []  # the last one is this Blender's


def begin(
    task: str,
    folder: Path,
    source: Path,
    variables: Mapping[str, str] | None = None,
    model: str = "",
    more: Sequence[str] = (),
) -> None:
    """Start a set-up's program. Raises BridgeError "setup_busy", "no_python", "cannot_write".

    task: "install" or "remove" the backend; "pull", "verify" or "delete" a `model`. more: further arguments.
    """
    if (now := look()) is not None and now.phase == "running":
        what = f"{now.text} is under way." if now.model else "A set-up of the backend is under way."
        raise BridgeError("setup_busy", what, "Wait for it, or cancel it first.")
    try:
        place.desk().mkdir(parents=True, exist_ok=True)
        place.cancel_path().unlink(missing_ok=True)
        Status(task=task, folder=str(folder), text="Starting", model=model).write()
        # Its own log: a Python that does not start has no other place to say so.
        with (place.desk() / "start.log").open("wb") as output:
            _started[:] = [
                subprocess.Popen(
                    [
                        *(own_python(), "-P", "-m", "bridge_server.setup", task),
                        *("--folder", str(folder), "--source", str(source)),
                        *(("--model", model) if model else ()),
                        *more,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=place.desk(),
                    env={**clean_environment(source), **(variables or {})},
                    creationflags=detached_flags(),
                    start_new_session=sys.platform != "win32",
                )
            ]
    except OSError as error:
        message = f"The set-up cannot be started ({error.strerror or error})."
        raise BridgeError("cannot_write", message, f"Koshi writes to {place.desk()}: check that folder.") from error


def own_python() -> str:
    """The program of the Python that runs here, a file of Blender's. Raises BridgeError "no_python"."""
    name = "python.exe" if os.name == "nt" else f"python{sys.version_info[0]}.{sys.version_info[1]}"
    inside = Path(sys.prefix) / ("bin" if os.name != "nt" else "") / name
    for place_ in (sys.executable, getattr(sys, "_base_executable", ""), inside, Path(sys.prefix) / "bin" / name):
        if place_ and Path(place_).is_file() and "python" in Path(place_).name.lower():
            return str(place_)
    message = "Blender's own Python program was not found, and the set-up runs in it."
    raise BridgeError("no_python", message, "Install Blender from blender.org, or set Backend Python by hand.")


def look() -> Status | None:
    """Where the set-up stands that is under way or was the last one; None if there was none.

    One whose program is gone without a word has failed.
    """
    status = Status.read()
    if status is None or status.phase != "running" or _alive():
        return status
    status = Status.read() or status  # it may have ended between the two looks
    if status.phase == "running":
        status.phase, status.error = "failed", place.interrupted(status).as_dict()
        with suppress(OSError):
            said = (place.desk() / "start.log").read_text(encoding="utf-8", errors="replace").strip()
            if said and _started and _started[-1].returncode:
                status.error["message"] += f" It said: {said.splitlines()[-1][:300]}"
    return status


def _alive() -> bool:
    """Whether a set-up's program runs: this Blender's, or else one that holds the lock."""
    if _started and _started[-1].poll() is None:
        return True
    try:
        with place.lock() as lock:
            return not lock.held
    except OSError:
        return False


def cancel() -> None:
    """Ask the set-up to end, whichever Blender began it; it does so within a few tenths of a second."""
    with suppress(OSError):
        place.desk().mkdir(parents=True, exist_ok=True)
        place.cancel_path().touch()


def forget() -> None:
    """Forget how the last set-up ended."""
    with suppress(OSError):
        (place.desk() / "status.json").unlink(missing_ok=True)

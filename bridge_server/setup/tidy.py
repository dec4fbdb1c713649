# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes a set-up, or what is left of one, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ..client import Client, read_connection
from ..protocol import BridgeError
from . import place
from .place import DOWNLOADS, STAMP, TEMPORARY, Stamp
from .running import Runner


def remove(folder: Path, runner: Runner) -> str:
    """Delete a set-up, but nothing else in its folder; returns a remark. Raises BridgeError."""
    if Stamp.read(folder) is None:
        message = f"{folder} was not made by Koshi's set-up: it is left alone."
        raise BridgeError("not_ours", message, "Delete it by hand if you want to be rid of it.")
    stop_backend(refuse_if_busy=True)
    runner.tell("Removing the backend", str(folder), 0.1)
    left = remove_folder(folder)
    return f"{folder} holds other things, too; they were left there." if left else ""


def remove_folder(folder: Path) -> bool:
    """Delete what the set-up has made, the stamp last; whether something else is left. Raises BridgeError."""
    for path in [*place.environments(folder).values(), folder / DOWNLOADS, folder / TEMPORARY]:
        delete(path)
        if path.exists():
            message = f"{path} cannot be deleted."
            raise BridgeError("cannot_delete", message, "Close the programs that use it, and try again.")
    with suppress(OSError):
        (folder / STAMP).unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or a mounted disk
        folder.rmdir()
    return folder.is_dir() and any(os.scandir(folder))


def delete(path: Path) -> None:
    """Delete a folder as far as that can be done; Windows' virus scanners hold fresh files for a moment."""
    for pause in (0.0, 0.2, 1.0):
        time.sleep(pause)
        if path.is_symlink():
            path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return


def stop_backend(refuse_if_busy: bool = False, really: bool = True) -> None:
    """Stop the backend that runs, since it may run from what is about to go. Raises BridgeError "backend_busy"."""
    try:
        with Client(read_connection()) as client:
            jobs = client.status().get("jobs", [])
            if refuse_if_busy and any(job.get("state") in ("queued", "running") for job in jobs):
                hint = "Wait until it is done, or cancel the render, and try again."
                raise BridgeError("backend_busy", "The backend renders just now.", hint)
            if really:
                client.shutdown()
    except BridgeError as error:
        if error.code == "backend_busy":
            raise  # anything else: there is none to stop


def size_of(folder: Path) -> int:
    """Bytes of a folder's files; 0 if there is none."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total

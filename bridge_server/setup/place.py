# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the backend's environment lies, and what state it is in. Nothing here starts a process or waits.

A set-up's folder holds:

    koshi-backend.json    the stamp: it says that the folder is ours, and which environment counts
    env-1, env-2, ...     environments; one that is being made never has the name of the one that counts
    downloads             what the installer has fetched so far; gone once a set-up is through
    temporary             what it unpacks

A user has one set-up under way at a time. What it does stands in the cache folder under `setup`, so that every Blender
sees it, whatever has become of the one that began it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import protocol
from ..lock import FileLock
from ..protocol import BridgeError, Header

STAMP = "koshi-backend.json"
DOWNLOADS = "downloads"
TEMPORARY = "temporary"
SUBFOLDER = "koshi-backend"  # made in a chosen folder that holds other things
_ENVIRONMENT = re.compile(r"env-(\d+)")

ENDED = ("done", "failed", "cancelled")
MODEL_TASKS = ("pull", "verify", "delete")


def data_folder() -> Path:
    """KOSHI_DATA, else the user's folder for programs' data, with /koshi. Not created here."""
    if chosen := os.environ.get("KOSHI_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return local / "koshi-data"  # the cache folder is koshi there
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "koshi"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "koshi"


def takes_folder() -> Path:
    """Where the takes of files that are not saved go. Not created here; nothing of Koshi's ever deletes it."""
    return data_folder().absolute() / "takes"


def home(chosen: str = "") -> Path:
    """The set-up's folder for what was chosen; nothing chosen: the last one that was set up, else the default.

    A chosen folder that holds other things gets a sub-folder.
    """
    if not chosen:
        return _last() or data_folder() / "backend"
    folder = Path(os.path.abspath(Path(chosen).expanduser()))
    if Stamp.read(folder) or not _holds_something(folder):
        return folder
    return folder / SUBFOLDER


def _last() -> Path | None:
    """The folder that was set up last, as long as its stamp is there: so a second Blender finds it."""
    try:
        folder = Path(json.loads(_pointer().read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if Stamp.read(folder) else None


def remember(folder: Path) -> None:
    """Make `folder` the one that counts where none is chosen."""
    write_json(_pointer(), {"folder": str(folder)})


def _pointer() -> Path:
    return data_folder() / "backend.json"


def _holds_something(folder: Path) -> bool:
    try:
        return any(os.scandir(folder))
    except OSError:  # not there, or no folder, or not to be read: making it will say so
        return False


def python_in(environment: Path) -> Path:
    """The interpreter inside an environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def environments(folder: Path) -> dict[int, Path]:
    """The environments in a set-up's folder, whole or not, by number."""
    try:
        found = {entry.name: Path(entry.path) for entry in os.scandir(folder)}
    except OSError:
        return {}
    return {int(match[1]): path for name, path in found.items() if (match := _ENVIRONMENT.fullmatch(name))}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a small file whole or not at all; makes its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
        os.replace(aside, path)
    except BaseException:  # whatever happened, leave no half file; the error goes on
        Path(aside).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Stamp:
    """What a set-up's folder says of itself.

    environment: name of the folder with the environment that counts, "" before the first is whole. koshi: the version
    that made it. requirements: digest of what it was made of. build: of PyTorch, "cuda", "cpu" or "default".
    python: version of its interpreter.
    """

    environment: str = ""
    koshi: str = ""
    requirements: str = ""
    build: str = ""
    python: str = ""

    @classmethod
    def read(cls, folder: Path) -> Stamp | None:
        """The stamp of a folder; None if it has none, or a damaged one that nothing can be known from."""
        try:
            data = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(data, dict) or data.get("made_by") != "koshi":
            return None
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known and isinstance(value, str)})

    def write(self, folder: Path) -> None:
        """Put it into a folder. Raises OSError."""
        write_json(folder / STAMP, {"made_by": "koshi", **asdict(self)})

    def python_path(self, folder: Path) -> Path | None:
        """The interpreter that counts, if it is there."""
        if not _ENVIRONMENT.fullmatch(self.environment):
            return None
        path = python_in(folder / self.environment)
        return path if path.exists() else None  # a link to a Python that was removed does not "exist"


def ready_python(folder: Path) -> Path | None:
    """The interpreter of the backend that is set up in `folder`; None if there is none that could be started."""
    stamp = Stamp.read(folder)
    return stamp.python_path(folder) if stamp else None


def condition(folder: Path, requirements: str) -> str:
    """What is in a set-up's folder, where `requirements` is the digest of what is needed.

    "absent": nothing; "occupied": things of others; "unfinished": a set-up was begun, none is whole; "ready";
    "outdated": whole, but made of other packages; "broken": its interpreter is gone.
    """
    stamp = Stamp.read(folder)
    if stamp is None:
        return "occupied" if _holds_something(folder) else "absent"
    if not stamp.environment:
        return "unfinished"
    if stamp.python_path(folder) is None:
        return "broken"
    return "ready" if stamp.requirements == requirements else "outdated"


# ---- the set-up that is under way


def desk() -> Path:
    """The folder with the status, the lock and the log of set-ups."""
    return protocol.cache_folder().absolute() / "setup"


def log_path() -> Path:
    """What the last set-ups did, in full."""
    return desk() / "setup.log"


def cancel_path() -> Path:
    """A set-up that sees this file ends."""
    return desk() / "cancel"


def lock() -> FileLock:
    """Held by the set-up that is under way. Raises OSError where it cannot be tried."""
    desk().mkdir(parents=True, exist_ok=True)
    return FileLock(desk() / "lock")


@dataclass
class Status:
    """Where a set-up stands.

    task: "install" or "remove" the backend; "pull", "verify" or "delete" a model, whose name is `model`. phase:
    "running", "done", "failed" or "cancelled". text: what it does now, for people; detail: how far that is;
    fraction: of the whole, 0 to 1. error: as BridgeError.as_dict. note: a remark at its end.
    """

    task: str = "install"
    phase: str = "running"
    folder: str = ""
    text: str = ""
    detail: str = ""
    fraction: float = 0.0
    seconds: float = 0.0
    pid: int = 0
    error: Header | None = field(default=None)
    note: str = ""
    model: str = ""

    @classmethod
    def read(cls) -> Status | None:
        """The last one written, None if there is none."""
        try:
            data = json.loads((desk() / "status.json").read_text(encoding="utf-8"))
            known = {f.name for f in fields(cls)}
            return cls(**{name: value for name, value in data.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(self) -> None:
        """Show it to every Blender. Raises OSError."""
        write_json(desk() / "status.json", asdict(self))


def interrupted(status: Status) -> BridgeError:
    """The error for a set-up that ended without a word."""
    if status.model:
        message = f"{status.text or 'It'} stopped half-way."
        return BridgeError("setup_interrupted", message, "Press the button again: it goes on from where it was.")
    message = f"The set-up stopped half-way ({status.text.lower() or 'at its beginning'})."
    hint = "Press the button again: it makes a new start, and what was downloaded need not be downloaded again."
    return BridgeError("setup_interrupted", message, hint)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python runs the backend, and where its source lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bpy

from .. import __package__ as base_package
from ..bridge_server.protocol import BridgeError
from .reader import Backend

SET_UP = (
    "Set it up once as Koshi's README says (clone the repository, then `make env`), and choose "
    "the .venv folder that this makes in Preferences > Add-ons > Koshi > Backend Python."
)


def backend() -> Backend:
    """How to start the backend; what is missing is told only if it has to be started.

    The source is the extension's own folder, so that add-on and backend always are of the same version.
    """
    source = Path(__file__).resolve().parent.parent
    try:
        return Backend(backend_python(), source)
    except BridgeError as error:
        return Backend("", source, error)


def backend_python() -> str:
    """Path of the Python that has torch: the preference, else KOSHI_PYTHON. A venv's folder will do, too.

    Raises BridgeError "backend_not_set" or "backend_not_found".
    """
    addon = bpy.context.preferences.addons.get(base_package)
    chosen = bpy.path.abspath(addon.preferences.backend_python.strip()) if addon and addon.preferences else ""
    chosen = chosen or os.environ.get("KOSHI_PYTHON", "")
    if not chosen:
        raise BridgeError("backend_not_set", "Koshi does not know yet which Python runs its backend.", SET_UP)
    path = Path(chosen).expanduser()
    if path.is_dir():
        inside = ("Scripts/python.exe",) if sys.platform == "win32" else ("bin/python", "bin/python3")
        path = next((path / name for name in inside if (path / name).is_file()), path)
    if not path.is_file():
        raise BridgeError("backend_not_found", f"There is no Python at {path}.", SET_UP)
    # Not resolved: a venv's Python is a link, and only under its own name does it find the venv's packages.
    return os.path.abspath(path)

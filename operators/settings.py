# SPDX-License-Identifier: GPL-3.0-or-later
"""What Koshi's preferences say of the backend: which Python runs it, with what settings, or on which other computer."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from pathlib import Path

import bpy

from .. import __package__ as base_package
from ..bridge_server import protocol
from ..bridge_server.protocol import BridgeError, Connection
from ..bridge_server.setup import place, requirements
from ..koshi_backend.models.hub_cache import hub_folder as usual_hub_folder
from .reader import Backend

SET_UP = "Open Koshi's preferences and press Set Up Backend: it needs no more than a click."
OFFLINE = "Preferences > System > Network > Allow Online Access"


def preferences() -> bpy.types.AddonPreferences | None:
    """Koshi's preferences; None while the add-on is being taken away."""
    addon = bpy.context.preferences.addons.get(base_package)
    return addon.preferences if addon else None


def source() -> Path:
    """The folder with koshi_backend: the extension's own, so that add-on and backend always are of the same version."""
    return Path(__file__).resolve().parent.parent


def backend() -> Backend:
    """How to reach the backend; what is missing is told only if it has to be started."""
    try:
        elsewhere = remote()
    except BridgeError as error:
        return Backend("", source(), error, unreachable=True)
    if elsewhere is not None:
        return Backend("", source(), remote=elsewhere)
    try:
        return Backend(backend_python(), source(), variables=variables())
    except BridgeError as error:
        return Backend("", source(), error)


def backend_python() -> str:
    """Path of the Python that has torch: the preference Backend Python, else KOSHI_PYTHON, else that of the set-up.

    A venv's folder will do, too. Raises BridgeError "backend_not_set" or "backend_not_found".
    """
    chosen = own_python()
    if not chosen:
        folder = setup_folder()
        if (ready := place.ready_python(folder)) is not None:
            return str(ready)
        if setup_condition() == "broken":
            message = f"The backend at {folder} has lost its Python: the program that it was made with is gone."
            raise BridgeError("backend_not_found", message, "Open Koshi's preferences and press Repair.")
        raise BridgeError("backend_not_set", "Koshi's backend is not set up yet.", SET_UP)
    path = Path(chosen).expanduser()
    if path.is_dir():
        inside = ("Scripts/python.exe",) if sys.platform == "win32" else ("bin/python", "bin/python3")
        path = next((path / name for name in inside if (path / name).is_file()), path)
    if not path.is_file():
        hint = f"Correct Backend Python (or KOSHI_PYTHON), or make it empty. {SET_UP}"
        raise BridgeError("backend_not_found", f"There is no Python at {path}.", hint)
    # Not resolved: a venv's Python is a link, and only under its own name does it find the venv's packages.
    return os.path.abspath(path)


def own_python() -> str:
    """A Python of the user's own, which comes before the set-up's; "" if none is named."""
    chosen = preferences()
    named = bpy.path.abspath(chosen.backend_python.strip()) if chosen else ""
    return named or os.environ.get("KOSHI_PYTHON", "")


def setup_folder() -> Path:
    """Where the set-up's environment lies, or will lie."""
    chosen = preferences()
    return place.home(bpy.path.abspath(chosen.backend_folder.strip()) if chosen else "")


def setup_condition() -> str:
    """What is there, as `place.condition` says it."""
    return place.condition(setup_folder(), _digest(os.environ.get("KOSHI_SETUP_REQUIREMENTS", "")))


@functools.cache
def _digest(own: str) -> str:
    """The digest of what the backend needs, read once; "" where the add-on's files are not whole."""
    try:
        return requirements.requirements(source()).digest
    except BridgeError:
        return ""


def variables() -> dict[str, str]:
    """Environment variables for a backend that is started: what the preferences say, where they say anything."""
    chosen = preferences()
    made: dict[str, str] = {}
    if chosen is not None and chosen.model_folder.strip():
        made["HF_HUB_CACHE"] = bpy.path.abspath(chosen.model_folder.strip())
    if chosen is not None and chosen.is_property_set("store_limit"):
        made["KOSHI_STORE_GB"] = f"{chosen.store_limit:g}"
    if chosen is not None and chosen.offload != 'auto':
        made["KOSHI_OFFLOAD"] = chosen.offload
    if chosen is not None and chosen.vram_limit > 0.0:
        made["KOSHI_VRAM"] = f"{max(chosen.vram_limit, 1.0):g}"
    if chosen is not None and chosen.quantize != 'none':
        made["KOSHI_QUANTIZE"] = chosen.quantize
    if not bpy.app.online_access:
        made["HF_HUB_OFFLINE"] = "1"
    return made


def model_variables() -> dict[str, str]:
    """The same for fetching, checking and removing models. A token is given to nothing else."""
    chosen = preferences()
    made = {name: value for name, value in variables().items() if name.startswith("HF_")}
    if chosen is not None and chosen.hub_token.strip():
        made["HF_TOKEN"] = chosen.hub_token.strip()
    return made


def hub_folder() -> Path:
    """Where models are downloaded to and looked for on this computer."""
    chosen = preferences()
    named = bpy.path.abspath(chosen.model_folder.strip()) if chosen else ""
    return Path(named) if named else usual_hub_folder()


def setup_variables() -> dict[str, str]:
    """The same for a set-up."""
    chosen = preferences()
    made: dict[str, str] = {}
    if chosen is not None and chosen.package_index.strip():
        made["KOSHI_PACKAGE_INDEX"] = chosen.package_index.strip()
    if chosen is not None and chosen.torch_index.strip():
        made["KOSHI_TORCH_INDEX"] = chosen.torch_index.strip()
    return made


def remote() -> Connection | None:
    """The backend on another computer; None if this computer's own is meant. Raises BridgeError "bad_remote"."""
    chosen = preferences()
    if chosen is None or not chosen.use_remote:
        return None
    file = bpy.path.abspath(chosen.remote_file.strip())
    if not file:
        hint = "Copy connection.json from that computer, and choose the copy in Koshi's preferences."
        raise BridgeError("bad_remote", "The other computer's connection file is not chosen.", hint)
    try:
        found = Connection.read(Path(file))
    except FileNotFoundError:
        hint = "Choose a copy of the other computer's connection.json in Koshi's preferences."
        raise BridgeError("bad_remote", f"There is no file {file}.", hint) from None
    if chosen.remote_address.strip():
        found = replace(found, address=address(chosen.remote_address))
    if isinstance(found.address, tuple) and not protocol.is_loopback(found.address[0]) and not bpy.app.online_access:
        message = f"Koshi may not reach {found.address[0]}: online access is off."
        raise BridgeError("offline", message, f"Turn on {OFFLINE}.")
    return found


def address(text: str) -> tuple[str, int]:
    """(host, port) of "host:port", as people write it. Raises BridgeError "bad_remote"."""
    bare = text.strip().rpartition("://")[2].rstrip("/")
    host, _, port = bare.rpartition(":")
    if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65536:
        message = f'"{text}" is no address of a backend.'
        raise BridgeError("bad_remote", message, "Write host:port, such as 192.168.1.20:40123 or localhost:5000.")
    return host.strip("[]"), int(port)

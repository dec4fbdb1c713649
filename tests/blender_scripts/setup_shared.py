# SPDX-License-Identifier: GPL-3.0-or-later
"""Set the backend up, reach the one that runs, or remove it, in a profile without any preferences of Koshi's.

Argument: "set up", "connect" or "remove".
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, arguments, koshi, result

(task,) = arguments()
settings, state = koshi("operators.settings"), koshi("operators.state")
protocol, place = koshi("bridge_server.protocol"), koshi("bridge_server.setup.place")
preferences = bpy.context.preferences.addons[PACKAGE].preferences


def connect() -> dict[str, Any]:
    """Press Connect; what came of it."""
    try:
        said = next(iter(bpy.ops.koshi.connect()))
    except RuntimeError as error:
        said = str(error)
    return {"said": said, "server": state.status.server, "error": state.status.error}


if task == "set up":
    bpy.context.preferences.system.use_online_access = True
    said = bpy.ops.koshi.setup_backend()
    bpy.context.preferences.system.use_online_access = False
    seen = {"said": list(said), "python": settings.backend_python(), "connected": connect()}
    bpy.ops.koshi.diagnose()
    seen["report"] = state.report
elif task == "connect":
    seen = {"condition": settings.setup_condition(), "python": settings.backend_python(), "connected": connect()}
    # The same backend as if it were on another computer, reached through a tunnel.
    here = protocol.Connection.read(protocol.connection_file())
    copied = Path(bpy.app.tempdir) / "connection.json"
    shutil.copyfile(protocol.connection_file(), copied)
    preferences.use_remote, preferences.remote_file = True, str(copied)
    preferences.remote_address = f"http://localhost:{here.address[1]}/"
    seen["tunnel"] = connect()
    seen["stop"] = bpy.ops.koshi.stop_backend.poll()
    preferences.remote_address = "192.0.2.1:5000"  # an address that is kept for documentation
    seen["far"] = connect()
    preferences.remote_address = "render room"
    seen["wrong"] = connect()
else:
    seen = {"said": list(bpy.ops.koshi.remove_backend()), "folder": str(settings.setup_folder())}
    seen["there"] = settings.setup_folder().exists()
    seen["condition"] = settings.setup_condition()
result(seen)

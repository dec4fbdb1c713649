# SPDX-License-Identifier: GPL-3.0-or-later
"""Press the buttons from a script: connect, render, prompts, stop. Report what Blender says."""

from __future__ import annotations

import os
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import koshi, result

state = koshi("operators.state")
out: dict = {}
scene = bpy.context.scene
out["render"] = list(bpy.ops.koshi.render())
out["status"] = {"phase": state.status.phase, "done": state.status.done, "message": state.status.message}
last, scene.frame_end = scene.frame_end, scene.frame_start
bpy.ops.koshi.render()
out["one"] = state.status.message
scene.frame_end = last
out["connect"] = list(bpy.ops.koshi.connect())
out["server"] = state.status.server
settings = scene.koshi
scene.frame_set(4)
bpy.ops.koshi.prompt_add()
scene.frame_set(2)
bpy.ops.koshi.prompt_add()
out["prompts"] = sorted([p.frame, p.text] for p in settings.prompts)
out["again"] = list(bpy.ops.koshi.prompt_add())
bpy.ops.koshi.prompt_remove()
out["removed"] = sorted(p.frame for p in settings.prompts)
settings.prompts.clear()
try:
    bpy.ops.koshi.render()
    out["error"] = None
except RuntimeError as error:  # how self.report({'ERROR'}) reaches Python
    out["error"] = str(error)
out["panel"] = state.status.error
out["poll_cancel"] = bpy.ops.koshi.cancel.poll()
state.status.note("of this file")
bpy.ops.wm.read_homefile(use_factory_startup=True)  # what was told is of the file that was open
now = state.status
out["elsewhere"] = {"phase": now.phase, "error": now.error, "notes": now.notes, "frames": now.frames}
out["elsewhere"]["server"] = now.server == out["server"]

# Stop, pressed where a backend of this script's own runs, and where none does.
client = koshi("bridge_server.client")
os.environ["KOSHI_CONNECTION"] = os.path.join(bpy.app.tempdir, "connection.json")


def answers() -> bool:
    """Whether the backend that was connected to is there."""
    try:
        with client.Client(own):
            return True
    except client.BridgeError:
        return False


bpy.ops.koshi.connect()
own = client.read_connection()
out["stop"] = {"there": answers(), "said": list(bpy.ops.koshi.stop_backend())}
until = time.monotonic() + 20
while answers() and time.monotonic() < until:
    time.sleep(0.05)
out["stop"] |= {"gone": not answers(), "server": state.status.server, "message": state.status.message}
out["stop"]["again"] = list(bpy.ops.koshi.stop_backend())
result(out)

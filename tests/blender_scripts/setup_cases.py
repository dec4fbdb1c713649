# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's set-up in everything that can go wrong, with packages of a few kilobytes; reports what was seen.

Arguments: a folder to work in, a requirements file, another one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, arguments, koshi, result

room, wanted, other = map(Path, arguments())
place, start = koshi("bridge_server.setup.place"), koshi("bridge_server.setup.start")
settings, watch, protocol = koshi("operators.settings"), koshi("operators.setup_watch"), koshi("bridge_server.protocol")
preferences = bpy.context.preferences.addons[PACKAGE].preferences
os.environ["KOSHI_SETUP_REQUIREMENTS"] = str(wanted)
seen: dict[str, Any] = {}


def press(operator: Callable[..., set[str]]) -> str:
    """What a button's operator comes to: "FINISHED", or why not."""
    watch.watch()  # forget what was read a moment ago
    try:
        return next(iter(operator()))
    except RuntimeError as error:
        return str(error)


def set_up() -> str:
    return press(bpy.ops.koshi.setup_backend)


def look() -> dict[str, Any]:
    """What is in the folder now."""
    folder = settings.setup_folder()
    python = place.ready_python(folder)
    names = sorted(os.listdir(folder)) if folder.is_dir() else None
    status = start.look()
    return {
        "folder": str(folder),
        "condition": settings.setup_condition(),
        "python": str(python) if python else None,
        "names": names,
        "error": status.error if status else None,
        "phase": status.phase if status else None,
    }


def begin_and_wait(text: str) -> Any:
    """Start a set-up as the button does in a window, and wait until it does `text`."""
    start.begin("install", settings.setup_folder(), settings.source(), settings.setup_variables())
    end = time.monotonic() + 120
    while not (status := start.look()).text.startswith(text):
        assert status.phase == "running" and time.monotonic() < end, status
        time.sleep(0.01)
    return status


def wait_for_lock() -> None:
    while start._alive():
        time.sleep(0.02)


# Online access is off, as in a new Blender.
preferences.backend_folder = str(room / "Käthe's folder é")
seen["offline"] = {"said": set_up(), **look()}
seen["variables"] = [settings.variables()]
preferences.model_folder, preferences.store_limit = "/models", 7.5
preferences.offload, preferences.vram_limit, preferences.quantize = 'block', 8.0, 'fp8'
seen["variables"].append(settings.variables())
bpy.context.preferences.system.use_online_access = True
seen["variables"].append(settings.variables())

# Killed half-way, then the button again.
status = begin_and_wait("Making")
os.kill(status.pid, signal.SIGKILL)
start._started[-1].wait()
seen["killed"] = look()
seen["again"] = {"said": set_up(), **look()}

# A second Blender, where no folder was chosen.
chosen, preferences.backend_folder = preferences.backend_folder, ""
seen["elsewhere"] = {**look(), "backend": settings.backend_python()}
preferences.backend_folder = chosen

# A package index that cannot be reached: what works stays.
mirror = "http://127.0.0.1:9/simple"
offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "1", "PIP_INDEX_URL": mirror}
before = {name: os.environ.get(name) for name in offline}
os.environ.update(offline, KOSHI_SETUP_REQUIREMENTS=str(other))
seen["no_network"] = {"said": set_up(), **look()}
for name, value in before.items():
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value

# Its Python is gone: repaired. A word of the other version: updated.
os.environ["KOSHI_SETUP_REQUIREMENTS"] = str(wanted)
python = Path(look()["python"])
python.unlink()
python.symlink_to(room / "a Python that was uninstalled")
try:
    settings.backend_python()
except protocol.BridgeError as error:
    told = error.as_dict()
seen["broken"] = {**look(), "told": told}
seen["repaired"] = {"said": set_up(), **look()}
stamp = Path(look()["folder"]) / place.STAMP
stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "requirements": "of another version"}))
seen["outdated"] = look()

# Removing leaves what is not ours, and does nothing where nothing is.
(stamp.parent / "notes.txt").write_text("mine")
seen["removed"] = {"said": press(bpy.ops.koshi.remove_backend), **look()}
seen["removed"]["kept"] = sorted(os.listdir(stamp.parent))
seen["remove again"] = press(bpy.ops.koshi.remove_backend)

# Cancelled: within a second, and nothing is left.
preferences.backend_folder = str(room / "cancelled")
begin_and_wait("Making")
asked = time.monotonic()
bpy.ops.koshi.cancel_setup()
while start.look().phase == "running":
    time.sleep(0.01)
seconds = time.monotonic() - asked
wait_for_lock()
seen["cancelled"] = {"seconds": seconds, **look()}

# A folder that cannot be one.
(room / "file").write_text("")
preferences.backend_folder = str(room / "file" / "inside")
seen["impossible"] = {"said": set_up(), **look()}

# The frame store, with a file that is no frame.
store, folder = koshi("operators.store"), room / "store"
os.environ["KOSHI_STORE"] = str(folder)
(folder / "ab").mkdir(parents=True)
for letter, size in ("a", 100), ("b", 200):
    (folder / "ab" / (letter * 64 + ".safetensors")).write_bytes(bytes(size))
(folder / "ab" / "notes.txt").write_text("mine")
(folder / "prompts" / "cd").mkdir(parents=True)
(folder / "prompts" / "cd" / ("c" * 64 + ".safetensors")).write_bytes(bytes(50))
found = store.measure(folder)
seen["store"] = {"before": [found.frames, found.size], "said": press(bpy.ops.koshi.clear_store)}
found = store.figures()
seen["store"] |= {"after": [found.frames, found.size], "left": [p.name for p in sorted(folder.rglob("*"))]}
result(seen)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons that fetch, check and remove models, against the hub at HF_ENDPOINT; reports what was seen.

Arguments: a folder to work in, an open model's name, a gated one's, and "all" or "basics".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, arguments, koshi, result

room, (name, gated, extent) = Path(arguments()[0]), arguments()[1:]
models, panel, settings = koshi("operators.models"), koshi("panels.models"), koshi("operators.settings")
start, watch = koshi("bridge_server.setup.start"), koshi("operators.setup_watch")
properties, known = koshi("panels.properties"), koshi("koshi_backend.models.registry").MODELS
preferences = bpy.context.preferences.addons[PACKAGE].preferences
seen: dict[str, Any] = {}


def press(operator: Callable[..., set[str]], **given: Any) -> str:
    """What a button's operator comes to: "FINISHED", or why not."""
    watch.watch()  # forget what was read a moment ago
    models.forget()
    try:
        return next(iter(operator(**given)))
    except RuntimeError as error:
        return str(error)


def hub(**changes: Any) -> int:
    """Change how the hub behaves; returns the bytes of large files that it has sent."""
    address = f"{os.environ['HF_ENDPOINT']}/_set/{urllib.parse.quote(json.dumps(changes))}"
    with urllib.request.urlopen(address) as reply:
        return int(json.load(reply)["total"])


def menu() -> dict[str, list[str]]:
    """Name and icon of each entry, as Blender is given them."""
    models.forget()
    return {one[0]: [one[1], one[3]] for one in panel.menu_items(properties.MODELS)}


def error() -> dict[str, Any] | None:
    status = start.look()
    return status.error if status else None


def begin_and_wait(share: float) -> Any:
    """Start a download as the button does in a window, and wait until so much of it is here."""
    more = ["--title", "It", "--python", settings.backend_python()]
    start.begin("pull", settings.setup_folder(), settings.source(), settings.model_variables(), name, more)
    end = time.monotonic() + 120
    while (status := start.look()).fraction < share:
        assert status.phase == "running" and time.monotonic() < end, status
        time.sleep(0.02)
    return status


def wait_for_lock() -> None:
    while start._alive():
        time.sleep(0.02)


# Online access is off, as in a new Blender.
bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
seen["offline"] = press(bpy.ops.koshi.pull_model, model=name)
seen["before"] = menu()
bpy.context.preferences.system.use_online_access = True
bpy.context.scene.koshi.model = name  # a menu that is made on the fly takes names all the same
seen["chosen"] = bpy.context.scene.koshi.model
preferences.model_folder = str(room / "modèles")
seen["pulled"] = press(bpy.ops.koshi.pull_model, model=name)
seen["after"] = menu()
seen["installed"] = models.installed(known[name])
seen["files"] = sorted(p.name for p in (room / "modèles").rglob("*.safetensors"))

if extent == "all":
    snapshot = next((room / "modèles").rglob("snapshots/*"))
    weights = (snapshot / "vae" / "diffusion_pytorch_model.safetensors").resolve()
    with weights.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\x01\x02\x03\x04\x05")
    seen["damaged"] = [press(bpy.ops.koshi.verify_model, model=name), error()]
    seen["repaired"] = press(bpy.ops.koshi.pull_model, model=name, repair=True)
    seen["sound"] = [press(bpy.ops.koshi.verify_model, model=name), start.look().text]
    seen["removed"] = press(bpy.ops.koshi.remove_model, model=name)
    seen["gone"] = [models.installed(known[name]), list((room / "modèles").rglob("*.safetensors"))]

    # Cancelled: at once, also while the hub is silent, and what is here stays.
    hub(rate=4e6, silent_after=8 << 20, times=99)
    begin_and_wait(0.3)
    while "waiting" not in start.look().detail:
        time.sleep(0.05)
    asked = time.monotonic()
    bpy.ops.koshi.cancel_setup()
    while start.look().phase == "running":
        time.sleep(0.01)
    seen["cancelled"] = {"seconds": time.monotonic() - asked, "phase": start.look().phase}
    wait_for_lock()
    models.forget()
    seen["cancelled"]["kept"] = models.partial(known[name])
    hub(silent_after=None)

    # Killed, the download goes with its program; then the button again.
    status = begin_and_wait(0.5)
    os.kill(status.pid, signal.SIGKILL)
    start._started[-1].wait()
    seen["killed"] = error()
    time.sleep(1.0)
    models.forget()
    before = models.partial(known[name])
    time.sleep(0.5)
    models.forget()
    seen["ended too"] = models.partial(known[name]) == before
    sent = hub(rate=0)
    seen["again"] = press(bpy.ops.koshi.pull_model, model=name)
    seen["fetched"] = {"sent": hub() - sent, "kept": before, "download": sum(
        p.stat().st_size for p in (room / "modèles").rglob("*.safetensors"))}  # fmt: skip

    # A gated one: what to do is said before anything is fetched, and a token opens it.
    sent = hub()
    seen["gated"] = [press(bpy.ops.koshi.pull_model, model=gated), error(), hub() - sent]
    preferences.hub_token = "hf_wrong"
    seen["refused"] = [press(bpy.ops.koshi.pull_model, model=gated), error()]
    preferences.hub_token = "hf_good"
    seen["let in"] = press(bpy.ops.koshi.pull_model, model=gated)
    seen["token elsewhere"] = "HF_TOKEN" in settings.variables()  # the backend that renders does not get it
    preferences.use_remote = True
    seen["remote"] = press(bpy.ops.koshi.pull_model, model=name)
    seen["nothing"] = press(bpy.ops.koshi.pull_model, model="koshi-tiny")
result(seen)

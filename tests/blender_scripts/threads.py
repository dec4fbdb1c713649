# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch every thread of Koshi's while each does its work: what of Blender's it calls, names or holds."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

sys.path.insert(0, os.path.dirname(__file__))
from inside import empty_scene, koshi, result

OURS = ("bpy", "_bpy", "BPy", "mathutils", "gpu", "pgettext")  # how the names of Blender's things begin
touched: set[str] = set()
watched: dict[str, int] = {}  # how many calls were seen in each thread


def of_blender(thing: Any) -> bool:
    """Whether this is a module, a type, an object or a function of Blender's."""
    names = [getattr(thing, "__module__", ""), getattr(thing, "__name__", ""), type(thing).__module__]
    names += [kind.__name__ for kind in type(thing).__mro__]
    return any(isinstance(name, str) and name.startswith(OURS) for name in names)


def watch(frame: types.FrameType, event: str, called: Any) -> None:
    """Python calls this for every function that a thread calls."""
    name, code = threading.current_thread().name, frame.f_code
    watched[name] = watched.get(name, 0) + 1
    if event == "c_call":
        found = [called, getattr(called, "__self__", None)]
    else:
        found = [*frame.f_locals.values(), *(frame.f_globals.get(word) for word in code.co_names)]
    touched.update(f"{name}: {code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}: {thing!r:.80}"
                   for thing in found if of_blender(thing))  # fmt: skip


def caught(work: Callable[[Any], Any], given: Any) -> bool:
    """Whether a thread that does this is found out."""
    touched.clear()
    thread = threading.Thread(target=work, args=(given,), name="culprit")
    thread.start()
    thread.join()
    return bool(touched)


threading.setprofile(watch)
out: dict[str, Any] = {
    "caught": {
        "holds a collection": caught(lambda held: 0, bpy.data.scenes),
        "holds a scene": caught(lambda held: 0, bpy.context.scene),
        "names bpy": caught(lambda _: bpy.app.version, None),
        "translates": caught(lambda _: iface_("Render"), None),
    },
    "not_caught": caught(lambda held: len(held), "text"),
}
touched.clear()

scene = empty_scene(64, 64, frames=2)
scene.koshi.steps = 1
scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(scene.camera)
for name in ("connect", "render", "preview", "motion_preview", "diagnose"):
    getattr(bpy.ops.koshi, name)()
scene.render.engine = 'KOSHI'
bpy.ops.render.render()
store = koshi("operators.store")
store.figures()
store.finish()
scene.render.engine = 'CYCLES'
scene.cycles.device = 'GPU'  # that there is none does not matter: Koshi asks before Cycles looks
bpy.ops.render.render()
threading.setprofile(None)
out["watched"] = {name: count for name, count in watched.items() if name != "culprit"}
out["touched"] = sorted(touched)
result(out)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Enable and disable the extension again and again; report what is left behind, and what was loaded."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, result

ENGINE = "KOSHI"
TIMES = 50
OBJECTS = ("function", "dict", "type", "RNAMeta", "RNAMetaPropGroup", "module")
FORBIDDEN = ("torch", "cv2", "transformers", "PIL", "einops", "pydantic", "safetensors", "diffusers")


def traces() -> dict[str, list[str]]:
    """Koshi's names in Blender: classes, properties, operators, handlers, timers, threads, menus, engines, keys."""
    return {
        "classes": sorted(n for n in dir(bpy.types) if n.startswith(("KOSHI", "Koshi"))),
        "scene": ["koshi"] if hasattr(bpy.types.Scene, "koshi") else [],
        "operators": sorted(dir(bpy.ops.koshi)),
        "handlers": [f"{name}: {function.__module__}" for name, function in handlers() if ours(function)],
        "timers": [f"{f.__module__}.{f.__name__}" for f in our_functions() if bpy.app.timers.is_registered(f)],
        "threads": [t.name for t in threading.enumerate() if "koshi" in t.name],
        "menus": [f"{cls.__name__}: {f.__name__}" for cls, f in drawn() if ours(f)],
        "panels": sorted(c.__name__ for c in panels() if ENGINE in getattr(c, "COMPAT_ENGINES", ()) and not ours(c)),
        "keys": [item.idname for each in keymaps() for item in each.keymap_items if item.idname.startswith("koshi.")],
    }


def sizes() -> dict[str, Any]:
    """How much of everything there is in Blender and in Python, whoever it belongs to."""
    gc.collect()
    types = Counter(type(thing).__name__ for thing in gc.get_objects())
    return {
        "types": len(dir(bpy.types)),
        "properties": {c.__name__: len(c.bl_rna.properties) for c in (bpy.types.Scene, bpy.types.WindowManager,
                       bpy.types.Object, bpy.types.Camera, bpy.types.Preferences)},
        "handlers": len(list(handlers())),
        "menus": len(list(drawn())),
        "engines": sum(len(getattr(c, "COMPAT_ENGINES", ())) for c in panels()),
        "keys": sum(len(keymap.keymap_items) for keymap in keymaps()),
        "threads": threading.active_count(),
        "modules": len(sys.modules),
        "paths": len(sys.path),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "images": len(bpy.data.images),
        # Python's own: classes, functions and dictionaries are what a registration would leave.
        "objects": {name: types[name] for name in OBJECTS},
    }  # fmt: skip


def handlers() -> list[tuple[str, Any]]:
    """Every function in every list of handlers."""
    lists = ((name, getattr(bpy.app.handlers, name)) for name in dir(bpy.app.handlers))
    return [(name, function) for name, each in lists if isinstance(each, list) for function in each]


def ours(function: Any) -> bool:
    """Whether a function is one of Koshi's."""
    return "koshi" in str(getattr(function, "__module__", ""))


def our_functions() -> list[Any]:
    """All functions of Koshi's modules."""
    loaded = [module for name, module in sys.modules.items() if name.startswith(PACKAGE)]
    return [thing for module in loaded for thing in vars(module).values() if callable(thing) and ours(thing)]


def panels(cls: type = bpy.types.Panel) -> list[type]:
    """Every panel class."""
    return [each for sub in cls.__subclasses__() for each in (sub, *panels(sub))]


def drawn() -> list[tuple[type, Any]]:
    """What has been appended to menus, headers and panels."""
    found = []
    for base in (bpy.types.Menu, bpy.types.Header, bpy.types.Panel):
        for cls in base.__subclasses__():
            found += [(cls, function) for function in getattr(getattr(cls, "draw", None), "_draw_funcs", ())]
    return found


def keymaps() -> list[Any]:
    """All keymaps of add-ons; Blender has none of them in background."""
    configurations = bpy.context.window_manager.keyconfigs
    return [k for c in (configurations.addon, configurations.user) if c is not None for k in c.keymaps]


def switch(how: str) -> None:
    getattr(bpy.ops.preferences, f"addon_{how}")(module=PACKAGE)


enabled = traces()
times, leftovers = [], []
off: list[str] = []
on: list[str] = []
for count in range(TIMES):
    switch("disable")
    leftovers.append(json.dumps(traces()))  # as text, which does not count among the objects
    if count in (4, TIMES - 1):  # the first times fill caches of Blender's and Python's
        off.append(json.dumps(sizes()))
    begin = time.perf_counter()
    switch("enable")
    times.append(time.perf_counter() - begin)
    if count in (4, TIMES - 1):
        on.append(json.dumps(sizes()))
result(
    {
        "enabled": enabled,
        "leftovers": [json.loads(left) for left in leftovers],
        "again": traces(),
        "off": [json.loads(each) for each in off],
        "on": [json.loads(each) for each in on],
        "seconds": min(times),
        "forbidden": [name for name in FORBIDDEN if name in sys.modules],
    }
)

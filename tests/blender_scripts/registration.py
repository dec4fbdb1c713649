# SPDX-License-Identifier: GPL-3.0-or-later
"""Enable and disable the extension again and again; report what is left behind, and what was loaded."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, result

FORBIDDEN = ("torch", "cv2", "transformers", "PIL", "einops", "pydantic", "safetensors", "diffusers")


def traces() -> dict[str, list[str]]:
    """Koshi's names in Blender: classes, properties, operators, handlers, threads."""
    handlers = [
        f"{name}: {function.__module__}"
        for name in dir(bpy.app.handlers)
        if isinstance(getattr(bpy.app.handlers, name), list)
        for function in getattr(bpy.app.handlers, name)
        if "koshi" in str(getattr(function, "__module__", ""))
    ]
    return {
        "classes": sorted(n for n in dir(bpy.types) if n.startswith(("KOSHI", "Koshi"))),
        "scene": ["koshi"] if hasattr(bpy.types.Scene, "koshi") else [],
        "operators": sorted(dir(bpy.ops.koshi)),
        "handlers": handlers,
        "threads": [t.name for t in threading.enumerate() if "koshi" in t.name],
    }


enabled = traces()
times = []
leftovers = []
for _ in range(8):
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    leftovers.append(traces())
    begin = time.perf_counter()
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    times.append(time.perf_counter() - begin)
gc.collect()
result(
    {
        "enabled": enabled,
        "leftovers": leftovers,
        "again": traces(),
        "seconds": min(times),
        "forbidden": [name for name in FORBIDDEN if name in sys.modules],
    }
)

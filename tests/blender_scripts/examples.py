# SPDX-License-Identifier: GPL-3.0-or-later
"""The example files' scripts, one after the other in one Blender: what each file has, and whether it makes a shot.

Arguments: a folder to make them in, the scripts.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result

folder, *scripts = arguments()
seen: dict[str, Any] = {}
for script in scripts:
    name = Path(script).stem.removeprefix("make_")
    blend = os.path.join(folder, f"{name}.blend")
    sys.argv = [*sys.argv[: sys.argv.index("--")], "--", blend]
    runpy.run_path(script, run_name="__main__")
    bpy.ops.wm.open_mainfile(filepath=blend)
    scene = bpy.context.window.scene
    seen[name] = koshi("operators.sample").shot_from_scene(scene).shot
result(seen)

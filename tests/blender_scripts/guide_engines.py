# SPDX-License-Identifier: GPL-3.0-or-later
"""The scene's own pictures, by Cycles where no GPU is and by its own engine where one is: `-- OUT_FOLDER PROGRAM`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

guides, sample = koshi("operators.guides"), koshi("operators.sample")
FOLDER, PROGRAM = Path(arguments()[0]), arguments()[1]
out: dict[str, Any] = {}

scene = empty_scene(96, 64, frames=1)
bpy.ops.mesh.primitive_monkey_add(rotation=(0.3, 0.0, 0.5))
lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", 'SUN'))
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
for item in (lamp, camera):
    scene.collection.objects.link(item)
scene.camera = camera
camera.matrix_world = Matrix.Translation((0.0, -5.0, 0.0)) @ Matrix.Rotation(1.5708, 4, 'X')
lamp.matrix_world = Matrix.Rotation(0.9, 4, 'X')
scene.cycles.samples, scene.cycles.use_denoising = 64, False  # what Koshi stands in with
scene.koshi.start = 'SCENE'
eevee = 'BLENDER_EEVEE_NEXT' if bpy.app.version[:2] in ((4, 2), (4, 5)) else 'BLENDER_EEVEE'


def render(name: str, engine: str, own: bool | None = None) -> None:
    """Render into a folder of this name: here, or, with or without the scene's own engine, in another process."""
    scene.render.engine = engine
    folder = FOLDER / name
    shot = guides.moved_to(sample.shot_from_scene(scene).shot, folder)
    if own is None:
        bpy.app.binary_path = ""
        steps = guides.render_guides(scene, shot, folder)
    else:
        folder.mkdir()
        steps = guides._in_a_process(guides._job(scene, shot, folder), PROGRAM, own)
    out[name] = list(dict.fromkeys(steps))[-1]


render("cycles", 'CYCLES')
render("eevee", eevee)
render("workbench", 'BLENDER_WORKBENCH')
log = koshi("operators.state").log_file()
begin = log.stat().st_size if log.is_file() else 0
render("own", 'BLENDER_WORKBENCH', own=True)
# A Blender that can open no GPU context does not survive trying to.
os.environ["__EGL_VENDOR_LIBRARY_FILENAMES"] = str(FOLDER / "none.json")
for name in ("DISPLAY", "WAYLAND_DISPLAY"):
    os.environ.pop(name, None)
render("failed", 'BLENDER_WORKBENCH', own=True)
out["log"] = log.read_bytes()[begin:].decode()
result(out)

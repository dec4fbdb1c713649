# SPDX-License-Identifier: GPL-3.0-or-later
"""Render with Koshi, then with Cycles on the processor and on the card, then with Koshi again: `-- SEED LOG`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

seed, log = arguments()
scene = empty_scene(64, 64, 2)
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(camera)
scene.camera = camera
scene.koshi.steps, scene.koshi.seed = 1, int(seed)


def unloaded() -> int:
    """How often the backend has said so."""
    file = Path(log)
    return file.read_text(encoding="utf-8").count("unloaded, to make room: 1") if file.exists() else 0


out = {"made": [], "unloaded": [unloaded()]}


def paint() -> None:
    assert bpy.ops.koshi.render() == {'FINISHED'}
    out["made"].append(koshi("operators.state").status.made)
    out["unloaded"].append(unloaded())


paint()
scene.render.use_sequencer = False
scene.render.engine, scene.cycles.samples = 'CYCLES', 1
for device in ('CPU', 'GPU'):
    scene.cycles.device = device
    bpy.ops.render.render()
scene.koshi.seed += 1
paint()  # after it: the backend's answer came before it had unloaded
result(out)

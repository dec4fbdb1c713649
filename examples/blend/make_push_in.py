# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera push-in: between trees, from dawn to day. Exact motion: near trees pass far ones as they do in the scene.

    blender -b -P examples/blend/make_push_in.py -- push_in.blend
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import bpy
from mathutils import Vector

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FRAMES = 28
PATH = 1.6  # metres to both sides that stay free for the camera


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """A forest, a camera that goes in, two prompts."""
    common.output(scene, "Push In", FRAMES)
    common.ground(scene, common.material("Ground", (0.10, 0.14, 0.06)))
    leaves, bark = common.material("Leaves", (0.05, 0.20, 0.06)), common.material("Bark", (0.10, 0.06, 0.04))
    chance = random.Random(4)
    for i in range(46):
        side = 1 if i % 2 else -1
        x, y = side * (PATH + abs(chance.gauss(0.0, 3.4))), -4.0 + 26.0 * chance.random()
        tree(scene, leaves, bark, x, y, chance.uniform(3.2, 6.0))
    common.light(scene, (0.75, 0.62, 0.50), (1.0, 0.85, 0.65), math.radians(60.0))
    way = [(1, Vector((0.0, -9.0, 1.7))), (FRAMES, Vector((0.2, -3.5, 1.6)))]
    common.camera(scene, way, Vector((0.0, 12.0, 2.4)), lens=28.0)
    koshi = scene.koshi
    koshi.motion_source, koshi.start, koshi.seed = 'EXACT', 'SCENE', 7
    common.key(scene, "strength", ((1, 0.75), (4, 0.35), (12, 0.35), (16, 0.55), (20, 0.38)))
    common.prompts(scene, (1, "a forest at dawn, photo"), (14, "a forest at day, photo"))


def tree(
    scene: bpy.types.Scene, leaves: bpy.types.Material, bark: bpy.types.Material, x: float, y: float, height: float
) -> None:
    """A trunk and a cone of twelve sides."""
    for of, radius, low, high in ((bark, 0.16, 0.0, height * 0.4), (leaves, height * 0.26, height * 0.25, height)):
        around = [(math.cos(a) * radius, math.sin(a) * radius) for a in (k * math.tau / 12 for k in range(12))]
        corners = [(x + dx, y + dy, low) for dx, dy in around] + [(x, y, high)]
        common.mesh(scene, of, corners, [(k, (k + 1) % 12, 12) for k in range(12)])


if __name__ == "__main__":
    common.build(make)

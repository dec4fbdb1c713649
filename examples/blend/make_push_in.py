# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera push-in: between firs, from dawn to day. Exact motion: near trees pass far ones as they do in the scene, and
the scene's own light turns with the prompt, since its pictures are mixed into what is painted.

    blender -b -P examples/blend/make_push_in.py -- push_in.blend
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import bpy
from mathutils import Vector

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FRAMES = 28
PATH = 1.3  # metres to both sides that stay free for the camera
FIRS = ((0.02, 0.09, 0.05), (0.03, 0.13, 0.06), (0.05, 0.12, 0.09))
DAWN = ((0.0, (0.95, 0.62, 0.52)), (0.2, (0.62, 0.42, 0.55)), (0.6, (0.22, 0.27, 0.55)))
DAY = ((0.0, (0.62, 0.80, 0.95)), (0.2, (0.30, 0.55, 0.92)), (0.6, (0.10, 0.30, 0.80)))
TURNS = (11, 17)  # the frames between which it gets light


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """A forest, a camera that goes in, two prompts."""
    common.output(scene, "Push In", FRAMES)
    common.ground(scene, common.material("Ground", (0.07, 0.12, 0.05)))
    way = [(-0.9, -20.0, 0.01), (0.9, -20.0, 0.01), (0.5, 30.0, 0.01), (-0.5, 30.0, 0.01)]
    common.mesh(scene, common.material("Path", (0.30, 0.20, 0.12)), way, [(0, 1, 2, 3)])
    firs = [common.material(f"Firs {k}", color) for k, color in enumerate(FIRS, 1)]
    chance = random.Random(4)
    for i in range(44):
        y = -4.0 + 0.7 * i
        x = (1 if i % 2 else -1) * (PATH + 0.9 + chance.random() * (2.0 + 0.12 * i))
        common.fir(scene, firs[i % 3], x, y, chance.uniform(2.6, 4.6))
    sky, sun = common.light(scene, DAWN, (1.0, 0.80, 0.60), 1.15, turn=-0.9)
    for frame, colors, warmth in ((TURNS[0], DAWN, 0.60), (TURNS[1], DAY, 0.90)):
        for point, (_, color) in zip(sky, colors, strict=True):
            point.color = (*color, 1.0)
            point.keyframe_insert("color", frame=frame)
        sun.color = (1.0, 0.5 + warmth / 2, warmth)
        sun.keyframe_insert("color", frame=frame)
    camera = [(1, Vector((0.0, -9.0, 1.5))), (FRAMES, Vector((0.1, -5.4, 1.5)))]
    common.camera(scene, camera, Vector((0.0, 12.0, 1.9)), lens=30.0)
    koshi = scene.koshi
    koshi.motion_source, koshi.start, koshi.seed = 'EXACT', 'SCENE', 7
    common.mixed_with_itself(scene)
    common.key(scene, "strength", ((1, 0.35), (4, 0.45)))
    common.prompts(scene, (1, "a pine forest at dawn, photo"), (14, "a pine forest at day, photo"))


if __name__ == "__main__":
    common.build(make)

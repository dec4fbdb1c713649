# SPDX-License-Identifier: GPL-3.0-or-later
"""Other scenes, other workspaces, other names, and things deleted while a render is under way."""

from __future__ import annotations

import os

import bpy
import hands


def steps(frames: int, seed: int) -> hands.Steps:
    """Everything in one render; then another whose scene is deleted."""
    yield from hands.set_the_stage(frames, seed, 64, 4, "scenes.blend")
    scene, seen = hands.window().scene, {}
    hands.render()
    yield from hands.wait_for_frames(2)
    bpy.ops.scene.new(type='EMPTY')
    seen["other"] = hands.window().scene != scene
    yield from hands.wait_for_frames(hands.told()["done"] + 2)
    hands.window().workspace = bpy.data.workspaces["Animation"]
    yield from hands.wait_for_frames(hands.told()["done"] + 2)
    scene.name = "Another Name"
    yield from hands.wait_for_frames(hands.told()["done"] + 2)
    seen["renamed"] = {"told": hands.told(), "shown": [len(strip["files"]) for strip in hands.strips(scene)]}
    hands.window().workspace = bpy.data.workspaces["Layout"]
    hands.window().scene = scene
    yield 0.2
    made = hands.koshi("operators.compat").strips(scene.sequence_editor)
    made.remove(made[0])
    yield from hands.wait_for_frames(hands.told()["done"] + 2)
    seen["deleted"] = {"told": hands.told(), "shown": [len(strip["files"]) for strip in hands.strips(scene)]}
    yield from hands.wait_for_the_end()
    others = [hands.strips(other) for other in bpy.data.scenes if other != scene]
    seen["end"] = {"told": hands.told(), "strips": hands.strips(scene), "others": others}

    scene.koshi.seed, scene.frame_end = seed + 1, 10
    hands.render()
    yield from hands.wait_for_frames(2)
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.scene.delete()
    seen["gone"] = "Another Name" not in bpy.data.scenes
    yield from hands.wait_for_the_end()
    hands.shot("scene-deleted")
    folder = hands.told()["folder"]
    seen["without"] = {"told": hands.told(), "files": [n for n in os.listdir(folder) if n.endswith(".png")]}
    return seen

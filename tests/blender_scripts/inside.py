# SPDX-License-Identifier: GPL-3.0-or-later
"""For the scripts that run inside Blender: Koshi's modules, and a way to hand a result to the test."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType
from typing import Any

import bpy

PACKAGE = "bl_ext.user_default.koshi"


def koshi(module: str) -> ModuleType:
    """A module of the installed extension, such as "operators.sample"."""
    return importlib.import_module(f"{PACKAGE}.{module}")


def arguments() -> list[str]:
    """What stands after "--" on Blender's command line."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def result(data: Any) -> None:
    """Hand `data` to the test, as the line of stdout that begins with RESULT."""
    print("RESULT " + json.dumps(data), flush=True)


def empty_scene(width: int = 128, height: int = 128, frames: int = 24) -> bpy.types.Scene:
    """A scene with nothing but a prompt."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    scene.frame_start, scene.frame_end = 1, frames
    prompt = scene.koshi.prompts.add()
    prompt.frame, prompt.text = 1, "a calm sea at dawn, photo"
    return scene

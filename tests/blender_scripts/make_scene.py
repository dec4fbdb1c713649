# SPDX-License-Identifier: GPL-3.0-or-later
"""Make .blends to render: `-- OUT.blend '{"width": 128, ...}' ...`; what is not given stays small and valid."""

from __future__ import annotations

import json
import sys

import bpy

DEFAULTS = {
    "name": "Scene", "width": 128, "height": 128, "percentage": 100, "frame_start": 1, "frames": 6, "fps": 24,
    "seed": 3, "steps": 4, "model": "koshi-tiny", "model_path": "", "zoom": [1.0, 1.03], "angle": 0.0,
    "translation_x": 0.0, "strength": 0.4, "prompts": [[1, "a calm sea at dawn, photo"]],
}  # fmt: skip


def main(path: str, given: dict) -> None:
    """Build and save it."""
    unknown = set(given) - set(DEFAULTS)
    assert not unknown, unknown
    wanted = {**DEFAULTS, **given}
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.name = wanted["name"]
    render, koshi = scene.render, scene.koshi
    render.resolution_x, render.resolution_y = wanted["width"], wanted["height"]
    render.resolution_percentage = wanted["percentage"]
    render.fps = wanted["fps"]
    scene.frame_start = wanted["frame_start"]
    scene.frame_end = wanted["frame_start"] + wanted["frames"] - 1
    for name in ("seed", "steps", "model", "model_path"):
        setattr(koshi, name, wanted[name])
    for name in ("zoom", "angle", "translation_x", "strength"):
        value = wanted[name]
        if not isinstance(value, list):
            setattr(koshi, name, value)
            continue
        for frame, key in zip((scene.frame_start, scene.frame_end), value, strict=True):
            setattr(koshi, name, key)
            koshi.keyframe_insert(name, frame=frame)
    for frame, text in wanted["prompts"]:
        prompt = koshi.prompts.add()
        prompt.frame, prompt.text = frame, text
    bpy.ops.wm.save_as_mainfile(filepath=path)


arguments = sys.argv[sys.argv.index("--") + 1 :]
for out, settings in zip(arguments[::2], arguments[1::2], strict=True):
    main(out, json.loads(settings))

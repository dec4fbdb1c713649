# SPDX-License-Identifier: GPL-3.0-or-later
"""How long Blender takes to read a long shot's curves, directly and by evaluating the scene.

    blender -b --python benchmarks/sampling.py          (with Koshi enabled; tools/bpy_blender.py will do)

All of Koshi's curves are keyed, and others of the scene's, 20 together; 10,000 frames. Then a keyed camera in a scene
of a hundred other things that move, one of them of 600,000 faces; 200 frames.
"""

from __future__ import annotations

import importlib
import math
import time

import bpy

FRAMES, CURVES = 10_000, 20
KEYS = 100  # of each curve
CAMERA_FRAMES = 200


def main() -> None:
    """Print the seconds of each way."""
    sample = importlib.import_module("bl_ext.user_default.koshi.operators.sample")
    values = importlib.import_module("bl_ext.user_default.koshi.operators.values")
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, FRAMES
    scene.render.resolution_x = scene.render.resolution_y = 256
    prompt = scene.koshi.prompts.add()
    prompt.frame, prompt.text = 1, "a calm sea at dawn, photo"
    names = (*importlib.import_module("bl_ext.user_default.koshi.panels.properties").SCHEDULES, "seed")
    for k, name in enumerate(names):
        setting = scene.koshi.bl_rna.properties[name]
        for i in range(KEYS):
            wave = 0.5 + 0.4 * math.sin(i + k)
            value = setting.soft_min + wave * (setting.soft_max - setting.soft_min)
            setattr(scene.koshi, name, value if setting.type == 'FLOAT' else int(100 * wave))
            scene.koshi.keyframe_insert(name, frame=1 + i * FRAMES // KEYS)
    others = [f"other {k}" for k in range(CURVES - len(names))]
    for name in others:
        scene[name] = 0.0
        for i in range(KEYS):
            scene[name] = float(i)
            scene.keyframe_insert(f'["{name}"]', frame=1 + i * FRAMES // KEYS)

    def seconds(what: str, run: object) -> None:
        begin = time.perf_counter()
        run()  # type: ignore[operator]
        print(f"{what:60s} {time.perf_counter() - begin:6.3f} s", flush=True)

    frames = range(1, FRAMES + 1)
    twenty = (names * 3)[:CURVES]
    print(f"Blender {bpy.app.version_string}, {FRAMES} frames")
    seconds(f"{CURVES} curves read directly", lambda: [values.direct(scene, (name,), frames) for name in twenty])
    seconds(f"the whole shot, {len(names)} curves of Koshi's, directly", lambda: sample.shot_from_scene(scene))
    scene.render.frame_map_old, scene.render.frame_map_new = 200, 100  # anything that makes Blender be asked
    seconds(f"the whole shot, scene of {CURVES} curves evaluated", lambda: sample.shot_from_scene(scene))
    scene.render.frame_map_old = 100
    scene.frame_end = CAMERA_FRAMES
    moving_things(scene)
    scene.koshi.motion_source = 'EXACT'
    seconds(f"the camera at {CAMERA_FRAMES} frames, directly", lambda: sample.shot_from_scene(scene))
    scene.camera.constraints.new('LIMIT_SCALE')  # does nothing, but Blender has to be asked
    seconds(f"the camera at {CAMERA_FRAMES} frames, scene evaluated", lambda: sample.shot_from_scene(scene))


def moving_things(scene: bpy.types.Scene) -> None:
    """Key the camera, and a hundred things for it to see."""
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=100, y_subdivisions=100)
    land = bpy.context.object
    land.modifiers.new("Finer", 'SUBSURF').levels = 3
    land.modifiers.new("Waves", 'WAVE')
    for k in range(99):
        bpy.ops.mesh.primitive_cube_add(location=(k % 10, k // 10, 1.0))
    for k, thing in enumerate((scene.camera, *scene.objects)):
        thing.keyframe_insert("location", frame=1)
        thing.location.x += 0.1 * k
        thing.keyframe_insert("location", frame=CAMERA_FRAMES)


main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The previews, with the real server and worker: `-- OUT.blend`. What was asked for, what came, and what was shown."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

(out,) = map(Path, arguments())
session, shots, images = (koshi(f"operators.preview_{name}") for name in ("session", "shot", "image"))
live = koshi("operators.preview_live")
sample, reader, settings = koshi("operators.sample"), koshi("operators.reader"), koshi("operators.settings")
VERSION = bpy.app.version[0] * 10 + bpy.app.version[1]  # each version makes frames of its own
told: dict[str, Any] = {}


def done(generator: Any) -> Any:
    """What a generator returns at its end."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def span(scene: bpy.types.Scene, frame: int) -> list[int]:
    """First and last frame that the preview of a scene frame makes, and how many."""
    shot = done(shots.frame_shot(scene, shots.shown_frame(scene, frame), float("inf")))
    step, first = shot.get("frame_step", 1), shot["frame_start"]
    return [first, first + (shot["frames"] - 1) * step, shot["frames"]]


def curves_scene() -> bpy.types.Scene:
    """256 x 128 pixels, previewed at half of it: zoom and shift are keyed."""
    scene = empty_scene(256, 128, 20)
    koshi = scene.koshi
    koshi.preview_size, koshi.steps, koshi.strength, koshi.seed = 128, 1, 0.5, VERSION
    for frame, zoom, x in ((1, 1.0, 0.0), (20, 1.05, 8.0)):
        koshi.zoom, koshi.translation_x = zoom, x
        koshi.keyframe_insert("zoom", frame=frame)
        koshi.keyframe_insert("translation_x", frame=frame)
    return scene


def image_facts(name: str) -> dict[str, Any]:
    image = bpy.data.images[name]
    return {
        "source": image.source, "path": bpy.path.abspath(image.filepath), "size": list(image.size),
        "runtime": image.is_runtime_data,
    }  # fmt: skip


# What is made for a frame

scene = curves_scene()
told["blocks"] = {frame: span(scene, frame) for frame in (1, 8, 9, 12, 20, 0, 25)}
scene.frame_step = 3
told["stepped"] = {frame: span(scene, frame) for frame in (1, 3, 24, 25, 27, 28)}
scene.frame_step = 1
for number, frame in ((1, 1), (2, 6), (3, 11)):
    camera = bpy.data.objects.new(f"Camera {number}", bpy.data.cameras.new(f"Camera {number}"))
    camera.location.z = 5.0 + number
    scene.collection.objects.link(camera)
    scene.timeline_markers.new(f"m{number}", frame=frame).camera = camera
scene.koshi.motion_source = 'CAMERA'
scene.frame_set(1)
told["cuts"] = {frame: span(scene, frame) for frame in (5, 6, 8, 9, 10, 11, 14)}
told["sizes"] = {}
for width, height, wanted in (
    (256, 128, 128), (1920, 1080, 256), (1080, 1920, 256), (1000, 1000, 256), (128, 128, 512), (1792, 128, 256),
    (64, 64, 256), (640, 480, 250),
):  # fmt: skip
    scene.render.resolution_x, scene.render.resolution_y, scene.koshi.preview_size = width, height, wanted
    told["sizes"][f"{width}x{height}@{wanted}"] = shots.small_size(scene)

# The preview of a frame

scene = curves_scene()
scene.frame_set(5)
asked = done(shots.frame_shot(scene, 5, float("inf")))
full = sample.shot_from_scene(scene, 1, 5).shot
told["asked"], told["full"] = asked, full
answer = bpy.ops.koshi.preview()
status = session.status
told["picture"] = {
    "answer": list(answer), "phase": status.phase, "path": status.path, "begins": status.begins,
    "frame": status.frame, "frames": status.frames, "playhead": scene.frame_current, **image_facts(images.PICTURE),
}  # fmt: skip
told["job"] = status.job_id
scene.frame_set(6)
bpy.ops.koshi.preview()
told["next job"] = session.status.job_id
first_path = session.status.path
scene.frame_set(5)
bpy.ops.koshi.preview()
told["back"] = [session.status.job_id, session.status.path]
bpy.data.images.remove(bpy.data.images[images.PICTURE])  # as a user, or undo, may
scene.frame_set(6)
bpy.ops.koshi.preview()
told["again"] = {"path": first_path, **image_facts(images.PICTURE)}

# The newest wins

scene.koshi.steps, scene.koshi.seed = 400, 100 + VERSION  # long enough to be stopped
session.want("preview", scene, 7)
while session.status.busy and not session.status.job_id:
    session.pump(wait=0.1)
older = session.status.job_id
scene.koshi.steps = 1
session.want("preview", scene, 8)
session.run()
told["latest"] = {"older": older, "newer": session.status.job_id, "phase": session.status.phase}

# Errors

prompts = [(prompt.frame, prompt.text) for prompt in scene.koshi.prompts]
scene.koshi.prompts.clear()
try:
    bpy.ops.koshi.preview()
    told["error"] = "none"
except RuntimeError as error:
    told["error"] = str(error)
told["failed"] = [session.status.phase, session.status.error["code"]]

# The motion alone: no prompt, a model that does not exist, a step

scene.koshi.model, scene.koshi.model_path = 'CUSTOM', "/there/is/no/such/model"
scene.frame_start, scene.frame_end, scene.frame_step = 3, 9, 2
motion = done(shots.motion_shot(scene, float("inf")))
area = bpy.context.window_manager.windows[0].screen.areas[0]
area.ui_type = 'IMAGE_EDITOR'
area.spaces.active.image = None
answer = bpy.ops.koshi.motion_preview()
user = area.spaces.active.image_user
told["motion"] = {
    "answer": list(answer), "shot": motion, "job": session.status.job_id, **image_facts(images.FILM),
    "shown": area.spaces.active.image.name, "auto": user.use_auto_refresh,
    "user": [user.frame_start, user.frame_duration, user.frame_offset],
}  # fmt: skip
told["seen"] = {}
for frame in range(3, 10):
    scene.frame_set(frame)
    told["seen"][frame] = user.frame_current  # the number of the file that the editor shows

# A render and the motion of the same shot; the motion read again, when its job has ended

with reader.reach(settings.backend(), reader.Signals()) as client:
    small = {**asked, "frames": 1, "schedules": {}}
    before = client.submit({**small, "steps": 1000, "seed": 900 + VERSION})["job"]  # the others have to wait
    one, two, three = (client.submit(small, kind=kind)["job"] for kind in ("render", "motion", "preview"))
    joined = client.submit(small, kind="motion")
    client.cancel(before["id"])
    told["apart"] = [one["id"], two["id"], three["id"], joined["job"]["id"]]
    list(client.events())
    told["jobs"] = {record["id"]: record for record in client.jobs()}
    client.attach(told["motion"]["job"])
    told["replayed"] = [zlib.crc32(png) for event, png in client.events() if event["type"] == "frame"]

# Live, tick by tick: timers do not fire here

state = koshi("operators.state")
scene = curves_scene()
scene.koshi.steps, scene.koshi.seed = 1, 500 + VERSION
steps: dict[str, Any] = {}
live.switch(scene)
steps["first"] = live._look()
session.run()
steps["nothing new"] = live._look()
scene.koshi.prompts[0].text = "a forest at day, photo"
steps["prompt"] = live._look()
session.run()
steps["shown"] = [session.status.phase, session.status.frame]
scene.koshi.steps = 400
scene.frame_set(4)
steps["frame"] = live._look()
while not session.status.job_id:
    session.pump(wait=0.1)
older = session.status.job_id
scene.frame_set(5)
steps["moving"] = live._look()
scene.frame_set(6)
steps["still moving"] = live._look()
scene.koshi.steps = 1
live._look()
steps["at rest"] = live._look()
session.run()
steps["newest"] = [session.status.phase, session.status.frame]
scene.koshi.motion_source = 'CAMERA'  # without a camera: an error, told once
steps["camera"] = live._look()
session.run()
steps["error"] = [session.status.phase, session.status.error["code"], live._look()]
scene.koshi.motion_source = 'CURVES'
running = koshi("operators.start").render(scene)
while state.status.phase == "starting":
    running.pump(wait=0.1)
steps["while rendering"] = live._look()
session.want("preview", scene, 3)
session.pump()
steps["waits"] = [session.status.phase, session.status.message]
running.cancel()
running.run()
session.run()
steps["afterwards"] = [session.status.phase, session.status.frame]
live.stop()
steps["left"] = [
    handler.__name__ for name in ("load_pre", "depsgraph_update_post") for handler in getattr(bpy.app.handlers, name)
    if "koshi" in handler.__module__
]  # fmt: skip
steps["timer"] = bpy.app.timers.is_registered(live._tick)
told["live"] = steps
with reader.reach(settings.backend(), reader.Signals()) as client:
    told["overtaken"] = next(record["state"] for record in client.jobs() if record["id"] == older)

# Nothing of it is saved

told["unsaved"] = [image.name for image in bpy.data.images]
bpy.ops.wm.save_as_mainfile(filepath=str(out))
bpy.ops.wm.open_mainfile(filepath=str(out), load_ui=True)
told["saved"] = {
    "images": [image.name for image in bpy.data.images], "scene": list(bpy.context.scene.keys()),
    "manager": list(bpy.context.window_manager.keys()), "size": bpy.context.scene.koshi.preview_size,
}  # fmt: skip
session.part()
result(told)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel and resume a take, render it anew from a frame on, and fill the sequencer with a long one: `-- FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result

start, state, compat = koshi("operators.start"), koshi("operators.state"), koshi("operators.compat")
sequencer, reader = koshi("operators.sequencer"), koshi("operators.reader")
protocol = koshi("bridge_server.protocol")
scene = bpy.context.scene


def ended(job) -> dict:
    job.run()
    state.job = None
    status = state.status
    frames = sorted(Path(status.folder).iterdir()) if status.folder else []
    return {
        "phase": status.phase, "error": status.error, "made": status.made, "stored": status.stored,
        "done": status.done, "notes": status.notes, "digest": status.digest, "kept": status.kept,
        "frames": {path.name: path.read_bytes().hex() for path in frames if path.suffix == ".png"},
    }  # fmt: skip


def takes() -> list[list[int]]:
    return [[take.shown, take.places] for take in sequencer.takes(scene)]


def refused(begin, *given) -> dict:
    try:
        begin(*given)
    except protocol.BridgeError as error:
        return error.as_dict()
    return {}


seen: dict = {"none": refused(start.render_from_here, scene)}

# Cancelled after two frames, changed, resumed.
running = start.render(scene)
ticks = []  # CPU seconds, which do not grow with what else the computer does
while state.status.done < 2 and not running.over:
    begin = time.thread_time()
    running.pump()
    ticks.append(time.thread_time() - begin)
    time.sleep(0.02)
seen["ticks"] = ticks
now, Status = time.monotonic(), state.Status
begun = {"phase": "rendering", "done": 2, "made": 2}
seen["left"] = {
    "here": [state.status.left, state.status.phase == "rendering" and state.status.made >= 2],  # others may be stored
    "one": Status(**begun | {"made": 1}, frames=12, first_made=now - 5).left,  # nothing to judge by yet
    "seconds": Status(**begun, frames=12, first_made=now - 5).left,
    "minutes": Status(**begun, frames=62, first_made=now - 5).left,
    "hours": Status(**begun, frames=7202, first_made=now - 1).left,
    "stored": Status(**begun | {"done": 7}, frames=12, first_made=now - 5).left,  # what was there took no time
    "over": Status(**begun | {"phase": "done"}, frames=12, first_made=now - 5).left,
}
running.cancel()
seen["cancelled"] = {**ended(running), "takes": takes(), "poll": bpy.ops.koshi.resume.poll()}
scene.koshi.strength = 0.9
seen["resumed"] = {**ended(start.resume(scene, start.unfinished(scene))), "takes": takes()}
seen["resumed"]["poll"] = bpy.ops.koshi.resume.poll()
scene.koshi.strength = 0.35

# From frame 9 on with another prompt, then again with nothing changed.
scene.frame_set(9)
scene.koshi.prompts[1].text = "a desert at noon, photo"
seen["from_here"] = {**ended(start.render_from_here(scene)), "takes": takes()}
newest = max(compat.strips(scene.sequence_editor), key=lambda strip: strip.channel)
scene.sequence_editor.active_strip = newest
seen["again"] = ended(start.render_from_here(scene))
steps, scene.koshi.steps = scene.koshi.steps, scene.koshi.steps + 1
seen["steps"] = refused(start.render_from_here, scene)
scene.koshi.steps = steps
scene.frame_set(scene.frame_start)
seen["first"] = refused(start.render_from_here, scene)

# The scene is renamed while it renders.
scene.koshi.seed += 300  # no other version's, with which the store is shared
running = start.render(scene)
scene.name = "Renamed"
seen["renamed"] = {**ended(running), "takes": takes()}

# Undo while the scene is read frame by frame, as in the window: Blender takes the scene away, and another one comes.
scene.koshi.driver_add("angle").driver.expression = "0.1 * frame"
bpy.ops.ed.undo_push(message="Before")
scene.koshi.steps += 1
bpy.ops.ed.undo_push(message="Another number of steps")
start._budget = lambda: 0.0
running = start.render(scene)
bpy.ops.ed.undo()
seen["undone"] = ended(running)
scene = bpy.context.scene

# 10,000 frames.
(folder,) = arguments()
long_scene = bpy.data.scenes.new("Long")
one = next(iter(Path(state.status.folder).glob("*.png")))
footage = sequencer.Footage("0" * 64, Path(folder), 1, 10_000)
for index in range(footage.frames):
    os.link(one, footage.folder / reader.frame_name(1 + index))  # ten thousand copies would take longer than the law
begin = time.process_time()
for index in range(footage.frames):
    sequencer.show_frame(long_scene, footage, index, [])
seen["seconds"] = time.process_time() - begin
strips = compat.strips(long_scene.sequence_editor)
seen["long"] = [[*compat.strip_range(strip), strip.channel, len(strip.elements)] for strip in strips]
seen["names"] = [strip.elements[k].filename for strip in strips for k in (0, -1)]
(take,) = sequencer.takes(long_scene)
seen["whole"] = take.whole
strips.remove(strips[3])
sequencer.show_frame(long_scene, footage, footage.frames - 1, [])
seen["mended"] = sum(len(strip.elements) for strip in strips)

# Every third scene frame.
stepped = bpy.data.scenes.new("Stepped")
for index in range(500):
    footage = sequencer.Footage("1" * 64, Path(folder), 1, 500, 3)
    sequencer.show_frame(stepped, footage, index, [])
strips = compat.strips(stepped.sequence_editor)
seen["stepped"] = [element.filename for strip in strips for element in strip.elements]
result(seen)

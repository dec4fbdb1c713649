# SPDX-License-Identifier: GPL-3.0-or-later
"""Render takes that are longer than their frames, stop, go on, and splice; and Blender's own render of one frame:
`-- FOLDER`, with a .blend of 7 frames from 5 on open."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, koshi, result

start, state, sequencer, compat = (koshi(f"operators.{name}") for name in ("start", "state", "sequencer", "compat"))
(folder,) = arguments()
scene = bpy.context.scene
settings = scene.koshi
out: dict[str, Any] = {}


def finished(job: Any, stop_at: int | None = None) -> dict[str, Any]:
    """Run a job to its end, or cancel it once so many pictures are there."""

    def look() -> None:
        if stop_at is not None and state.status.done >= stop_at:
            job.cancel()

    job.run(look)
    state.job = None
    status, take = state.status, sequencer.takes(scene)[-1]
    found = [strip for strip in compat.strips(scene.sequence_editor) if strip.get(sequencer.TAG) == take.digest]
    pictures = {path.name: path.read_bytes().hex()[-64:] for path in sorted(Path(status.folder).iterdir())}
    return {
        "phase": status.phase, "done": status.done, "frames": status.frames, "stored": status.stored,
        "kept": status.kept, "notes": status.notes, "error": status.error, "take": [take.shown, take.places],
        "range": compat.strip_range(found[0]), "files": [element.filename for element in found[0].elements],
        "pictures": pictures,
    }  # fmt: skip


settings.loop, settings.interpolation, settings.cadence = "back", "2", 3
out["cancelled"] = finished(start.render(scene), stop_at=5)
out["unfinished"] = start.unfinished(scene) is not None
out["resumed"] = finished(start.resume(scene, start.unfinished(scene)))
settings.strength = 0.7
scene.frame_set(9)
out["from_here"] = finished(start.render_from_here(scene))
settings.strength = 0.3
settings.loop, settings.seam = "seamless", 3
out["seamless"] = finished(start.render(scene))

# The same frame from Blender's render button, which knows nothing of pictures between frames.
scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
scene.collection.objects.link(scene.camera)
scene.render.engine, scene.render.use_sequencer, scene.frame_current = 'KOSHI', False, 9
scene.render.filepath = os.path.join(folder, "f12.png")
compat.set_png(scene.render.image_settings)
bpy.ops.render.render(write_still=True)


def pixels(path: str) -> list[float]:
    image = bpy.data.images.load(path)
    image.colorspace_settings.name = 'Non-Color'
    return [round(255 * value) for value in image.pixels[:]]


strip = compat.strips(scene.sequence_editor)[-1]
shown = Path(bpy.path.abspath(strip.directory)) / strip.elements[4].filename
theirs, ours = pixels(str(shown)), pixels(scene.render.filepath)
out["f12"] = {"file": shown.name, "differ": sum(a != b for a, b in zip(theirs, ours, strict=True)), "of": len(ours)}
result(out)

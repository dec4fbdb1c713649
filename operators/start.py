# SPDX-License-Identifier: GPL-3.0-or-later
"""What starts a job: rendering a scene, going on with a take, joining a render, looking for the backend."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.protocol import BridgeError
from . import guides, reader, sample, scene_values, sequencer, settings, splice, state, strip_about
from .job import BUDGET, Deliver, Job, Work
from .sequencer import Take


def render(
    scene: bpy.types.Scene,
    frame_start: int | None = None,
    frame_end: int | None = None,
    deliver: Deliver | None = None,
) -> Job:
    """Sample the scene and render it. Raises BridgeError for what is wrong to begin with. deliver: as in Job."""

    name = scene.name  # an undo between two steps takes the scene away, and another one of that name comes

    def prepare() -> Generator[str, None, Work]:
        sampled = yield from sample.sampling(scene_values.scene_named(name), frame_start, frame_end, _budget())
        side = strip_about.scene_side(scene_values.scene_named(name))
        return (yield from _render(name, sampled.shot, sampled.notes, sampled.guides, side))

    return _begin(scene, prepare(), n_("Starting"), deliver)


def render_shot(scene: bpy.types.Scene, shot: dict[str, Any], deliver: Deliver | None = None) -> Job:
    """Render a shot as it is, whatever the scene says. Raises BridgeError."""
    return _begin(scene, _render(scene.name, shot, [], guides.rendered(shot)), n_("Starting"), deliver)


def render_from_here(scene: bpy.types.Scene) -> Job:
    """Render the frames from the playhead on as the scene is now; those before stay the take's under the playhead.

    Where nothing has changed from there on, the seed does. Raises BridgeError "no_take" and "cannot_splice".
    """
    take = sequencer.take_at_playhead(scene)
    if take is None:
        raise BridgeError(
            "no_take", f"No take of Koshi's is at frame {scene.frame_current}.", "Put the playhead over one, or Render."
        )
    old, frame = shot_of(take), scene.frame_current
    count, name = len(sequencer.takes(scene)), scene.name

    def prepare() -> Generator[str, None, Work]:
        sampled = yield from sample.sampling(scene_values.scene_named(name), budget=_budget())
        at = -((old["frame_start"] - frame) // old.get("frame_step", 1))
        shot, notes = splice.splice(old, sampled.shot, at), list(sampled.notes)
        begin = old["frame_start"] + at * old.get("frame_step", 1)
        # What Blender renders of the scene may have changed where the shot has not.
        if splice.unchanged(old, shot, at) and not sampled.guides:
            shot = splice.reseeded(shot, at, count)
            seed = shot["schedules"]["seed"][at]
            same = iface_("Nothing has changed from frame {} on: it gets another seed, {:.0f}")
            notes.append(same.format(begin, seed))
        state.status.kept = splice.kept_pictures(shot, at)
        side = strip_about.scene_side(scene_values.scene_named(name))
        return (yield from _render(name, shot, notes, sampled.guides, side))

    return _begin(scene, prepare(), n_("Starting"))


def resume(scene: bpy.types.Scene, take: Take) -> Job:
    """Go on with a take as it was when it was started. Raises BridgeError "no_take"."""
    shot = shot_of(take)
    notes = ["This take goes on as it was started; changes to the scene since then are not in it."]
    needs_guides = guides.rendered(shot)
    return _begin(scene, _render(scene.name, shot, notes, needs_guides), n_("Going on"))


def unfinished(scene: bpy.types.Scene) -> Take | None:
    """The take to go on with: the last one of the scene's strips, if it lacks frames."""
    takes = sequencer.takes(scene)
    return takes[-1] if takes and not takes[-1].whole else None


def shot_of(take: Take) -> dict[str, Any]:
    """The shot of a take, as it was sent. Raises BridgeError "no_take"."""
    file = reader.shot_file(take.folder)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise BridgeError(
            "no_take", f"What the take was rendered from cannot be read from {file}: {why}.", "Render the shot anew."
        ) from error


def attach(scene: bpy.types.Scene, record: dict[str, Any]) -> Job:
    """Follow a job that the backend renders already, from its first frame on."""
    base, note = sequencer.takes_folder()
    take = reader.Take(base, sequencer.take_stem(scene), job_id=record["id"])
    job = _begin(scene, (reader.render, settings.backend(), take), n_("Joining the running render"))
    state.status.notes += [note] if note else []
    return job


def connect(scene: bpy.types.Scene) -> Job:
    """Look for the backend, starting it if needed."""
    return _begin(scene, (reader.connect, settings.backend()), n_("Looking for the backend"))


def diagnose(scene: bpy.types.Scene, python: str, source: Path, report: dict[str, Any]) -> Job:
    """Let the backend examine itself and add that to `report`."""
    return _begin(scene, (reader.diagnose, python, source, report), n_("Looking at Koshi and its backend"))


def stop(scene: bpy.types.Scene) -> Job:
    """Stop the backend."""
    job = _begin(scene, (reader.stop,), n_("Stopping the backend"))
    state.status.server = ""
    return job


def running_job_of(scene: bpy.types.Scene, jobs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest queued or running render that this scene's strips or frame folders belong to."""
    base, _ = sequencer.takes_folder()
    stem = sequencer.take_stem(scene)
    known = {take.digest for take in sequencer.takes(scene)}
    for record in reversed(jobs):
        if record.get("state") not in ("queued", "running") or record.get("kind", "render") != "render":
            continue
        digest = str(record.get("digest", ""))
        if digest in known or reader.take_folder(base, stem, digest).is_dir():
            return record
    return None


def _budget() -> float:
    """Seconds of the main thread that a portion of sampling may take."""
    return float("inf") if bpy.app.background else BUDGET


def _begin(
    scene: bpy.types.Scene,
    work: Work | Generator[str, None, Work],
    message: str,
    deliver: Deliver | None = None,
) -> Job:
    if state.status.busy:
        raise BridgeError("busy", "A Koshi render is already running.", "Wait for it, or cancel it first.")
    job = Job(scene, work, deliver)
    state.begin(job, scene.name, message)
    try:
        job.start()
    except BridgeError:
        state.let_go()
        raise
    return job


def _render(
    name: str, shot: dict[str, Any], notes: list[str], needs_guides: bool, side: dict[str, str] | None = None
) -> Generator[str, None, Work]:
    """From a shot to the work of rendering it, with what Blender has to render for it in between. side: what of the
    scene the shot cannot say."""
    scene = scene_values.scene_named(name)
    base, note = sequencer.takes_folder()
    take = reader.Take(base, sequencer.take_stem(scene), shot=shot, side=side or {})
    state.status.frames = shot["frames"]
    state.status.notes += [*notes, *([note] if note else [])]
    if needs_guides:
        yield from guides.render_guides(scene, shot, guides.guides_folder(scene))
    return reader.render, settings.backend(), take

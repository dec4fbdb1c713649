# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts and guided pictures on the timeline: each has a marker, which people move with the mouse.

A prompt with a marker stands where the marker stands: its frame is read from the marker, so that nothing can get out of
step, whoever moves it, and undo, saving and copies of the scene need nothing of their own. The marker is found by its
name, in “ ” or, of a picture, in « », as markers hold nothing else from 5.0 on. Some markers of one name, as after
duplicating one: the prompt comes again there. None: the prompt is off the timeline; its text is kept. Markers that no
prompt of the scene has are left alone. What is said of prompts here is true of guided pictures, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import bpy

from . import compat

LABEL = 40  # bytes of a prompt's text in a marker's name, which holds 63


def frame_of(prompt: Any) -> int:
    """The scene frame from which a prompt counts; of several the first one."""
    return min((marker.frame for marker in markers_of(prompt)), default=_kept(prompt))


def frames_of(prompt: Any) -> list[int]:
    """All scene frames at which a prompt begins, sorted; none if it is off the timeline."""
    if not prompt.marker:
        return [_kept(prompt)]
    return sorted({marker.frame for marker in markers_of(prompt)})


def is_off(prompt: Any) -> bool:
    """Whether the prompt's marker was deleted: it does not count."""
    return bool(prompt.marker) and not markers_of(prompt)


def move(prompt: Any, frame: int) -> None:
    """Let a prompt count from a frame on; its first marker goes along."""
    found = markers_of(prompt)
    if found:
        min(found, key=lambda marker: marker.frame).frame = frame
    _keep(prompt, frame)
    _look_around(prompt)


def markers_of(prompt: Any) -> list[bpy.types.TimelineMarker]:
    """A prompt's markers. One that somebody has renamed is known by its place, as long as it stays there."""
    if not prompt.marker:
        return []
    scene = prompt.id_data
    found = [marker for marker in scene.timeline_markers if marker.name == prompt.marker]
    if found:
        return found
    frame, taken = _kept(prompt), {one.marker for one in _all(scene)} | {*prompt.beside.split("\n")}
    renamed = [marker for marker in scene.timeline_markers if marker.frame == frame and marker.name not in taken]
    return renamed[:1]


def put(prompt: Any, frame: int | None = None) -> None:
    """Give a prompt a marker if it has none; frame: where it shall be (None: where it is)."""
    scene = prompt.id_data
    frame = frame_of(prompt) if frame is None else frame
    if not markers_of(prompt):
        prompt.named = False
        marker = scene.timeline_markers.new(_label(prompt), frame=frame)
        marker.select = False
        prompt.marker = marker.name  # as Blender has cut it
    move(prompt, frame)


def show_all(scene: bpy.types.Scene) -> None:
    """Give every prompt a marker that never had one, if the scene shows them."""
    sync(scene)
    for prompt in _all(scene) if scene.koshi.prompt_markers else ():
        if not prompt.marker:
            put(prompt)


def hide_all(scene: bpy.types.Scene) -> None:
    """Take the markers of all prompts away; they stay where they are."""
    for prompt in _all(scene):
        if prompt.marker and not is_off(prompt):
            _keep(prompt, frame_of(prompt))
            remove(prompt)
            prompt.marker = ""


def remove(prompt: Any) -> None:
    """Delete a prompt's markers. One that switches the camera stays."""
    for marker in markers_of(prompt):
        if marker.camera is None:
            prompt.id_data.timeline_markers.remove(marker)


def rename(prompt: Any) -> None:
    """The prompt's text has changed: its markers say so, unless somebody has named them."""
    found = markers_of(prompt)
    if not found or prompt.named or found[0].name != prompt.marker:
        return
    label = _label(prompt)
    for marker in found:
        marker.name = label
    prompt.marker = found[0].name


def sync(scene: bpy.types.Scene) -> None:
    """Note where the markers are and what they are called, to know them again."""
    for prompt in _all(scene):
        found = markers_of(prompt)
        if not found:
            continue
        if found[0].name != prompt.marker:
            prompt.marker, prompt.named = found[0].name, True
        frame = min(marker.frame for marker in found)
        if frame != _kept(prompt):
            _keep(prompt, frame)
        _look_around(prompt)


def crowded(scene: bpy.types.Scene) -> set[int]:
    """Frames at which two prompts begin that take turns: one too many."""
    seen: set[int] = set()
    return {
        frame
        for prompt in scene.koshi.prompts
        if not counts_beside(prompt)
        for frame in frames_of(prompt)
        if frame in seen or seen.add(frame)
    }


def counts_beside(prompt: Any) -> bool:
    """Whether a prompt takes no turns but counts beside the others, by its weight."""
    return prompt.use_weight or compat.is_animated(prompt, "weight")


def _label(prompt: Any) -> str:
    """A name for a prompt's marker that no other marker of the scene has."""
    words, (begin, end) = _words(prompt)
    if len(words.encode()) > LABEL:
        words = words.encode()[:LABEL].decode(errors="ignore").rstrip() + "…"
    mine = {marker.name for marker in markers_of(prompt)}
    taken = {marker.name for marker in prompt.id_data.timeline_markers} - mine
    taken |= {one.marker for one in _all(prompt.id_data) if one != prompt}
    return next(name for name in _names(begin + words + end) if name not in taken)


def _words(prompt: Any) -> tuple[str, str]:
    """What a marker is called after, and what stands around that: a prompt's text, or a picture's file."""
    if hasattr(prompt, "text"):
        return " ".join(prompt.text.split()) or "prompt", "“”"
    return os.path.splitext(bpy.path.basename(prompt.image))[0] or "picture", "«»"


def _names(words: str) -> Iterator[str]:
    yield words
    number = 2
    while True:
        yield f"{words} {number}"
        number += 1


def _all(scene: bpy.types.Scene) -> list[Any]:
    """All that has a marker."""
    return [*scene.koshi.prompts, *scene.koshi.guided_images]


def _look_around(prompt: Any) -> None:
    """Note which other markers stand where the prompt's does, not to take one of them for it should it go away."""
    frame = _kept(prompt)
    others = sorted(
        {m.name for m in prompt.id_data.timeline_markers if m.frame == frame and m.name != prompt.marker}
    )
    if prompt.beside != "\n".join(others):
        prompt.beside = "\n".join(others)


def _kept(prompt: Any) -> int:
    """The frame in the prompt's own storage."""
    return int(compat.storage(prompt).get("frame", 1))


def _keep(prompt: Any, frame: int) -> None:
    compat.storage(prompt, write=True)["frame"] = frame

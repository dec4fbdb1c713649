# SPDX-License-Identifier: GPL-3.0-or-later
"""The small shots of the previews: what is sent to see one frame, and what is sent to see the motion alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bpy

from . import guides, sample, scene_values
from .camera import picture_size
from .sample_checks import MULTIPLE

BLOCK = 8  # frames; a preview begins afresh at the first one of its block, so it never makes more than these
SMALLEST = 64  # pixels a side that the models take
# Of a shot's guides, those that move the picture.
_MOVING = ("depth", "vector", "vector_seen", "video", "video_first", "video_every", "video_last")


def small_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Width and height of the previews' pictures: the render's shape, the longer side at most `preview_size`.

    Sides are multiples of 16 and at least 64; a very long picture gets longer than asked for, so that its shape stays.
    """
    whole = picture_size(scene)
    longer, shorter = max(*whole, 1), max(min(whole), 1)
    scale = min(1.0, max(scene.koshi.preview_size / longer, SMALLEST / shorter))
    width, height = (max(round(side * scale / MULTIPLE) * MULTIPLE, SMALLEST) for side in whole)
    return width, height


def shown_frame(scene: bpy.types.Scene, frame: int) -> int:
    """The frame of the shot that shows at a scene frame: with a frame step the one at it or before it."""
    step = max(scene.frame_step, 1)
    return frame - (frame - scene.frame_start) % step


def block_start(scene: bpy.types.Scene, number: int) -> int:
    """Where the preview of a frame begins afresh: the first frame of its block, counted from the shot's first."""
    step = max(scene.frame_step, 1)
    return number - (number - scene.frame_start) // step % BLOCK * step


def frame_shot(scene: bpy.types.Scene, number: int, budget: float) -> Generator[str, None, dict[str, Any]]:
    """The shot whose last frame is the preview of frame `number`, and its guides rendered; yields a line for a person
    every `budget` seconds.

    It begins at the block's first frame, or at the last camera cut after that. Raises BridgeError.
    """
    name, step = scene.name, max(scene.frame_step, 1)
    begin, size = block_start(scene, number), small_size(scene)
    sampled = yield from sample.sampling(scene, begin, number, budget, size=size)
    if cuts := sampled.shot.get("motion", {}).get("cuts"):
        scene, begin = scene_values.scene_named(name), begin + cuts[-1] * step
        sampled = yield from sample.sampling(scene, begin, number, budget, size=size)
    return (yield from _with_guides(name, _without_time(sampled.shot)))


def motion_shot(scene: bpy.types.Scene, budget: float) -> Generator[str, None, dict[str, Any]]:
    """The scene's whole range as the shot of its motion, small, and the guides that move it rendered; yields as
    `frame_shot` does. Needs no prompt, and no model."""
    name = scene.name
    sampled = yield from sample.sampling(scene, budget=budget, size=small_size(scene), painted=False)
    shot = _without_time(sampled.shot)
    moving = {key: value for key, value in shot.pop("guides", {}).items() if key in _MOVING}
    return (yield from _with_guides(name, shot | ({"guides": moving} if moving else {})))


def _without_time(shot: dict[str, Any]) -> dict[str, Any]:
    """The shot without keyframes, loop and sound, which belong to the whole film."""
    return {key: value for key, value in shot.items() if key not in ("time", "audio")}


def _with_guides(name: str, shot: dict[str, Any]) -> Generator[str, None, dict[str, Any]]:
    if not guides.rendered(shot):
        return shot
    scene = scene_values.scene_named(name)
    folder = guides.guides_folder(scene, preview=True)
    shot = guides.moved_to(shot, folder)
    yield from guides.render_guides(scene, shot, folder)
    return shot

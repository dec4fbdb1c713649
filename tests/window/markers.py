# SPDX-License-Identifier: GPL-3.0-or-later
"""A prompt's marker is dragged with the mouse, renamed and deleted on the timeline, and undone each time."""

from __future__ import annotations

from typing import Any

import bpy
import hands


def steps() -> hands.Steps:
    """Reports where the prompts are after each of these."""
    yield from hands.set_the_stage(48, 1)
    scene = hands.window().scene
    timeline = hands.area('SEQUENCE_EDITOR')
    timeline.ui_type = 'DOPESHEET'  # the timeline at the window's bottom is too low to show markers
    scene.frame_set(20)
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.koshi.prompt_add()
        scene.koshi.prompts[1].text = "a forest"
        bpy.ops.ed.undo_push(message="the stage")
    with hands.within(timeline):
        bpy.ops.action.view_all()
    yield 0.5
    out: dict[str, Any] = {"begin": [[marker.name, marker.frame] for marker in scene.timeline_markers]}
    yield from hands.drag(place_of(timeline, 20), place_of(timeline, 32))
    yield from hands.until(lambda: where()["kept"] == where()["frame"] != 20, 20)
    out["dragged"] = where()
    hands.shot("prompt_dragged")
    out["heard"] = heard()
    yield from press(timeline, 'Z', ctrl=True)
    yield from hands.until(lambda: where()["kept"] == where()["frame"] == 20, 20)
    out["undone"] = where()
    yield from press(timeline, 'Z', ctrl=True, shift=True)
    yield from hands.until(lambda: where()["kept"] == where()["frame"] != 20, 20)
    out["redone"] = where()
    with hands.within(timeline):
        bpy.ops.marker.rename('EXEC_DEFAULT', True, name="Act 2")
    yield from hands.until(lambda: hands.window().scene.koshi.prompts[1].marker == "Act 2", 20)
    prompt = hands.window().scene.koshi.prompts[1]
    out["renamed"] = {"frame": prompt.frame, "name": prompt.marker}
    yield from press(timeline, 'DEL')
    yield from hands.until(lambda: off()[1], 20)
    out["deleted"] = {"off": off(), "heard": heard()}
    hands.shot("prompt_off")
    yield from press(timeline, 'Z', ctrl=True)
    yield from hands.until(lambda: not off()[1], 20)
    out["back"] = {"off": off(), "heard": heard()}
    return out


def place_of(timeline: bpy.types.Area, frame: float) -> tuple[int, int]:
    """Where the marker at a frame is, in the window's pixels."""
    region = hands.region(timeline)
    x, _ = region.view2d.view_to_region(frame, 0, clip=False)
    return region.x + x, region.y + round(18 * bpy.context.preferences.system.ui_scale)


def press(timeline: bpy.types.Area, name: str, **held: bool) -> hands.Steps:
    """Press a key over the markers."""
    hands.move(*place_of(timeline, 40))
    yield 0.2
    hands.key(name, place_of(timeline, 40), **held)
    yield 0.2


def where() -> dict[str, int]:
    """The second prompt's frame, its marker's, and what it has noted."""
    prompt = hands.window().scene.koshi.prompts[1]
    kept = hands.koshi("operators.compat").storage(prompt)["frame"]
    return {"frame": prompt.frame, "marker": hands.window().scene.timeline_markers[prompt.marker].frame, "kept": kept}


def heard() -> list[int]:
    """The frames of the prompts in the shot, from 0."""
    sampled = hands.koshi("operators.sample").shot_from_scene(hands.window().scene)
    return [prompt["frame"] for prompt in sampled.shot["prompts"]]


def off() -> list[bool]:
    """Which prompts are off the timeline."""
    return [hands.koshi("operators.markers").is_off(prompt) for prompt in hands.window().scene.koshi.prompts]

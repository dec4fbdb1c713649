# SPDX-License-Identifier: GPL-3.0-or-later
"""The artist's walk of docs/guide.md, a picture a step: set-up, project, keys, render, scrub, change, again."""

from __future__ import annotations

from typing import Any

import bpy
import hands


def steps(backend: str, frames: int = 48) -> hands.Steps:
    """Takes the pictures; reports what the panel said on the way. backend: an empty folder to set it up in."""
    seen: dict[str, Any] = {}
    seen["set-up"] = yield from set_up(backend)
    yield from new_project(frames)
    scene = hands.window().scene
    yield from keyframes(scene)
    yield from hands.click(*(yield from hands.find_button(hands.area('VIEW_3D'), "koshi.render")))
    yield from hands.wait_for_frames(frames // 3, 900)
    scene.frame_set(frames // 4)
    yield 1.0
    hands.shot("guide_5_render")
    yield from hands.wait_for_the_end(1800)
    seen["first"] = hands.told()
    yield from look(scene, frames * 5 // 6)
    hands.shot("guide_6_scrub")
    yield from change(scene)
    yield from hands.click(*(yield from hands.find_button(hands.area('VIEW_3D'), "koshi.render")))
    yield from hands.wait_for_the_end(1800)
    seen["again"] = hands.told()
    yield from look(scene, frames)
    hands.shot("guide_7_again")
    seen["found"] = yield from search("koshi bake")
    yield from german()
    return seen


def set_up(backend: str) -> hands.Steps:
    """Get Extensions with its menu open, Koshi's preferences before the backend is there, and while it is set up.

    Its button is pressed, and Cancel once PyTorch is being installed. Returns what went wrong with that, or None.
    """
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.3
    place = hands.area('VIEW_3D')
    place.type = 'PREFERENCES'
    preferences = bpy.context.preferences
    preferences.system.use_online_access = True
    for repository in preferences.extensions.repos:
        repository.enabled = repository.module == "user_default"  # Blender's own would be asked over the network
    preferences.active_section = 'EXTENSIONS'
    bpy.context.window_manager.extension_search = "Koshi"
    yield 1.0
    inside = hands.region(place)
    yield from hands.click(inside.x + inside.width - 22, inside.y + inside.height - 18)
    yield 1.0
    hands.shot("guide_1_install")
    hands.key('ESC', (inside.x + 300, inside.y + 40))
    yield 0.3
    chosen = yield from hands.show_preferences(place, backend)
    hands.shot("guide_2_set_up")
    button = yield from hands.find_button(place, "koshi.setup_backend", 'WINDOW')
    yield from hands.click(*button)
    watch = hands.koshi("operators.setup_watch")
    yield from hands.until(lambda: _installs(watch.status()), 300)
    if watch.running():
        yield 1.5
        hands.shot("guide_2_under_way")
        yield from hands.click(*(yield from hands.find_button(place, "koshi.cancel_setup", 'WINDOW')))
        yield from hands.until(lambda: not watch.running(), 60)
    error = watch.status().error
    yield from hands.until(lambda: not hands.koshi("bridge_server.setup.start")._alive(), 60)
    chosen.backend_folder = ""
    return error


def _installs(now: Any) -> bool:
    """Whether a set-up has come so far that there is something to see, or has ended."""
    return now is not None and (now.phase != "running" or (now.text == "Installing PyTorch" and now.fraction > 0.08))


def new_project(frames: int) -> hands.Steps:
    """File > New > Koshi Project, saved."""
    bpy.ops.koshi.new_project()
    yield from hands.until(lambda: hands.window().workspace.name.startswith("Koshi"), 20)
    yield 3.0
    scene = hands.window().scene
    scene.frame_end = frames
    if frames < 48:  # a shorter walk, to try it
        for prompt, frame in zip(scene.koshi.prompts, (1, frames // 2 + 1), strict=True):
            prompt.frame = frame
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "city.blend"))
    for editor in [area for area in hands.window().screen.areas if area.type == 'SEQUENCE_EDITOR']:
        with hands.within(editor):
            if bpy.ops.sequencer.view_all.poll():
                bpy.ops.sequencer.view_all()
    yield 1.0
    hands.shot("guide_3_project")


def keyframes(scene: bpy.types.Scene) -> hands.Steps:
    """Two keys of Angle, late in the shot."""
    for frame, value in ((scene.frame_end * 2 // 3, 0.0), (scene.frame_end, 0.8)):
        scene.frame_set(frame)
        scene.koshi.angle = value
        scene.koshi.keyframe_insert("angle", frame=frame)
    view = hands.area('VIEW_3D')
    with hands.within(view):
        bpy.ops.screen.screen_full_area()  # so that the sidebar has room
    yield 1.5
    hands.shot("guide_4_keys")
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.screen.back_to_previous()
    scene.frame_set(1)
    yield 1.0


def search(words: str) -> hands.Steps:
    """What F3 finds; a picture of it, and whether the playhead's menu is gone again."""
    at = hands.middle(hands.area('VIEW_3D'))
    hands.move(*at)
    yield 0.2
    hands.key('F3', at)
    yield 0.5
    for letter in words:
        kind = 'SPACE' if letter == ' ' else letter.upper()
        hands.window().event_simulate(type=kind, value='PRESS', unicode=letter, x=at[0], y=at[1])
        hands.window().event_simulate(type=kind, value='RELEASE', x=at[0], y=at[1])
        yield 0.1
    yield 1.0
    hands.shot("search")
    hands.key('ESC', at)
    yield 0.5
    return words


def german() -> hands.Steps:
    """The sidebar in German, if this Blender speaks it."""
    view = bpy.context.preferences.view
    if "de_DE" not in bpy.app.translations.locales:
        return
    view.language = 'de_DE'
    view.use_translate_interface = True
    hands.render()  # once more, all of it from the store: so that what is said of it is German, too
    yield from hands.wait_for_the_end(300)
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.screen.screen_full_area()
    yield 1.5
    hands.shot("german")
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.screen.back_to_previous()
    view.language = 'en_US'


def look(scene: bpy.types.Scene, frame: int) -> hands.Steps:
    """Put the playhead at a frame, and wait until it is drawn."""
    scene.frame_set(frame)
    yield 1.5


def change(scene: bpy.types.Scene) -> hands.Steps:
    """Another value for the last key."""
    scene.frame_set(scene.frame_end)
    scene.koshi.angle = -0.8
    scene.koshi.keyframe_insert("angle", frame=scene.frame_end)
    yield 0.5

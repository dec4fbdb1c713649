# SPDX-License-Identifier: GPL-3.0-or-later
"""The artist's walk of docs/guide.md, from a Blender without Koshi to a second take, with mouse and keyboard alone.

Everything that a person does here is an event: what the script calls only looks (where a button is, what is there by
now). Three things are there because it is a test: boot.py leaves out the splash screen and does not save preferences;
Blender's own repositories are off, which would be asked over the network; and as no window manager draws a cross to
close the preferences with, `close_window` stands for it. A walk of fewer than 48 frames is cut short by the script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import eyes
import hands

Place = tuple[int, int]


def steps(zipped: str, films: str, frames: int = 48) -> hands.Steps:
    """Plays it, with a picture of each step; reports what there was. films: a folder to save the file in."""
    seen: dict[str, Any] = {}
    yield 1.0
    yield from install(Path(zipped))
    seen["set-up"] = yield from set_up()
    if seen["set-up"]["phase"] != "done":
        return seen
    close_window()
    yield from new_project(frames)
    yield from save(Path(films) / "city.blend")
    scene = hands.window().scene
    yield from to_frame(frames * 2 // 3)
    yield from key_angle("0")
    yield from to_frame(frames)
    yield from key_angle("0.8", "guide_4_keys")
    yield from render(frames, "guide_5_render")
    seen["first"] = hands.outcome()
    yield from to_frame(frames * 5 // 6)
    yield 1.5
    hands.shot("guide_6_scrub")
    yield from to_frame(frames)
    yield from key_angle("-0.8")
    yield from render(frames)
    yield 1.5
    hands.shot("guide_7_again")
    seen["again"] = hands.outcome()
    hands.key('S', over(hands.area('VIEW_3D')), ctrl=True)
    yield from hands.until(lambda: not bpy.data.is_dirty, 20)
    curve = next(c for c in hands.koshi("operators.compat").fcurves(scene) if c.data_path == "koshi.angle")
    seen["keys"] = [[round(value, 3) for value in point.co] for point in curve.keyframe_points]
    seen["file"] = bpy.data.filepath
    return seen


# The preferences


def install(zipped: Path) -> hands.Steps:
    """Edit > Preferences > Get Extensions > Install from Disk."""
    for repository in bpy.context.preferences.extensions.repos:
        repository.enabled = repository.module == "user_default"
    yield from hands.click(*menu(80))
    yield 0.4
    yield from hands.click(*(yield from eyes.find_item(*below(menu(80)), "screen.userpref_show")))
    yield from hands.until(lambda: hands.front() != hands.window(), 20)
    yield 1.0
    yield from section('EXTENSIONS')
    arrow = hands.front().width - 22, hands.front().height - 18
    yield from hands.click(*arrow)
    yield 0.6
    item = yield from eyes.find_item(arrow[0] - 18, arrow[1] - 12, "extensions.package_install_files")
    hands.shot("guide_1_install")
    yield from hands.click(*item)
    browser = yield from opened_browser(zipped.parent)
    files = hands.region(browser)
    yield from hands.click(files.x + 100, files.y + files.height - 36)
    yield from hands.until(lambda: browser.spaces.active.params.filename == zipped.name, 10)
    yield from confirm(browser, "guide_1_zip")
    yield from hands.until(lambda: hands.PACKAGE in bpy.context.preferences.addons, 120)
    yield 1.0


def set_up() -> hands.Steps:
    """Add-ons > Koshi: Allow Online Access, Set Up Backend, and wait for the end of it, which is returned."""
    editor = hands.area('PREFERENCES')
    yield from section('ADDONS')
    arrow = f'addon_expand(module="{hands.PACKAGE}")'
    yield from hands.click(*(yield from eyes.find_button(editor, arrow, 'WINDOW', (0.03,))))
    yield 1.0
    x, y = yield from eyes.find_button(editor, "koshi.setup_backend", 'WINDOW')
    hands.move(x, hands.front().height - 10)
    yield 0.5
    hands.shot("guide_2_set_up")
    yield from eyes.go_down(x, y + 30, 6, lambda: bpy.app.online_access)  # the row above it
    yield 0.5
    button = yield from eyes.find_button(editor, "koshi.setup_backend", 'WINDOW')
    yield from hands.click(*button)
    watch = hands.koshi("operators.setup_watch")
    yield from hands.until(lambda: watch.running(), 20)
    hands.move(button[0], hands.front().height - 10)  # away from Cancel
    yield from hands.until(lambda: not watch.running() or "PyTorch" in watch.status().text, 600)
    yield from hands.until(lambda: not watch.running() or watch.status().fraction > 0.2, 600)
    if watch.running():
        hands.shot("guide_2_under_way")
    yield from hands.until(lambda: not watch.running(), 1800)
    yield 1.0
    hands.shot("guide_2_done")
    ended = watch.status()
    condition = hands.koshi("operators.settings").setup_condition()
    return {"phase": ended.phase, "error": ended.error, "condition": condition}


def section(wanted: str) -> hands.Steps:
    """A section of the preferences, by its tab."""
    chosen = bpy.context.preferences
    yield from eyes.go_down(60, hands.front().height - 50, 12, lambda: chosen.active_section == wanted)
    hands.move(hands.front().width // 2, 12)  # or else what the tab says hides the next one
    yield 1.0


def close_window() -> None:
    """The cross of the window on top."""
    with bpy.context.temp_override(window=hands.front()):
        bpy.ops.wm.window_close()


# The project


def new_project(frames: int) -> hands.Steps:
    """File > New > Koshi Project."""
    yield 0.5
    yield from hands.click(*menu(42))
    yield 0.5
    first = below(menu(42))
    hands.move(first[0] + 10, first[1])
    yield 0.8
    item = yield from eyes.find_item(first[0] + 240, first[1], "koshi.new_project")
    hands.shot("guide_3_new")
    yield from hands.click(*item)
    yield from hands.until(lambda: hands.window().workspace.name.startswith("Koshi"), 20)
    yield 3.0
    hands.shot("guide_3_project")
    if frames < 48:
        scene = hands.window().scene
        scene.frame_end = frames
        for prompt, frame in zip(scene.koshi.prompts, (1, frames // 2 + 1), strict=True):
            prompt.frame = frame
        yield 0.5


def save(file: Path) -> hands.Steps:
    """Ctrl S, and a folder and a name for the file."""
    at = over(hands.area('VIEW_3D'))
    yield 0.2
    hands.key('S', at, ctrl=True)
    browser = yield from opened_browser(file.parent)
    bottom = hands.region(browser, 'EXECUTE')
    yield from fill_in((bottom.x + bottom.width // 4, bottom.y + bottom.height // 2), file.name)
    yield from confirm(browser, "guide_3_save")
    yield from hands.until(file.is_file, 20)
    yield 1.0


def to_frame(frame: int) -> hands.Steps:
    """Drag the playhead there."""
    editor, scene = hands.area('SEQUENCE_EDITOR'), hands.window().scene
    yield from hands.drag(eyes.frame_at(editor, scene.frame_current), eyes.frame_at(editor, frame))
    yield from hands.until(lambda: scene.frame_current == frame, 10)


def key_angle(value: str, picture: str = "") -> hands.Steps:
    """Make the view large, type a value for Angle, key it with the diamond or with I, and make the view small again."""
    yield from large_or_small()
    view = hands.area('VIEW_3D')
    field = yield from eyes.find_button(view, "koshi.angle", columns=(0.6,))
    yield from fill_in(field, value)
    if is_keyed():  # where the diamond takes the key away
        hands.key('I', field)
    else:
        bar = hands.region(view, 'UI')
        yield from hands.click(bar.x + bar.width - 49, field[1])
    yield 0.5
    if picture:
        hands.shot(picture)
    yield from large_or_small()


def is_keyed() -> bool:
    """Whether Angle has a key at the playhead."""
    scene = hands.window().scene
    curves = hands.koshi("operators.compat").fcurves(scene) or ()
    return any(
        point.co.x == scene.frame_current
        for curve in curves if curve.data_path == "koshi.angle" for point in curve.keyframe_points
    )  # fmt: skip


def large_or_small() -> hands.Steps:
    """Ctrl Space over the 3D view."""
    at = over(hands.area('VIEW_3D'))
    yield 0.2
    hands.key('SPACE', at, ctrl=True)
    yield 1.2


def render(frames: int, picture: str = "") -> hands.Steps:
    """Press Render and wait for the end; a picture in between, with the playhead dragged to what is there."""
    yield from hands.click(*(yield from eyes.find_button(hands.area('VIEW_3D'), "koshi.render")))
    yield from hands.until(lambda: hands.status().busy, 20)
    if picture:
        yield from hands.wait_for_frames(frames // 3, 1800)
        yield from to_frame(frames // 4)
        yield 1.0
        hands.shot(picture)
    yield from hands.wait_for_the_end(3600)


# Mouse and keys


def menu(x: int) -> Place:
    """A menu of the window's top row."""
    return x, hands.window().height - 13


def below(place: Place) -> Place:
    """The first item of the menu there."""
    return place[0] + 2, place[1] - 22


def over(editor: bpy.types.Area) -> Place:
    """Move the mouse over an editor."""
    at = hands.middle(editor)
    hands.move(*at)
    return at


def fill_in(at: Place, text: str) -> hands.Steps:
    """Click a field, and type something else into it."""
    yield from hands.click(*at)
    yield 0.3
    hands.key('A', at, ctrl=True)
    yield from hands.type_in(text, at)
    hands.key('RET', at)
    yield 0.7


def opened_browser(folder: Path) -> hands.Steps:
    """The file browser that is about to open, once the folder has been typed at its top."""
    yield from hands.until(lambda: any(area.type == 'FILE_BROWSER' for area in hands.front().screen.areas), 20)
    yield 1.0
    browser = hands.area('FILE_BROWSER')
    bar, files = hands.region(browser, 'UI'), hands.region(browser)
    yield from fill_in((bar.x + bar.width * 2 // 5, bar.y + bar.height // 2), f"{folder}/")
    yield from hands.click(files.x + files.width // 2, files.y + 40)  # done with the field
    yield from hands.until(lambda: Path(browser.spaces.active.params.directory.decode()) == folder, 10)
    yield 0.5
    return browser


def confirm(browser: bpy.types.Area, picture: str) -> hands.Steps:
    """Press the file browser's button; a picture before."""
    bottom = hands.region(browser, 'EXECUTE')
    at = bottom.x + bottom.width * 9 // 10, bottom.y + bottom.height // 2
    hands.move(*at)
    yield 0.3
    hands.shot(picture)
    yield from hands.click(*at)

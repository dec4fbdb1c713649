# SPDX-License-Identifier: GPL-3.0-or-later
"""Hands and eyes for the chapters: mouse, keys, editors, screenshots, and what Koshi says. Runs inside Blender."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import bpy

FOLDER = Path(os.environ["KOSHI_WINDOW"])
PACKAGE = "bl_ext.user_default.koshi"
Steps = Generator[float, None, Any]
_asked = itertools.count()


def koshi(module: str) -> Any:
    """One of the extension's modules, as Blender knows it now."""
    return importlib.import_module(f"{PACKAGE}.{module}")


def status() -> Any:
    """What Koshi's panels show."""
    return koshi("operators.state").status


# The window


def window() -> bpy.types.Window:
    """The main window; not to be kept, loading a file makes it anew."""
    return bpy.context.window_manager.windows[0]


def front() -> bpy.types.Window:
    """The window on top, which mouse and keys go to: preferences and file browsers open one of their own."""
    return bpy.context.window_manager.windows[-1]


def area(kind: str) -> bpy.types.Area:
    """The largest editor of a kind."""
    found = [a for w in bpy.context.window_manager.windows for a in w.screen.areas if a.type == kind]
    return max(found, key=lambda a: a.width * a.height)


def region(editor: bpy.types.Area, kind: str = 'WINDOW') -> bpy.types.Region:
    """A part of an editor."""
    return next(r for r in editor.regions if r.type == kind)


def within(editor: bpy.types.Area, kind: str = 'WINDOW') -> Any:
    """Context in which operators run as if called in that editor."""
    holder = next(w for w in bpy.context.window_manager.windows if editor in w.screen.areas[:])
    return bpy.context.temp_override(window=holder, area=editor, region=region(editor, kind))


def middle(editor: bpy.types.Area) -> tuple[int, int]:
    """A point inside an editor, in the window's pixels from the bottom left."""
    return editor.x + editor.width // 3, editor.y + editor.height // 2


def key(name: str, at: tuple[int, int], **held: bool) -> None:
    """Press and release a key with the mouse at a place; held: ctrl, shift, alt."""
    x, y = at
    for value in ('PRESS', 'RELEASE'):
        front().event_simulate(type=name, value=value, x=x, y=y, **held)


def type_in(text: str, at: tuple[int, int]) -> Steps:
    """Type a text with the mouse at a place."""
    x, y = at
    for letter in text:
        kind = letter.upper() if letter.isascii() and letter.isalpha() else 'SPACE'  # any key: unicode is what counts
        front().event_simulate(type=kind, value='PRESS', unicode=letter, x=x, y=y)
        front().event_simulate(type=kind, value='RELEASE', x=x, y=y)
        yield 0.02


def move(x: int, y: int) -> None:
    """Move the mouse."""
    front().event_simulate(type='MOUSEMOVE', value='NOTHING', x=x, y=y)


def click(x: int, y: int) -> Steps:
    """Move the mouse there, wait until the button there is lit, and press it."""
    move(x, y)
    yield 0.05
    for value in ('PRESS', 'RELEASE'):
        front().event_simulate(type='LEFTMOUSE', value=value, x=x, y=y)
        yield 0.02


def drag(begin: tuple[int, int], end: tuple[int, int]) -> Steps:
    """Take hold of something with the mouse, and let it go elsewhere."""
    (x, y), (to_x, to_y) = begin, end
    move(x, y)
    yield 0.2
    front().event_simulate(type='LEFTMOUSE', value='PRESS', x=x, y=y)
    yield 0.1
    for part in range(1, 9):
        move(x + (to_x - x) * part // 8, y + (to_y - y) * part // 8)
        yield 0.1
    front().event_simulate(type='LEFTMOUSE', value='RELEASE', x=to_x, y=to_y)
    yield 0.4


def shot(name: str) -> None:
    """A picture of the whole screen, as the X server holds it."""
    shutil.copyfile(os.environ["KOSHI_WINDOW_SCREEN"], FOLDER / f"{name}.xwd")


# Time


def until(check: Callable[[], Any], seconds: float, every: float = 0.02) -> Steps:
    """Wait for a true value and return it."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"waited too long: {status()}"
        yield every
    return value


class Heartbeat:
    """A timer of 1 ms; how long Blender's main thread was away from it at most."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float, float, int]] = []  # (seconds, of a processor, since the start, frames)
        self.begun = self._last = time.monotonic()
        self._used = time.process_time()
        self._on = True
        bpy.app.timers.register(self._beat, first_interval=0.0, persistent=True)

    def _beat(self) -> float | None:
        now, used = time.monotonic(), time.process_time()
        self.gaps.append((now - self._last, used - self._used, now - self.begun, status().done))
        self._last, self._used = now, used
        return 0.001 if self._on else None

    def stop(self) -> dict[str, Any]:
        """The figures in seconds. worked: processor time of all Blender's threads in a gap, which does not grow with
        what else the machine does. worst: the longest gaps, [ms, of that worked, at what second, frames done]."""
        self._on = False
        worst = sorted(self.gaps, reverse=True)[:8]
        return {
            "beats": len(self.gaps),
            "seconds": self._last - self.begun,
            "longest": worst[0][0],
            "worked": max(gap[1] for gap in self.gaps),
            "over_50_ms": sum(gap[0] > 0.05 for gap in self.gaps),
            "redraws": [round(1000 * gap[0]) for gap in self.gaps if gap[0] > 0.015],
            "worst": [[round(1000 * g), round(1000 * cpu), round(at, 2), done] for g, cpu, at, done in worst],
        }


# Files and talk


def write(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(data))
    aside.replace(path)


def ask(what: str) -> Steps:
    """Ask the test process for something that only it can do; returns its answer."""
    number = next(_asked)
    write(FOLDER / f"ask-{number}.json", what)
    answer = FOLDER / f"told-{number}.json"
    yield from until(answer.is_file, 60)
    return json.loads(answer.read_text())


# Koshi


def set_the_stage(frames: int, seed: int, size: int = 128, steps: int = 4, file: str = "") -> Steps:
    """A new file with a shot, the 3D view with Koshi's sidebar, a sequencer and its preview; saved under `file`."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.2
    scene = window().scene
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.frame_start, scene.frame_end = 1, frames
    scene.koshi.seed, scene.koshi.steps, scene.koshi.zoom = seed, steps, 1.01
    prompt = scene.koshi.prompts.add()
    prompt.frame, prompt.text = 1, "a calm sea at dawn, photo"
    view, preview = area('VIEW_3D'), area('PROPERTIES')
    with within(view):
        bpy.ops.screen.area_split(direction='HORIZONTAL', factor=0.3)
    lower = min((a for a in window().screen.areas if a.type == 'VIEW_3D'), key=lambda a: a.height)
    lower.type = preview.type = 'SEQUENCE_EDITOR'
    preview.spaces.active.view_type = 'PREVIEW'
    koshi("operators.compat").show_in_sequencers(scene)
    if file:
        bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / file))
    view = area('VIEW_3D')
    view.spaces.active.show_region_ui = True
    yield 0.2
    yield from until(lambda: _choose_tab(view), 10, every=0.1)
    yield 0.2


def _choose_tab(view: bpy.types.Area) -> bool:
    """Choose Koshi's tab, which can be done only once the sidebar has been drawn."""
    try:
        region(view, 'UI').active_panel_category = "Koshi"
    except (AttributeError, TypeError):
        return False
    view.tag_redraw()
    return True


def show_preferences(place: bpy.types.Area, folder: str) -> Steps:
    """Show Koshi's preferences in an editor of preferences, with online access on; returns them.

    folder: where the backend is to be set up.
    """
    preferences = bpy.context.preferences
    preferences.system.use_online_access = True
    for repository in preferences.extensions.repos:
        repository.enabled = repository.module == "user_default"  # Blender's own would be asked over the network
    preferences.active_section = 'ADDONS'
    bpy.context.window_manager.addon_search = "Koshi"
    chosen = preferences.addons[PACKAGE].preferences
    chosen.backend_folder = folder
    bpy.ops.preferences.addon_expand(module=PACKAGE)
    place.tag_redraw()
    yield 1.5
    return chosen


def render() -> None:
    """What pressing Render does."""
    with within(area('VIEW_3D')):
        assert bpy.ops.koshi.render('INVOKE_DEFAULT') == {'RUNNING_MODAL'}, status()


def wait_for_frames(count: int, seconds: float = 120) -> Steps:
    """Wait until so many frames are there."""
    yield from until(lambda: status().done >= count or not status().busy, seconds, every=0.005)
    assert status().done >= count, status()


def wait_for_the_end(seconds: float = 300) -> Steps:
    """Wait until nothing is under way."""
    yield from until(lambda: not status().busy, seconds)
    yield 0.2


def strips(scene: bpy.types.Scene | None = None) -> list[dict[str, Any]]:
    """What is in a scene's sequencer, and which of its files are there."""
    editor = (scene or window().scene).sequence_editor
    if editor is None:
        return []
    return [
        {
            "name": strip.name,
            "channel": strip.channel,
            "files": [element.filename for element in strip.elements],
            "missing": [
                element.filename
                for element in strip.elements
                if not os.path.isfile(os.path.join(bpy.path.abspath(strip.directory), element.filename))
            ],
        }
        for strip in koshi("operators.compat").strips(editor)
    ]


def told() -> dict[str, Any]:
    """What the panel says."""
    now = status()
    return {
        "phase": now.phase,
        "message": now.message,
        "error": now.error,
        "notes": now.notes,
        "done": now.done,
        "frames": now.frames,
        "made": now.made,
        "stored": now.stored,
        "job": now.job_id,
        "folder": now.folder,
        "longest_tick": now.longest_tick,
    }


def outcome() -> dict[str, Any]:
    """What the panel says, and the strips of the window's scene."""
    return {"told": told(), "strips": strips()}

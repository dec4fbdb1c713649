# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi is enabled, all its panels are drawn and all its operators asked whether they can run; nothing is rendered."""

from __future__ import annotations

import functools
import gc
import os
import threading
import types
from pathlib import Path
from typing import Any

import bpy
import hands


def steps() -> hands.Steps:
    """Reports what runs of Koshi's before, after each of these, with its engine chosen, with another one again, and in
    a file that has it."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.3
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.preferences.addon_disable(module=hands.PACKAGE)
    yield 0.5
    out = {"without": running()}
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.preferences.addon_enable(module=hands.PACKAGE)
    for _ in range(3):  # the engine's timer looks whether there is something for it to do, once
        yield 0.1
    out["enabled"] = running()
    yield from hands.set_the_stage(12, 1, file="resting.blend")
    yield from draw_the_others()
    out["drawn"] = running()
    out["asked"] = asked()
    out["polled"] = running()
    at = hands.middle(hands.area('VIEW_3D'))
    hands.move(*at)
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.wm.call_menu(name="KOSHI_MT_koshi")
    yield 1.0
    hands.shot("resting-menu")
    hands.key('ESC', at)
    yield 0.3
    out["menu"] = running()
    scene = hands.window().scene
    engine = scene.render.engine
    scene.render.engine = 'KOSHI'
    yield 0.5
    out["chosen"] = running()
    scene.render.engine = engine
    yield 0.5
    out["left"] = running()
    view = hands.area('VIEW_3D')
    view.type = 'PREFERENCES'
    bpy.context.preferences.active_section = 'ADDONS'
    bpy.context.window_manager.addon_search = "Koshi"
    bpy.ops.preferences.addon_expand(module=hands.PACKAGE)
    yield 1.5
    hands.shot("resting-preferences")
    yield 1.0  # the store's frames are counted in a thread, which ends
    out["preferences"] = running()
    return {**out, **(yield from opened())}


def opened() -> hands.Steps:
    """What runs when a file is opened whose engine is Koshi's, when Koshi is enabled while it is open, and after it."""
    hands.window().scene.render.engine = 'KOSHI'
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "engine.blend"))
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.5
    out = {"other": running()}
    bpy.ops.wm.open_mainfile(filepath=str(hands.FOLDER / "engine.blend"))
    yield 1.0
    out["opened"] = running()
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.preferences.addon_disable(module=hands.PACKAGE)
    yield 0.5
    out["disabled"] = running()
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.preferences.addon_enable(module=hands.PACKAGE)
    yield 1.0
    out["enabled_beside"] = running()
    hands.shot("resting-opened")
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.5
    return {**out, "closed": running()}


def draw_the_others() -> hands.Steps:
    """The tab in the sequencer's sidebar, the panel in an Image Editor's, and Render Properties."""
    sequencer = hands.area('SEQUENCE_EDITOR')
    hands.area('OUTLINER').type = 'PROPERTIES'
    preview = next(a for a in hands.window().screen.areas if a.type == 'SEQUENCE_EDITOR' and a != sequencer)
    for editor in (sequencer, preview):
        if editor == preview:
            editor.type = 'IMAGE_EDITOR'
        editor.spaces.active.show_region_ui = True
        yield from hands.until(lambda editor=editor: hands._choose_tab(editor), 10, every=0.1)
    hands.area('PROPERTIES').spaces.active.context = 'RENDER'
    yield 1.0
    hands.shot("resting")


def asked() -> int:
    """Ask every operator of Koshi's in every editor; how many there are."""
    names = dir(bpy.ops.koshi)
    for editor in hands.window().screen.areas:
        with hands.within(editor):
            for name in names:
                getattr(bpy.ops.koshi, name).poll()
    return len(names)


def running() -> dict[str, Any]:
    """Threads, child processes, open sockets, and timers of Koshi's."""
    children = [name for task in Path("/proc/self/task").iterdir() for name in (task / "children").read_text().split()]
    links = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return {
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        "children": [(Path("/proc") / number / "comm").read_text().strip() for number in children],
        "sockets": len([link for link in links if link.startswith("socket:")]),
        "timers": sorted(function.__name__ for function in functions() if bpy.app.timers.is_registered(function)),
    }


def functions() -> list[Any]:
    """Every function of Koshi's that there is, whoever holds it."""
    found = []
    for thing in gc.get_objects():
        function = thing.func if isinstance(thing, functools.partial) else thing
        if isinstance(function, types.FunctionType) and str(function.__module__).startswith(hands.PACKAGE):
            found.append(thing if hasattr(thing, "__name__") else function)
    return found

# SPDX-License-Identifier: GPL-3.0-or-later
"""What an editor does with takes, in the window, by its buttons: redo from the strip and undo that, show another take,
have pictures between the frames, render into a strip that was cut, and render anew from the playhead on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import eyes
import hands


def steps(seed: int) -> hands.Steps:
    """Reports the scene and the strips after each of these."""
    yield from hands.set_the_stage(4, seed, 64, 1, "takes.blend")
    scene, editor = hands.window().scene, hands.area('SEQUENCE_EDITOR')
    for frame, value in ((1, 1.0), (4, 1.05)):
        scene.koshi.zoom = value
        scene.koshi.keyframe_insert("zoom", frame=frame)
    yield from click_and_wait("koshi.render")
    first = Path(hands.status().folder)
    scene = hands.window().scene
    scene.animation_data_clear()
    scene.koshi.seed = seed + 50
    scene.frame_set(3)
    with hands.within(hands.area('VIEW_3D')):
        bpy.ops.koshi.prompt_add()
        scene.koshi.prompts[1].text = "a forest"
        bpy.ops.ed.undo_push(message="another take")
    hands.render()
    yield from hands.wait_for_the_end()
    second = Path(hands.status().folder)
    out: dict[str, Any] = {"takes": [strip["channel"] for strip in hands.strips()], "second": settings()}

    choose(first)
    yield from enlarge('SEQUENCE_EDITOR')
    yield from hands.click(*(yield from button("koshi.redo_from_strip")))
    yield 0.5
    hands.shot("takes-redo")
    out["redo"] = settings()
    yield from step(bpy.ops.ed.undo)
    out["undone"] = settings()

    cut = choose(second)
    hands.koshi("operators.compat").set_strip_range(cut, 2, 4)
    cut.blend_alpha = 0.5
    with hands.within(hands.area('SEQUENCE_EDITOR')):
        bpy.ops.ed.undo_push(message="the edit")
    yield 0.3
    yield from replace_take(first)
    out["replaced"] = shown(choose(first, among="cut"))
    yield from step(bpy.ops.ed.undo)
    out["back"] = shown(choose(second))
    yield from enlarge('SEQUENCE_EDITOR', back=True)
    editor = hands.area('SEQUENCE_EDITOR')

    for menu in ("SEQUENCER_MT_context_menu", "KOSHI_MT_strip", "KOSHI_MT_between"):
        hands.move(*hands.middle(editor))
        with hands.within(editor):
            bpy.ops.wm.call_menu(name=menu)
        yield 0.5
        hands.shot(f"takes-{menu}")
        hands.key('ESC', hands.middle(editor))
        yield 0.3
    call(editor, "interpolated_strip", factor='2', playing='SAME')
    yield from hands.wait_for_the_end()
    yield 0.5
    out["between"] = sorted(strip.type for strip in everything())
    out["phase"] = hands.told()["phase"]
    hands.shot("takes-between")

    scene = hands.window().scene
    scene.koshi.seed = seed + 70
    choose(second)
    call(editor, "take_rerender")
    yield from hands.wait_for_the_end()
    third = Path(hands.status().folder)
    out["rerendered"] = [shown(choose(third)), third not in (first, second)]
    scene = hands.window().scene
    scene.koshi.seed = seed + 90
    scene.frame_set(3)
    yield 0.3
    yield from click_and_wait("koshi.render_from_here")
    out["from_here"] = [hands.told()[name] for name in ("phase", "stored", "made")]
    hands.shot("takes-from-here")
    images = [strip for strip in everything() if strip.type == 'IMAGE']
    files = [place(strip) / element.filename for strip in images for element in strip.elements]
    out["missing"] = [str(file) for file in files if not file.is_file()]
    with hands.within(editor):
        bpy.ops.sequencer.view_all()
    yield 0.5
    hands.shot("takes")
    return out


def click_and_wait(operator: str) -> hands.Steps:
    """Click a button at the top of the 3D view's sidebar that starts a render, and wait for its end."""
    yield from hands.click(*(yield from eyes.find_button(hands.area('VIEW_3D'), operator, columns=(0.5, 0.8))))
    yield from hands.until(lambda: hands.status().busy, 10, every=0.005)
    yield from hands.wait_for_the_end()


def enlarge(kind: str, back: bool = False) -> hands.Steps:
    """Ctrl Space over an editor, so that its sidebar has room, with Koshi's tab in it."""
    hands.move(*hands.middle(hands.area(kind)))
    yield 0.2
    hands.key('SPACE', hands.middle(hands.area(kind)), ctrl=True)
    yield 0.7
    if not back:
        editor = hands.area(kind)
        editor.spaces.active.show_region_ui = True
        yield from hands.until(lambda: hands._choose_tab(editor), 10, every=0.1)
        yield 0.5


def button(operator: str) -> hands.Steps:
    """Where a button is in the sequencer's sidebar."""
    return (yield from eyes.find_button(hands.area('SEQUENCE_EDITOR'), operator, columns=(0.4,)))


def replace_take(folder: Path) -> hands.Steps:
    """Replace Take, between two other buttons of the panel, opens a menu: choose the take of this folder."""
    manager = bpy.context.window_manager
    x, top = yield from button("koshi.redo_from_strip")
    _, bottom = yield from button("koshi.take_rerender")
    place = x, (top + bottom) // 2
    yield from hands.click(*place)
    yield 0.5
    hands.shot("takes-replace")
    for y in range(place[1] + 120, place[1] - 200, -7):
        hands.move(x, y)
        yield 0.06
        manager.clipboard = ""
        hands.key('C', (x, y), ctrl=True)
        yield 0.06
        if manager.clipboard.startswith("bpy.ops.koshi.take_replace(") and folder.name in manager.clipboard:
            yield from hands.click(x, y)
            yield 0.5
            return
    raise AssertionError(f"no {folder.name} in the menu")


def call(editor: bpy.types.Area, operator: str, **given: Any) -> None:
    """Call one of Koshi's operators as its button in the sequencer does."""
    with hands.within(editor):
        getattr(bpy.ops.koshi, operator)('INVOKE_DEFAULT', True, **given)


def step(operator: Any) -> hands.Steps:
    """Undo or redo."""
    with hands.within(hands.area('SEQUENCE_EDITOR')):
        operator()
    yield 0.3


def everything() -> list[Any]:
    """All strips of the window's scene, as they are now: undo makes them anew."""
    return list(hands.koshi("operators.compat").all_strips(hands.window().scene.sequence_editor))


def choose(folder: Path, among: str = "") -> Any:
    """Make the strip that shows a take the active one. among: of several, the one that was cut."""
    found = [strip for strip in everything() if strip.type == 'IMAGE' and place(strip) == folder]
    found = [strip for strip in found if not among or strip.blend_alpha < 1.0]
    hands.window().scene.sequence_editor.active_strip = found[0]
    return found[0]


def place(strip: Any) -> Path:
    """The folder of a strip's pictures."""
    return Path(bpy.path.abspath(strip.directory))


def shown(strip: Any) -> list[Any]:
    """What was done to a strip in the edit."""
    return [*hands.koshi("operators.compat").strip_range(strip), strip.channel, round(strip.blend_alpha, 3)]


def settings() -> list[Any]:
    """What the scene would be rendered with."""
    scene = hands.window().scene
    curves = hands.koshi("operators.compat").fcurves(scene) or ()
    marks = sorted(marker.frame for marker in scene.timeline_markers)
    return [scene.koshi.seed, len(scene.koshi.prompts), marks, sorted(curve.data_path for curve in curves)]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The KOSHI render engine by its keys: F12, Ctrl-F12, what cannot be painted, and F12 while the sidebar renders."""

from __future__ import annotations

from typing import Any

import bpy
import hands

ENDED: list[str] = []  # how Blender's renders ended


def steps(seed: int) -> hands.Steps:
    """Reports the shots, and where the pictures lie that Blender made of them."""
    yield from hands.set_the_stage(6, seed, 64, 1, "engine.blend")
    hands.window().scene.render.engine = 'KOSHI'
    for name in ("complete", "cancel"):
        getattr(bpy.app.handlers, f"render_{name}").append(lambda *_, name=name: ENDED.append(name))
    yield 0.5
    out: dict[str, Any] = {"one": (yield from one_frame()), "all": (yield from animation())}
    for name in ("prompt", "model"):
        out[name] = yield from refused(name)
    out["beside"] = yield from beside(seed + 1)
    out["anew"] = yield from anew(seed + 2)
    return out


def one_frame() -> hands.Steps:
    """F12: a window with the picture opens; Esc closes it."""
    hands.window().scene.frame_set(3)
    yield from press()
    yield from over()
    windows = len(bpy.context.window_manager.windows)
    place = picture_in(hands.area('IMAGE_EDITOR'))
    seen = {"shot": shot(), "picture": result("one"), "windows": windows, "on_screen": place, "ended": ENDED[:]}
    hands.shot("engine-one")
    yield from close()
    return {**seen, "closed": len(bpy.context.window_manager.windows)}


def animation() -> hands.Steps:
    """Ctrl-F12 of frames 2 to 5."""
    scene = hands.window().scene
    scene.frame_start, scene.frame_end = 2, 5
    scene.render.filepath = str(hands.FOLDER / "all" / "####")
    yield from press(ctrl=True)
    yield from over()
    hands.shot("engine-all")
    yield from close()
    scene = hands.window().scene
    files = sorted(str(path) for path in (hands.FOLDER / "all").iterdir())
    return {"shot": shot(), "files": files, "at": scene.frame_current, "ended": ENDED[:]}


def refused(what: str) -> hands.Steps:
    """F12 without a prompt, or with a model that is not there."""
    scene = hands.window().scene
    if what == "prompt":
        scene.koshi.prompts[0].text = ""
    else:
        scene.koshi.model, scene.koshi.model_path = 'CUSTOM', "/no/such/model"
    yield from press()
    yield from over()
    hands.shot(f"engine-no-{what}")
    told = yield from last_report()
    yield from close()
    scene = hands.window().scene
    scene.koshi.model, scene.koshi.prompts[0].text = 'koshi-tiny', "a calm sea at dawn, photo"
    return {"told": told, "ended": ENDED[:]}


def beside(seed: int) -> hands.Steps:
    """F12 while Koshi's sidebar renders, and what becomes of both."""
    scene = hands.window().scene
    scene.frame_start, scene.frame_end, scene.koshi.seed, scene.koshi.steps = 1, 12, seed, 8
    scene.frame_set(3)
    hands.render()
    yield from hands.wait_for_frames(2)
    yield from press()
    begun = hands.told()
    waits = yield from hands.until(lambda: hands.status().left if hands.status().waits else "", 20)
    hands.shot("engine-waiting")
    yield from over()
    seen = {"shot": shot(), "picture": result("beside"), "begun": begun, "waits": waits, "ended": ENDED[:]}
    hands.shot("engine-beside")
    yield from close()
    yield from hands.wait_for_the_end()
    return {**seen, **hands.outcome()}


def anew(seed: int) -> hands.Steps:
    """F12 of a scene whose sequencer has a take, with another seed: painted, and not what the strip shows."""
    hands.window().scene.koshi.seed = seed
    yield from press()
    yield from over()
    hands.shot("engine-anew")
    scene = hands.window().scene
    seen = {"shot": shot(), "picture": result("anew"), "ended": ENDED[:], "sequencer": scene.render.use_sequencer}
    yield from close()
    return {**seen, "strips": hands.strips()}


def press(**held: bool) -> hands.Steps:
    """F12 with the mouse over the 3D view, as far as the render has begun."""
    ENDED.clear()
    at = hands.middle(hands.area('VIEW_3D'))
    hands.move(*at)
    yield 0.2
    hands.key('F12', at, **held)
    yield from hands.until(lambda: ENDED or bpy.app.is_job_running('RENDER'), 20, every=0.005)


def over() -> hands.Steps:
    """Wait until Blender's render has ended, its operator too, and the window was drawn."""
    yield from hands.until(lambda: ENDED and not bpy.app.is_job_running('RENDER'), 120)
    yield 0.5
    # The operator ends, and tells what was wrong, with the next event in the window that shows the render.
    hands.move(*hands.middle(hands.front().screen.areas[0]))
    yield 0.5


def close() -> hands.Steps:
    """Esc in the window that shows the render closes it; before that, a message if there is one."""
    for _ in range(3):
        if len(bpy.context.window_manager.windows) > 1:
            hands.key('ESC', hands.middle(hands.front().screen.areas[0]))
            yield 0.5


def shot() -> dict[str, Any]:
    """What the backend is asked for."""
    return hands.koshi("operators.sample").shot_from_scene(hands.window().scene).shot


def result(name: str) -> str:
    """The render result as a file."""
    path = str(hands.FOLDER / f"{name}.png")
    bpy.data.images["Render Result"].save_render(path, scene=hands.window().scene)
    return path


def picture_in(editor: bpy.types.Area) -> list[int]:
    """Where an Image Editor's picture is on the screen: left, bottom, width and height."""
    inside = hands.region(editor)
    (left, bottom), (right, top) = (inside.view2d.view_to_region(*corner, clip=False) for corner in ((0, 0), (1, 1)))
    holder = next(w for w in bpy.context.window_manager.windows if editor in w.screen.areas[:])
    return [holder.x + inside.x + left, holder.y + inside.y + bottom, right - left, top - bottom]


def last_report() -> hands.Steps:
    """What Blender's Info editor has as its last message."""
    editor = hands.area('OUTLINER')
    editor.type = 'INFO'
    yield 0.3
    with hands.within(editor):
        bpy.ops.info.select_all(action='SELECT')
        bpy.ops.info.report_copy()
    editor.type = 'OUTLINER'
    return bpy.context.window_manager.clipboard.splitlines()[-3:]


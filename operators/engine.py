# SPDX-License-Identifier: GPL-3.0-or-later
"""The KOSHI render engine: F12, Ctrl-F12, `blender -b FILE.blend -E KOSHI -a`, `-f N`.

What Blender does with an engine (measured in 4.2 to 5.2) decides the form of this file. An engine object lives for
one frame, so what an animation shares lies in `engine_session`. An exception or `error_set` alone lets Blender write a
black picture and go on with exit code 0; only a report of the type ERROR stops the animation and ends background
Blender with 1. `render` runs in a thread of its own in the window, and in the main thread in background.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from ..bridge_server.protocol import BridgeError
from . import engine_colors, engine_link, engine_main, engine_session, engine_strips, reader, state
from .engine_session import ENGINE

STRIPS = (
    'The scene "{}" has strips that are not Koshi\'s, so Blender renders its sequencer and not its camera\'s view; '
    "switch Output > Post Processing > Sequencer off to let the Koshi engine paint."
)


class KoshiEngine(bpy.types.RenderEngine):
    """Blender's render button paints with Koshi"""

    bl_idname = ENGINE
    bl_label = "Koshi"
    bl_use_preview = False
    bl_use_postprocess = True
    bl_use_eevee_viewport = True
    bl_use_shading_nodes_custom = False

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        """Paint one frame, or tell in words why not."""
        if self.is_preview:
            return
        try:
            self._paint(depsgraph)
        except BridgeError as error:
            engine_session.end(cancel=False)
            self._refuse(str(error))
        except Exception as error:  # Blender would print it, save a black picture, and go on
            state.log().exception("the render engine")
            engine_session.end(cancel=False)
            self._refuse(f"Koshi met an error it does not know: {error}. The details are in {state.log_file()}.")

    def _paint(self, depsgraph: bpy.types.Depsgraph) -> None:
        scene = depsgraph.scene
        session = engine_session.of(scene)
        number = scene.frame_current
        if not session.ready(number):
            # In the window: the main thread alone may move the playhead, by which the values are read.
            steps = session.preparing(scene, number)
            if not engine_main.run_through(steps, self.test_break, self._say):
                return
        if told := session.take_warning():
            self.report({'WARNING'}, told)
        png = session.picture(number, self)
        if png is not None:
            self._show(png, depsgraph.view_layer.name)
        elif bpy.app.background:  # an Esc in the window is no error; a farm must not take half a shot for a whole
            self._refuse(engine_session.STOPPED)

    def _say(self, line: str) -> None:
        self.update_stats("", f"Koshi | {line}")

    def _show(self, png: bytes, layer: str) -> None:
        """Put the picture into the render result. Blender itself reads the file, in its own colour spaces: with the
        Standard view all 8-bit values come back to the bit (all 256, 4.2 to 5.2)."""
        file = Path(bpy.app.tempdir) / f"koshi_{os.getpid()}.png"
        reader.write_whole(file, png)
        result = self.begin_result(0, 0, self.resolution_x, self.resolution_y, layer=layer)
        try:
            result.layers[0].load_from_file(str(file))
        finally:
            self.end_result(result)
            file.unlink(missing_ok=True)

    def _refuse(self, message: str) -> None:
        if not bpy.app.background:  # there it would be printed a second time
            self.error_set(message)
        self.report({'ERROR'}, f"Koshi: {message}")


@persistent
def _begins(scene: bpy.types.Scene, _: Any = None) -> None:
    if scene.render.engine != ENGINE:  # another engine's render; also Koshi's own of the guides
        return
    session = engine_session.begin(scene)
    if _on_main_thread():
        session.say(engine_colors.make_exact(scene))
    elif changed := engine_colors.what_changes(scene):
        session.warning = engine_colors.warning(changed)
    engine_strips.put_to_sleep(scene)
    if engine_strips.renders_strips(scene):
        session.say(STRIPS.format(scene.name))


@persistent
def _before_frame(scene: bpy.types.Scene, _: Any = None) -> None:
    """In background all that Blender itself has to do for a frame is done here, before the engine: a render inside
    the engine's `render` crashes 5.2."""
    engine_strips.wake(scene)
    if scene.render.engine == ENGINE and _on_main_thread():
        session = engine_session.of(scene)
        if not session.ready(scene.frame_current):
            for line in session.preparing(scene, scene.frame_current):
                session.say(line)


@persistent
def _ends(scene: bpy.types.Scene, _: Any = None) -> None:
    engine_strips.wake(scene)
    if scene.render.engine == ENGINE:
        engine_session.end(cancel=True)


@persistent
def _wake_all(*_: Any) -> None:
    """What is saved, and what was saved by a Blender that was killed then, is as the artist had it."""
    engine_strips.wake(*getattr(bpy.data, "scenes", ()))


@persistent
def _loaded(*_: Any) -> None:
    """Loading a file clears the message bus."""
    _wake_all()
    engine_main.watch(_chosen)


def _chosen() -> None:
    """Someone chose an engine: with Koshi's the colours are set so that its pictures stay what they are."""
    for window in bpy.context.window_manager.windows:
        if window.scene.render.engine == ENGINE:
            engine_colors.make_exact(window.scene)


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


HANDLERS = {
    "render_init": _begins,
    "render_pre": _before_frame,
    "render_complete": _ends,
    "render_cancel": _ends,
    "save_pre": _wake_all,
    "load_post": _loaded,
}


def register() -> None:
    """Add the engine."""
    bpy.utils.register_class(KoshiEngine)
    engine_colors.register()
    for name, function in HANDLERS.items():
        getattr(bpy.app.handlers, name).append(function)
    engine_main.watch(_chosen)


def unregister() -> None:
    """Remove the engine; a render of its own goes on in the backend."""
    engine_main.unwatch()
    for name, function in HANDLERS.items():
        getattr(bpy.app.handlers, name).remove(function)
    engine_session.end(cancel=False)
    engine_link.see_off()
    _wake_all()
    engine_colors.unregister()
    bpy.utils.unregister_class(KoshiEngine)

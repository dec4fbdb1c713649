# SPDX-License-Identifier: GPL-3.0-or-later
"""Before another engine renders on the graphics card, the backend lets go of its models: both seldom fit.

Only while it is idle, and only a backend on this computer that runs already. Its next render loads the model again.
"""

from __future__ import annotations

import threading
from typing import Any

import bpy
from bpy.app.handlers import persistent

from ..bridge_server.client import Client
from ..bridge_server.protocol import BridgeError
from . import state
from .engine_session import ENGINE

PATIENCE = 1.0  # seconds that a render waits for it
OUR_COPY = ".koshi"  # scenes that Koshi renders for a shot or a preview, which need the model next
WITHOUT = (ENGINE, 'BLENDER_WORKBENCH')  # Workbench needs little


@persistent
def _begins(scene: bpy.types.Scene, _: Any = None) -> None:
    """A render begins, in a thread of its own if it is in the window."""
    if state.status.busy or scene.name.startswith(OUR_COPY) or not on_card(scene):
        return
    asking = threading.Thread(target=_ask, name="koshi-room", daemon=True)
    asking.start()
    asking.join(PATIENCE)


def on_card(scene: bpy.types.Scene) -> bool:
    """Whether the scene's engine works on the graphics card; of those that Koshi does not know it is assumed."""
    if scene.render.engine == 'CYCLES':
        return scene.cycles.device == 'GPU'
    return scene.render.engine not in WITHOUT


def _ask() -> None:
    try:
        with Client(timeout=PATIENCE) as client:
            client.release()
    except BridgeError:
        pass  # none runs, or an older one that cannot


def register() -> None:
    """Listen to renders."""
    bpy.app.handlers.render_init.append(_begins)


def unregister() -> None:
    """Undo `register`."""
    bpy.app.handlers.render_init.remove(_begins)

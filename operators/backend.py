# SPDX-License-Identifier: GPL-3.0-or-later
"""Connect to the backend and stop it."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import compat, job, settings, start, state
from .pumped import PumpedOperator


class KOSHI_OT_connect(PumpedOperator, bpy.types.Operator):
    """Find the backend, or start it, and go on showing a render of this scene that is under way"""

    bl_idname = "koshi.connect"
    bl_label = "Connect to Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls)

    def begin(self, context: bpy.types.Context) -> job.Job:
        return start.connect(compat.edited_scene(context))

    def after(self, context: bpy.types.Context, finished: job.Job) -> job.Job | None:
        scene = finished.scene
        record = start.running_job_of(scene, finished.jobs) if scene is not None else None
        if record is None:
            if finished.jobs or not state.status.message:
                server = state.status.server
                state.status.message = iface_("Connected to {}").format(server) if server else ""
            return None
        return start.attach(scene, record)


class KOSHI_OT_stop_backend(PumpedOperator, bpy.types.Operator):
    """Stop the backend and free its memory; finished frames are kept"""

    bl_idname = "koshi.stop_backend"
    bl_label = "Stop Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        chosen = settings.preferences()
        if chosen is not None and chosen.use_remote:
            cls.poll_message_set("The backend is on another computer: stop it there")
            return False
        return state.idle(cls)

    def begin(self, context: bpy.types.Context) -> job.Job:
        return start.stop(compat.edited_scene(context))


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_connect, KOSHI_OT_stop_backend))

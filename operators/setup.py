# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons of the backend's set-up: make it (again), cancel that, remove it, see its log."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import EnumProperty

from .. import __package__ as base_package
from ..bridge_server import protocol
from ..bridge_server.protocol import BridgeError
from ..bridge_server.setup import place, start
from . import settings, setup_watch, state

# By `place.condition`; to make a backend anew that is there is to repair it.
LABELS = {name: "Set Up Backend" for name in ("absent", "occupied", "unfinished")} | {"outdated": "Update"}


class SetupOperator:
    """Mixin: starts the set-up's program with `task`. In background mode it waits for the end."""

    task = "install"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if setup_watch.running():
            cls.poll_message_set("A set-up or a download is under way")  # type: ignore[attr-defined]
            return False
        if cls.task == "install" and not bpy.app.online_access:
            cls.poll_message_set(f"Packages have to be downloaded: turn on {settings.OFFLINE}")  # type: ignore[attr-defined]
            return False
        return state.idle(cls)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            start.begin(self.task, settings.setup_folder(), settings.source(), settings.setup_variables())
        except BridgeError as error:
            self.report({'ERROR'}, str(error))  # type: ignore[attr-defined]
            return {'CANCELLED'}
        state.status.error = None
        if not bpy.app.background:
            setup_watch.watch()
            return {'FINISHED'}
        return self._wait()

    def _wait(self) -> set[str]:
        """Background mode has no timers: go along, and say each step."""
        said = ""
        while (status := start.look()) is not None and status.phase == "running":
            if status.text != said:
                said = status.text
                print(f"Koshi: {said}", file=sys.stderr, flush=True)
            time.sleep(0.1)
        if status is None or status.phase == "cancelled":
            self.report({'WARNING'}, iface_("Cancelled"))  # type: ignore[attr-defined]
            return {'CANCELLED'}
        if status.phase == "failed":
            self.report({'ERROR'}, str(BridgeError.from_dict(status.error)))  # type: ignore[attr-defined]
            return {'CANCELLED'}
        self.report({'INFO'}, f"Koshi: {iface_(status.text)}")  # type: ignore[attr-defined]
        return {'FINISHED'}


class KOSHI_OT_setup_backend(SetupOperator, bpy.types.Operator):
    """Download what Koshi's backend needs into its folder and try it. What works now goes on working until then"""

    bl_idname = "koshi.setup_backend"
    bl_label = "Set Up Backend"


class KOSHI_OT_remove_backend(SetupOperator, bpy.types.Operator):
    """Delete the backend's environment. Your models, takes and stored frames stay"""

    bl_idname = "koshi.remove_backend"
    bl_label = "Remove Backend"
    bl_options = {'INTERNAL'}
    task = "remove"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if place.Stamp.read(settings.setup_folder()) is None:
            cls.poll_message_set("There is nothing that Koshi has set up")
            return False
        return super().poll(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        message = iface_("Delete what Koshi has set up in {}?").format(settings.setup_folder())
        return context.window_manager.invoke_confirm(
            self, event, title="Remove Backend", message=message, confirm_text="Remove", icon='WARNING'
        )


class KOSHI_OT_cancel_setup(bpy.types.Operator):
    """Stop the set-up. What has been downloaded is kept for the next time"""

    bl_idname = "koshi.cancel_setup"
    bl_label = "Cancel Set-Up"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not setup_watch.running():
            cls.poll_message_set("No set-up is under way")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        start.cancel()
        setup_watch.watch()
        return {'FINISHED'}


class KOSHI_OT_open_log(bpy.types.Operator):
    """Open a log in the program that your system has for text"""

    bl_idname = "koshi.open_log"
    bl_label = "Open Log"
    bl_options = {'INTERNAL'}

    log: EnumProperty(
        name="Log",
        items=(
            ('SETUP', "Set-Up", "What the last set-ups did"),
            ('BACKEND', "Backend", "What the backend did"),
            ('BLENDER', "Blender", "What Koshi noted in Blender"),
        ),
        options={'SKIP_SAVE'},
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        path = log_file(self.log)
        if not path.is_file():
            self.report({'WARNING'}, iface_("There is no log yet: {}").format(path))
            return {'CANCELLED'}
        return bpy.ops.wm.path_open(filepath=str(path))


class KOSHI_OT_show_preferences(bpy.types.Operator):
    """Open Koshi's preferences, where the backend is set up and started"""

    bl_idname = "koshi.show_preferences"
    bl_label = "Koshi Preferences"

    def execute(self, context: bpy.types.Context) -> set[str]:
        return bpy.ops.preferences.addon_show(module=base_package)


def log_file(which: str) -> Path:
    """Where one of the logs is."""
    backend = protocol.cache_folder() / "server.log"
    return {'SETUP': place.log_path(), 'BACKEND': backend, 'BLENDER': state.log_file()}[which]


CLASSES = (
    KOSHI_OT_setup_backend,
    KOSHI_OT_remove_backend,
    KOSHI_OT_cancel_setup,
    KOSHI_OT_open_log,
    KOSHI_OT_show_preferences,
)
_register, _unregister = bpy.utils.register_classes_factory(CLASSES)


def register() -> None:
    """Add the operators."""
    _register()


def unregister() -> None:
    """Remove them; a set-up that is under way goes on and shows again when Koshi is enabled."""
    setup_watch.stop()
    _unregister()

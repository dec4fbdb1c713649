# SPDX-License-Identifier: GPL-3.0-or-later
"""Models on this computer: which are installed, what they need, and the buttons that fetch, check and remove them.

The work is done by the set-up's program, so that it goes on when Blender closes and every Blender sees how far it is.
"""

from __future__ import annotations

import time

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import BoolProperty, StringProperty

from ..bridge_server.protocol import BridgeError
from ..bridge_server.setup import start
from ..bridge_server.setup.place import MODEL_TASKS, Status
from ..koshi_backend.models.hub_cache import held_bytes, repository_folder, snapshot_folder
from ..koshi_backend.models.registry import MODELS, PARTS, ModelInfo, is_whole
from . import settings, setup_watch
from .setup import SetupOperator

FRESH = 3.0  # seconds for which a look at the disk holds; menus and panels are drawn far more often

_seen: dict[tuple[str, str], tuple[float, bool, int]] = {}


def installed(info: ModelInfo) -> bool:
    """Whether a model's files are here. A single file counts, too: its other parts are sought when it is loaded."""
    return _look(info)[0]


def partial(info: ModelInfo) -> int:
    """Bytes of a model that are here where it is not whole: a download was broken off."""
    return _look(info)[1]


def _look(info: ModelInfo) -> tuple[bool, int]:
    if not info.repository:
        return True, 0
    hub, now, doing = settings.hub_folder(), time.monotonic(), setup_watch.status()
    key = info.name, f"{hub} {doing.task} {doing.phase}" if doing else str(hub)
    if key not in _seen or now - _seen[key][0] > FRESH:
        folder, there = snapshot_folder(info.repository, hub), False
        if folder is not None:
            there = is_whole(folder, PARTS[info.traits.family])
            there = there or bool(info.file and (folder / info.file).is_file())
        _seen[key] = now, there, 0 if there else held_bytes(info.repository, hub)
    return _seen[key][1:]


def forget() -> None:
    """Look at the disk again."""
    _seen.clear()


def status() -> Status | None:
    """The fetching, checking or removing that is under way, or how the last one ended."""
    now = setup_watch.status()
    return now if now is not None and now.task in MODEL_TASKS else None


class ModelOperator(SetupOperator):
    """Mixin: does `task` to the model that is named."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        chosen = settings.preferences()
        if chosen is not None and chosen.use_remote:
            cls.poll_message_set("The backend runs on another computer: there it is `koshi models pull`")  # type: ignore[attr-defined]
            return False
        if setup_watch.running():
            cls.poll_message_set("A download or a set-up is under way")  # type: ignore[attr-defined]
            return False
        if not settings.own_python() and settings.setup_condition() not in ("ready", "outdated"):
            cls.poll_message_set("Set the backend up first, in Koshi's preferences")  # type: ignore[attr-defined]
            return False
        if cls.task == "pull" and not bpy.app.online_access:
            cls.poll_message_set(f"Models have to be downloaded: turn on {settings.OFFLINE}")  # type: ignore[attr-defined]
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        info = MODELS.get(self.model)  # type: ignore[attr-defined]
        if info is None or not info.repository:
            self.report({'ERROR'}, f"There is nothing to download for {self.model!r}")  # type: ignore[attr-defined]
            return {'CANCELLED'}
        forget()
        try:
            more = ["--title", info.title, "--python", settings.backend_python()]
            if getattr(self, "repair", False):
                more.append("--repair")
            folder, variables = settings.setup_folder(), settings.model_variables()
            start.begin(self.task, folder, settings.source(), variables, info.name, more)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))  # type: ignore[attr-defined]
            return {'CANCELLED'}
        if not bpy.app.background:
            setup_watch.watch()
            return {'FINISHED'}
        ended = self._wait()
        forget()
        return ended


class KOSHI_OT_pull_model(ModelOperator, bpy.types.Operator):
    """Download this model. You may go on working; a download that was broken off goes on where it was"""

    bl_idname = "koshi.pull_model"
    bl_label = "Download Model"
    bl_options = {'INTERNAL'}
    task = "pull"

    model: StringProperty(name="Model", options={'HIDDEN', 'SKIP_SAVE'})
    repair: BoolProperty(name="Repair", options={'HIDDEN', 'SKIP_SAVE'})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        info = MODELS.get(self.model)
        if info is None or self.repair:
            return self.execute(context)
        text = iface_("{} GB go to {}. License: {}").format(
            f"{info.download_gb:.0f}", settings.hub_folder(), info.licence
        )
        if info.gated:
            text += ". " + iface_("It has to be accepted on the model's page first")
        return context.window_manager.invoke_confirm(
            self, event, title=info.title, message=text, confirm_text=iface_("Download"), icon='QUESTION'
        )


class KOSHI_OT_verify_model(ModelOperator, bpy.types.Operator):
    """Read all of this model's files, and compare them with the networks and with the checksums of the hub"""

    bl_idname = "koshi.verify_model"
    bl_label = "Check Model"
    bl_options = {'INTERNAL'}
    task = "verify"

    model: StringProperty(name="Model", options={'HIDDEN', 'SKIP_SAVE'})


class KOSHI_OT_remove_model(ModelOperator, bpy.types.Operator):
    """Delete this model's files. Other programs that use the same cache have it no longer either"""

    bl_idname = "koshi.remove_model"
    bl_label = "Remove Model"
    bl_options = {'INTERNAL'}
    task = "delete"

    model: StringProperty(name="Model", options={'HIDDEN', 'SKIP_SAVE'})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        info = MODELS.get(self.model)
        if info is None:
            return self.execute(context)
        text = iface_("Delete {}?").format(repository_folder(info.repository, settings.hub_folder()))
        return context.window_manager.invoke_confirm(
            self, event, title=info.title, message=text, confirm_text=iface_("Remove"), icon='WARNING'
        )


_register, _unregister = bpy.utils.register_classes_factory(
    (KOSHI_OT_pull_model, KOSHI_OT_verify_model, KOSHI_OT_remove_model)
)


def register() -> None:
    """Add the operators."""
    _register()


def unregister() -> None:
    """Remove them; what is under way goes on."""
    forget()
    _unregister()

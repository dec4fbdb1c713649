# SPDX-License-Identifier: GPL-3.0-or-later
"""What the preferences show: the backend and its set-up, models and frames, another computer, details."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.setup.place import Status, takes_folder
from ..operators import diagnose, settings, setup, setup_watch, state, store
from . import models
from .preferences import draw_error, wrapped

if TYPE_CHECKING:
    from .preferences import KoshiPreferences

SAYS = {
    "absent": (n_("The backend is not set up yet: it makes the pictures, in a program of its own"), 'INFO'),
    "occupied": (n_("The backend is not set up yet: it makes the pictures, in a program of its own"), 'INFO'),
    "unfinished": (n_("The last set-up did not come to its end"), 'INFO'),
    "ready": (n_("The backend is set up"), 'CHECKMARK'),
    "outdated": (n_("The backend was set up for another version of Koshi: update it"), 'ERROR'),
    "broken": (n_("The backend has lost its Python: repair it"), 'ERROR'),
}


SIZES = n_("Some 350 MB are downloaded and 1.5 GB filled; with an NVIDIA card 3 GB and 6 GB. It takes minutes")


def draw(chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    """Draw all of it."""
    layout = chosen.layout
    layout.use_property_split = True
    layout.use_property_decorate = False
    if chosen.use_remote:
        layout.label(text="Koshi uses a backend on another computer", icon='INFO')
    else:
        _draw_setup(layout.column(), chosen, context)
    _draw_running(layout.column(), chosen, context)
    for name, title, part in (
        ("koshi_diagnostics", n_("Diagnostics and Logs"), _draw_diagnostics),
        ("koshi_keeping", n_("Models and Frames"), _draw_keeping),
        ("koshi_remote", n_("Another Computer"), _draw_remote),
        ("koshi_details", n_("Details of the Set-Up"), _draw_details),
    ):
        header, body = layout.panel(name, default_closed=True)
        header.label(text=title)
        if body is not None:
            part(body, chosen, context)


def _draw_setup(column: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    now = setup_watch.status()
    if now is not None and now.model:
        now = None  # a model's download is shown with the models
    running = now is not None and now.phase == "running"
    folder, condition = settings.setup_folder(), settings.setup_condition()
    own = settings.own_python()
    row = column.row()
    row.enabled = not running
    row.prop(chosen, "backend_folder", placeholder=str(folder))
    if running:
        setup_watch.watch()  # another Blender may have begun it
        _draw_progress(column, now)
        return
    text, icon = SAYS[condition]
    if own:
        text, icon = iface_("Its Python is {}").format(own), 'INFO'
    _draw_lines(column, text, icon, context)
    if chosen.backend_folder and str(folder) != bpy.path.abspath(chosen.backend_folder).rstrip("\\/"):
        _draw_lines(column, iface_("It goes into {}").format(folder), 'BLANK1', context)
    if not bpy.app.online_access and condition != "ready" and not own:
        _draw_lines(column, iface_("Packages have to be downloaded, and online access is off"), 'ERROR', context)
        if not bpy.app.online_access_override:  # else it was switched off on Blender's command line
            column.prop(context.preferences.system, "use_online_access")
    if now is not None and now.phase == "failed" and now.error:
        draw_error(column, now.error, context)
    elif now is not None and now.phase == "done" and now.note:
        _draw_lines(column, now.note, 'ERROR', context)
    row = column.row()
    whole = condition in ("ready", "broken", "outdated")
    if not whole:
        row.scale_y = 1.4
    label = setup.LABELS.get(condition, "Repair")
    row.operator("koshi.setup_backend", text=label, icon='TOOL_SETTINGS' if condition == "ready" else 'IMPORT')
    if not whole:
        _draw_lines(column, SIZES, 'BLANK1', context)
    if whole or condition == "unfinished":
        row.operator("koshi.remove_backend", text="Remove...", icon='TRASH')


def _draw_progress(column: bpy.types.UILayout, now: Status) -> None:
    row = column.row()
    row.progress(factor=now.fraction, text=setup_watch.line(now))
    right = row.row()
    right.alignment = 'RIGHT'
    right.operator("koshi.cancel_setup", text="Cancel", icon='X')
    column.label(text="You may go on working, and even close Blender", icon='INFO')


def _draw_running(column: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    status = state.status
    row = column.row()
    there = chosen.use_remote or settings.own_python() or settings.setup_condition() in ("ready", "outdated")
    row.enabled = bool(there or status.server or status.busy)
    row.operator("koshi.connect", text="Connect" if status.server or chosen.use_remote else "Start", icon='LINKED')
    row.operator("koshi.stop_backend", text="Stop", icon='UNLINKED')
    if status.busy:
        column.label(text=status.message or "Working", icon='SORTTIME')
    elif status.server:
        column.label(text=status.server, icon='CHECKMARK')
    if status.error:
        draw_error(column, status.error, context)


def _draw_diagnostics(body: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    row = body.row()
    row.operator("koshi.diagnose", text="Diagnostics", icon='VIEWZOOM')
    row.operator("koshi.copy_report", text="Copy", icon='COPYDOWN')
    lines = body.column(align=True)
    for check in diagnose.checks(state.report) if state.report else ():
        icon = 'CHECKMARK' if check["ok"] else 'ERROR'
        name = check["name"][:1].upper() + check["name"][1:]
        _draw_lines(lines, f"{name}: {check['found']}", icon, context)
        _draw_lines(lines, check["hint"], 'BLANK1', context)
    row = body.row()
    for item in ('SETUP', 'BACKEND', 'BLENDER'):
        title = {'SETUP': n_("Set-Up Log"), 'BACKEND': n_("Backend Log"), 'BLENDER': n_("Blender Log")}[item]
        row.operator("koshi.open_log", text=title, icon='TEXT').log = item


def _draw_keeping(body: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    body.prop(chosen, "model_folder", placeholder="Hugging Face cache")
    models.draw_list(body.column(), context)
    body.separator()
    body.prop(chosen, "offload")
    body.prop(chosen, "vram_limit", text="Card Memory Limit (GB)")
    body.prop(chosen, "quantize")
    body.separator()
    body.prop(chosen, "store_limit", text="Frame Store Limit (GB)")
    row = body.row()
    found = store.figures()
    text = iface_("Measuring the frame store")
    if found:
        text = iface_("{:.1f} GB in {:,} stored frames").format(found.size / 1e9, found.frames)
    row.label(text=text, icon='FILE_CACHE')
    row.operator("koshi.clear_store", text="Clear...", icon='TRASH')
    if (takes := takes_folder()).is_dir():
        shown = body.operator("wm.path_open", text="Takes of Files That Were Not Saved", icon='FILE_FOLDER')
        shown.filepath = str(takes)


def _draw_remote(body: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    body.prop(chosen, "use_remote")
    fields = body.column()
    fields.active = chosen.use_remote
    fields.prop(chosen, "remote_file")
    fields.prop(chosen, "remote_address", placeholder="host:port")
    if chosen.use_remote:
        _draw_lines(
            body,
            iface_("What is sent is not encrypted: outside your own network use an SSH tunnel"),
            'INFO',
            context,
        )


def _draw_details(body: bpy.types.UILayout, chosen: KoshiPreferences, context: bpy.types.Context) -> None:
    body.prop(chosen, "package_index", placeholder="as pip is configured")
    body.prop(chosen, "torch_index")
    body.prop(chosen, "backend_python")


def _draw_lines(layout: bpy.types.UILayout, text: str, icon: str, context: bpy.types.Context) -> None:
    lines = wrapped(text, context)
    column = layout.column(align=True) if lines else layout
    for i, line in enumerate(lines):
        column.label(text=line, icon=icon if i == 0 else 'BLANK1')

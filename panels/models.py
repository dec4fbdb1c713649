# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in the panels: what the menu shows, what is said below it, and the list in the preferences."""

from __future__ import annotations

import re

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as n_

from ..bridge_server.setup.place import Status
from ..koshi_backend.models.registry import MODELS, ModelInfo
from ..operators import models, settings, setup_watch
from .preferences import draw_error, wrapped

_ADDRESS = re.compile(r"https?://\S*[\w/]")
_items: list[tuple[str, str, str, str, int]] = []  # Blender keeps no texts of a menu that is made on the fly


def menu_items(plain: tuple[tuple[str, str, str], ...]) -> list[tuple[str, str, str, str, int]]:
    """The menu's entries, with what has to be downloaded marked as such. plain: (identifier, name, description)."""
    global _items
    made = []
    for number, (name, title, about) in enumerate(plain):
        info, icon = MODELS.get(name), 'CHECKMARK'
        if info is None:
            icon = 'FILE_FOLDER'
        elif not _is_elsewhere() and not models.installed(info):
            icon = 'LOCKED' if info.gated else 'IMPORT'
            title = iface_("{} ({} GB to download)").format(title, f"{info.download_gb:.0f}")
        made.append((name, title, about, icon, number))
    if made != _items:
        _items = made
    return _items


def _is_elsewhere() -> bool:
    """Whether another computer's models count, of which nothing is known here."""
    chosen = settings.preferences()
    return chosen is not None and chosen.use_remote


def draw(layout: bpy.types.UILayout, name: str, context: bpy.types.Context) -> None:
    """What there is to say of the chosen model: nothing where it is ready."""
    info, now = MODELS.get(name), models.status()
    if now is not None and now.phase == "running":
        setup_watch.watch()  # another Blender may have begun it
        draw_progress(layout, now, context)
        if now.model == name:
            return
    if info is None or _is_elsewhere() or models.installed(info):
        return
    box = layout.box().column(align=True)
    for i, line in enumerate(wrapped(_needs(info), context)):
        box.label(text=line, icon='INFO' if i == 0 else 'BLANK1')
    if now is not None and now.phase == "failed" and now.error and now.model == name:
        draw_failure(box, now, context)
    _draw_token(box, info)
    _draw_online(box, context)
    big = box.column()
    big.scale_y = 1.3
    label = n_("Go On") if models.partial(info) else n_("Download")
    big.operator("koshi.pull_model", text=label, icon='IMPORT').model = name


def _needs(info: ModelInfo) -> str:
    """In a sentence or three."""
    size, memory = f"{info.download_gb:.0f}", f"{info.memory_gb:.0f}"
    there = models.partial(info)
    text = iface_("Not on this computer: {} GB to download, {} GB in memory").format(size, memory)
    if there:
        text = iface_("{} of {} GB are on this computer; {} GB in memory").format(f"{there / 1e9:.1f}", size, memory)
    text += ". " + iface_("License: {}").format(info.licence)
    if info.gated:
        text += ". " + iface_("Accept it on the model's page first, and give a token of your account")
    return text


def draw_progress(layout: bpy.types.UILayout, now: Status, context: bpy.types.Context) -> None:
    """A bar with a button that cancels."""
    column = layout.column(align=True)
    row = column.row(align=True)
    row.progress(factor=now.fraction, text=now.text)
    row.operator("koshi.cancel_setup", text="", icon='X')
    for line in wrapped(now.detail, context):
        column.label(text=line)


def draw_failure(layout: bpy.types.UILayout, now: Status, context: bpy.types.Context) -> None:
    """An error, with the pages it names as buttons."""
    error = dict(now.error or {})
    draw_error(layout, error, context)
    row = layout.row(align=True)
    for address in dict.fromkeys(_ADDRESS.findall(error.get("hint", ""))):
        label = n_("Make a Token") if address.endswith("/tokens") else n_("Open Its Page")
        row.operator("wm.url_open", text=label, icon='URL').url = address


def _draw_token(layout: bpy.types.UILayout, info: ModelInfo) -> None:
    chosen = settings.preferences()
    if info.gated and chosen is not None:
        layout.prop(chosen, "hub_token")


def _draw_online(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """The switch, where downloads wait for it."""
    if bpy.app.online_access:
        return
    for i, line in enumerate(wrapped(n_("Models have to be downloaded, and online access is off"), context)):
        layout.label(text=line, icon='ERROR' if i == 0 else 'BLANK1')
    if not bpy.app.online_access_override:  # else it was switched off on Blender's command line
        layout.prop(context.preferences.system, "use_online_access")


def draw_list(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """All models with what can be done about each; in the preferences."""
    now = models.status()
    if _is_elsewhere():
        layout.label(text="The backend runs on another computer: there it is `koshi models`", icon='INFO')
        return
    chosen = settings.preferences()
    layout.prop(chosen, "hub_token")
    _draw_online(layout, context)
    column = layout.column(align=True)
    for info in MODELS.values():
        if not info.repository:
            continue
        there = models.installed(info)
        row = column.row(align=True)
        icon = 'CHECKMARK' if there else 'LOCKED' if info.gated else 'IMPORT'
        split = row.split(factor=0.45)
        split.label(text=info.title, icon=icon)
        about = iface_("{} GB, {} GB in memory").format(f"{info.download_gb:.0f}", f"{info.memory_gb:.0f}")
        split.label(text=about)
        buttons = row.row(align=True)
        buttons.alignment = 'RIGHT'
        if there:
            buttons.operator("koshi.verify_model", text="Check", icon='VIEWZOOM').model = info.name
        else:
            label = n_("Go On") if models.partial(info) else n_("Download")
            buttons.operator("koshi.pull_model", text=label, icon='IMPORT').model = info.name
        if there or models.partial(info):
            buttons.operator("koshi.remove_model", text="", icon='TRASH').model = info.name
    if now is None:
        return
    if now.phase == "running":
        setup_watch.watch()
        draw_progress(layout, now, context)
    elif now.phase == "failed" and now.error:
        draw_failure(layout, now, context)
        if now.error.get("code") == "model_damaged":
            button = layout.operator("koshi.pull_model", text="Repair", icon='FILE_REFRESH')
            button.model, button.repair = now.model, True
    elif now.phase == "done":
        for i, line in enumerate(wrapped(now.text, context)):
            layout.label(text=line, icon='CHECKMARK' if i == 0 else 'BLANK1')

# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi is removed in the preferences and installed again from its zip, through Blender's own file browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import hands
from importing import browser


def steps(zipped: str) -> hands.Steps:
    """Reports whether it is there, before and after; and whether a take of an unsaved file outlived it."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.2
    hands.area('VIEW_3D').type = 'PREFERENCES'
    yield from hands.show_preferences(hands.area('PREFERENCES'), "")
    take = hands.koshi("operators.sequencer").takes_folder()[0] / "Scene_1" / "0001.png"
    take.parent.mkdir(parents=True)
    take.touch()
    repositories = bpy.context.preferences.extensions.repos
    where = next(repository.directory for repository in repositories if repository.module == "user_default")
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.extensions.package_uninstall(repo_directory=where, pkg_id="koshi")
    yield from hands.until(lambda: not there(), 60)
    yield 0.5
    seen: dict[str, Any] = {"removed": not hasattr(bpy.types.Scene, "koshi"), "take": take.is_file()}
    hands.shot("uninstalled")

    bpy.context.preferences.view.filebrowser_display_type = 'SCREEN'
    with hands.within(hands.area('PREFERENCES')):
        bpy.ops.extensions.package_install_files('INVOKE_DEFAULT')
    place = yield from hands.until(browser, 20)
    space = place.spaces.active
    yield from hands.until(lambda: space.params, 20)
    space.params.directory, space.params.filename = str(Path(zipped).parent).encode(), Path(zipped).name
    yield 0.8
    hands.shot("install-from-disk")
    hands.key('RET', hands.middle(place))
    yield from hands.until(there, 60)
    yield 0.5
    hands.shot("installed")
    seen["installed"] = hasattr(bpy.types.Scene, "koshi")
    seen["works"] = bool(bpy.ops.koshi.render.poll())
    return seen


def there() -> bool:
    """Whether Koshi is enabled."""
    return hands.PACKAGE in bpy.context.preferences.addons

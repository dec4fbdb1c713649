# SPDX-License-Identifier: GPL-3.0-or-later
"""Previews in Image Editors: two images that are never saved with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError

PICTURE, FILM = "Koshi Preview", "Koshi Motion"
_ROOM = (260, 200)  # pixels that a window of its own should have at least
_SOON = 0.1  # seconds, until a new editor has been drawn


def show_picture(path: Path) -> bpy.types.Image:
    """Let "Koshi Preview" be this file, in every editor that shows it, or else in one that shows nothing."""
    image = _loaded(PICTURE, path, 'FILE')
    for area in _editors_of(image, steal=False):
        area.tag_redraw()
    return image


def show_film(path: Path, first: int, count: int) -> bpy.types.Image:
    """Let "Koshi Motion" be the numbered files of which `path` is the first one: `count` scene frames from `first` on.
    An editor of either preview shows it, or one that shows nothing."""
    image = _loaded(FILM, path, 'SEQUENCE')
    for area in _editors_of(image, steal=True):
        user = area.spaces.active.image_user
        user.frame_duration, user.frame_start, user.frame_offset = count, first, 0
        user.use_cyclic = False
        user.use_auto_refresh = True
        area.tag_redraw()
    return image


def make_room(context: bpy.types.Context, name: str, size: tuple[int, int]) -> None:
    """See to it that an Image Editor shows the image of this name, or will: one that shows a preview or nothing, else
    one in a window of its own."""
    image = bpy.data.images.get(name) or _blank(name, size)
    if _editors_of(image, steal=True):
        return
    windows = context.window_manager.windows
    before = {window.as_pointer() for window in windows}
    _open_window(context)
    for window in windows:
        if window.as_pointer() not in before and len(window.screen.areas):
            area = window.screen.areas[0]
            area.ui_type = 'IMAGE_EDITOR'
            _put(area, image)


def play(name: str) -> None:
    """Play the animation of the scene of this name from its first frame on, in a window that shows it."""
    manager, scene = bpy.context.window_manager, bpy.data.scenes.get(name)
    window = next((one for one in manager.windows if one.scene == scene), None)
    if scene is None:
        return
    scene.frame_set(scene.frame_start)
    if window is None or any(one.screen.is_animation_playing for one in manager.windows):
        return
    screen = window.screen
    screen.use_play_image_editors = True
    area = max(screen.areas, key=lambda one: one.width * one.height)
    region = next(one for one in area.regions if one.type == 'WINDOW')
    with bpy.context.temp_override(window=window, screen=screen, area=area, region=region):
        if bpy.ops.screen.animation_play.poll():
            bpy.ops.screen.animation_play()


def _loaded(name: str, path: Path, source: str) -> bpy.types.Image:
    image = bpy.data.images.get(name)
    try:
        if image is None:
            image = bpy.data.images.load(str(path))
            image.name = name
            image.source = source
        else:
            image.source = source
            image.filepath = str(path)
            image.reload()
    except RuntimeError as error:
        raise BridgeError("cannot_read", f"Blender cannot read {path}. {error}".strip(), "Preview again.") from error
    image.is_runtime_data = True  # Blender writes no such thing into files
    return image


def _blank(name: str, size: tuple[int, int]) -> bpy.types.Image:
    """Something to show until the first picture is there."""
    image = bpy.data.images.new(name, *size)
    image.generated_color = (0.05, 0.05, 0.05, 1.0)
    image.is_runtime_data = True
    return image


def _open_window(context: bpy.types.Context) -> None:
    """Open another window, no larger than need be: Blender gives it the size of the editor it is opened from, and
    nearly that of its whole window if it is opened from none."""
    scale = context.preferences.system.ui_scale
    areas = sorted(context.window.screen.areas, key=lambda one: one.width * one.height)
    roomy = [one for one in areas if one.width >= _ROOM[0] * scale and one.height >= _ROOM[1] * scale]
    for area in (roomy or areas[-1:])[:1]:
        with context.temp_override(area=area, region=area.regions[0]):
            if bpy.ops.screen.area_dupli.poll() and bpy.ops.screen.area_dupli('INVOKE_DEFAULT') == {'FINISHED'}:
                return
    if bpy.ops.wm.window_new.poll():
        bpy.ops.wm.window_new()


def _image_editors() -> Iterator[bpy.types.Area]:
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            if area.type == 'IMAGE_EDITOR' and area.ui_type == 'IMAGE_EDITOR':
                yield area


def _editors_of(image: bpy.types.Image, steal: bool) -> list[bpy.types.Area]:
    """The editors that show an image, after giving it one if there is any to be had: one that shows nothing, or, if
    `steal`, Koshi's other preview."""
    editors = list(_image_editors())
    found = [area for area in editors if area.spaces.active.image == image]
    if found:
        return found
    free = [area for area in editors if area.spaces.active.image is None]
    if steal:
        free += [a for a in editors if a.spaces.active.image and a.spaces.active.image.name in (PICTURE, FILM)]
    for area in free[:1]:
        _put(area, image)
    return free[:1]


def _put(area: bpy.types.Area, image: bpy.types.Image) -> None:
    """Show an image in an editor, and have all of it in view as soon as that can be done."""
    area.spaces.active.image = image
    if not bpy.app.background:
        pointer = area.as_pointer()
        bpy.app.timers.register(lambda: _fit(pointer), first_interval=_SOON)


def _fit(pointer: int) -> None:
    manager = bpy.context.window_manager
    for window in manager.windows:
        for area in window.screen.areas:
            if area.as_pointer() != pointer or area.type != 'IMAGE_EDITOR':
                continue
            region: Any = next(one for one in area.regions if one.type == 'WINDOW')
            with bpy.context.temp_override(window=window, screen=window.screen, area=area, region=region):
                if bpy.ops.image.view_all.poll():
                    bpy.ops.image.view_all(fit_view=True)

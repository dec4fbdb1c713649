# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendered frames as an image strip that grows while they arrive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bpy

from .. import __package__ as base_package
from . import compat
from .reader import frame_name

TAG = "koshi_shot"  # a strip's shot digest: the same shot again goes into the same strip
CHANNELS = 128


def takes_folder() -> tuple[Path, str]:
    """Where takes go: `koshi` beside the .blend, or the user's folder, with a note, while it is unsaved."""
    if bpy.data.filepath:
        return Path(bpy.path.abspath("//koshi")), ""
    try:
        folder = Path(bpy.utils.extension_path_user(base_package, path="takes", create=True))
    except ValueError:  # not installed as an extension, as in a developer's checkout
        folder = Path(bpy.app.tempdir) / "koshi"
    return (
        folder,
        f"This file is not saved yet, so the frames go to {folder}. Save it to keep them beside it.",
    )


def take_stem(scene: bpy.types.Scene) -> str:
    """The scene's name as a part of a folder's name."""
    return bpy.path.clean_name(scene.name) or "Scene"


def shot_digests(scene: bpy.types.Scene) -> set[str]:
    """Digests of the shots that the scene's strips show."""
    editor = scene.sequence_editor
    return {str(strip.get(TAG)) for strip in compat.strips(editor) if strip.get(TAG)} if editor else set()


def show_frame(
    scene: bpy.types.Scene,
    digest: str,
    folder: Path,
    index: int,
    frame_start: int,
    frames: int,
    notes: list[str],
    step: int = 1,
) -> str:
    """Show frame `index` of a shot, whose file is complete, in the shot's strip; makes the strip if need be.

    step: scene frames from one frame of the shot to the next; each shows until the next one comes.

    All earlier frames' files must exist: Blender may crash on an element whose file is missing.
    Returns the strip's name.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    strip = next((s for s in compat.strips(editor) if s.get(TAG) == digest and s.type == 'IMAGE'), None)
    if strip is None:
        strip = _new_strip(scene, digest, folder, frame_start, (frames - 1) * step + 1, notes)
    directory = _directory(folder)
    if strip.directory != directory:  # the .blend was saved elsewhere since
        strip.directory = directory
    place = index * step
    if place < len(strip.elements):
        compat.refresh_element(strip, place)
    for later in range(len(strip.elements), place + 1):
        strip.elements.append(frame_name(frame_start + later // step * step))
    return strip.name


def _new_strip(
    scene: bpy.types.Scene, digest: str, folder: Path, frame_start: int, frames: int, notes: list[str]
) -> Any:
    strips = compat.strips(scene.sequence_editor)
    first = not len(strips)
    channel = _free_channel(scene.sequence_editor, frame_start, frame_start + frames)
    path = str(folder / frame_name(frame_start))
    strip = strips.new_image(name=folder.name, filepath=path, channel=channel, frame_start=frame_start)
    strip.directory = _directory(folder)
    strip[TAG] = digest
    if first:
        # As Blender's own Add > Image does: a finished picture must not be graded a second time.
        try:
            scene.view_settings.view_transform = 'Standard'
        except TypeError:
            notes.append("This colour configuration has no Standard view; the frames may look graded twice.")
    compat.show_in_sequencers(scene)
    return strip


def _free_channel(editor: Any, start: int, end: int) -> int:
    """A channel without strips from `start` to `end`: above what is there, so that the new shot is seen."""
    busy = set()
    for strip in compat.strips(editor):
        left, right = compat.strip_range(strip)
        if left < end and right > start:
            busy.add(strip.channel)
    usable = [n for n in range(1, CHANNELS + 1) if n not in busy and not _closed(editor, n)]
    top = max(busy, default=0)
    return next((n for n in usable if n > top), usable[-1] if usable else CHANNELS)


def _closed(editor: Any, number: int) -> bool:
    channel = editor.channels[number] if number < len(editor.channels) else None
    return channel is not None and (channel.mute or channel.lock)


def _directory(folder: Path) -> str:
    """The folder as a strip stores it: relative to the .blend where that is possible."""
    text = str(folder)
    if bpy.data.filepath:
        try:
            text = bpy.path.relpath(text)
        except ValueError:  # another drive on Windows
            pass
    return os.path.join(text, "")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendered frames as image strips that grow while they arrive."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.setup.place import takes_folder as folder_of_unsaved
from . import compat, strip_about
from .reader import frame_name

TAG = "koshi_shot"  # a strip's shot digest: the same shot again goes into the same strip
PART = "koshi_part"  # which part of the shot a strip shows
PLACES = "koshi_places"  # how many scene frames the whole shot takes
FIRST = "koshi_first"  # the scene frame of the shot's first picture
# Scene frames in one strip. Blender copies all of a strip's elements for each one that is added: 10,000 take 7.7 s in
# one strip (4.2), .3 s in ten.
LONGEST = 1000
CHANNELS = 128


@dataclass(frozen=True)
class Footage:
    """A shot's pictures on disk. first: the scene frame of the first one; frames: how many they are; step: scene frames
    from one frame of the shot to the next; interpolation: pictures in that time; about: what a strip that shows them
    says of itself (strip_about).

    In a strip one picture shows in each scene frame: of several in that time the others are left out.
    """

    digest: str
    folder: Path
    first: int
    frames: int
    step: int = 1
    interpolation: int = 1
    about: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def places(self) -> int:
        """How many scene frames the shot takes."""
        return self.place_of(self.frames - 1) + 1

    def place_of(self, index: int) -> int:
        """The scene frame, counted from the shot's first, up to which the strip can be filled with picture `index`."""
        return index * self.step // self.interpolation

    def name_at(self, place: int) -> str:
        """The file that a scene frame shows, counted from the shot's first: each shows until the next one comes."""
        index = place * self.interpolation // self.step
        return frame_name(self.first + index * (self.step if self.interpolation == 1 else 1))


@dataclass(frozen=True)
class Take:
    """A shot as a scene's strips show it. shown: scene frames that have a picture, of `places`."""

    digest: str
    folder: Path
    shown: int
    places: int

    @property
    def whole(self) -> bool:
        """Whether all its frames are there."""
        return self.shown >= self.places


def takes_folder() -> tuple[Path, str]:
    """Where takes go: `koshi` beside the .blend, or, with a note, a folder of the user's while it is unsaved.

    Not in the extension's own folder, as Blender would have it: that one goes with the extension, and takes are work.
    """
    if bpy.data.filepath:
        return Path(bpy.path.abspath("//koshi")), ""
    folder = folder_of_unsaved()
    return (
        folder,
        iface_("This file is not saved yet, so the frames go to {}. Save it to keep them beside it").format(folder),
    )


def take_stem(scene: bpy.types.Scene) -> str:
    """The scene's name as a part of a folder's name."""
    return bpy.path.clean_name(scene.name) or "Scene"


def takes(scene: bpy.types.Scene) -> list[Take]:
    """The shots that the scene's strips show, in the order of their strips."""
    found: dict[str, dict[int, Any]] = {}
    for strip in compat.all_strips(scene.sequence_editor) if scene.sequence_editor else ():
        if strip.type == 'IMAGE' and (digest := strip.get(TAG)):
            parts = found.setdefault(digest, {})
            before = parts.get(part := strip.get(PART, 0))
            # Of pieces that were cut from one strip, and of copies, each has all the pictures.
            if before is None or len(before.elements) < len(strip.elements):
                parts[part] = strip
    return [_take(digest, list(parts.values())) for digest, parts in found.items()]


def take_of(scene: bpy.types.Scene, strip: Any) -> Take | None:
    """The take that a strip shows, or None if it shows none."""
    tag = strip.get(TAG) if strip is not None and strip.type == 'IMAGE' else None
    return next((take for take in takes(scene) if take.digest == tag), None) if tag else None


def shows(strip: Any, digest: str) -> bool:
    """Whether a strip shows this shot. Of a take that was found on disk only the digest's beginning is known."""
    tag = strip.get(TAG)
    return bool(tag) and strip.type == 'IMAGE' and (digest.startswith(tag) or tag.startswith(digest))


def _take(digest: str, strips: list[Any]) -> Take:
    folder = Path(bpy.path.abspath(strips[0].directory))
    places = max(int(strip.get(PLACES, 0)) for strip in strips)
    return Take(digest, folder, sum(len(strip.elements) for strip in strips), places)


def take_at_playhead(scene: bpy.types.Scene) -> Take | None:
    """The take that the selected strip shows, or the topmost one under the playhead."""
    editor = scene.sequence_editor
    if editor is None:
        return None
    here, frame = [], scene.frame_current
    for strip in compat.all_strips(editor):
        left, right = compat.strip_range(strip)
        if strip.get(TAG) and left <= frame < right:
            here.append(strip)
    if not here:
        return None
    chosen = editor.active_strip if editor.active_strip in here else max(here, key=lambda strip: strip.channel)
    return next(take for take in takes(scene) if take.digest == chosen[TAG])


def show_frame(scene: bpy.types.Scene, footage: Footage, index: int, notes: list[str]) -> str:
    """Show picture `index` of a shot, whose file is complete, in the shot's strips; makes them if need be.

    All earlier pictures' files must exist: Blender may crash on an element whose file is missing.
    Returns the first strip's name. notes: gets remarks that the artist should read.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    mine: dict[int, list[Any]] = {}
    for strip in compat.all_strips(editor):
        if shows(strip, footage.digest):
            mine.setdefault(strip.get(PART, 0), []).append(strip)
    place, directory = footage.place_of(index), directory_of(footage.folder)
    for part in range(place // LONGEST + 1):
        if part not in mine:
            beside = mine[0][0] if 0 in mine else None
            mine[part] = [_new_strip(scene, footage, part, beside, notes)]
        for strip in mine[part]:
            if strip.get(PLACES) != footage.places:  # the step is known from the second frame on
                strip[PLACES] = footage.places
            if strip[TAG] != footage.digest:
                strip[TAG] = footage.digest
            if footage.about and strip_about.MODEL not in strip:
                strip_about.write(strip, footage.about)
            if strip.directory != directory:  # the .blend was saved elsewhere since
                strip.directory = directory
            _fill(strip, footage, part * LONGEST, place)
    return mine[0][0].name


def _fill(strip: Any, footage: Footage, begin: int, place: int) -> None:
    """Give a strip, whose first frame is the shot's `begin`, its frames up to `place`."""
    there = len(strip.elements)
    if begin <= place < begin + there:
        compat.refresh_element(strip, place - begin)
        return
    if there >= LONGEST:
        return
    left, right = compat.strip_range(strip)
    cut = right < compat.content_start(strip) + there
    for missing in range(begin + there, min(place + 1, begin + LONGEST)):
        strip.elements.append(footage.name_at(missing))
    if cut:  # a piece, or trimmed: what has come lies beyond its end
        compat.set_strip_range(strip, left, right)


def name_of(footage: Footage) -> str:
    """What a strip is called that shows this: as the folder, and by its seed."""
    seed = footage.about.get(strip_about.SEED)
    return footage.folder.name if seed is None else f"{footage.folder.name} seed {seed}"


def _new_strip(scene: bpy.types.Scene, footage: Footage, part: int, first: Any, notes: list[str]) -> Any:
    """A strip for a part of the shot. first: the strip of its first part, beside which it goes if there is room."""
    strips = compat.strips(scene.sequence_editor)
    empty = not len(strips)
    start = footage.first + part * LONGEST
    # The first one looks for room for all of them.
    end = footage.first + (min(footage.places, (part + 1) * LONGEST) if part else footage.places)
    channel = free_channel(scene.sequence_editor, start, end, first.channel if first is not None else None)
    # Named without a picture at first: Blender would read it for its size, and the first one of a session makes it load
    # its colour configuration, 90 ms (5.2). It learns the size when it draws the frame.
    nothing = str(footage.folder / "none")
    strip = strips.new_image(name=name_of(footage), filepath=nothing, channel=channel, frame_start=start)
    strip.directory = directory_of(footage.folder)
    strip.elements[0].filename = footage.name_at(part * LONGEST)
    strip[TAG], strip[PART], strip[PLACES], strip[FIRST] = footage.digest, part, footage.places, footage.first
    strip_about.write(strip, footage.about)
    # Only where it is another: Blender draws all 3D views anew, which by software takes a second.
    if empty and scene.view_settings.view_transform != 'Standard':
        # As Blender's own Add > Image does: a finished picture must not be graded a second time.
        try:
            scene.view_settings.view_transform = 'Standard'
        except TypeError:
            notes.append("This colour configuration has no Standard view; the frames may look graded twice.")
    compat.show_in_sequencers(scene)
    return strip


def free_channel(editor: Any, start: int, end: int, wanted: int | None) -> int:
    """A channel without strips from `start` to `end`: `wanted`, else above what is there, so that the shot is seen."""
    busy = set()
    for strip in compat.strips(editor):
        left, right = compat.strip_range(strip)
        if left < end and right > start:
            busy.add(strip.channel)
    if wanted is not None and wanted not in busy:
        return wanted
    usable = [n for n in range(1, CHANNELS + 1) if n not in busy and not _closed(editor, n)]
    top = max(busy, default=0)
    return next((n for n in usable if n > top), usable[-1] if usable else CHANNELS)


def _closed(editor: Any, number: int) -> bool:
    channel = editor.channels[number] if number < len(editor.channels) else None
    return channel is not None and (channel.mute or channel.lock)


def directory_of(folder: Path) -> str:
    """The folder as a strip stores it: relative to the .blend where that is possible."""
    text = str(folder)
    if bpy.data.filepath:
        try:
            text = bpy.path.relpath(text)
        except ValueError:  # another drive on Windows
            pass
    return os.path.join(text, "")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Other pictures for a take's strip: the strip stays, with all that was done to it in the edit.

Handles, place, channel, blending, transform, crop, colour, modifiers, keyframes, effects on top of it and the meta
strip around it all belong to the strip, and only the files that it names change.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import compat, reader, sequencer, strip_about
from .sequencer import FIRST, LONGEST, PART, PLACES, TAG, Footage, Take

_PICTURE = re.compile(r"\d{4,}\.png")


def on_disk(folder: Path, shot: dict[str, Any]) -> Footage:
    """A take's footage as far as its pictures lie in its folder. Raises BridgeError "no_take" if none does."""
    step, interpolation = int(shot.get("frame_step", 1)), int(shot.get("time", {}).get("interpolation", 1))
    first, stride = int(shot.get("frame_start", 0)), 1 if interpolation > 1 else step
    there, count = pictures(folder), 0
    while reader.frame_name(first + count * stride) in there:
        count += 1
    if not count:
        raise BridgeError(
            "no_take", f"There are no frames in {folder}.", "Render the take again: its frames come from the store."
        )
    digest = folder.name.rpartition("_")[2]  # its beginning
    return Footage(digest, folder, first, count, step, interpolation, strip_about.told(shot))


def pictures(folder: Path) -> set[str]:
    """The names of the pictures in a take's folder."""
    try:
        return {name for name in os.listdir(folder) if _PICTURE.fullmatch(name)}
    except OSError:
        return set()


def shelf(scene: bpy.types.Scene, beside: Path | None = None) -> list[Path]:
    """The folders of all takes that lie where the scene's takes go, or beside another one; the newest first."""
    bases = {sequencer.takes_folder()[0]} | ({beside.parent} if beside is not None else set())
    bases |= {take.folder.parent for take in sequencer.takes(scene)}
    found: list[tuple[float, Path]] = []
    for base in bases:
        try:
            shots = list(base.glob("*.koshi.json"))
        except OSError:
            continue
        folders = ((shot, shot.with_name(shot.name.removesuffix(".koshi.json"))) for shot in shots)
        found += [(shot.stat().st_mtime, folder) for shot, folder in folders if folder.is_dir()]
    return [folder for _, folder in sorted(found, key=lambda one: (-one[0], one[1].name))]


def pieces(scene: bpy.types.Scene, strip: Any) -> list[Any]:
    """All strips that show the same take as this one: its parts, and what was cut from it or copied."""
    return [one for one in compat.all_strips(scene.sequence_editor) if sequencer.shows(one, strip[TAG])]


def names_for(strip: Any, footage: Footage) -> list[str]:
    """The files of a take that belong into a strip. Raises BridgeError "no_take" if it has none for this part of a long
    one."""
    part = int(strip.get(PART, 0))
    names = [footage.name_at(k) for k in range(part * LONGEST, min(footage.places, (part + 1) * LONGEST))]
    if not names:
        raise BridgeError(
            "no_take",
            f"{footage.folder.name} ends before frame {footage.first + part * LONGEST}, where this part begins.",
            "Take a longer one, or delete this strip.",
        )
    return names


def swap(strip: Any, footage: Footage, known: Take | None = None) -> list[str]:
    """Let a take's strip show another take, of which all files exist. known: the same, where a strip shows it already.

    A picture goes where the old take's of the same scene frame was; takes of ranges that have no frame in common are
    put start upon start. Returns remarks for the artist. Raises BridgeError "no_take" if the other take has no
    picture for this part of a long one.
    """
    names = names_for(strip, footage)
    old_folder, old_end = Path(bpy.path.abspath(strip.directory)), _content(strip)[1]
    channel, (left, right) = strip.channel, compat.strip_range(strip)
    shift = footage.first - int(strip.get(FIRST, footage.first))
    begin, length = compat.content_start(strip), len(names)
    if min(right, begin + shift + length) <= max(left, begin + shift):
        shift = 0

    strip.directory = sequencer.directory_of(footage.folder)
    for k, name in enumerate(names):
        if k < len(strip.elements):
            strip.elements[k].filename = name
        else:
            strip.elements.append(name)
    while len(strip.elements) > length:
        strip.elements.pop(index=len(strip.elements) - 1)
    if shift:
        compat.set_content_start(strip, begin + shift)
    start, end = _content(strip)
    # Where the old pictures were held beyond their end, the new ones are; elsewhere nothing is shown that is not there.
    left = max(left, start) if left >= begin else left
    right = min(right, end) if right <= old_end else right
    if left >= right:
        left, right = start, end
    compat.set_strip_range(strip, left, right)
    if strip.channel != channel:  # on its way it met a neighbour, and Blender has put it out of its way
        strip.channel = channel

    strip[TAG], strip[FIRST] = known.digest if known else footage.digest, footage.first
    strip[PLACES] = max(known.places if known else 0, footage.places)
    strip_about.write(strip, footage.about)
    if strip.name.startswith(old_folder.name):
        strip.name = sequencer.name_of(footage)  # Blender lets its keyframes follow
    notes = []
    if end > right and old_end == right:
        notes.append(f"{end - right} frames of the take lie beyond the strip's end: drag its handle to show them.")
    return notes


def _content(strip: Any) -> tuple[int, int]:
    """The frames that a strip has pictures for, whatever its handles show."""
    begin = round(compat.content_start(strip))
    return begin, begin + len(strip.elements)

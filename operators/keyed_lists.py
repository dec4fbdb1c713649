# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists in `scene.koshi` whose items have keyframes: F-curves know items by their numbers, and have to follow them."""

from __future__ import annotations

import re
from collections.abc import Callable

import bpy

from . import compat


def selected(scene: bpy.types.Scene, name: str, index_name: str) -> bpy.types.PropertyGroup | None:
    """The item that is selected in a list; None if none is."""
    items, index = getattr(scene.koshi, name), getattr(scene.koshi, index_name)
    return items[index] if 0 <= index < len(items) else None


def remove(scene: bpy.types.Scene, name: str, index: int) -> None:
    """Remove an item with its keyframes; those of the items after it follow to their new numbers."""
    _renumber(scene, name, lambda k: None if k == index else k - (k > index))
    getattr(scene.koshi, name).remove(index)


def move(scene: bpy.types.Scene, name: str, index: int, to: int) -> None:
    """Let two neighbours change places, with their keyframes."""
    _renumber(scene, name, lambda k: {index: to, to: index}.get(k, k))
    getattr(scene.koshi, name).move(index, to)


def clear(scene: bpy.types.Scene, name: str) -> None:
    """Remove all items and their keyframes."""
    _renumber(scene, name, lambda k: None)
    getattr(scene.koshi, name).clear()


def _renumber(scene: bpy.types.Scene, name: str, new: Callable[[int], int | None]) -> None:
    """Give curves the new numbers of their items; None removes them."""
    indexed = re.compile(rf"koshi\.{name}\[(\d+)\]")
    for curves in compat.every_fcurves(scene):
        for curve in list(curves):
            found = indexed.match(curve.data_path)
            if found is None:
                continue
            number = new(int(found[1]))
            if number is None:
                curves.remove(curve)
            elif number != int(found[1]):
                curve.data_path = f"koshi.{name}[{number}]" + curve.data_path[found.end() :]

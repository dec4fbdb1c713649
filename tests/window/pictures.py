# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of docs/guide.md: the artist's walk, and after it what F3 finds, and Koshi in German."""

from __future__ import annotations

from typing import Any

import bpy
import hands
import walk


def steps(zipped: str, films: str, frames: int) -> hands.Steps:
    """Takes the pictures; reports what the walk does."""
    seen: dict[str, Any] = yield from walk.steps(zipped, films, frames)
    if "again" in seen:
        yield from search("koshi bake")
        yield from german()
    return seen


def search(words: str) -> hands.Steps:
    """What F3 finds."""
    at = hands.middle(hands.area('VIEW_3D'))
    hands.move(*at)
    yield 0.2
    hands.key('F3', at)
    yield 0.5
    yield from hands.type_in(words, at)
    yield 1.0
    hands.shot("search")
    hands.key('ESC', at)
    yield 0.5


def german() -> hands.Steps:
    """The sidebar in German, if this Blender speaks it."""
    view = bpy.context.preferences.view
    if "de_DE" not in bpy.app.translations.locales:
        return
    view.language = 'de_DE'
    view.use_translate_interface = True
    hands.render()  # once more, all of it from the store: so that what is said of it is German, too
    yield from hands.wait_for_the_end(300)
    yield from walk.large_or_small()
    hands.shot("german")
    yield from walk.large_or_small()
    view.language = 'en_US'

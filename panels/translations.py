# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi's words in other languages: one .po file each in locale/, for any translator's tool.

`make messages` writes the template (locale/koshi.pot) and says what a translation lacks.
"""

from __future__ import annotations

import json
from pathlib import Path

import bpy

FOLDER = Path(__file__).parent / "locale"
Messages = dict[tuple[str, str], str]


def read_po(text: str) -> Messages:
    """What a .po file says: (context, English) -> translation. What is marked as fuzzy, or empty, is left out."""
    found: Messages = {}
    entry = {"msgctxt": "", "msgid": "", "msgstr": ""}
    part, fuzzy = "", False
    for line in [*text.splitlines(), ""]:
        keyword, _, rest = line.partition(" ")
        if keyword in entry:
            part = keyword
            entry[part] = json.loads(rest)  # escapes are those of JSON
        elif line.startswith('"'):
            entry[part] += json.loads(line)
        elif line.startswith("#,"):
            fuzzy = "fuzzy" in line
        elif not line.strip():
            if entry["msgid"] and entry["msgstr"] and not fuzzy:
                found[entry["msgctxt"] or "*", entry["msgid"]] = entry["msgstr"]
            entry, part, fuzzy = dict.fromkeys(entry, ""), "", False
    return found


def register() -> None:
    """Hand Blender all languages that are there."""
    spoken = {path.stem: read_po(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.po"))}
    bpy.app.translations.register(__package__, spoken)


def unregister() -> None:
    """Take them back."""
    bpy.app.translations.unregister(__package__)

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make messages`: the template for translators, and what the translations lack.

    python tools/make.py messages

Blender's own tool for translators collects the texts from the installed extension. Writes panels/locale/koshi.pot;
the .po files beside it, one for each language, are brought to its order: what is new stands empty, and what is gone is
dropped. Blender's own words are not in it: those are translated already.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from interpreters import ROOT, SetupError, clean_environ, say

LOCALE = ROOT / "panels" / "locale"
SCRIPT = ROOT / "tests" / "blender_scripts" / "messages.py"
HEADER = """# Koshi in Blender{language}
#
# Copyright (C) 2026 Koshi contributors
# This file is distributed under the same licence as Koshi (GPL-3.0-or-later).
msgid ""
msgstr ""
"Project-Id-Version: Koshi\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Language: {code}\\n"
"""


def messages(blender: list[str], name: str) -> int:
    """The command: writes the files, and says what each translation lacks."""
    say(f"collecting the texts with {name}")
    texts = collect(blender)
    LOCALE.mkdir(exist_ok=True)
    (LOCALE / "koshi.pot").write_text(po_text(texts, {}, ""), encoding="utf-8")
    say(f"{len(texts)} texts in {LOCALE / 'koshi.pot'}")
    for path in sorted(LOCALE.glob("*.po")):
        known = reader().read_po(path.read_text(encoding="utf-8"))
        path.write_text(po_text(texts, known, path.stem), encoding="utf-8")
        lacking = [text for context, text, _ in texts if (context, text) not in known]
        gone = len(known.keys() - {(context, text) for context, text, _ in texts})
        say(f"{path.stem}: {len(texts) - len(lacking)} of {len(texts)} translated, {gone} were no longer used")
        for text in lacking:
            print(f"    {text}")
    return 0


def collect(blender: list[str]) -> list[tuple[str, str, str]]:
    """(context, text, where it comes from) of every text of the extension, in a profile of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environ = clean_environ(BLENDER_USER_RESOURCES=str(Path(folder) / "profile"))
        for arguments in (
            ("--command", "extension", "build", "--source-dir", str(ROOT), "--output-dir", folder),
            ("--command", "extension", "install-file", "--repo", "user_default", "--enable", "ZIP"),
            ("-b", "--python-exit-code", "3", "-P", str(SCRIPT)),
        ):
            zips = [str(path) for path in Path(folder).glob("*.zip")]
            given = [*blender, *(zips[0] if word == "ZIP" else word for word in arguments)]
            ran = subprocess.run(given, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)
            if ran.returncode:
                raise SetupError("Blender could not do it:\n" + (ran.stdout + ran.stderr)[-2000:])
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT "))
    return [(context, text, place) for context, text, place in json.loads(line[7:])["texts"]]


def po_text(texts: list[tuple[str, str, str]], known: dict[tuple[str, str], str], code: str) -> str:
    """A .po file of all texts with the translations that are known."""
    parts = [HEADER.format(language=f", {code}" if code else "", code=code)]
    for context, text, place in texts:
        translated = quoted(known.get((context, text), ""))
        parts.append(f"#: {place}\nmsgctxt {quoted(context)}\nmsgid {quoted(text)}\nmsgstr {translated}\n")
    return "\n".join(parts)


def quoted(text: str) -> str:
    """A text as .po files have it, in one line."""
    return json.dumps(text, ensure_ascii=False)


def faults(texts: list[tuple[str, str, str]], known: dict[tuple[str, str], str]) -> dict[str, list[str]]:
    """What is wrong with a translation: what it lacks, what is no longer used, and what differs in form."""
    wanted = {(context, text) for context, text, _ in texts}

    def differs(text: str, said: str) -> bool:
        fields = sorted(re.findall(r"\{.*?\}", text)) != sorted(re.findall(r"\{.*?\}", said))
        stops = text.endswith(".") != said.endswith(".") or text.endswith("...") != said.endswith("...")
        return fields or stops or said != said.strip() or "  " in said

    return {
        "lacking": sorted(text for _, text in wanted - known.keys()),
        "gone": sorted(text for _, text in known.keys() - wanted),
        "other form": sorted(f"{text} -> {said}" for (_, text), said in known.items() if differs(text, said)),
    }


def reader() -> Any:
    """panels/translations.py, which Blender runs; outside of it there is no bpy, and reading needs none."""
    sys.modules.setdefault("bpy", types.ModuleType("bpy"))
    spec = importlib.util.spec_from_file_location("koshi_translations", ROOT / "panels" / "translations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

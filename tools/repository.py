#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make repository`: a folder that any web server, or none, turns into a place that Blender updates Koshi from.

    python tools/make.py repository [FOLDER]        (default: dist/repository)

The folder gets the extension's zip, Blender's list of what is there (index.json), and a page for people
(index.html), all by Blender's own tool. What is checked: that the zip is valid, and that the list names just this
zip, with its size and its sum. The folder is replaced as a whole, and only if that went well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from interpreters import ROOT, SetupError, clean_environ, say

PAGE = ROOT / "tools" / "repository.html"
MARK = ".koshi-repository"  # a folder without it is somebody else's, and is not replaced
TIME = 300  # seconds for one run of Blender's tool; it takes two


def make_repository(blender: list[str], folder: Path, source: Path = ROOT) -> Path:
    """Make the repository of the extension in `source` with the program `blender`; returns its index.json.

    Raises SetupError with what Blender says.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise SetupError(f"{folder} has other files in it. Name an empty folder, or one that this made before.")
    aside = folder.with_name(folder.name + ".new")
    if aside.exists() and not (aside / MARK).is_file():
        raise SetupError(f"{aside} is in the way: move it, or name another folder.")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / MARK).write_text("Made by `make repository`, and replaced by it.\n", encoding="utf-8")
    _extension_tool(blender, "build", "--source-dir", source, "--output-dir", aside)
    index_folder(blender, aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder / "index.json"


def index_folder(blender: list[str], folder: Path) -> None:
    """Write index.json and index.html for the zip in `folder`, and check them. Raises SetupError."""
    for made in folder.glob("*.zip"):
        _extension_tool(blender, "validate", made)
    _extension_tool(blender, "server-generate", "--repo-dir", folder, "--html", "--html-template", PAGE)
    if faults := index_faults(folder):
        raise SetupError("The list of extensions is wrong: " + "; ".join(faults))


def index_faults(folder: Path) -> list[str]:
    """What is wrong with a repository's index.json, in words; nothing if Blender can install what it lists."""
    listed: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    faults = [] if listed.get("version") == "v1" else [f"its version is {listed.get('version')!r}, not v1"]
    zips = {path.name for path in folder.glob("*.zip")}
    if (named := [Path(entry["archive_url"]).name for entry in listed["data"]]) != sorted(zips):
        faults.append(f"it names {named}, and there is {sorted(zips)}")
    for entry in listed["data"]:
        path = folder / entry["archive_url"]
        if not path.is_file():
            continue
        data = path.read_bytes()
        if entry["archive_size"] != len(data):
            faults.append(f"{path.name} has {len(data)} bytes, not {entry['archive_size']}")
        if entry["archive_hash"] != f"sha256:{hashlib.sha256(data).hexdigest()}":
            faults.append(f"the sum of {path.name} is another one")
        needed = ("schema_version", "id", "name", "tagline", "version", "type", "license", "blender_version_min")
        faults += [f"{path.name} has no {name}" for name in needed if not entry.get(name)]
    return faults


def _extension_tool(blender: list[str], command: str, *arguments: object) -> None:
    ran = subprocess.run(
        [*blender, "--command", "extension", command, *map(str, arguments)],
        cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=TIME, check=False,
    )  # fmt: skip
    # server-generate says what it left out as an error, and ends well.
    lines = (ran.stdout + ran.stderr).splitlines()
    wrong = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    if ran.returncode or wrong:
        raise SetupError(f"Blender's `extension {command}` failed:\n" + "\n".join(wrong or lines[-15:]))


def repository(blender: list[str], name: str, arguments: list[str]) -> int:
    """The command: makes it, and says how it is used."""
    folder = Path(arguments[0]).resolve() if arguments else ROOT / "dist" / "repository"
    say(f"building the repository with {name}")
    index = make_repository(blender, folder)
    (entry,) = json.loads(index.read_text(encoding="utf-8"))["data"]
    say(f"{entry['id']} {entry['version']}, {entry['archive_size'] / 1e6:.0f} MB, in {folder}")
    say(f"on this computer, in Blender's Preferences > Get Extensions > Repositories > +: {index.as_uri()}")
    say("for others: put the folder's files on any web server, and give away the address of its index.json")
    return 0

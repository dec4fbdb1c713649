#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make screenshots`: takes the pictures of docs/guide.md in a real Blender window.

    KOSHI_BLENDER=/path/to/blender python tools/make.py screenshots [FOLDER]

FOLDER is docs/images unless another one is named. The window lies on a display of its own (CONTRIBUTING.md says what
that needs), and the walk that is photographed is tests/window/walk.py, the set-up with all its packages included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from interpreters import ROOT, say
from PIL import Image

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from window.fixtures import MORE, new_blender, short_folder

QUALITY = 84
# Where of the display a step happens, in its pixels from the top left; else in all of Blender's main window.
PREFERENCES = (104, 63, 979, 636)  # a window of its own; so is the file browser, less the places of this computer
FILES = (353, 11, 1208, 636)
PARTS = {
    "guide_1_install": PREFERENCES,
    "guide_1_zip": FILES,
    "guide_2_set_up": PREFERENCES,
    "guide_2_under_way": PREFERENCES,
    "guide_2_done": PREFERENCES,
    "guide_3_new": (0, 100, 720, 580),
    "guide_3_save": FILES,
    "search": (584, 322, 1100, 476),
    "german": (1150, 150, 1440, 1000),
}
COVER = ("guide_7_again", "blender")  # the picture that README.md shows


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Take the pictures of docs/guide.md.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--frames", type=int, default=48, help="of the project that is rendered (48)")
    options = parser.parse_args()
    if not os.environ.get("KOSHI_BLENDER"):
        say("KOSHI_BLENDER names no Blender: see CONTRIBUTING.md, Tests in Blender's window")
        return 1
    taken = take(options.frames)
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(taken.glob("*.png")):
        name = path.stem if path.stem.startswith("guide") else f"guide_{path.stem}"
        save(path, options.folder / f"{name}.jpg")
    save(taken / f"{COVER[0]}.png", options.folder / f"{COVER[1]}.jpg")
    shutil.rmtree(taken, ignore_errors=True)
    return 0


def take(frames: int) -> Path:
    """Play the walk in a window; returns a folder with a PNG for each step."""
    pictures = Path(tempfile.mkdtemp(prefix="koshi-taken-"))
    os.environ["KOSHI_WINDOW_PICTURES"] = str(pictures)
    with ExitStack() as stack:
        folder = Path(tempfile.gettempdir()) / "koshi"  # its name is in the pictures
        if folder.exists():
            folder = stack.enter_context(short_folder())
        else:
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        window = stack.enter_context(new_blender(folder))
        films = folder / "Films"
        films.mkdir()
        zipped = window.build(folder / "Downloads")
        told = window.play("pictures", 3 * 3600, zipped=str(zipped), films=str(films), frames=frames)
    if error := told["set-up"]["error"]:
        raise SystemExit(f"the set-up fails: {error['message']}")
    for part in ("first", "again"):
        said = told[part]["told"]
        say(f"{part}: {said['message']}, {said['made']} made, {said['stored']} from the store")
    return pictures


def save(source: Path, target: Path) -> None:
    """A screenshot as a JPEG of some 100 KB."""
    picture = Image.open(source)
    picture.crop(PARTS.get(source.stem, (0, MORE, *picture.size))).save(target, quality=QUALITY, optimize=True)
    say(f"{target}, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    raise SystemExit(main())

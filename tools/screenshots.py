#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make screenshots`: takes the pictures of docs/guide.md in a real Blender window.

    KOSHI_BLENDER=/path/to/blender python tools/make.py screenshots [FOLDER]

FOLDER is docs/images unless another one is named. The window lies on a display of its own (CONTRIBUTING.md says what
that needs), and the walk that is photographed is tests/window/pictures.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from interpreters import ROOT, say
from PIL import Image

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from bridge_helpers import Rig
from window import fixtures

SIZE = (1440, 900)
QUALITY = 84
# Where of the window a step happens, in its pixels from the top left; else all of it.
PARTS = {
    "guide_1_install": (0, 28, 1360, 400),
    "guide_2_set_up": (176, 282, 1184, 560),
    "guide_2_under_way": (176, 282, 1184, 560),
    "search": (584, 222, 1100, 376),
    "german": (1150, 50, 1440, 900),
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
    folder = Path(tempfile.mkdtemp(prefix="koshi-pictures-"))
    pictures = Path(tempfile.mkdtemp(prefix="koshi-taken-"))
    os.environ["KOSHI_WINDOW_PICTURES"] = str(pictures)
    backend = Path(tempfile.gettempdir()) / "Koshi Backend"  # its name is in the picture
    if backend.exists():
        backend = folder / "Koshi Backend"
    fixtures.SIZE = SIZE
    rig = Rig(folder)
    window = fixtures.Window(fixtures.find_blender(), folder, rig)
    try:
        rig.start()
        window.install()
        window.open_display()
        told = window.play("pictures", seconds=3600, frames=frames, backend=str(backend))
    finally:
        window.close()
        rig.close()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(backend, ignore_errors=True)
    if told["set-up"]:
        say(f"no picture of the set-up under way: {told['set-up']['message']}")
    for part in ("first", "again"):
        said = told[part]
        say(f"{part}: {said['message']}, {said['made']} made, {said['stored']} from the store")
    return pictures


def save(source: Path, target: Path) -> None:
    """A screenshot as a JPEG of some 100 KB."""
    picture = Image.open(source)
    picture.crop(PARTS.get(source.stem, (0, 0, *picture.size))).save(target, quality=QUALITY, optimize=True)
    say(f"{target}, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    raise SystemExit(main())

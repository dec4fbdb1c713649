#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lays frames of an animation side by side in one labelled picture.

python tools/contact_sheet.py FOLDER SHEET.png [--every 4] [--columns 4] [--width 256]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

GAP = 4  # pixels between pictures
BACKGROUND = (24, 24, 24)


def frames_in(folder: Path) -> list[Path]:
    """The numbered PNG files of a folder, in the order of their numbers."""
    return sorted(
        (path for path in folder.glob("*.png") if path.stem.isdigit()), key=lambda path: int(path.stem)
    )


def contact_sheet(frames: list[Path], columns: int = 4, width: int = 256) -> Image.Image:
    """One RGB picture with all frames, row by row, each labelled with its number.

    width: pixels of one picture on the sheet; the height follows the first frame. Raises ValueError if there
    are no frames.
    """
    if not frames:
        raise ValueError("There are no frames to lay out.")
    with Image.open(frames[0]) as first:
        height = max(1, round(width * first.height / first.width))
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    for index, path in enumerate(frames):
        row, column = divmod(index, columns)
        place = (GAP + column * (width + GAP), GAP + row * (height + GAP))
        with Image.open(path) as picture:
            sheet.paste(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), place)
        label(ImageDraw.Draw(sheet), place, path.stem)
    return sheet


def label(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    """Small light text on a dark ground in the upper left corner of a picture."""
    at = (place[0] + 4, place[1] + 3)
    left, top, right, bottom = draw.textbbox(at, text)
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=(0, 0, 0))
    draw.text(at, text, fill=(235, 235, 235))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Lay frames of an animation side by side in one labelled picture."
    )
    parser.add_argument("folder", type=Path, help="holds 0001.png, 0002.png, ...")
    parser.add_argument("sheet", type=Path, help="the picture to write")
    parser.add_argument("--every", type=int, default=4, help="take every n-th frame (default: 4)")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--width", type=int, default=256, help="pixels of one picture on the sheet")
    options = parser.parse_args()
    frames = frames_in(options.folder)[:: max(1, options.every)]
    if not frames:
        parser.error(f"{options.folder} holds no numbered PNG files.")
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(frames, max(1, options.columns), max(16, options.width)).save(options.sheet)
    print(options.sheet)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pictures of docs/video.md: a film, and frames of the examples that are made with it.

    python tools/video_pictures.py docs/images

Renders three of the examples with koshi-tiny: some minutes the first time, then they come from the store.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motion_pictures import QUALITY, Sheet, Tile, sheet
from time_pictures import rendered

from koshi_backend.footage import Footage


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/video.md.")
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="which; default: all")
    options = parser.parse_args()
    sheets = {"input": ("video_input", (0, 4, 8, 11)), "flow": ("hybrid_flow", (0, 4, 8, 11)),
              "mask": ("hybrid_mask", (0, 2, 5))}  # fmt: skip
    for name in options.names or sheets:
        path = options.out / f"video_{name}.jpg"
        tiles, columns = beside_the_film(*sheets[name])
        sheet(tiles, columns).save(path, quality=QUALITY, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KB")
    return 0


def beside_the_film(name: str, frames: tuple[int, ...]) -> Sheet:
    """The film's pictures, and below them those of the example."""
    shot, shown = rendered(name)
    footage = Footage(shot, shot.guides.video or "", timed=True)
    tiles = [Tile(footage.picture(k), f"film, frame {shot.video_frame(k)}") for k in frames]
    for k in frames:
        values = {what: shot.values[what][k] for what in ("strength", "hybrid_alpha")}
        said = "strength" if shot.hybrid.composite == "none" else "hybrid_alpha"
        tiles.append(Tile(shown[k], f"frame {k}, {said} {values[said]:.2g}"))
    return tiles, len(frames)


if __name__ == "__main__":
    sys.exit(main())

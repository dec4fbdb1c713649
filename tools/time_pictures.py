#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pictures of docs/time.md: frames of the examples, and what lies between them.

    python tools/time_pictures.py docs/images

Renders five of the examples with koshi-tiny: some minutes the first time, then they come from the store.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from motion_pictures import QUALITY, ROOT, Sheet, Tile, sheet
from torch import Tensor

from koshi_backend.chain import render_shot
from koshi_backend.shot import Shot, read_shot


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/time.md.")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    sheets = {
        "cadence": cadence(), "keyframes": keyframes(), "back": back(), "seamless": seamless(),
        "interpolation": interpolation(),
    }  # fmt: skip
    for name, (tiles, columns) in sheets.items():
        path = options.out / f"time_{name}.jpg"
        sheet(tiles, columns).save(path, quality=QUALITY, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KB")
    return 0


def cadence() -> Sheet:
    shot, shown = rendered("cadence")
    tiles = [Tile(shown[k], f"frame {k}" + (", made" if k in shot.made else "")) for k in range(5)]
    return [*tiles, Tile((shown[0] + shown[4]) / 2, "frame 2 as a cross-fade")], 3


def keyframes() -> Sheet:
    shot, shown = rendered("keyframes")
    return [Tile(shown[k], f"frame {k}" + (", keyframe" if k in shot.keyframes else "")) for k in (7, 8, 11, 12)], 4


def back() -> Sheet:
    _, shown = rendered("loop_back")
    return [Tile(shown[k], f"picture {k}") for k in (0, 6, 11, 16, 21)], 5


def seamless() -> Sheet:
    shot, shown = rendered("loop_seamless")
    frames = (0, 6, 13, 17, 20, 22, 23)
    tiles = [Tile(shown[k], f"frame {k}" + (", in the seam" if k >= shot.seam else "")) for k in frames]
    return [*tiles, Tile(shown[0], "and frame 0 again")], 4


def interpolation() -> Sheet:
    _, shown = rendered("interpolation")
    tiles = [Tile(shown[k], f"frame {k // 4}" if k % 4 == 0 else f"{k % 4}/4 on the way") for k in range(5)]
    return [*tiles, Tile((shown[0] + shown[4]) / 2, "2/4 as a cross-fade")], 3


def rendered(name: str) -> tuple[Shot, list[Tensor]]:
    """An example, and all that comes out of it, [1, 3, H, W] in 0..1."""
    shot = read_shot(ROOT / "examples" / f"{name}.koshi.json")
    print(f"{name}: {shot.film_frames} pictures", file=sys.stderr)
    found = [cv2.imdecode(np.frombuffer(f.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for f in render_shot(shot)]
    return shot, [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None] / 255.0 for p in found]


if __name__ == "__main__":
    sys.exit(main())

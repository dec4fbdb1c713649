#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pictures of docs/time.md, of `koshi feedback` and LoRAs: the examples' frames, and what lies between them.

    python tools/time_pictures.py docs/images

Renders some of the examples with koshi-tiny: some minutes the first time, then they come from the store.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from motion_pictures import QUALITY, ROOT, Sheet, Tile, sheet
from torch import Tensor

from koshi_backend.chain import render_shot
from koshi_backend.mask import Masks
from koshi_backend.pictures import read_picture
from koshi_backend.shot import Shot, load_shot, read_shot

GUIDES = ROOT / "examples" / "guides"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/time.md.")
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="which; default: all")
    options = parser.parse_args()
    sheets = {
        "cadence": cadence, "keyframes": keyframes, "back": back, "seamless": seamless,
        "interpolation": interpolation, "guided": guided, "mask": mask, "alpha": alpha, "words": words, "color": color,
        "feedback": feedback, "lora": lora,
    }  # fmt: skip
    for name in options.names or sheets:
        tiles, columns = sheets[name]()
        path = options.out / (f"{name}.jpg" if name in ("feedback", "lora") else f"time_{name}.jpg")
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


def lora() -> Sheet:
    shot, shown = rendered("lora")
    weights = shot.lora_weights[0][1]
    return [Tile(shown[k], f"frame {k}, weight {weights[k]:.1f}") for k in (0, 3, 5, 6, 7, 11)], 6


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


def guided() -> Sheet:
    """The sketch; mixed in; and shown alone."""
    tiles: list[Tile] = []
    for way, said, frames in (("mixed", "mixed in", (3, 6, 9, 15)), ("shown", "shown only", (6, 9, 15))):
        shot, shown = rendered("guided_images", guided_as=way)
        tiles += [Tile(shown[k], f"frame {k}, {said}") for k in frames]
    return [Tile(guide(shot, "hills"), "the guided picture"), *tiles], 4


def mask() -> Sheet:
    shot, shown = rendered("mask_spot")
    masks = [Tile(guide(shot, f"mask_{k:04d}"), f"mask of frame {k}") for k in (1, 5, 9)]
    return [*masks, *(Tile(shown[k], f"frame {k}") for k in (1, 5, 9))], 3


def alpha() -> Sheet:
    shot, shown = rendered("mask_alpha")
    return [Tile(guide(shot, "cut"), "init_image"), *(Tile(shown[k], f"frame {k}") for k in (0, 3, 7))], 4


def words() -> Sheet:
    """The two masks, and frames painted where the one is and the other is not; then wherever the hills are not."""
    shot, shown = rendered("mask_words")
    masks = []
    for said in ("{video_mask}", "{init_mask}"):
        grey = Masks(load_shot(shot.as_dict() | {"masking": {"where": said}})).at(5)
        assert grey is not None
        masks.append(Tile(grey.expand(1, 3, -1, -1), f"{said} of frame 5"))
    return [*masks, *(Tile(shown[k], f"frame {k}") for k in (0, 5, 8, 11))], 3


def color() -> Sheet:
    shot, shown = rendered("color_image")
    return [Tile(guide(shot, "start"), "color_image"), *(Tile(shown[k], f"frame {k}") for k in (0, 5, 11))], 4


def feedback() -> Sheet:
    _, shown = rendered("feedback")
    return [Tile(shown[k], f"frame {k}") for k in (0, 5, 10, 15)], 4


def guide(shot: Shot, name: str) -> Tensor:
    """One of the pictures in examples/guides."""
    return read_picture(GUIDES / f"{name}.png", shot.width, shot.height)


def rendered(name: str, **changes: Any) -> tuple[Shot, list[Tensor]]:
    """An example, with some keys of its document changed, and all that comes out of it, [1, 3, H, W] in 0..1."""
    shot = read_shot(ROOT / "examples" / f"{name}.koshi.json")
    shot = load_shot(shot.as_dict() | changes) if changes else shot
    print(f"{name}: {shot.film_frames} pictures", file=sys.stderr)
    found = [cv2.imdecode(np.frombuffer(f.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for f in render_shot(shot)]
    return shot, [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None] / 255.0 for p in found]


if __name__ == "__main__":
    sys.exit(main())

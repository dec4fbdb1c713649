# SPDX-License-Identifier: GPL-3.0-or-later
"""What moving a picture costs on one core, beside OpenCV's own affine warp.

    python benchmarks/motion.py [SIDE] [ROUNDS]

Prints a table in Markdown: processor time of one frame of SIDE x SIDE (default 1024), colours in float32. Each round
(default 15) times everything once, in turn, so that a busy machine troubles all alike; "of warpAffine" is the median
of the rounds' ratios. Run from the project's folder, in the backend's environment.

Measured 2026-11-21 on one core of a server processor, nothing else running: two runs, the least of both, the medians,
and how many times warpAffine (OpenCV 5.0, torch 2.13):

    cv2.warpAffine, cubic     11.5 ms   11.7, 11.7
    2D warp                   14.2 ms   15.2, 14.8   1.29, 1.26   goal 15 ms
    camera-exact              48.2 ms   51.3, 50.7   4.37, 4.29   goal 60 ms
    colour match, LAB         13.1 ms   14.1                      goal 15 ms; in the same run as before: 15.0, 16.1
    3D warp                   42.2 ms   44.3, 43.9   3.79, 3.68

With the other core busy: 2D 17.0 ms, camera-exact 64.9 and 61.9, colours then 17.0 and 16.3, 3D 54.4. Without prepare,
which keeps freed memory, then: camera-exact 75.1 and 92.9, colours 19.2 and 22.1, 3D 80.5 and 86.8.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# ruff: noqa: E402 - the path and OpenMP are set up first
from koshi_backend.environment import prepare

prepare()

import cv2
import numpy as np
import torch
from torch import Tensor

from koshi_backend import color
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.motion.anchor import Anchored
from koshi_backend.motion.camera import Camera
from koshi_backend.motion.deforum3d import deforum_3d_field
from koshi_backend.motion.plane import plane_homography
from koshi_backend.motion.reproject import reproject

BASE = "cv2.warpAffine, cubic"
GOALS = {"2D warp": 15, "camera-exact": 60, "colour match, LAB": 15}  # ms


def textured(side: int) -> Tensor:
    """A picture [1, 3, side, side] with detail of all sizes."""
    random = np.random.default_rng(0)
    out = np.zeros((side, side, 3), np.float32)
    for size in (side // 128, side // 32, side // 8, side):
        cells = random.random((size, size, 3), dtype=np.float32)
        out += cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC) / 4.0
    return torch.from_numpy(out.clip(0.0, 1.0)).permute(2, 0, 1)[None].contiguous()


def scene(side: int) -> tuple[Camera, Camera, Tensor, Tensor]:
    """A camera before and after a step, and the depth of a slanted floor with boxes on it, seen from both."""
    before = Camera(matrix_world=((1, 0, 0, 0.0), (0, 1, 0, 0.0), (0, 0, 1, 0.0), (0, 0, 0, 1)))
    after = Camera(matrix_world=((1, 0, 0, 0.05), (0, 1, 0, 0.02), (0, 0, 1, -0.15), (0, 0, 0, 1)))
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    boxes = ((x * 4).floor() + (y * 4).floor()) % 2 == 0
    depth = (torch.where(boxes, 4.0, 8.0) + y).contiguous()
    return before, after, depth, (depth + 0.15).contiguous()


def works(side: int) -> dict[str, Callable[[], object]]:
    picture = textured(side)
    matrix = deforum_matrix(side, side, zoom=1.01, angle=0.5, translation_x=1.3)
    strong = deforum_matrix(side, side, zoom=1.2, angle=15.0, translation_x=20.0)
    packed = picture[0].permute(1, 2, 0).contiguous().numpy()
    before, after, depth, previous_depth = scene(side)
    lens = before.intrinsics(side, side)
    floor = (
        (np.array(before.matrix_world), lens),
        (np.array(after.matrix_world), lens),
        np.array([0.0, -1.5, 0.0]),
        np.array([0.0, 1.0, 0.1]),
    )
    ramp = torch.linspace(1.0, 2.0, side).repeat(side, 1)
    wanted = color.statistics(picture, "LAB") * np.array([1.05, 1.0, 1.0, 0.9, 1.1, 1.1])
    valid = torch.ones(side, side, dtype=torch.bool)
    valid[: side // 8] = False
    anchored = Anchored.at(picture).moved(MotionField.affine(matrix, side, side))
    free = reproject(before, after, depth, previous_depth)

    def plane() -> Tensor:
        return resample(picture, MotionField.homography(plane_homography(*floor), side, side))

    return {
        BASE: lambda: cv2.warpAffine(
            packed, matrix[:2], (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ),
        "2D warp": lambda: resample(picture, MotionField.affine(matrix, side, side)),
        "2D warp, 20 % and 15 degrees": lambda: resample(picture, MotionField.affine(strong, side, side)),
        "plane": plane,
        "3D warp": lambda: resample(
            picture, deforum_3d_field(side, side, ramp, translation_x=4.0, translation_z=2.0, rotation_3d_y=0.5)
        ),
        "camera-exact": lambda: resample(picture, reproject(before, after, depth, previous_depth)),
        "of this, the field": lambda: reproject(before, after, depth, previous_depth),
        "anchored: one more move": lambda: anchored.moved(free),
        "anchored: shown": anchored.shown,
        "colour match, LAB": lambda: color.match(picture, wanted, "LAB", 1.0),
        "colour match, LAB, part of the frame": lambda: color.match(picture, wanted, "LAB", 0.7, valid),
        "colour match, RGB": lambda: color.match(picture, color.statistics(picture, "RGB"), "RGB", 1.0),
    }


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of one call: other work on the machine counts only where it takes the cache away."""
    begin = time.process_time()
    work()
    return 1e3 * (time.process_time() - begin)


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    todo = works(side)
    for work in todo.values():
        work()
    times = np.array([[milliseconds(work) for work in todo.values()] for _ in range(rounds)])
    ratios = np.median(times / times[:, :1], axis=0)
    print(f"{side} x {side}, one core, {rounds} rounds, OpenCV {cv2.__version__}, torch {torch.__version__}\n")
    print("| work | least, ms | median, ms | of warpAffine | goal, ms |")
    print("|---|---|---|---|---|")
    for name, column, ratio in zip(todo, times.T, ratios, strict=True):
        print(f"| {name} | {column.min():.1f} | {np.median(column):.1f} | {ratio:.2f} | {GOALS.get(name, '')} |")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the ways a frame can be made from the one before it, on koshi-tiny.

    python benchmarks/feedback.py [FRAMES]

Prints a table: sharpness and colour of the last frame against frame 0, measured against commanded motion, and time.
`warp only` is strength 0: what the resampler alone does. Run from the project's folder, in the backend's environment.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# ruff: noqa: E402 - the path and OpenMP are set up first
from koshi_backend.environment import prepare

prepare()

import cv2
import numpy as np
import torch
from flow import flow_error

from koshi_backend import color
from koshi_backend.chain import Frame, render_shot
from koshi_backend.motion import deforum_matrix
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

MOVE = {"zoom": 1.012, "angle": 0.3, "translation_x": 0.5}
PROMPTS = ("a modern city at night, photo", "a pine forest at dawn, photo", "a calm sea at sunset, watercolor")
WAYS = [("warp only", "start", 0.0)] + [
    (f"{condition} {strength}" if condition != "reference" else condition, condition, strength)
    for condition in ("start", "both", "reference")
    for strength in ((0.3, 0.5, 0.7) if condition != "reference" else (0.5,))
]


def picture(frame: Frame) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def sharpness(pixels: np.ndarray) -> float:
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.CV_32F)).mean())


def lab_mean(pixels: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return color.statistics(tensor, "LAB")[:3]


def measure(condition: str, strength: float, frames: int) -> list[float]:
    """Means over the prompts: sharpness ratio, colour drift (delta E 76), median flow error (px), seconds a frame."""
    rows = []
    for prompt in PROMPTS:
        shot = load_shot(
            {
                "frames": frames,
                "seed": 5,
                "prompts": [{"frame": 0, "text": prompt}],
                "schedules": {**MOVE, "strength": strength},
                "feedback": {"condition": condition},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            shown = [picture(frame) for frame in render_shot(shot, store=FrameStore(Path(folder)))]
            seconds = (time.perf_counter() - begin) / frames
        matrix = deforum_matrix(shot.width, shot.height, **MOVE)
        errors = [flow_error(a, b, matrix) for a, b in pairwise(shown)]
        drift = float(np.linalg.norm(lab_mean(shown[-1]) - lab_mean(shown[0])))
        rows.append([sharpness(shown[-1]) / sharpness(shown[0]), drift, float(np.mean(errors)), seconds])
    return [float(v) for v in np.mean(rows, axis=0)]


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 48
    print("| way | sharpness, last / first | colour drift, delta E | motion error, px | s / frame |")
    print("|---|---|---|---|---|")
    for name, condition, strength in WAYS:
        sharp, drift, error, seconds = measure(condition, strength, frames)
        print(f"| {name} | {sharp:.2f} | {drift:.1f} | {error:.2f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()

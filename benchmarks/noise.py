# SPDX-License-Identifier: GPL-3.0-or-later
"""How white the moving kinds of noise stay, how well they are carried along, and what they cost.

    python benchmarks/noise.py [FRAMES]

Prints three tables in Markdown: whiteness after FRAMES frames of one move (default 100), correlation with the first
frame's noise ideally moved, and the time of a frame for pictures of 1024 x 1024 on one core. `bilinear` is plain
interpolation frame after frame, `nearest` the nearest value without more ado.
Run from the project's folder, in the backend's environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# ruff: noqa: E402 - the path and OpenMP are set up first
from koshi_backend.environment import prepare

prepare()

import numpy as np
import torch
import torch.nn.functional as F

from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.noise import MODES, NoiseRecipe, ScaledNoise, WarpedNoise, draw_latent, frame_noise, unpack
from koshi_backend.noise.cells import reduce_field

ROWS, COLUMNS = 48, 64
WIDTH, HEIGHT = 8 * COLUMNS, 8 * ROWS
MOVES = {
    "zoom in 1.02": {"zoom": 1.02},
    "zoom out 1/1.02": {"zoom": 1 / 1.02},
    "pan 0.37 px": {"translation_x": 0.37},
    "pan 4 px": {"translation_x": 4.0},
    "pan 8 px": {"translation_x": 8.0},
    "turn 1 degree": {"angle": 1.0},
    "in, turn, pan": {"zoom": 1.01, "angle": 0.5, "translation_x": 1.3, "translation_y": -0.7},
    "out, turn, pan": {"zoom": 0.99, "angle": -0.7, "translation_x": 2.1},
}
LAGS = (1, 10, 30)
Values = np.ndarray  # float32 [C, h, w]


def warped(start: Values, field: MotionField) -> Callable[[int], Values]:
    state = [WarpedNoise(start, np.zeros((2, ROWS, COLUMNS), np.float32), np.ones((ROWS, COLUMNS), np.float32))]

    def step(frame: int) -> Values:
        state[0] = state[0].moved(field, 1, frame)
        return state[0].values

    return step


def scaled(start: Values, field: MotionField) -> Callable[[int], Values]:
    state = [ScaledNoise.start(COLUMNS, ROWS)]

    def step(frame: int) -> Values:
        state[0] = state[0].moved(field)
        return unpack(state[0].packed(draw_latent(1, WIDTH, HEIGHT)))[0].numpy()

    return step


def interpolated(mode: str) -> Callable[[Values, MotionField], Callable[[int], Values]]:
    def make(start: Values, field: MotionField) -> Callable[[int], Values]:
        cells = reduce_field(field)
        where = (cells.source + 0.5) * torch.tensor([2.0 / COLUMNS, 2.0 / ROWS]) - 1.0
        state = [torch.from_numpy(start)[None]]

        def step(frame: int) -> Values:
            moved = F.grid_sample(state[0], where[None], mode=mode, padding_mode="zeros", align_corners=False)
            generator = torch.Generator().manual_seed(frame)
            fresh = torch.randn(moved.shape, generator=generator)
            state[0] = torch.where(cells.valid, moved, fresh)
            return state[0][0].numpy()

        return step

    return make


KINDS = {
    "warped": warped,
    "scaled": scaled,
    "bilinear": interpolated("bilinear"),
    "nearest": interpolated("nearest"),
}


def lag(x: np.ndarray, down: int, right: int) -> float:
    if right < 0:
        x, right = x[:, :, ::-1], -right
    return float((x[:, down:, right:] * x[:, : ROWS - down, : COLUMNS - right]).mean() / x.var())


def ideal(values: Values, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integrals of the old cells over the new ones, from 8 x 8 points in each, and where those lie in the old frame."""
    back = np.linalg.inv(matrix)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    u, v = (np.rint((back[k, 0] * x + back[k, 1] * y + back[k, 2] - 3.5) / 8).astype(int) for k in (0, 1))
    inside = (u >= 0) & (u < COLUMNS) & (v >= 0) & (v < ROWS)
    seen = values[:, v.clip(0, ROWS - 1), u.clip(0, COLUMNS - 1)]
    moved = seen.reshape(-1, ROWS, 8, COLUMNS, 8).mean(axis=(2, 4))
    return moved, inside.reshape(ROWS, 8, COLUMNS, 8).all(axis=(1, 3))


def carried(values: Values, start: Values, total: np.ndarray) -> str:
    moved, inside = ideal(start, total)
    if inside.sum() < 100:
        return "-"
    whole = inside.reshape(ROWS // 4, 4, COLUMNS // 4, 4).all(axis=(1, 3))

    def blocks(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, ROWS // 4, 4, COLUMNS // 4, 4).mean(axis=(2, 4))[:, whole]

    fine = np.corrcoef(values[:, inside].ravel(), moved[:, inside].ravel())[0, 1]
    coarse = np.corrcoef(blocks(values).ravel(), blocks(moved).ravel())[0, 1] if whole.any() else np.nan
    return f"{fine:.2f} / {coarse:.2f}"


def whiteness(values: Values) -> list[float]:
    mean = float(values.mean(dtype=np.float64))
    x = values.astype(np.float64) - mean
    lags = [lag(x, *d) for d in ((0, 1), (1, 0), (1, 1), (1, -1))]
    return [mean, float(x.var()), *lags, float((x**4).mean() / x.var() ** 2)]


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, the least of five: other work on the machine does not count."""
    times = []
    for _ in range(5):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    start = unpack(draw_latent(1, WIDTH, HEIGHT))[0].numpy()
    rows = []
    print(f"Whiteness after {frames} frames, {start.shape[0]} x {ROWS} x {COLUMNS} values.\n")
    print("| noise | move | mean | variance | right | down | diagonal | other diagonal | kurtosis |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, make in KINDS.items():
        for name, move in MOVES.items():
            matrix = deforum_matrix(WIDTH, HEIGHT, **move)
            step, total, kept = make(start, MotionField.affine(matrix, WIDTH, HEIGHT)), np.eye(3), []
            for frame in range(1, frames + 1):
                values, total = step(frame), matrix @ total
                if frame in LAGS:
                    kept.append(carried(values, start, total))
            rows.append([kind, name, *kept])
            print(f"| {kind} | {name} | " + " | ".join(f"{v:.3f}" for v in whiteness(values)) + " |", flush=True)
    print("\nCorrelation with the first frame's noise, ideally moved: of single cells / of blocks of 4 x 4.\n")
    print("| noise | move | " + " | ".join(f"{k} frames" for k in LAGS if k <= frames) + " |")
    print("|---|---|" + "---|" * sum(k <= frames for k in LAGS))
    for row in rows:
        print("| " + " | ".join(row) + " |")

    print("\nTime of a frame's noise at 1024 x 1024, one core.\n")
    print("| mode | ms |")
    print("|---|---|")
    matrix = deforum_matrix(1024, 1024, zoom=1.01, angle=0.5, translation_x=1.3)
    field = MotionField.affine(matrix, 1024, 1024)
    for mode in MODES:
        state = None
        for frame in range(4):  # a state as it is in the middle of a shot
            recipe = NoiseRecipe(mode, 1, frame, 1024, 1024, subseed=2, subseed_strength=0.3)
            _, state = frame_noise(recipe, field, state)
        took = seconds(lambda made=recipe, before=state: frame_noise(made, field, before))
        print(f"| {mode} | {1e3 * took:.0f} |")
    print(f"| of these, the field's reduction to cells | {1e3 * seconds(lambda: reduce_field(field)):.0f} |")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the motion of latents against the motion of the picture, on koshi-tiny.

    python benchmarks/latent_motion.py [SIDE]

Prints tables of PSNR over the valid pixels: the moved latent, decoded, against the decoded picture moved by the same
numbers. `picture` moves the picture, encodes and decodes it: as good as moving a latent could get.
Run from the project's folder, in the backend's environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

# ruff: noqa: E402 - the path and OpenMP are set up first
from koshi_backend.environment import prepare

prepare()

import torch
from torch import Tensor

from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.pool import load_model
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.motion.engines import Flux2MotionEngine
from koshi_backend.motion.latent import latent_field, move_latent, pack, unpack
from koshi_backend.motion.sampling import by_taps

PROMPTS = ("a modern city at night, photo", "a pine forest at dawn, photo", "a calm sea at sunset, watercolor")
MOVES: dict[str, dict[str, float]] = {
    "16 px": {"translation_x": 16},
    "8 px": {"translation_x": 8},
    "4 px": {"translation_x": 4},
    "1 px": {"translation_x": 1},
    "zoom 1.05": {"zoom": 1.05},
    "zoom .95": {"zoom": 0.95},
    "turn 3": {"angle": 3},
    "all": {"zoom": 1.02, "angle": 1, "translation_x": 3, "translation_y": -2},
}
REPEATS = 10
STEP = {"zoom": 1.01, "angle": 0.3, "translation_x": 1.5}
Way = Callable[[Tensor, dict[str, float]], Tensor]


def moved_at_16(latent: Tensor, move: dict[str, float]) -> Tensor:
    """The 128 packed channels moved as they are, on the /16 grid."""
    halved = {name: v / 2 if name.startswith("translation") else v for name, v in move.items()}
    return move_latent(latent, latent_field(latent.shape[3], latent.shape[2], **halved))


def tapped(weigh: Callable[[Tensor], tuple[Tensor, ...]]) -> Way:
    """The /8 grid with a kernel that Koshi does not use."""

    def way(latent: Tensor, move: dict[str, float]) -> Tensor:
        grid = unpack(latent)
        field = latent_field(grid.shape[3], grid.shape[2], **move)
        return pack(by_taps(grid[0], *field.source.unbind(-1), weigh, "replicate")[None])

    return way


def bilinear(f: Tensor) -> tuple[Tensor, ...]:
    return torch.zeros_like(f), 1 - f, f, torch.zeros_like(f)


def lanczos(f: Tensor) -> tuple[Tensor, ...]:
    """Two lobes."""
    weights = [torch.sinc(d) * torch.sinc(d / 2) for d in (1 + f, f, 1 - f, 2 - f)]
    return tuple(w / sum(weights) for w in weights)


def ways(model: Flux2Model) -> dict[str, Way]:
    def engine(**options: object) -> Way:
        return Flux2MotionEngine(**options).apply_motion  # type: ignore[arg-type]

    return {
        "/8, bicubic (default)": engine(),
        "/8, spline": engine(kernel="spline"),
        "/8, bilinear": tapped(bilinear),
        "/8, Lanczos": tapped(lanczos),
        "/8, bicubic, statistics kept": engine(keep_statistics=True),
        "/8, bicubic, normalisation given": engine(normalisation=model.autoencoder.bn),
        "/16, bicubic": moved_at_16,
    }


def psnr(a: Tensor, b: Tensor, valid: Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2)[:, :, valid].mean()))


def sharpness(picture: Tensor, valid: Tensor) -> float:
    grey = picture.mean(dim=1)[0]
    edges = (4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).abs()
    return float(edges[valid[1:-1, 1:-1]].mean())


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    model = load_model("koshi-tiny", torch.device("cpu"), torch.float32)
    latents = [model.denoise(p, model.noise(5, side, side), steps=4) for p in PROMPTS]
    pictures = [model.decode(z) for z in latents]
    latents = [model.encode_picture(p) for p in pictures]
    again = [model.decode(z) for z in latents]
    table = {name: [0.0] * len(MOVES) for name in ["picture", *ways(model)]}
    for column, move in enumerate(MOVES.values()):
        field = MotionField.affine(deforum_matrix(side, side, **move), side, side)
        for latent, picture in zip(latents, again, strict=True):
            truth = resample(picture, field)
            table["picture"][column] += psnr(model.decode(model.encode_picture(truth)), truth, field.valid)
            for name, way in ways(model).items():
                table[name][column] += psnr(model.decode(way(latent, move)), truth, field.valid)
    print("| way | " + " | ".join(MOVES) + " |\n|---|" + "---|" * len(MOVES))
    for name, sums in table.items():
        print(f"| {name} | " + " | ".join(f"{v / len(PROMPTS):.1f}" for v in sums) + " |", flush=True)

    print(f"\nPSNR and sharpness against the picture moved once, after {REPEATS} moves of {STEP}:")
    field = MotionField.affine(deforum_matrix(side, side, **STEP), side, side)
    total = MotionField.identity(side, side)
    for _ in range(REPEATS):
        total = total.then(field)
    rows = {name: [0.0, 0.0] for name in ["picture", *ways(model)]}
    for latent, picture in zip(latents, again, strict=True):
        truth = resample(picture, total)
        sharp = sharpness(truth, total.valid)
        shown = {"picture": picture}
        for _ in range(REPEATS):
            shown["picture"] = model.decode(model.encode_picture(resample(shown["picture"], field)))
        for name, way in ways(model).items():
            moved = latent
            for _ in range(REPEATS):
                moved = way(moved, STEP)
            shown[name] = model.decode(moved)
        for name, last in shown.items():
            rows[name][0] += psnr(last, truth, total.valid) / len(PROMPTS)
            rows[name][1] += sharpness(last, total.valid) / sharp / len(PROMPTS)
    print("| way | PSNR | sharpness |\n|---|---|---|")
    for name, (similar, sharp) in rows.items():
        print(f"| {name} | {similar:.1f} | {sharp:.2f} |")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Latents moved with no model: Deforum's signs and sizes, both families' layouts, groups, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from koshi_backend import Flux1MotionEngine, Flux2MotionEngine, KoshiError
from koshi_backend.models.pool import load_model
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.motion.latent import latent_field, move_latent, pack, unpack

ENGINES = [(Flux1MotionEngine, 16, 8), (Flux2MotionEngine, 32, 8), (Flux2MotionEngine, 128, 16)]
# Centroids of a blob at (160, 96), (160, 80) for translation_z, after the real webui functions, 256 x 192 pixels.
GOLDEN = [
    ({"translation_x": 10}, (160, 96), (170.0, 96.0)),
    ({"translation_y": 10}, (160, 96), (160.0, 106.0)),
    ({"angle": 10}, (160, 96), (159.51, 90.44)),
    ({"zoom": 1.1}, (160, 96), (163.18, 96.0)),
    ({"zoom": 1.1, "translation_x": 10}, (160, 96), (174.18, 96.0)),
    ({"angle": 90, "translation_x": 10}, (160, 96), (128.0, 54.0)),
    ({"zoom": 1.1, "transform_center_x": 0.0}, (160, 96), (176.0, 96.0)),
    ({"translation_z": 10}, (160, 80), (162.65, 78.72)),
]


def white(channels: int, rows: int = 8, columns: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(1, channels, rows, columns, generator=torch.Generator().manual_seed(seed))


def blob(x: float, y: float, channels: int) -> Tensor:
    """A spot at a pixel of a 256 x 192 picture, on the /8 grid, whose cell u lies at pixel 8 u + 3.5."""
    rows, columns = np.mgrid[0:24, 0:32] * 8 + 3.5
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 14.0**2))
    return torch.from_numpy(spot.astype(np.float32)).expand(1, channels, -1, -1).contiguous()


def centroid(plane: Tensor) -> tuple[float, float]:
    light = plane.double().numpy()
    rows, columns = np.mgrid[0:24, 0:32] * 8 + 3.5
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


@pytest.mark.parametrize("engine", [Flux1MotionEngine, Flux2MotionEngine])
def test_the_documents_call_runs(engine: Any) -> None:
    channels = 16 if engine is Flux1MotionEngine else 128
    latent = torch.randn(1, channels, 64, 64)
    moved = engine(device="cpu").apply_motion(latent, {"zoom": 1.1, "angle": 5, "translation_z": 20})
    assert moved.shape == latent.shape
    assert not torch.equal(moved, latent)


@pytest.mark.parametrize(("engine", "channels", "cell"), ENGINES)
@pytest.mark.parametrize(("move", "start", "place"), GOLDEN)
def test_signs_and_sizes_are_those_of_deforum_in_picture_pixels(
    engine: Any, channels: int, cell: int, move: dict[str, float], start: tuple[int, int], place: tuple[float, float]
) -> None:
    latent = blob(*start, channels if cell == 8 else channels // 4)
    given = latent if cell == 8 else pack(latent)
    moved = engine().apply_motion(given, move)
    assert moved.shape == given.shape
    grid = moved if cell == 8 else unpack(moved)
    # In pixels, so .05 is a hundred and sixtieth of a cell (observed: at most .02).
    assert centroid(grid[0, -1]) == pytest.approx(place, abs=0.05)


def test_perspective_is_carried_over_too() -> None:
    move = {"perspective_flip_phi": 15, "perspective_flip_gamma": -10, "translation_x": 6}
    moved = Flux2MotionEngine().apply_motion(blob(120, 90, 32), move)
    x, y, away = deforum_matrix(256, 192, **move) @ (120, 90, 1)
    # The spot is 14 px wide, and perspective bends it. Observed: .3.
    assert centroid(moved[0, 0]) == pytest.approx((x / away, y / away), abs=0.6)


@pytest.mark.parametrize(("engine", "channels", "cell"), ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_no_motion_gives_the_same_bits_back(engine: Any, channels: int, cell: int, dtype: torch.dtype) -> None:
    latent = white(channels).to(dtype)
    still = {"zoom": 1, "angle": "0:(0)", "translation_z": 0}, {"transform_center_x": 0.2, "perspective_flip_fv": 40}
    for motion in ({}, *still):
        for options in ({}, {"depth": "gain"}, {"depth": "layers", "border": "noise"}, {"keep_statistics": True}):
            moved = engine(**options).apply_motion(latent, motion)
            assert moved.dtype == dtype
            assert torch.equal(moved, latent)
            assert moved.data_ptr() != latent.data_ptr()


def test_whole_cells_and_whole_tokens_move_exactly() -> None:
    latent = white(32)
    moved = Flux2MotionEngine().apply_motion(latent, {"translation_x": 24, "translation_y": -8})
    assert torch.equal(moved[..., :-1, 3:], latent[..., 1:, :-3])
    tokens = white(128)
    moved = Flux2MotionEngine().apply_motion(tokens, {"translation_x": 32})
    assert torch.equal(moved[..., 2:], tokens[..., :-2])


def test_packed_latents_are_moved_on_the_finer_grid() -> None:
    move = {"zoom": 1.07, "angle": 4, "translation_x": 5}
    packed = white(128)
    assert torch.equal(unpack(pack(white(32))), white(32))
    moved = Flux2MotionEngine().apply_motion(packed, move)
    assert torch.equal(moved, pack(Flux2MotionEngine().apply_motion(unpack(packed), move)))
    # The order is FLUX.2's: packed channel 4 c + 2 row + column.
    assert torch.equal(unpack(packed)[0, 5, 1::2, ::2], packed[0, 4 * 5 + 2])


def test_every_latent_of_a_batch_is_moved_alike() -> None:
    both = torch.cat([white(16), white(16, seed=1)])
    moved = Flux1MotionEngine().apply_motion(both, {"angle": 3})
    assert torch.equal(moved[1:], Flux1MotionEngine().apply_motion(both[1:], {"angle": 3}))


_moves = st.fixed_dictionaries(
    {"zoom": st.floats(0.95, 1.05), "angle": st.floats(-4, 4), "translation_x": st.floats(-6, 6)}
)


@settings(max_examples=25, deadline=None)
@given(_moves, _moves)
def test_two_moves_are_the_move_of_their_product(first: dict[str, float], second: dict[str, float]) -> None:
    """On a smooth latent, where resampling twice loses nothing; the fields' own matrices say where it went."""
    latent = blob(120, 90, 16)
    engine = Flux1MotionEngine()
    twice = engine.apply_motion(engine.apply_motion(latent, first), second)
    matrix = deforum_matrix(256, 192, **second) @ deforum_matrix(256, 192, **first)
    x, y, _ = matrix @ (120, 90, 1)
    assert centroid(twice[0, 0]) == pytest.approx((x, y), abs=0.1)  # observed: at most .04


def test_schedules_are_read_at_the_frame() -> None:
    latent, engine = white(16), Flux1MotionEngine()
    still = engine.apply_motion(latent, {"translation_x": "0:(0), 4:(32)"}, frame=0)
    assert torch.equal(still, latent)
    moved = engine.apply_motion(latent, {"translation_x": "0:(0), 4:(32)"}, frame=2)
    assert torch.equal(moved, engine.apply_motion(latent, {"translation_x": 16}))
    assert torch.equal(moved, engine.apply_motion(latent, {"translation_x": [0, 8, 16]}, frame=2))
    assert torch.equal(moved, engine.apply_motion(latent, {"translation_x": np.float32(16)}))


def test_what_is_unfit_is_refused_by_name_all_at_once() -> None:
    with pytest.raises(KoshiError) as refused:
        Flux2MotionEngine().apply_motion(
            white(32), {"zom": 1, "zoom": 0, "rotation_3d_x": 1, "angle": "0:(", "translation_x": [1, 2]}, frame=3
        )
    fields = [p["field"] for p in refused.value.problems]
    assert fields == ["motion.zom", "motion.zoom", "motion.rotation_3d_x", "motion.angle", "motion.translation_x"]
    assert "depth" in str(refused.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Flux1MotionEngine().apply_motion(white(32), {}), r"\[B, 16, H/8, W/8\]"),
        (lambda: Flux2MotionEngine().apply_motion(white(16), {}), r"\[B, 32, .* or \[B, 128, H/16"),
        (lambda: Flux2MotionEngine().apply_motion(white(32) * torch.nan, {}), "not finite"),
        (lambda: Flux2MotionEngine().apply_motion(white(32), {"translation_z": 90}), "At most 75"),
        (lambda: Flux2MotionEngine(depth_weights=(1, 2)), "Give 8 numbers: structure"),
        (lambda: Flux2MotionEngine(depth="push", depth_weights=(0,) * 8), "no effect"),
        (lambda: Flux2MotionEngine(border="mirror"), "border is 'mirror'"),
        (lambda: Flux2MotionEngine(device="abacus"), "not a device"),
        (lambda: Flux2MotionEngine().apply_group_motion(white(32), {"colour": {}}), "2 palette"),
        (lambda: Flux2MotionEngine().apply_group_motion(white(32), {0: {}, "structure": {}}), "twice"),
        (lambda: Flux2MotionEngine().apply_group_motion(white(32), {"light": {"zom": 1}}), "light.zom"),
    ],
)
def test_refusals_say_what_to_do(call: Any, words: str) -> None:
    with pytest.raises(KoshiError, match=words):
        call()


def test_a_group_moves_alone() -> None:
    engine, packed = Flux2MotionEngine(), white(128)
    moved = engine.apply_group_motion(packed, {"light": {"translation_x": 16}, 7: {"angle": 3}})
    assert torch.equal(moved[:, 48:64, :, 1:], packed[:, 48:64, :, :-1])
    whole = engine.apply_motion(packed, {"angle": 3})
    assert torch.equal(moved[:, 112:], whole[:, 112:])
    untouched = [c for c in range(112) if not 48 <= c < 64]
    assert torch.equal(moved[:, untouched], packed[:, untouched])
    first = Flux1MotionEngine().apply_group_motion(white(16), {"color": {"translation_y": 8}})
    assert torch.equal(first[:, 4:8, 1:], white(16)[:, 4:8, :-1])
    assert torch.equal(first[:, :4], white(16)[:, :4])


def test_depth_by_groups_is_what_the_documents_say_and_a_true_push_is_the_default() -> None:
    latent = white(128)
    gained = Flux2MotionEngine(depth="gain").apply_motion(latent, {"translation_z": 50})
    weights = torch.tensor(Flux2MotionEngine.DEPTH_WEIGHTS).repeat_interleave(16).view(1, -1, 1, 1)
    assert torch.allclose(gained, latent * (1 + 0.5 * weights))
    own = Flux1MotionEngine(depth_weights=[1, 0, 0, 0]).apply_motion(white(16), {"translation_z": 100})
    assert torch.equal(own, torch.cat([white(16)[:, :4] * 2, white(16)[:, 4:]], dim=1))

    pushed = Flux2MotionEngine().apply_motion(latent, {"translation_z": 10})
    layers = Flux2MotionEngine(depth="layers", depth_weights=(1, 0, 0, 0, 0, 0, 0, 0))
    first = layers.apply_motion(latent, {"translation_z": 10})
    assert torch.equal(first[:, :16], pushed[:, :16])
    assert torch.equal(first[:, 16:], latent[:, 16:])


def test_what_lies_outside() -> None:
    latent, move = white(32, 32, 32) + 5.0, {"zoom": 0.5}
    outside = ~latent_field(32, 32, zoom=0.5).valid
    blank = Flux2MotionEngine(border="blank").apply_motion(latent, move)
    assert not blank[..., outside].any()
    noise = Flux2MotionEngine(border="noise").apply_motion(latent, move, seed=3)
    assert torch.equal(noise, Flux2MotionEngine(border="noise").apply_motion(latent, move, seed=3))
    assert not torch.equal(noise, Flux2MotionEngine(border="noise").apply_motion(latent, move, seed=4))
    drawn = noise[..., outside]
    assert float(drawn.var()) == pytest.approx(1.0, abs=0.03)  # 24,000 numbers: four standard errors
    assert torch.equal(noise[..., ~outside], blank[..., ~outside])
    around = Flux2MotionEngine(border="wrap").apply_motion(latent, {"translation_x": 80})
    assert torch.equal(around, latent.roll(10, 3))


def test_statistics_can_be_kept() -> None:
    latent = white(32, 16, 16) * 3 + 1
    moved = Flux2MotionEngine(keep_statistics=True).apply_motion(latent, {"translation_x": 4})
    assert torch.allclose(moved.mean((2, 3)), latent.mean((2, 3)), atol=1e-5)
    assert torch.allclose(moved.std((2, 3)), latent.std((2, 3)), rtol=1e-4)
    without = Flux2MotionEngine().apply_motion(latent, {"translation_x": 4})
    assert float(without.std()) < 0.95 * float(latent.std())


def test_no_model_is_loaded_for_it() -> None:
    code = """
import json, sys, torch
import koshi_backend
light = "torch" not in vars(koshi_backend)
koshi_backend.Flux2MotionEngine().apply_motion(torch.zeros(1, 128, 4, 4), {"zoom": 1.1})
print(json.dumps(sorted(n for n in sys.modules if n.startswith("koshi_backend.models") or n == "transformers")))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == []


def test_it_follows_the_moved_picture_better_than_packed_channels_do(tiny: Path) -> None:
    """PSNR on koshi-tiny, decoded latent against moved picture, over valid pixels; benchmarks/latent_motion.py."""
    model = load_model(str(tiny), torch.device("cpu"), torch.float32)
    latent = model.encode_picture(
        model.decode(model.denoise("a pine forest at dawn, photo", model.noise(5, 128, 128), steps=4))
    )
    picture = model.decode(latent)

    def psnr(moved: Tensor, move: dict[str, float]) -> float:
        field = MotionField.affine(deforum_matrix(128, 128, **move), 128, 128)
        error = (model.decode(moved) - resample(picture, field))[..., field.valid]
        return float(-10 * torch.log10((error**2).mean()))

    def packed(move: dict[str, float]) -> Tensor:
        """The mistake: packed channels moved on their own grid."""
        halved = {name: v / 2 if name.startswith("translation") else v for name, v in move.items()}
        return move_latent(latent, latent_field(8, 8, **halved))

    apart = Flux2MotionEngine(normalisation=model.autoencoder.bn)
    move = {"translation_x": 8.0}
    whole = [psnr(m, move) for m in (apart.apply_motion(latent, move), packed(move))]
    without = psnr(Flux2MotionEngine().apply_motion(latent, move), move)
    assert whole[0] > without + 3 > whole[1] + 15  # observed: 44.8, 40.6 and 17.7 dB
    # Between cells nothing is exact: observed 25.9 and 24.4 dB.
    move = {"zoom": 1.05, "angle": 2.0}
    assert psnr(Flux2MotionEngine().apply_motion(latent, move), move) > psnr(packed(move), move) + 0.5

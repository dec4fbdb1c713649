# SPDX-License-Identifier: GPL-3.0-or-later
"""Feedback that carries the latent instead of the picture."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.chain import Frame, render_shot
from koshi_backend.models.pool import load_model
from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.latent import CELL, cells_of, latent_field
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

STILL = {"strength": 0.0, "color_match": 0.0}


def render(
    store: FrameStore, schedules: dict[str, Any], frames: int = 4, guides: dict[str, str] | None = None, **feedback: Any
) -> list[Frame]:
    shot = load_shot(
        {
            "width": 128, "height": 96, "frames": frames, "seed": 3, "steps": 2,
            "prompts": [{"frame": 0, "text": "a calm sea at dawn, photo"}],
            "schedules": schedules, "guides": guides or {},
            "feedback": {"carry": "latent", "condition": "start", **feedback},
        }
    )  # fmt: skip
    return list(render_shot(shot, store=store))


def latent(store: FrameStore, frame: Frame) -> np.ndarray:
    entry = store.get(frame.key)
    assert entry is not None
    return entry.state["latent"]


def pixels(frame: Frame) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR).astype(float)


@settings(max_examples=30, deadline=None)
@given(
    zoom=st.floats(0.8, 1.25), angle=st.floats(-30, 30), x=st.floats(-40, 40), y=st.floats(-40, 40),
    centre=st.floats(0.2, 0.8),
)  # fmt: skip
def test_a_field_of_pixels_becomes_the_same_move_of_cells(
    zoom: float, angle: float, x: float, y: float, centre: float
) -> None:
    move = {
        "zoom": zoom, "angle": angle, "translation_x": x, "translation_y": y, "transform_center_x": centre,
    }  # fmt: skip
    field = MotionField.affine(deforum_matrix(128, 96, **move), 128, 96)
    expected = latent_field(128 // CELL, 96 // CELL, **move)
    assert float((cells_of(field).source - expected.source).abs().max()) < 1e-4  # 1.3e-5


def test_a_cell_is_valid_where_all_its_pixels_are() -> None:
    field = MotionField.identity(32, 16)
    valid = field.valid.clone()
    valid[3, 9] = False
    cells = cells_of(MotionField(field.source, valid))
    assert cells.valid.tolist() == [[True, False, True, True], [True] * 4]


def test_a_move_by_whole_cells_keeps_the_latent_exactly(tmp_path: Path) -> None:
    """In pixels every frame would pass the autoencoder again; here nothing is lost, however long it goes on."""
    store = FrameStore(tmp_path)
    frames = render(store, {**STILL, "translation_x": 16}, frames=9, border="wrap")
    first = latent(store, frames[0])
    for k, frame in enumerate(frames):
        assert np.abs(latent(store, frame) - np.roll(first, k, axis=2)).max() < 1e-4  # 3e-6 after a whole round


def test_corrections_come_as_the_difference_they_make(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    plain = render(store, STILL, frames=2)
    harder = render(store, {**STILL, "contrast": [1.0, 1.2]}, frames=2)
    assert plain[0].key == harder[0].key
    assert np.array_equal(latent(store, plain[0]), latent(store, plain[1]))
    decoded = render(store, {**STILL, "contrast": [1.0, 1.2]}, frames=2, carry="pixels")
    away = np.abs(pixels(harder[1]) - pixels(decoded[1])).mean()
    commanded = np.abs(pixels(decoded[1]) - pixels(decoded[0])).mean()
    assert away < 0.3 * commanded, (away, commanded)  # 4.1 of 29.6


def test_a_resumed_chain_goes_on_from_the_very_same_latent(tmp_path: Path) -> None:
    curves = {"zoom": 1.03, "strength": 0.4}
    store, other = FrameStore(tmp_path / "a"), FrameStore(tmp_path / "b")
    whole = render(store, curves)
    half = render(other, curves, frames=2)
    assert [f.png for f in half] == [f.png for f in whole[:2]]
    rest = render(other, curves)
    assert [f.stored for f in rest] == [True, True, False, False]
    assert [f.png for f in rest] == [f.png for f in whole]
    assert torch.equal(*(torch.from_numpy(latent(s, whole[-1])) for s in (store, other)))


@pytest.mark.parametrize("carry", ["latent", "pixels"])
@pytest.mark.parametrize("condition", ["start", "reference", "both"])
def test_a_mask_keeps_what_it_hides_as_it_was_moved(carry: str, condition: str, tmp_path: Path) -> None:
    """The left half is never painted. In latents its cells stay to the bit; the picture made of them, but for the
    decoder's reach over the mask's edge and its norms, which are of the whole picture."""
    cv2.imwrite(
        str(tmp_path / "mask.png"), np.repeat(np.where(np.arange(128) < 64, 0, 255)[None], 96, 0).astype(np.uint8)
    )
    store = FrameStore(tmp_path)
    curves = {"color_match": 0.0, "strength": 0.8, "translation_x": 16}
    mask = {"mask": str(tmp_path / "mask.png")}
    frames = render(store, curves, frames=3, guides=mask, carry=carry, condition=condition, border="wrap")
    model = load_model("koshi-tiny", torch.device("cpu"), torch.float32)
    for before, after in itertools.pairwise(frames):
        if carry == "latent":
            moved = np.roll(latent(store, before), 1, axis=2)
            found = latent(store, after)
            assert np.abs(found[..., :4] - moved[..., :4]).max() < 1e-5  # 0
            assert np.abs(found[..., 4:] - moved[..., 4:]).mean() > 0.05  # .11 to .28
            picture = 255 * model.decode(torch.from_numpy(moved)[None])[0].permute(1, 2, 0).numpy()[..., ::-1]
            tolerance = 4.0  # of 255; 1.9, and .5 of it from rounding
        else:
            picture, tolerance = np.roll(pixels(before), 16, axis=1), 0.0
        away = np.abs(pixels(after) - picture)
        assert away[:, :48].max() <= tolerance
        assert away[:, 64:].mean() > 3  # 4.7 to 14


def test_a_soft_mask_paints_in_part(tmp_path: Path) -> None:
    def masked(name: str, grey: int) -> np.ndarray:
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((96, 128), grey, np.uint8))
        store = FrameStore(tmp_path / name)
        curves = {"color_match": 0.0, "strength": 0.8}
        mask = {"mask": str(tmp_path / f"{name}.png")}
        return latent(store, render(store, curves, frames=2, guides=mask, condition="reference")[1])

    kept, half, painted = masked("black", 0), masked("grey", 51), masked("white", 255)
    assert np.abs(half - (0.8 * kept + 0.2 * painted)).max() < 1e-5  # 2e-7


@pytest.mark.parametrize("condition", ["start", "reference", "both"])
def test_at_strength_0_only_what_is_uncovered_is_made_anew(condition: str, tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    frames = render(store, {**STILL, "translation_x": 32}, frames=2, condition=condition, border="replicate")
    moved, found = np.roll(latent(store, frames[0]), 2, axis=2), latent(store, frames[1])
    assert np.abs(found - moved)[..., 2:].max() < 1e-5  # 0; 1 to 3.5 while nothing was put back
    assert np.abs(found - moved)[..., :2].mean() > 0.1  # .22 to .25


def test_latents_and_pixels_are_different_shots_from_frame_0_on(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    carried, decoded = render(store, STILL, frames=1), render(store, STILL, frames=1, carry="pixels")
    assert carried[0].key != decoded[0].key  # only the one has kept its latent
    assert carried[0].png == decoded[0].png

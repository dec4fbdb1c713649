# SPDX-License-Identifier: GPL-3.0-or-later
"""Feedback that carries the latent instead of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.chain import Frame, render_shot
from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.latent import CELL, cells_of, latent_field
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

STILL = {"strength": 0.0, "color_match": 0.0}


def render(store: FrameStore, schedules: dict[str, Any], frames: int = 4, **feedback: Any) -> list[Frame]:
    shot = load_shot(
        {
            "width": 128, "height": 96, "frames": frames, "seed": 3, "steps": 2,
            "prompts": [{"frame": 0, "text": "a calm sea at dawn, photo"}],
            "schedules": schedules, "feedback": {"carry": "latent", "condition": "start", **feedback},
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


def test_latents_and_pixels_are_different_shots_from_frame_0_on(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    carried, decoded = render(store, STILL, frames=1), render(store, STILL, frames=1, carry="pixels")
    assert carried[0].key != decoded[0].key  # only the one has kept its latent
    assert carried[0].png == decoded[0].png

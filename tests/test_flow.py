# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion of guide videos against motions that are known because the test made them."""

from __future__ import annotations

import importlib.util
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from koshi_backend.errors import KoshiError
from koshi_backend.motion import MotionField, resample
from koshi_backend.motion.flow import METHODS, flow_field, optical_flow
from koshi_backend.motion.ransac import MODELS, ransac_move

SIZE = 256
HERE = [method for method in METHODS if method != "raft"]


def texture(seed: int = 0, size: int = SIZE) -> Tensor:
    """Soft blobs of three sizes: something to follow at every scale."""
    random = np.random.default_rng(seed)
    light = sum(
        weight * cv2.GaussianBlur(random.normal(size=(size, size, 3)), (0, 0), sigma) * sigma
        for sigma, weight in ((1.3, 0.2), (4.0, 0.5), (13.0, 1.0))
    )
    light = (light - light.min()) / np.ptp(light)
    return torch.from_numpy(light.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def similarity(zoom: float, degrees: float, x: float, y: float, size: int = SIZE) -> np.ndarray:
    """A forward matrix: turned and zoomed about the middle, then shifted."""
    a, b = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    c = (size - 1) / 2
    return np.array([[a, b, (1 - a) * c - b * c + x], [-b, a, b * c + (1 - a) * c + y], [0.0, 0.0, 1.0]])


def moved(matrix: np.ndarray, seed: int = 0) -> tuple[Tensor, Tensor, MotionField]:
    """A picture, the same one moved, and the motion between them."""
    before = texture(seed)
    true = MotionField.homography(matrix, SIZE, SIZE)
    return before, resample(before, true), true


def errors(found: MotionField, true: MotionField, margin: int = 16) -> Tensor:
    """Distances in pixels between two fields where there was something to see."""
    inner = true.valid.clone()
    inner[:margin], inner[-margin:], inner[:, :margin], inner[:, -margin:] = False, False, False, False
    return (found.source - true.source).norm(dim=-1)[inner]


# Observed medians: ultrafast 0.29, fast 0.15, medium 0.07, fine 0.05, farneback 0.11.
LIMITS = {"dis_ultrafast": 0.5, "dis_fast": 0.25, "dis_medium": 0.15, "dis_fine": 0.12, "farneback": 0.2}


@pytest.mark.parametrize("method", HERE)
def test_flow_finds_a_known_zoom_turn_and_shift(method: str) -> None:
    before, after, true = moved(similarity(1.04, -2.0, 6.0, -4.0))
    found = flow_field(before, after, method)
    distances = errors(found, true)
    assert distances.median() < LIMITS[method]
    assert distances.quantile(0.95) < 4 * LIMITS[method]
    assert found.valid[true.valid].float().mean() > 0.97


@pytest.mark.parametrize("method", HERE)
def test_flow_keeps_its_size_and_its_sign(method: str) -> None:
    """sd-webui-deforum's cadence flow came out as (1, -0.25) for this move: divided by its maximum on the way."""
    before, after, _ = moved(similarity(1.0, 0.0, 12.0, -3.0))
    middle = (slice(32, -32),) * 2
    forward = optical_flow(before, after, method)[middle].flatten(0, 1).median(dim=0).values
    assert forward.tolist() == pytest.approx([12.0, -3.0], abs=0.1)
    # The field looks back: what is seen at (x, y) was 12 further left and 3 further down.
    source = flow_field(before, after, method).source[100, 100].tolist()
    assert source == pytest.approx([88.0, 103.0], abs=0.2)


def test_following_the_field_gives_the_new_picture() -> None:
    before, after, true = moved(similarity(1.03, 1.5, -3.0, 5.0))
    found = flow_field(before, after, "dis_fine")
    miss = (resample(before, found) - after).abs().mean(dim=1)[0]
    still = (before - after).abs().mean(dim=1)[0]
    inner = true.valid & found.valid
    # Observed: 0.0006 against 0.054 standing still.
    assert miss[inner].mean() < 0.05 * still[inner].mean()


def test_what_was_covered_is_not_valid() -> None:
    """A square moves over the picture: the strip it leaves free was not to be seen before."""
    ground, thing = texture(1), texture(2)[..., :80, :80]
    before, after = ground.clone(), ground.clone()
    before[..., 80:160, 60:140] = thing
    after[..., 80:160, 76:156] = thing
    found = flow_field(before, after, "dis_medium")
    uncovered = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    uncovered[84:156, 62:74] = True
    untouched = torch.ones(SIZE, SIZE, dtype=torch.bool)
    untouched[60:180, 40:176] = False
    # Observed: 0.99 of the strip, nothing of the rest.
    assert (~found.valid)[uncovered].float().mean() > 0.9
    assert (~found.valid)[untouched].float().mean() < 0.02
    # The square itself is followed.
    inside = found.source[90:150, 90:140] - MotionField.identity(SIZE, SIZE).source[90:150, 90:140]
    assert inside.flatten(0, 1).median(dim=0).values.tolist() == pytest.approx([-16.0, 0.0], abs=0.1)
    assert flow_field(before, after, "dis_medium", check=False).valid[uncovered].all()


def test_a_plain_sky_is_not_taken_for_uncovered() -> None:
    """Flow there is anything, and no flow the other way confirms it; painting it anew would make it flicker."""
    before = texture(4)
    before[..., :110, :] = torch.linspace(0.3, 0.5, 110)[:, None]
    after = before.clone()
    after[..., 110:, :] = before[..., 110:, :].roll(4, 3)
    after[..., 110:, :4] = 0.9  # uncovered
    noise = 0.004 * torch.randn(2, 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = flow_field(before + noise[0], after + noise[1])
    assert float(found.valid[:100].float().mean()) > 0.95  # 0.98; 0.20 by the flow alone
    assert float(found.valid[120:, :4].float().mean()) < 0.2


def test_the_factor_scales_the_motion() -> None:
    before, after, _ = moved(similarity(1.0, 0.0, 8.0, 4.0))
    here = MotionField.identity(SIZE, SIZE).source
    plain = flow_field(before, after, factor=1.0).source - here
    for factor in (-1.0, 0.0, 0.5, 2.5):
        scaled = flow_field(before, after, factor=factor).source - here
        assert torch.allclose(scaled, factor * plain, atol=1e-4)
    assert flow_field(before, after, factor=0.0).valid[40:-40, 40:-40].all()


@pytest.mark.parametrize("method", HERE)
def test_a_repeated_frame_does_not_move(method: str) -> None:
    """Bit for bit, or a film with held frames would blur at each of them."""
    picture = texture(3)
    assert flow_field(picture, picture.clone(), method, factor=2.0).is_identity
    assert optical_flow(picture, picture, method).abs().max() < 0.06  # observed 0.04 (farneback), else 0


def test_a_plain_picture_is_no_fault() -> None:
    grey = torch.full((1, 3, 64, 96), 0.5)
    for method in HERE:
        found = flow_field(grey, grey, method)
        assert found.source.shape == (64, 96, 2)
        assert torch.isfinite(found.source).all()


def test_raft_without_its_parts_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # no weights there, torchvision or not
    with pytest.raises(KoshiError) as caught:
        flow_field(texture(0), texture(1), "raft")
    assert caught.value.code == "flow_unavailable"
    assert "dis_medium" in caught.value.hint
    wanted = "weights" if importlib.util.find_spec("torchvision") else "torchvision"
    assert wanted in caught.value.message


@pytest.mark.parametrize(
    ("previous", "new", "method", "factor", "words"),
    [
        (texture(), texture(), "dis_slow", 1.0, "dis_slow"),
        (texture(), texture(), "dis_fast", math.nan, "factor"),
        (texture(), texture()[..., :128], "dis_fast", 1.0, "[256, 128]"),
        (texture()[:, :1], texture()[:, :1], "dis_fast", 1.0, "[1, 1, 256, 256]"),
        (texture()[..., :8], texture()[..., :8], "dis_fast", 1.0, "at least 16"),
    ],
)
def test_unfit_pictures_and_names_are_refused(
    previous: Tensor, new: Tensor, method: str, factor: float, words: str
) -> None:
    with pytest.raises(KoshiError) as caught:
        flow_field(previous, new, method, factor=factor)
    assert words in str(caught.value)


# ---- one move of the whole picture


@settings(max_examples=12, deadline=None)
@given(
    zoom=st.floats(0.85, 1.15),
    degrees=st.floats(-20, 20),
    x=st.floats(-25, 25),
    y=st.floats(-25, 25),
    model=st.sampled_from(MODELS),
)
def test_ransac_finds_any_similarity(zoom: float, degrees: float, x: float, y: float, model: str) -> None:
    before, after, true = moved(similarity(zoom, degrees, x, y))
    move = ransac_move(before, after, model)
    # Observed: at most 0.15 in 180 fits.
    assert errors(move.field(SIZE, SIZE), true).median() < 0.25
    assert move.agreeing <= move.matches


def test_ransac_finds_a_perspective() -> None:
    matrix = np.array([[1.05, 0.02, -6.0], [-0.03, 0.98, 5.0], [2.5e-4, -1.5e-4, 1.0]])
    before, after, true = moved(matrix)
    found = errors(ransac_move(before, after, "perspective").field(SIZE, SIZE), true)
    assert found.max() < 0.3  # observed 0.09
    # An affine move cannot follow it (observed 7): the limit above is no matter of course.
    assert errors(ransac_move(before, after, "affine").field(SIZE, SIZE), true).max() > 2.0


def test_ransac_outvotes_what_moves_by_itself() -> None:
    before, after, true = moved(similarity(1.03, 0.0, 7.0, 3.0))
    thing = texture(4)[..., :90, :90]
    before[..., 20:110, 20:110] = thing
    after[..., 50:140, 90:180] = thing
    found = ransac_move(before, after, "affine")
    assert errors(found.field(SIZE, SIZE), true).median() < 0.1
    assert found.agreeing < 0.95 * found.matches


def test_the_same_pictures_give_the_same_matrix() -> None:
    """Frames are keyed by what they depend on, so nothing may be drawn by chance."""
    before, after, _ = moved(similarity(1.02, 3.0, 4.0, -6.0))
    for model in MODELS:
        assert np.array_equal(ransac_move(before, after, model).matrix, ransac_move(before, after, model).matrix)


@pytest.mark.parametrize("model", MODELS)
def test_too_few_points_are_an_error_that_says_which_and_how_many(model: str) -> None:
    grey = torch.full((1, 3, SIZE, SIZE), 0.5)
    for before, after in ((grey, grey), (texture(5), texture(6)), (grey, texture(5))):
        with pytest.raises(KoshiError) as caught:
            ransac_move(before, after, model, frame=17)
        assert caught.value.code == "too_few_matches"
        assert "Frame 17" in caught.value.message
        assert any(word.isdigit() for word in caught.value.message.split("share")[1].split())
        assert "dis_medium" in caught.value.hint


def test_unknown_models_and_sizes_are_refused() -> None:
    with pytest.raises(KoshiError, match="similarity, affine, perspective"):
        ransac_move(texture(), texture(), "rigid")
    with pytest.raises(KoshiError, match="different sizes"):
        ransac_move(texture(), texture()[..., :128], "affine")

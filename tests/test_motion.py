# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion against sd-webui-deforum's measurements, and the resampler's laws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.motion import MotionField, deforum_matrix, flat_push, resample

W, H = 256, 192
# Centroids of a blob at (160, 96) after the real webui function, 256 x 192 (2D), and at (160, 80) for translation_z.
GOLDEN_2D = [
    ({"translation_x": 10}, (170.0, 96.0)),
    ({"translation_y": 10}, (160.0, 106.0)),
    ({"angle": 10}, (159.51, 90.44)),
    ({"zoom": 1.1}, (163.18, 96.0)),
    ({"zoom": 1.1, "translation_x": 10}, (174.18, 96.0)),
    ({"angle": 90, "translation_x": 10}, (128.0, 54.0)),
    ({"zoom": 1.1, "transform_center_x": 0.0}, (176.0, 96.0)),
]


def blob(x: float, y: float) -> torch.Tensor:
    rows, columns = np.mgrid[0:H, 0:W]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return torch.from_numpy(spot.astype(np.float32)).expand(1, 3, -1, -1).contiguous()


def centroid(picture: torch.Tensor) -> tuple[float, float]:
    light = picture[0, 0].double().numpy()
    rows, columns = np.mgrid[0:H, 0:W]
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


@pytest.mark.parametrize(("move", "place"), GOLDEN_2D)
def test_signs_and_sizes_are_those_of_deforum(move: dict[str, float], place: tuple[float, float]) -> None:
    field = MotionField.affine(deforum_matrix(W, H, **move), W, H)
    # 0.03 px: the golden values were measured on bilinear 8-bit pictures (observed here: at most 0.02).
    assert centroid(resample(blob(160, 96), field)) == pytest.approx(place, abs=0.03)


def test_translation_z_is_deforum_s_over_a_flat_depth() -> None:
    field = MotionField.affine(deforum_matrix(W, H, translation_z=10), W, H)
    assert centroid(resample(blob(160, 80), field)) == pytest.approx((162.65, 78.72), abs=0.03)
    assert flat_push(0.0) == 1.0
    assert flat_push(10.0) > 1.0 > flat_push(-10.0) > 0.0


def test_points_agree_with_an_independent_calculation() -> None:
    matrix = deforum_matrix(W, H, zoom=1.07, angle=-7, translation_x=3.3, translation_y=-2.1)
    turn = cv2.getRotationMatrix2D((W / 2, H / 2), -7, 1.07)
    field = MotionField.affine(matrix, W, H)
    for y in range(0, H, 16):
        for x in range(0, W, 16):
            sx, sy = field.source[y, x].tolist()
            px, py = turn @ np.array([sx + 3.3, sy - 2.1, 1.0])
            assert (px, py) == pytest.approx((x, y), abs=1e-3)  # observed: at most 2e-5


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(seed))


def test_identity_and_whole_pixel_shifts_are_exact() -> None:
    image = picture()
    assert torch.equal(resample(image, MotionField.identity(W, H)), image)
    moved = resample(image, MotionField.affine(deforum_matrix(W, H, translation_x=5, translation_y=-3), W, H))
    assert torch.equal(moved[..., : H - 3, 5:], image[..., 3:, : W - 5])


def test_edges_are_repeated_and_marked_invalid() -> None:
    image = picture()
    field = MotionField.affine(deforum_matrix(W, H, translation_x=20), W, H)
    moved = resample(image, field)
    assert torch.allclose(moved[..., :20], image[..., :1].expand(-1, -1, -1, 20), atol=1e-6)
    assert not field.valid[:, :20].any()
    assert field.valid[:, 20:].all()


def test_the_kernel_keeps_more_than_bilinear_and_does_not_ring() -> None:
    """Amplitude at half Nyquist after 30 moves by random fractions: bicubic a=-.5 keeps 15 %, bilinear 0.2 %."""
    x = torch.arange(W, dtype=torch.float32)
    wave = 0.5 + 0.4 * torch.sin(x * np.pi / 2)
    image = wave.expand(1, 3, H, W).contiguous()
    generator = np.random.default_rng(0)
    for _ in range(30):
        field = MotionField.affine(deforum_matrix(W, H, translation_x=float(generator.uniform(-1, 1))), W, H)
        image = resample(image, field)
    middle = image[0, 0, H // 2, 64:-64]
    amplitude = float((middle - middle.mean()).abs().max()) / 0.4
    assert 0.08 < amplitude < 0.3  # observed: 0.16


_small = st.floats(-4, 4, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.9, 1.1), _small, _small, _small, st.floats(0.9, 1.1), _small, _small, _small)
def test_fields_compose_like_their_matrices(z1, a1, x1, y1, z2, a2, x2, y2) -> None:  # type: ignore[no-untyped-def]
    first = deforum_matrix(W, H, zoom=z1, angle=a1, translation_x=x1, translation_y=y1)
    second = deforum_matrix(W, H, zoom=z2, angle=a2, translation_x=x2, translation_y=y2)
    both = MotionField.affine(first, W, H).then(MotionField.affine(second, W, H))
    exact = MotionField.affine(second @ first, W, H)
    inside = both.valid & exact.valid
    error = (both.source - exact.source).norm(dim=-1)[inside]
    assert float(error.max()) < 0.01  # observed: at most 4e-4

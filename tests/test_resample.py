# SPDX-License-Identifier: GPL-3.0-or-later
"""The resampler: what it leaves as it is, its borders, what it keeps, and that its quick ways are the slow one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from warps import noise, without_matrix

from koshi_backend.errors import KoshiError
from koshi_backend.motion import MotionField, deforum_matrix, resample, sampling
from koshi_backend.motion.resample import KERNELS, _by_taps, _is_nearly_a_shift

W, H = 96, 64
BORDERS = ("replicate", "wrap", "reflect")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def slow(picture: Tensor, field: MotionField, border: str, kernel: str) -> Tensor:
    """By 4 x 4 taps in double precision."""
    return _by_taps(picture[0].double(), field, border, kernel).clamp(0.0, 1.0)[None]


def affine(width: int = W, height: int = H, **move: float) -> MotionField:
    return MotionField.affine(deforum_matrix(width, height, **move), width, height)


# ---- left as it is


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_identity_leaves_every_bit(border: str, kernel: str, dtype: torch.dtype) -> None:
    picture = noise(W, H, channels=5).to(dtype)
    still = MotionField.identity(W, H)
    for field in (still, without_matrix(still), still.then(without_matrix(still))):
        moved = resample(picture, field, border, kernel=kernel)
        assert moved.dtype == dtype
        assert torch.equal(moved, picture)
        assert moved.data_ptr() != picture.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("known", [True, False])
def test_whole_pixel_shifts_are_exact(dtype: torch.dtype, known: bool) -> None:
    picture = noise(W, H).to(dtype)
    field = affine(translation_x=5, translation_y=-3)
    moved = resample(picture, field if known else without_matrix(field))
    assert torch.equal(moved[..., : H - 3, 5:], picture[..., 3:, : W - 5])


def test_only_colours_are_limited() -> None:
    latent = 10 * noise(W, H) - 5
    still, field = MotionField.identity(W, H), affine(angle=20)
    assert torch.equal(resample(latent, still, limits=None), latent)
    free = resample(latent, field, limits=None)
    assert float(free.min()) < -4 and float(free.max()) > 4
    for kernel in KERNELS:
        moved = resample(latent, field, kernel=kernel)
        assert float(moved.min()) == 0.0 and float(moved.max()) == 1.0


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.7, 1.4), st.floats(-180, 180), st.floats(-200, 200), st.sampled_from(BORDERS), st.sampled_from(KERNELS)
)
def test_a_flat_picture_stays_flat(zoom: float, angle: float, shift: float, border: str, kernel: str) -> None:
    picture = torch.full((1, 3, H, W), 0.37)
    moved = resample(picture, affine(zoom=zoom, angle=angle, translation_x=shift), border, kernel=kernel)
    assert float((moved - 0.37).abs().max()) < 1e-5  # observed: 2e-6


def test_the_new_picture_has_the_field_s_size() -> None:
    picture = noise(50, 40)
    field = affine(translation_x=2)
    for kernel in KERNELS:
        moved = resample(picture, field, kernel=kernel)
        assert moved.shape == (1, 3, H, W)
    assert torch.equal(resample(picture, field)[..., :40, 2:52], picture)


# ---- borders


@pytest.mark.parametrize("known", [True, False])
def test_outside_lies_what_the_border_says(known: bool) -> None:
    """Shifts by whole pixels, twice the picture's width among them, against numpy's own padding."""
    picture = noise(W, H)
    for border, mode in (("replicate", "edge"), ("wrap", "wrap"), ("reflect", "symmetric")):
        wide = np.pad(picture[0].numpy(), ((0, 0), (H, H), (2 * W + 7,) * 2), mode=mode)
        for x, y in ((20, 0), (-7, 13), (W + 3, -5), (-2 * W - 7, H)):
            field = affine(translation_x=x, translation_y=y)
            moved = resample(picture, field if known else without_matrix(field), border)
            wanted = wide[:, H - y : 2 * H - y, 2 * W + 7 - x : 3 * W + 7 - x]
            assert np.abs(moved[0].numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wrapped_picture_has_no_seam(kernel: str) -> None:
    """A wave that goes round as a whole moves by fractions as if there were no edge."""
    x = torch.arange(W) * (2 * math.pi * 6 / W)
    wave = (0.5 + 0.4 * torch.sin(x)).expand(1, 3, H, W).contiguous()
    wanted = 0.5 + 0.4 * torch.sin(x - 30.4 * 2 * math.pi * 6 / W)
    moved = resample(wave, affine(translation_x=30.4), "wrap", kernel=kernel)
    # Observed: bicubic 0.0035, spline 0.0002, everywhere alike.
    assert float((moved - wanted).abs().max()) < (0.006 if kernel == "bicubic" else 0.0006)


# ---- the quick ways and the slow one

FIELDS = {
    "shift": {"translation_x": 0.37, "translation_y": -2.61},
    "far": {"translation_x": -70.3, "translation_y": 40.8},
    "turn": {"angle": 25, "zoom": 1.2},
    "small": {"zoom": 0.6, "angle": -100},
    "flip": {"perspective_flip_phi": 20, "perspective_flip_gamma": -15},
}


def test_this_machine_tests_the_quick_way() -> None:
    assert sampling.uses_opencv(noise(8, 8)[0])
    assert not sampling.uses_opencv(noise(8, 8)[0].double())


@pytest.mark.parametrize("move", FIELDS)
@pytest.mark.parametrize(("border", "kernel"), list(itertools.product(BORDERS, KERNELS)))
def test_opencv_s_way_is_that_of_the_taps(move: str, border: str, kernel: str) -> None:
    picture = noise(W, H, channels=6)  # two groups of planes, the second not full
    field = without_matrix(affine(**FIELDS[move]))
    moved = resample(picture, field, border, kernel=kernel)
    # Observed: at most 4e-5, from float32 positions; the spline's prefilter is cut off at 1e-6.
    assert float((moved - slow(picture, field, border, kernel)).abs().max()) < 2e-4


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("move", "worst", "rms"), [
    ({"translation_x": 0.37, "translation_y": -2.61}, 1e-4, 1e-5),
    ({"zoom": 1.01, "angle": 0.3, "translation_x": 1.3}, 0.01, 1.2e-3),
    ({"zoom": 0.97, "angle": 1.0}, 0.05, 5e-3),
    ({"perspective_flip_phi": 1.0, "translation_y": 0.4}, 0.06, 5e-3),
])  # fmt: skip
def test_the_quick_way_for_small_moves_is_nearly_that_of_the_taps(
    border: str, move: dict[str, float], worst: float, rms: float
) -> None:
    """On white noise, the hardest picture there is."""
    picture, field = noise(W, H, channels=6), affine(**move)
    assert field.matrix is not None
    assert _is_nearly_a_shift(np.linalg.inv(field.matrix), field)
    difference = resample(picture, field, border) - slow(picture, field, border, "bicubic")
    if border == "replicate":  # with the others the seam of the endless picture is another for the differences
        assert float(difference.abs().max()) < worst
    assert float(difference[..., 4:-4, 4:-4].square().mean().sqrt()) < rms


def test_only_what_is_nearly_a_shift_goes_the_quick_way() -> None:
    for move, quick in (
        ({"translation_x": 1000.0}, True),
        ({"translation_x": 40000.0}, False),  # beyond what OpenCV counts to
        ({"zoom": 1.05}, True),
        ({"zoom": 1.08}, False),
        ({"angle": 3.0}, True),
        ({"angle": 4.0}, False),
        ({"perspective_flip_phi": 60.0}, False),
    ):
        field = affine(**move)
        assert field.matrix is not None
        assert _is_nearly_a_shift(np.linalg.inv(field.matrix), field) is quick, move


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_on_in_single(dtype: torch.dtype) -> None:
    picture = noise(W, H).to(dtype)
    for kernel in KERNELS:
        moved = resample(picture, affine(angle=20), kernel=kernel)
        wanted = slow(picture, affine(angle=20), "replicate", kernel)
        assert moved.dtype == dtype
        assert float((moved.double() - wanted).abs().max()) <= torch.finfo(dtype).eps


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (7, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize(("border", "kernel"), list(itertools.product(BORDERS, KERNELS)))
def test_pictures_smaller_than_the_kernel_are_moved_too(width: int, height: int, border: str, kernel: str) -> None:
    picture = noise(width, height)
    matrix = np.array([[1.0, 0.02, 0.3], [0.0, 0.98, -0.6], [0.0, 0.0, 1.0]])
    field = MotionField.affine(matrix, width, height)
    for some in (field, without_matrix(field)):
        moved = resample(picture, some, border, kernel=kernel)
        difference = (moved - slow(picture, some, border, kernel)).abs().max()
        assert float(difference) < (0.05 if some is field and kernel == "bicubic" else 2e-4)


def test_places_that_are_not_numbers_do_no_harm() -> None:
    source = MotionField.identity(W, H).source.clone()
    source[3, 4] = math.nan
    source[5, 6] = math.inf
    field = MotionField(source, torch.ones(H, W, dtype=torch.bool))
    picture = noise(W, H)
    for kernel in KERNELS:
        moved = resample(picture, field, kernel=kernel)
        assert bool(moved.isfinite().all())
        assert float((moved - picture).abs()[..., 7:, :].max()) < 1e-4


# ---- what is kept


def test_the_kernel_keeps_more_than_bilinear_and_does_not_ring() -> None:
    """Amplitude at half Nyquist after 30 moves by random fractions: bicubic a=-.5 keeps 15 %, bilinear 0.2 %."""
    width = 256
    wave = 0.5 + 0.4 * torch.sin(torch.arange(width) * math.pi / 2)
    kept = {}
    for kernel in KERNELS:
        image = wave.expand(1, 3, 8, width).contiguous()
        generator = np.random.default_rng(0)
        for _ in range(30):
            field = affine(width, 8, translation_x=float(generator.uniform(-1, 1)))
            image = resample(image, field, kernel=kernel)
        middle = image[0, 0, 4, 64:-64]
        kept[kernel] = float((middle - middle.mean()).abs().max()) / 0.4
    assert 0.08 < kept["bicubic"] < 0.3  # observed: 0.16
    assert 0.5 < kept["spline"] < 0.8  # observed: 0.65


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_frequency_is_ever_amplified(kernel: str) -> None:
    """Gain of every frequency at every fraction of a pixel, from the kernel's own answer to one lit pixel."""
    size = 64
    image = torch.zeros(1, 1, 1, size)
    image[..., size // 2] = 1.0
    for fraction in np.linspace(0.0, 1.0, 21):
        matrix = np.array([[1.0, 0.0, fraction], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        field = without_matrix(MotionField.affine(matrix, size, 1))
        answer = resample(image, field, kernel=kernel, limits=None)[0, 0, 0].double().numpy()
        assert np.abs(np.fft.rfft(answer)).max() < 1.0 + 1e-4  # observed: 1 + 2e-6


# ---- refused in words


@pytest.mark.parametrize(("options", "words"), [({"border": "mirror"}, "border"), ({"kernel": "lanczos"}, "kernel")])
def test_what_there_is_not_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(KoshiError, match=words) as caught:
        resample(noise(W, H), MotionField.identity(W, H), **options)  # type: ignore[arg-type]
    assert caught.value.code == "bad_value"
    assert "replicate" in caught.value.hint or "spline" in caught.value.hint

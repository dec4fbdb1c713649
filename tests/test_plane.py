# SPDX-License-Identifier: GPL-3.0-or-later
"""The homography of a plane, against rays that are cut with it one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from warps import grid_points, sources

from koshi_backend.errors import KoshiError
from koshi_backend.motion import resample
from koshi_backend.motion.deforum import rotation
from koshi_backend.motion.plane import Camera, plane_field, plane_homography

W, H = 160, 100


def camera(place: tuple[float, float, float], turn: tuple[float, float, float], focal: float = 140.0) -> Camera:
    """Degrees about x, y, z; without a turn it looks along -Z with Y up. Off the centre, and with pixels not square."""
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = rotation(*turn), place
    return world, np.array([[focal, 0.0, 83.0], [0.0, 1.1 * focal, 46.5], [0.0, 0.0, 1.0]])


def by_rays(
    previous: Camera, following: Camera, point: np.ndarray, normal: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the plane's points seen at some pixels of the new frame were in the previous one, and whether both cameras
    have them before them."""
    (world_b, lens_b), (world_a, lens_a) = following, previous
    ahead = np.c_[(pixels - lens_b[:2, 2]) / [lens_b[0, 0], lens_b[1, 1]], np.ones(len(pixels))]
    ray = (ahead * [1, -1, -1]) @ world_b[:3, :3].T  # picture axes -> Blender's -> world
    along = ((point - world_b[:3, 3]) @ normal) / (ray @ normal)
    hit = world_b[:3, 3] + along[:, None] * ray
    local = ((hit - world_a[:3, 3]) @ world_a[:3, :3]) * [1, -1, -1]
    place = local[:, :2] / local[:, 2:] * [lens_a[0, 0], lens_a[1, 1]] + lens_a[:2, 2]
    return place, (along > 0) & (local[:, 2] > 0)


FLOOR = (np.array([0.3, -1.5, 7.0]), np.array([0.0, 2.5, 0.0]))
WALL = (np.array([0.0, 0.0, -6.0]), np.array([0.4, -0.1, 1.0]))
STEPS = {
    "push": (camera((0, 0, 0), (0, 0, 0)), camera((0.1, -0.2, -1.0), (0, 0, 0))),
    "turn": (camera((0, 0, 0), (-5, 3, 0)), camera((0, 0, 0), (-8, 9, 12))),
    "both": (camera((0.2, 0.4, 1.0), (-10, 4, -7)), camera((-0.5, 0.1, 0.3), (-14, -3, 5))),
    "zoom": (camera((0, 0, 0), (-5, 0, 0)), camera((0, 0, 0), (-5, 0, 0), focal=190.0)),
}


@pytest.mark.parametrize("plane", [FLOOR, WALL])
@pytest.mark.parametrize("step", STEPS)
def test_points_agree_with_rays(step: str, plane: tuple[np.ndarray, np.ndarray]) -> None:
    point, normal = plane
    pixels = grid_points(W, H, 8)
    field = plane_field(*STEPS[step], point, normal, W, H)
    wanted, before = by_rays(*STEPS[step], point, normal, pixels)
    valid = field.valid.numpy()[tuple(pixels.astype(int).T[::-1])]
    inside = before & (wanted > -0.5).all(axis=1) & (wanted < [W - 0.5, H - 0.5]).all(axis=1)
    edge = (np.abs(wanted - [W / 2 - 0.5, H / 2 - 0.5]) - [W / 2, H / 2]).max(axis=1)
    assert np.array_equal(valid[np.abs(edge) > 1e-3], inside[np.abs(edge) > 1e-3])
    assert valid.sum() > 30
    assert np.abs(sources(field, pixels) - wanted)[valid].max() < 0.01  # observed: at most 2e-5


def test_above_the_horizon_there_is_no_floor() -> None:
    step = camera((0, 0, 0), (0, 0, 0)), camera((0, 0, -0.5), (0, 0, 0))
    field = plane_field(*step, *FLOOR, W, H)
    assert not field.valid[:47].any()  # the camera looks level: the horizon lies at its centre, 46.5
    assert bool(field.valid[70, 60:100].all())


_part = st.floats(-1.0, 1.0)
_turn = st.tuples(*[st.floats(-12.0, 12.0)] * 3)
_place = st.tuples(_part, _part, _part)


@settings(max_examples=60, deadline=None)
@given(_place, _turn, _place, _turn, st.floats(0.1, 10.0), st.sampled_from([-1.0, 1.0]))
def test_laws(a: tuple, turn_a: tuple, b: tuple, turn_b: tuple, length: float, side: float) -> None:  # type: ignore[type-arg]
    """There and back is nothing; the normal's length and side do not matter; nor which point of the plane is named."""
    one, other = camera(a, turn_a), camera(b, turn_b, 170.0)
    point, normal = WALL
    there, back = plane_homography(one, other, point, normal), plane_homography(other, one, point, normal)
    both = back @ there
    assert both / both[2, 2] == pytest.approx(np.eye(3), abs=1e-7)
    assert plane_homography(one, other, point, normal * length * side) == pytest.approx(there, abs=1e-8)
    along = np.cross(normal, [0.3, 1.0, 0.2])
    assert plane_homography(one, other, point + along, normal) == pytest.approx(there, abs=1e-7)


def test_a_camera_that_stands_still_moves_nothing() -> None:
    picture = torch.rand(1, 3, H, W)
    here = camera((0.2, 0.4, 1.0), (-10, 4, -7))
    field = plane_field(here, here, *WALL, W, H)
    assert float((resample(picture, field) - picture).abs().max()) < 1e-5


def test_a_camera_s_scale_does_not_count() -> None:
    one, other = STEPS["both"]
    scaled = other[0].copy()
    scaled[:3, :3] *= [2.0, 2.0, 0.5]
    assert plane_homography(one, (scaled, other[1]), *WALL) == pytest.approx(plane_homography(one, other, *WALL))


def test_a_camera_in_the_plane_is_refused() -> None:
    for pair, name in (((camera((0, 0, -6), (0, 0, 0)), STEPS["push"][1]), "previous"),
                       ((STEPS["push"][0], camera((0, 0, -6), (0, 0, 0))), "next")):  # fmt: skip
        with pytest.raises(KoshiError, match=name) as caught:
            plane_homography(*pair, np.array([0.0, 0.0, -6.0]), np.array([0.0, 0.0, 1.0]))
        assert caught.value.code == "bad_motion" and caught.value.hint


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_camera_matrix_that_is_none_is_refused(value: float) -> None:
    world = np.eye(4)
    world[:3, 1] = value
    with pytest.raises(KoshiError, match="axis without length"):
        plane_homography((world, STEPS["push"][0][1]), STEPS["push"][1], *WALL)


@pytest.mark.parametrize("normal", [np.zeros(3), np.array([0.0, np.nan, 1.0])])
def test_a_normal_that_points_nowhere_is_refused(normal: np.ndarray) -> None:
    with pytest.raises(KoshiError, match="normal") as caught:
        plane_homography(*STEPS["push"], WALL[0], normal)
    assert caught.value.code == "bad_motion"

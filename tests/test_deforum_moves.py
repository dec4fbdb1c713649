# SPDX-License-Identifier: GPL-3.0-or-later
"""Deforum's moves, 2D and 3D, against its own measurements and against the same worked out point by point."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from warps import blob, centroid, grid_points, mapped, sources

from koshi_backend.errors import KoshiError
from koshi_backend.motion import MotionField, deforum_matrix, flat_push, resample
from koshi_backend.motion.deforum import flip_matrix, rotation
from koshi_backend.motion.deforum3d import deforum_3d_field

W, H = 256, 192
SIZES = [(256, 192), (150, 211)]
Move = dict[str, float]
Point = tuple[float, float]

# ---- 2D

# Centroids of a blob at (160, 96) after the real webui function, 256 x 192.
GOLDEN_2D: list[tuple[Move, Point]] = [
    ({"translation_x": 10}, (170.0, 96.0)),
    ({"translation_y": 10}, (160.0, 106.0)),
    ({"angle": 10}, (159.51, 90.44)),
    ({"zoom": 1.1}, (163.18, 96.0)),
    ({"zoom": 1.1, "translation_x": 10}, (174.18, 96.0)),
    ({"angle": 90, "translation_x": 10}, (128.0, 54.0)),
    ({"zoom": 1.1, "transform_center_x": 0.0}, (176.0, 96.0)),
]
MOVES_2D: list[Move] = [
    {"zoom": 1.07, "angle": -7, "translation_x": 3.3, "translation_y": -2.1},
    {"zoom": 0.8, "angle": 33, "transform_center_x": 0.2, "transform_center_y": 0.9},
    {"zoom": 2.5, "angle": 181, "translation_x": -40.5, "transform_center_x": -0.3, "transform_center_y": 1.2},
    {"translation_x": 0.013},
]


@pytest.mark.parametrize(("move", "place"), GOLDEN_2D)
def test_2d_signs_and_sizes_are_those_of_deforum(move: Move, place: Point) -> None:
    field = MotionField.affine(deforum_matrix(W, H, **move), W, H)
    # 0.03 px: the golden values were measured on bilinear 8-bit pictures (observed here: at most 0.02).
    assert centroid(resample(blob(W, H, 160, 96), field)) == pytest.approx(place, abs=0.03)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("move", MOVES_2D)
def test_2d_points_agree_with_opencv_s_rotation(width: int, height: int, move: Move) -> None:
    """p' = R (p + t): moved first, then turned and zoomed about the fixed centre."""
    centre = (width * move.get("transform_center_x", 0.5), height * move.get("transform_center_y", 0.5))
    turn = cv2.getRotationMatrix2D(centre, move.get("angle", 0.0), move.get("zoom", 1.0))
    points = grid_points(width, height)
    source = sources(MotionField.affine(deforum_matrix(width, height, **move), width, height), points)
    back = source + np.array([move.get("translation_x", 0.0), move.get("translation_y", 0.0)])
    again = np.c_[back, np.ones(len(back))] @ turn.T
    assert np.abs(again - points).max() < 1e-3  # observed: at most 3e-5


# ---- perspective flip

# (theta, phi, gamma, fv), and where (W/4, H/4), (3W/4, H/2) and (W/2, 3H/4) go by the webui's own matrix.
GOLDEN_FLIP: list[tuple[tuple[int, int], tuple[float, ...], list[Point]]] = [
    ((256, 192), (5, 0, 0, 53), [(76.122, 38.884), (199.108, 97.693), (131.357, 139.815)]),
    ((256, 192), (0, 5, 0, 53), [(67.836, 52.852), (191.704, 98.162), (128.565, 144.518)]),
    ((256, 192), (0, 0, 5, 53), [(61.492, 44.631), (191.871, 96.494), (127.705, 143.664)]),
    ((256, 192), (10, -8, 6, 53), [(81.030, 19.949), (206.582, 98.311), (133.857, 135.620)]),
    ((256, 192), (3, 12, -9, 90), [(108.345, 87.519), (202.613, 114.299), (145.550, 154.551)]),
    ((256, 192), (1, 2, 3, 120), [(65.700, 39.499), (197.691, 96.619), (128.644, 137.855)]),
    ((768, 512), (-4, 3, 7, 30), [(167.216, 143.620), (558.633, 253.420), (378.061, 389.925)]),
]


def flipped(points: np.ndarray, width: int, height: int, flip: tuple[float, ...]) -> np.ndarray:
    """The webui's flip point by point: a sheet of paper turned in space before an eye at the origin."""
    theta, phi, gamma, view = flip
    diagonal, half = math.hypot(width, height), math.radians(view / 2)
    pivot = diagonal / math.cos(half) / 2
    paper = np.c_[points - pivot, np.zeros(len(points))]
    for axis, degrees in (((0, 0, 1), theta), ((0, 1, 0), gamma), ((1, 0, 0), phi)):
        paper = paper @ cv2.Rodrigues(np.radians(degrees) * np.array(axis, dtype=np.float64))[0].T
    # The eye stands where the diagonal fills the view; the 1 is the corner of a matrix that the webui left at 1.
    distance = diagonal / 2 / math.sin(half) + 1 - paper[:, 2]
    return paper[:, :2] / distance[:, None] / math.tan(half) * pivot + pivot


@pytest.mark.parametrize(("size", "flip", "places"), GOLDEN_FLIP)
def test_a_flip_is_that_of_deforum(size: tuple[int, int], flip: tuple[float, ...], places: list[Point]) -> None:
    width, height = size
    theta, phi, gamma, view = flip
    points = np.array([(width / 4, height / 4), (width * 3 / 4, height / 2), (width / 2, height * 3 / 4)])
    matrix = flip_matrix(width, height, theta=theta, phi=phi, gamma=gamma, field_of_view=view)
    assert mapped(matrix, points) == pytest.approx(np.array(places), abs=0.01)  # observed: 0.0005, the rounding
    assert flipped(points, width, height, flip) == pytest.approx(np.array(places), abs=0.01)


@pytest.mark.parametrize(("size", "flip", "places"), GOLDEN_FLIP)
def test_a_flip_keeps_the_translation(size: tuple[int, int], flip: tuple[float, ...], places: list[Point]) -> None:
    """The webui loses translation_x and _y as soon as a flip is on (a third operand that numpy takes for `out`)."""
    width, height = size
    move = {"zoom": 1.05, "angle": 3.0, "translation_x": 7.5, "translation_y": -4.25}
    names = ("theta", "phi", "gamma", "fv")
    given = {f"perspective_flip_{name}": value for name, value in zip(names, flip, strict=True)}
    points = grid_points(width, height, 48)
    source = sources(MotionField.homography(deforum_matrix(width, height, **move, **given), width, height), points)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 3.0, 1.05)
    turned = np.c_[source + np.array([7.5, -4.25]), np.ones(len(source))] @ turn.T
    # Observed: at most 3e-4, from float32 sources far outside the frame.
    assert np.abs(flipped(turned, width, height, flip) - points).max() < 0.01


def test_without_angles_there_is_no_flip() -> None:
    for view in (10.0, 53.0, 170.0):
        assert np.array_equal(deforum_matrix(W, H, perspective_flip_fv=view), np.eye(3))


# ---- 3D

# Centroids of a blob at (160, 80) after the real webui function, 256 x 192, flat depth, fov 70 unless given.
GOLDEN_3D: list[tuple[Move, Point]] = [
    ({"translation_x": 10}, (150.88, 80.0)),
    ({"translation_y": 10}, (160.0, 86.88)),
    ({"translation_z": 10}, (162.65, 78.72)),
    ({"rotation_3d_x": 5}, (160.03, 92.02)),
    ({"rotation_3d_y": 5}, (143.91, 80.13)),
    ({"rotation_3d_z": 5}, (156.81, 77.35)),
    ({"translation_z": 10, "fov": 40}, (165.52, 77.37)),
    ({"translation_z": 10, "fov": 120}, (161.02, 79.51)),
    ({"translation_x": 10, "aspect": 2}, (155.42, 80.0)),
]
MOVES_3D: list[Move] = [
    *(dict([item]) for item in (
        ("translation_x", 12.5), ("translation_y", -8.0), ("translation_z", 15.0), ("translation_z", -60.0),
        ("rotation_3d_x", 4.0), ("rotation_3d_y", -3.0), ("rotation_3d_z", 12.0),
    )),
    {"rotation_3d_x": 3.0, "rotation_3d_y": -4.0, "rotation_3d_z": 20.0, "fov": 40.0},
    {"translation_x": 5.0, "translation_y": 3.0, "translation_z": 9.0, "rotation_3d_y": 2.0, "fov": 110.0},
    {"translation_x": -5.0, "translation_z": 4.0, "aspect": 0.6, "fov": 25.0},
    {"rotation_3d_x": 1.0, "rotation_3d_y": -2.0, "aspect": 1.8},
]  # fmt: skip


def ramp(width: int, height: int) -> torch.Tensor:
    """Depth 1 at the left and 2 at the right, with a slope downwards."""
    x, y = np.linspace(1.0, 2.0, width), np.linspace(0.0, 0.3, height)
    return torch.from_numpy((x[None, :] + y[:, None]).astype(np.float32))


def warped_3d(points: np.ndarray, width: int, height: int, depth: torch.Tensor | None, move: Move) -> np.ndarray:
    """The webui's 3D warp for one pixel after the other, in the words of its source: rows times Rx Ry Rz, plus T."""
    out = []
    gain = 1 / math.tan(math.radians(move.get("fov", 70.0)) / 2)
    lens = (gain / move.get("aspect", 1.0), gain)
    shift = [-move.get("translation_x", 0.0), move.get("translation_y", 0.0), -move.get("translation_z", 0.0)]
    turn = np.eye(3)
    for k, name in enumerate(("rotation_3d_x", "rotation_3d_y", "rotation_3d_z")):
        axis = np.eye(3)[k]
        turn = turn @ cv2.Rodrigues(math.radians(move.get(name, 0.0)) * axis)[0]
    for x, y in points:
        z = 1.0 if depth is None else float(depth[int(y), int(x)])
        world = np.array([np.linspace(-1, 1, width)[int(x)], np.linspace(-1, 1, height)[int(y)], z])
        camera = world @ turn + np.array(shift) / 200
        step = [lens[k] * (camera[k] / camera[2] - world[k] / world[2]) for k in range(2)]
        # grid_sample without align_corners: -1 .. 1 are the picture's outer edges.
        place = [(2 * p + 1) / size - 1 - s for p, size, s in zip((x, y), (width, height), step, strict=True)]
        out.append([((v + 1) * size - 1) / 2 for v, size in zip(place, (width, height), strict=True)])
    return np.array(out)


@pytest.mark.parametrize(("move", "place"), GOLDEN_3D)
def test_3d_signs_and_sizes_are_those_of_deforum(move: Move, place: Point) -> None:
    moved = resample(blob(W, H, 160, 80), deforum_3d_field(W, H, **move))
    # 0.05 px: measured on pictures cut down to whole numbers (observed here: at most 0.03).
    assert centroid(moved) == pytest.approx(place, abs=0.05)


@pytest.mark.parametrize("x, left_is_near, left_is_far", [(40, -8.13, -4.93), (128, -6.18, -6.00), (216, -5.01, -7.74)])
def test_what_is_near_moves_more(x: int, left_is_near: float, left_is_far: float) -> None:
    """The webui's blobs on a ramp of depth, moved by translation_x 10."""
    rising = torch.linspace(1.0, 2.0, W).repeat(H, 1)
    for depth, moved in ((rising, left_is_near), (rising.flip(1), left_is_far)):
        field = deforum_3d_field(W, H, depth, translation_x=10.0)
        found = centroid(resample(blob(W, H, x, 96), field))[0] - x
        assert found == pytest.approx(moved, abs=0.05)  # observed: at most 0.03


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("sloping", [False, True])
@pytest.mark.parametrize("move", MOVES_3D)
def test_3d_points_agree_with_the_formula(width: int, height: int, sloping: bool, move: Move) -> None:
    depth = ramp(width, height) if sloping else None
    points = grid_points(width, height, 24)
    found = sources(deforum_3d_field(width, height, depth, **move), points)
    assert np.abs(found - warped_3d(points, width, height, depth, move)).max() < 0.01  # observed: at most 1e-4


@pytest.mark.parametrize("move", [MOVES_3D[2], MOVES_3D[9]])
def test_a_flat_move_is_a_matrix_and_says_the_same(move: Move) -> None:
    """Such fields are composed without loss; the general way takes a depth map of 1."""
    flat = deforum_3d_field(W, H, **move)
    general = deforum_3d_field(W, H, torch.ones(H, W), **move)
    assert flat.matrix is not None and general.matrix is None
    assert (flat.source - general.source).abs().max() < 1e-3  # observed: 1e-4
    assert torch.equal(flat.valid, general.valid)


def test_roll_is_stronger_than_a_camera_s_and_known_to_be() -> None:
    """Five degrees showed as 13.07 at fov 40, 6.79 at 70, 4.68 at 90 and 2.60 at 120 on the webui's blob."""
    for fov, shown in ((40.0, 13.07), (70.0, 6.79), (90.0, 4.68), (120.0, 2.60)):
        field = deforum_3d_field(257, 257, rotation_3d_z=5.0, fov=fov)
        # Content turns counter-clockwise: what lies to the right of the middle comes from below.
        x, y = (field.source[128, 160] - field.source[128, 128]).tolist()
        # Observed: 0.27 to 0.31 more, since the blob's frame is not square.
        assert math.degrees(math.atan2(y, x)) == pytest.approx(shown, abs=0.4)


def test_near_and_far_change_nothing() -> None:
    first = deforum_3d_field(W, H, ramp(W, H), translation_z=5.0)
    second = deforum_3d_field(W, H, ramp(W, H), translation_z=5.0, near=1.0, far=2.0)
    assert torch.equal(first.source, second.source)


def test_no_3d_move_is_no_move() -> None:
    assert deforum_3d_field(W, H).is_identity
    still = deforum_3d_field(W, H, ramp(W, H))
    picture = torch.rand(1, 3, H, W)
    assert torch.equal(resample(picture, still), picture)


def test_what_comes_behind_the_eye_is_not_valid() -> None:
    depth = ramp(W, H)
    field = deforum_3d_field(W, H, depth, translation_z=300.0)  # 1.5 ahead: through what is nearer than that
    assert bool(field.source.isfinite().all())
    assert not field.valid[depth < 1.49].any()


def test_translation_z_in_2d_is_the_flat_3d_push() -> None:
    matrix = deforum_matrix(W, H, translation_z=10)
    assert centroid(resample(blob(W, H, 160, 80), MotionField.affine(matrix, W, H))) == pytest.approx(
        (162.65, 78.72), abs=0.03
    )
    points = grid_points(W, H)
    flat = deforum_3d_field(W, H, translation_z=10.0)
    assert np.abs(sources(MotionField.affine(matrix, W, H), points) - sources(flat, points)).max() < 1e-3
    assert flat_push(0.0) == 1.0
    assert flat_push(10.0) > 1.0 > flat_push(-10.0) > 0.0


_angle = st.floats(-180, 180)


@settings(max_examples=50, deadline=None)
@given(_angle, _angle, _angle)
def test_rotations_turn_and_nothing_else(x: float, y: float, z: float) -> None:
    turn = rotation(x, y, z)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)


# ---- refused in words


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ({"fov": 0.0}, "fov is 0"),
        ({"fov": 180.0}, "fov is 180"),
        ({"fov": math.nan}, "fov is nan"),
        ({"aspect": 0.0}, "aspect"),
        ({"depth": torch.ones(H, W + 1)}, f"{W + 1} x {H}"),
        ({"depth": torch.full((H, W), math.inf)}, "not numbers"),
    ],
)
def test_bad_3d_moves_are_refused(move: dict[str, Any], words: str) -> None:
    with pytest.raises(KoshiError) as caught:
        deforum_3d_field(W, H, **move)
    assert caught.value.code == "bad_motion"
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("view", [0.0, -10.0, 180.0, math.nan])
def test_bad_flips_are_refused(view: float) -> None:
    with pytest.raises(KoshiError, match="perspective_flip_fv"):
        deforum_matrix(W, H, perspective_flip_phi=3.0, perspective_flip_fv=view)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("move", [{"zoom": 0.0}, {"zoom": math.nan}, {"translation_x": math.inf}])
def test_a_move_that_leaves_nothing_is_refused(move: Move) -> None:
    with pytest.raises(KoshiError, match="squeezes"):
        MotionField.affine(deforum_matrix(W, H, **move), W, H)

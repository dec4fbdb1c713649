# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera-exact motion and Blender's vectors, judged by Blender itself and by geometry worked out another way."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blender_scripts.fixtures import Blender
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.errors import KoshiError
from koshi_backend.exr import exr_pass, read_exr
from koshi_backend.motion import MotionField, resample
from koshi_backend.motion.camera import Camera
from koshi_backend.motion.hidden import silhouettes, spread
from koshi_backend.motion.reproject import reproject
from koshi_backend.motion.vectors import vector_field

# The scenes, as blender_scripts/render_motion_truth.py builds them.
ORTHO = {"type": "ORTHO", "ortho_scale": 8.0}
CASES: dict[str, dict[str, Any]] = {
    "camera": {"step": [0.25, 0.05, -0.35], "step_turn": [0.5, 1.5, 2.0]},
    "object": {"moving": [0.35, 0.2, 0.15], "moving_turn": [5, 0, 12]},
    "shifted": {
        "camera": {"shift_x": 0.1, "shift_y": -0.08},
        "camera_after": {"shift_x": 0.13, "lens": 38.0},
        "step": [0.2, 0.0, -0.1], "moving": [-0.4, -0.3, 0.1], "moving_turn": [0, 0, 8],
    },
    "tall": {"width": 400, "height": 480, "percentage": 50, "aspect": [2.0, 1.5], "step": [0.2, 0.1, -0.2]},
    "vertical": {
        "camera": {"sensor_fit": "VERTICAL", "sensor_height": 20.0, "lens": 30.0},
        "step": [0.2, 0.0, -0.3], "step_turn": [0.0, 0.0, 3.0],
    },
    "ortho": {
        "camera": ORTHO, "place": [0.0, -7.0, 4.0], "turn": [76.0, 0.0, 0.0], "plain_sky": True,
        "step": [0.3, 0.1, 0.0], "step_turn": [1.0, 3.0, 2.0],
    },
    "ortho object": {
        "camera": ORTHO, "camera_after": {"ortho_scale": 7.6, "shift_x": 0.02}, "plain_sky": True,
        "moving": [0.4, 0.2, 0.1], "moving_turn": [0, 0, 8],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What Blender gave for one case. [0] is the previous frame, [1] the current one."""

    cameras: list[Camera]
    known: list[dict[str, Any]]
    pictures: list[torch.Tensor]  # [1, 3, H, W], display-referred
    depths: list[torch.Tensor]
    vectors: list[torch.Tensor]

    def field(self, vectors: bool = True, **options: Any) -> MotionField:
        both = {"vector": self.vectors[1], "previous_vector": self.vectors[0]} if vectors else {}
        return reproject(*self.cameras, self.depths[1], self.depths[0], **both, **options)


@pytest.fixture(scope="module", params=["4.5", "5.2"])  # 4.2 renders other vectors: test_camera_scenes.py has them
def truth(
    request: pytest.FixtureRequest, blender_pythons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Truth]:
    if request.param not in blender_pythons:
        pytest.skip(f"Blender {request.param} is not set up here")
    folder = tmp_path_factory.mktemp("truth")
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(folder / "profile")}
    blender = Blender(request.param, str(blender_pythons[request.param]), environment, timeout=600.0)
    told = blender.script("render_motion_truth", folder, json.dumps(CASES))
    return {name: read_truth(folder, name, frames) for name, frames in told.items()}


def read_truth(folder: Path, name: str, frames: list[dict[str, Any]]) -> Truth:
    out = Truth([], frames, [], [], [])
    for i, frame in enumerate(frames, 1):
        picture = exr_pass(read_exr(folder / f"{name}_picture_{i:04d}.exr"), "Combined")[..., :3]
        passes = read_exr(folder / f"{name}_passes_{i:04d}.exr")
        out.cameras.append(Camera.from_dict(frame["camera"], i))
        out.pictures.append(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].clamp(0, 1) ** (1 / 2.2))
        out.depths.append(torch.from_numpy(exr_pass(passes, "Depth").copy()))
        out.vectors.append(torch.from_numpy(exr_pass(passes, "Vector").copy()))
    return out


# Against Blender


@pytest.mark.blender
@pytest.mark.timeout(600)
class TestAgainstBlender:
    def test_points_lie_where_blender_puts_them(self, truth: dict[str, Truth]) -> None:
        for name, case in truth.items():
            for camera, known in zip(case.cameras, case.known, strict=True):
                seen = camera.project(np.array(known["points"]), *known["size"])
                wanted = np.array(known["pixels"])
                front = wanted[:, 2] > camera.clip_start
                assert front.sum() > 20, name
                # Observed: at most 5e-5 px, which is Blender's single precision.
                assert np.abs(seen - wanted)[front].max() < 1e-3, name

    def test_still_surfaces_move_as_cycles_vectors_say(self, truth: dict[str, Truth]) -> None:
        """Sign, size and axes of the cameras' motion, and of the Vector pass as vectors.py reads it."""
        for name in ("camera", "tall", "vertical"):
            case = truth[name]
            by_camera = case.field(vectors=False).source
            by_vector = vector_field(case.vectors[1]).source
            error = (by_camera - by_vector).abs().amax(-1)[case.depths[1] < 1e9]
            assert error.max() < 0.01, name  # observed: 1e-4, in "vertical" 0.003

    @pytest.mark.parametrize("name", CASES)
    def test_previous_frame_becomes_the_current_one(self, truth: dict[str, Truth], name: str) -> None:
        case = truth[name]
        field = case.field()
        error, psnr = compare(case, field)
        wrong = error > 0.1
        assert wrong.sum() > 300  # or there was nothing to find
        # Observed: 48 to 67 dB, at most 3 wrong pixels of 1,000 outside the mask.
        assert psnr > 42.0
        assert (wrong & ~field.valid).sum() >= 0.99 * wrong.sum()
        assert field.valid.float().mean() > 0.75  # observed: 0.81 to 0.97

    def test_previous_vectors_only_sharpen_the_mask(self, truth: dict[str, Truth]) -> None:
        case = truth["shifted"]
        field = reproject(*case.cameras, case.depths[1], case.depths[0], vector=case.vectors[1])
        error, psnr = compare(case, field)
        assert psnr > 42.0
        assert ((error > 0.1) & ~field.valid).sum() >= 0.99 * (error > 0.1).sum()

    def test_depth_alone_finds_what_a_moving_thing_uncovers(self, truth: dict[str, Truth]) -> None:
        """Without vectors its own surface stays wrong, but what it uncovered and covered is known to be."""
        case = truth["object"]
        uncovered = ~case.field().valid & (case.field(vectors=False).source == case.field().source).all(-1)
        found = ~case.field(vectors=False).valid
        assert (found & uncovered).sum() > 0.85 * uncovered.sum()

    def test_vectors_alone_do_for_a_still_camera(self, truth: dict[str, Truth]) -> None:
        case = truth["object"]
        field = vector_field(case.vectors[1], case.vectors[0])
        error, psnr = compare(case, field)
        assert psnr > 42.0
        assert ((error > 0.1) & ~field.valid).sum() >= 0.99 * (error > 0.1).sum()

    def test_vectors_of_a_moving_parallel_camera_do_no_harm(self, truth: dict[str, Truth]) -> None:
        """Blender 4.5 has them wrong by tens of pixels; 5.2 has them right: both must come out the same here."""
        case = truth["ortho"]
        assert torch.allclose(case.field().source, case.field(vectors=False).source, atol=0.01)


def compare(case: Truth, field: MotionField) -> tuple[torch.Tensor, float]:
    """Largest error over the channels [H, W], and PSNR in dB over valid pixels, of the moved previous picture."""
    difference = resample(case.pictures[0], field)[0] - case.pictures[1][0]
    mean = difference.square().mean(0)[field.valid].mean()
    return difference.abs().amax(0), float(-10 * torch.log10(mean))


# Geometry


def place(x: float, y: float, z: float, turn: float = 0.0, tilt: float = 0.0, roll: float = 0.0) -> list[list[float]]:
    """A camera's matrix_world: tilt about its X, turn about its Y, roll about its Z, in radians, then moved."""
    ct, st_, cp, sp, cr, sr = *cs(turn), *cs(tilt), *cs(roll)
    about_y = np.array([[ct, 0, st_], [0, 1, 0], [-st_, 0, ct]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = about_y @ about_x @ about_z
    out[:3, 3] = x, y, z
    return out.tolist()


def cs(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def ray(camera: Camera, x: float, y: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Origin and direction of a pixel's ray in the world, from the frame that Blender draws for a camera."""
    matrix = np.array(camera.matrix_world)
    u, v = (x + 0.5) / width - 0.5, 0.5 - (y + 0.5) / height
    across, up = width * camera.pixel_aspect_x, height * camera.pixel_aspect_y
    fitted = {"HORIZONTAL": across, "VERTICAL": up, "AUTO": max(across, up)}[camera.sensor_fit]
    sensor = camera.sensor_height if camera.sensor_fit == "VERTICAL" else camera.sensor_width
    size = camera.ortho_scale if camera.kind == "ORTHO" else sensor / camera.lens
    dx, dy = (u * across / fitted + camera.shift_x) * size, (v * up / fitted + camera.shift_y) * size
    right, above, back, origin = (matrix[:3, i] for i in range(4))
    if camera.kind == "ORTHO":
        return origin + dx * right + dy * above, -back
    return origin, dx * right + dy * above - back


cameras = st.builds(
    Camera,
    kind=st.sampled_from(["PERSP", "ORTHO"]),
    lens=st.floats(18.0, 135.0),
    sensor_fit=st.sampled_from(["AUTO", "HORIZONTAL", "VERTICAL"]),
    shift_x=st.floats(-0.3, 0.3),
    shift_y=st.floats(-0.3, 0.3),
    ortho_scale=st.floats(2.0, 20.0),
    pixel_aspect_x=st.sampled_from([1.0, 1.5]),
    pixel_aspect_y=st.sampled_from([1.0, 2.0]),
)
small = st.floats(-0.2, 0.2)
moves = st.tuples(small, small, small, small, small, small)


@settings(max_examples=60, deadline=None)
@given(camera=cameras, later=cameras, move=moves, far=st.sampled_from([0.0, 1e4]), tall=st.booleans())
def test_a_grid_of_points_agrees_with_rays(
    camera: Camera, later: Camera, move: tuple[float, ...], far: float, tall: bool
) -> None:
    """Each pixel's ray, met with a slanted floor, must reach the previous camera along the ray of its source."""
    width, height = (48, 80) if tall else (80, 48)
    previous = replace(camera, matrix_world=place(far, 0.0, 0.0))
    current = replace(
        later, kind=camera.kind, matrix_world=place(far + move[0], move[1], move[2], *(a / 2 for a in move[3:]))
    )
    normal, level = np.array([0.1, 1.0, 0.25]), -3.0 + 0.1 * far  # the floor: normal . p = level
    depth = torch.full((height, width), 1e10)
    hits: list[tuple[int, int, np.ndarray]] = []
    for y in range(0, height, 6):
        for x in range(0, width, 7):
            origin, direction = ray(current, x, y, width, height)
            distance = (level - normal @ origin) / (normal @ direction)
            forward = -np.array(current.matrix_world)[:3, 2]
            if 0.5 < distance * (direction @ forward) < 500.0:
                depth[y, x] = distance * (direction @ forward)
                hits.append((x, y, origin + distance * direction))
    source = reproject(previous, current, depth, margin=0).source.numpy()
    for x, y, point in hits:
        sx, sy = (float(value) for value in source[y, x])
        origin, direction = ray(previous, sx, sy, width, height)
        if abs(sx) > 2000 or abs(sy) > 2000:
            continue  # nearly beside the previous camera: any rounding is pixels there, and far outside the picture
        beside = np.cross(point - origin, direction / np.linalg.norm(direction))
        along = 1.0 if camera.kind == "ORTHO" else float((point - origin) @ direction) / float(direction @ direction)
        if along <= 0.0:
            continue
        size = previous.ortho_scale if camera.kind == "ORTHO" else along * previous.sensor_height / previous.lens
        pixel = size / max(width, height) / 2
        assert np.linalg.norm(beside) < 0.01 * pixel, (x, y, sx, sy)


def test_intrinsics_are_blenders() -> None:
    k = Camera(lens=50.0).intrinsics(1920, 1080)
    assert k[0].tolist() == pytest.approx([50 / 36 * 1920, 0.0, 959.5])
    assert k[1].tolist() == pytest.approx([0.0, 50 / 36 * 1920, 539.5])
    shifted = Camera(lens=50.0, shift_x=0.1, shift_y=0.2, sensor_fit="VERTICAL", sensor_height=24.0)
    assert shifted.intrinsics(1920, 1080)[:2, 2].tolist() == pytest.approx([959.5 - 108.0, 539.5 + 216.0])


def test_a_still_camera_changes_no_bit() -> None:
    camera = Camera(matrix_world=place(3.0, -2.0, 1.0, 0.3, 0.2, 0.1), shift_x=0.07)
    depth = 2.0 + torch.rand(40, 56, generator=torch.Generator().manual_seed(1)) * 50
    depth[:9] = 1e10
    still = torch.zeros(40, 56, 4)
    picture = torch.rand(1, 3, 40, 56)
    for field in (
        reproject(camera, camera, depth, depth),
        reproject(camera, camera, depth, depth, vector=still, previous_vector=still),
        vector_field(still, still),
    ):
        assert torch.equal(field.source, MotionField.identity(56, 40).source)
        assert field.valid.all()
        assert torch.equal(resample(picture, field), picture)


def test_inputs_are_left_alone() -> None:
    previous, current = Camera(), Camera(matrix_world=place(0.1, 0.0, -0.2))
    depth, vector = 3.0 + torch.rand(20, 30), torch.rand(4, 20, 30).permute(1, 2, 0)
    given = depth, depth + 0.1, vector, vector + 0.5
    kept = [one.clone() for one in given]
    reproject(previous, current, given[0], given[1], vector=given[2], previous_vector=given[3])
    vector_field(given[2], given[3])
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_what_a_near_square_uncovers_is_exactly_the_mask(kind: str) -> None:
    """The camera steps right by what moves the square by 4 pixels and the wall by 1, or the square alone moves."""
    width = height = 64
    lens, wall, square = 32.0, 16.0, 4.0  # with a 32 mm sensor 64 pixels are as wide as the depth
    camera = Camera(kind=kind, lens=lens, sensor_width=32.0, ortho_scale=16.0)
    step = 0.25
    depths = []
    for left in (24, 20):
        depth = torch.full((height, width), wall)
        depth[16:48, left : left + 16] = square
        depths.append(depth)
    if kind == "PERSP":
        field = reproject(camera, replace(camera, matrix_world=place(step, 0.0, 0.0)), depths[1], depths[0], margin=0)
        assert field.source[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
        assert field.source[32, 30].tolist() == pytest.approx([34.0, 32.0], abs=1e-4)
        wanted = torch.zeros(height, width, dtype=torch.bool)
        wanted[16:48, 36:39] = True  # the wall there was behind the square: columns 37 to 39 of before
        wanted[:, -1] = True  # column 64 of before, which there was not
        assert torch.equal(~field.valid, wanted)
    else:
        vector = torch.zeros(height, width, 4)
        vector[16:48, 20:36, 0] = 4.0
        onward = torch.zeros(height, width, 4)
        onward[16:48, 24:40, 2] = 4.0
        field = reproject(camera, camera, depths[1], depths[0], vector=vector, previous_vector=onward, margin=0)
        wanted = torch.zeros(height, width, dtype=torch.bool)
        wanted[16:48, 36:40] = True
        assert torch.equal(~field.valid, wanted)
        assert torch.equal(field.source[32, 30], torch.tensor([34.0, 32.0]))


def test_sky_turns_with_a_perspective_camera_and_stays_for_a_parallel_one() -> None:
    sky = torch.full((48, 64), 1e10)
    moved = place(5.0, 3.0, -2.0)
    turned = place(0.0, 0.0, 0.0, turn=-0.1)
    for kind, matrix, wanted in (
        ("PERSP", moved, 31.5),
        ("PERSP", turned, 31.5 + 64 * 50 / 36 * math.tan(0.1)),
        ("ORTHO", moved, 31.5),
        ("ORTHO", turned, 31.5),
    ):
        camera = Camera(kind=kind)
        field = reproject(camera, replace(camera, matrix_world=matrix), sky, sky)
        middle = field.source[:, 31:33].mean((0, 1))
        assert float(middle[0]) == pytest.approx(wanted, abs=0.02), (kind, matrix)


def test_what_was_behind_the_camera_is_not_valid() -> None:
    back = Camera(matrix_world=place(0.0, 0.0, -10.0))
    field = reproject(back, Camera(), torch.full((32, 32), 5.0))
    assert not field.valid.any()
    assert field.source.isfinite().all()


def test_depths_that_are_none_count_as_sky() -> None:
    depth = torch.full((16, 16), 4.0)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = float("nan"), float("inf"), 0.0, 1000.0  # clip_end
    field = reproject(Camera(), Camera(matrix_world=place(0.0, 0.0, 0.5)), depth)
    assert torch.allclose(field.source[0, :4], MotionField.identity(16, 16).source[0, :4], atol=1e-4)


def test_silhouettes_are_jumps_only() -> None:
    x = torch.arange(40, dtype=torch.float32)
    crease = torch.where(x < 20, x * 0.2, 4.0 + (x - 20) * 0.6)
    jump = x + 0.3 * (x >= 20)
    for line, marked in ((crease, []), (x * 1.7, []), (jump, [19, 20]), (jump - 0.25 * (x >= 20), [])):
        place_ = torch.stack([line.expand(8, 40), torch.zeros(8, 40)])
        assert silhouettes(place_)[4].nonzero().flatten().tolist() == marked
        assert silhouettes(place_.transpose(1, 2))[:, 4].nonzero().flatten().tolist() == marked


def test_spread_grows_in_all_directions() -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    assert spread(mask, 2).sum() == 25
    assert mask.sum() == 1


# The camera's description


@settings(max_examples=50, deadline=None)
@given(camera=cameras, move=moves)
def test_json_keeps_every_bit(camera: Camera, move: tuple[float, ...]) -> None:
    camera = replace(camera, matrix_world=tuple(map(tuple, place(*move))))
    assert Camera.from_dict(json.loads(json.dumps(camera.as_dict()))) == camera


def test_scale_is_dropped_as_blenders_renderers_do() -> None:
    plain = place(1.0, 2.0, 3.0, 0.4, 0.1, 0.2)
    scaled = np.array(plain)
    scaled[:3, :3] *= (2.0, 0.5, 3.0)
    point = np.array([[0.3, 1.0, -9.0]])
    a, b = (Camera.from_dict({"matrix_world": m}).project(point, 64, 48) for m in (plain, scaled.tolist()))
    np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "PANO"}, ["frame 7", "PANO", "no flat picture"]),
        ({"kind": "FISHEYE"}, ["'FISHEYE' is no type of camera"]),
        ({"lens": 0}, ["lens", "not above 0"]),
        ({"lens": float("nan"), "shift_x": "1"}, ["2 faults", "lens", "shift_x"]),
        ({"focal": 3}, ["no value called focal"]),
        ({"sensor_fit": "BOTH"}, ["sensor fit"]),
        ({"matrix_world": [1] * 16}, ["4 rows of 4 numbers"]),
        ({"matrix_world": np.array(place(1, 2, 3)).T.tolist()}, ["row by row"]),
        ({"matrix_world": np.diag([1.0, 0.0, 1.0, 1.0]).tolist()}, ["flattens"]),
        ([1, 2], ["list, not an object"]),
    ],
)
def test_faults_are_told(given: Any, words: list[str]) -> None:
    with pytest.raises(KoshiError) as error:
        Camera.from_dict(given, 7)
    assert error.value.code == "bad_camera"
    for word in (*words, "frame 7"):
        assert word in str(error.value)


def test_sizes_must_agree() -> None:
    depth = torch.ones(8, 12)
    for wrong in (
        {"depth": torch.ones(8, 12, 1)},
        {"previous_depth": torch.ones(12, 8)},
        {"vector": torch.ones(8, 12, 3)},
        {"vector": torch.ones(8, 12, 4), "previous_vector": torch.ones(8, 10, 4)},
    ):
        with pytest.raises(KoshiError) as error:
            reproject(Camera(), Camera(), **{"depth": depth, **wrong})
        assert error.value.code == "bad_guide"
    with pytest.raises(KoshiError):
        vector_field(torch.ones(8, 12, 2))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of motion in a whole shot: files and curves in, moved pictures out, and what that does to frame keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_depth import tiny_depth_anything

from koshi_backend.chain import Frame, Painter, frame_key, render_shot
from koshi_backend.depth import DepthMap
from koshi_backend.errors import KoshiError
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.motion.deforum3d import deforum_3d_field
from koshi_backend.moves import Moves, deforum_depth
from koshi_backend.preview import checkerboard, motion_frames
from koshi_backend.shot import Shot, load_shot
from koshi_backend.store import FrameStore
from koshi_backend.video import write_video
from koshi_backend.video_reader import VideoReader

W, H = 96, 64
CPU = torch.device("cpu")
PAINTER = Painter("model", "float32", "cpu", False)
CAMERA = {"matrix_world": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]}  # looks down on z = 0 from 5


def shot(**changes: Any) -> Shot:
    """Unpainted frames of the texture, unless changed."""
    whole = {
        "width": W, "height": H, "frames": 3, "steps": 1, "prompts": [{"text": "a calm sea at dawn, photo"}],
        "schedules": {"strength": 0.0, "color_match": 0.0}, **changes,
    }  # fmt: skip
    whole["schedules"] = {"strength": 0.0, "color_match": 0.0, **changes.get("schedules", {})}
    return load_shot(whole)


def texture(height: int = H, width: int = W, seed: int = 1) -> np.ndarray:
    """uint8 [H, W, 3] with structure at several sizes, none of it at the pixel's own."""
    rng, found = np.random.default_rng(seed), np.zeros((height, width, 3))
    for side, gain in ((4, 0.35), (9, 0.35), (24, 0.3)):
        small = rng.random((height // side + 3, width // side + 3, 3))
        found += gain * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return (found.clip(0, 1) * 255).astype(np.uint8)


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 255)[None].permute(0, 3, 1, 2)


@pytest.fixture
def start(tmp_path: Path) -> str:
    path = tmp_path / "start.png"
    cv2.imwrite(str(path), texture()[..., ::-1])
    return str(path)


def decoded(frame: Frame) -> torch.Tensor:
    return tensor(cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


def seen_psnr(a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor) -> float:
    return float(-10 * (a - b)[..., valid].square().mean().log10())


def moved(one: Shot, index: int = 1) -> MotionField:
    return Moves(one, CPU).into(index, tensor(texture()), {})[0]


# ---- the same motion by different ways


def test_a_camera_over_a_plane_and_over_its_depth_are_the_same(tmp_path: Path) -> None:
    """Along the ray and along the axis are different things, and so are the depths of two frames."""
    second = {"matrix_world": [[1, 0, 0, 0.2], [0, 1, 0, 0.1], [0, 0, 1, 4.5], [0, 0, 0, 1]]}
    for number, distance in enumerate((5.0, 4.5)):
        np.save(tmp_path / f"depth_{number:04d}.npy", np.full((H, W), distance, np.float32))
    cameras = [CAMERA, second]
    plane = {"point": [0.0, 0.0, 0.0], "normal": [0.0, 0.0, 2.0]}
    flat = moved(shot(frames=2, motion={"source": "camera", "cameras": cameras, "plane": plane}))
    deep = moved(
        shot(
            frames=2,
            motion={"source": "camera", "cameras": cameras},
            guides={"depth": str(tmp_path / "depth_####.npy")},
        )
    )
    both = flat.valid & deep.valid
    assert both.float().mean() > 0.85
    assert float((flat.source - deep.source)[both].abs().max()) < 1e-3
    # A pinhole by hand: 50 mm on 36, the principal point in the middle, content towards the left and below.
    focal = W * 50 / 36
    x = (10 - (W - 1) / 2) / focal * 4.5 + 0.2
    assert float(flat.source[20, 10, 0]) == pytest.approx(x / 5 * focal + (W - 1) / 2, abs=1e-3)


def test_a_flat_file_and_no_depth_are_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.full((H, W), 1.0, np.float32))
    curves = {"translation_x": 6, "translation_z": 9, "rotation_3d_y": 2, "rotation_3d_z": -3, "fov": 50}
    plane = moved(shot(schedules=curves, motion={"source": "3d"}))
    files = {"depth": {"source": "files"}, "guides": {"depth": str(tmp_path / "depth.npy")}}
    flat = moved(shot(schedules=curves, motion={"source": "3d"}, **files))
    assert float((flat.source - plane.source).abs().max()) < 1e-3


def test_depth_is_even_in_its_inverse_between_1_and_2() -> None:
    values = torch.tensor([[0.5, 2.0, 10.0 / 3.0, 10.0, 1e10]])
    found = deforum_depth(DepthMap(values, "scene"), 2.0, 10.0)
    assert torch.allclose(found, torch.tensor([[1.0, 1.0, 1.5, 2.0, 2.0]]))


def test_flips_and_zoom_come_before_the_warp(tmp_path: Path) -> None:
    curves = {"zoom": 1.1, "angle": 4, "perspective_flip_phi": 10, "translation_x": 5, "rotation_3d_x": 2}
    found = moved(shot(schedules=curves, motion={"source": "3d"}))
    flat = MotionField.homography(deforum_matrix(W, H, zoom=1.1, angle=4, perspective_flip_phi=10), W, H)
    expected = flat.then(deforum_3d_field(W, H, translation_x=5, rotation_3d_x=2))
    assert torch.equal(found.source, expected.source)


@pytest.mark.parametrize("kind", ["pictures", "video"])
@pytest.mark.parametrize("source", ["flow", "affine", "perspective"])
def test_a_guide_video_is_followed(tmp_path: Path, kind: str, source: str) -> None:
    """Content goes 3 pixels right and 2 down per frame; so must the picture."""
    large, frames = texture(H + 40, W + 40, seed=3), []
    for k in range(3):
        view = large[20 - 2 * k : 20 - 2 * k + H, 20 - 3 * k : 20 - 3 * k + W]
        frames.append(cv2.imencode(".png", np.ascontiguousarray(view[..., ::-1]))[1].tobytes())
        (tmp_path / f"clip_{k:03d}.png").write_bytes(frames[-1])
    write_video(tmp_path / "clip.mp4", frames, 24)
    guide = "clip_###.png" if kind == "pictures" else "clip.mp4"
    one = shot(motion={"source": source}, guides={"video": str(tmp_path / guide)})
    for index in (1, 2):
        shift = (moved(one, index).source - MotionField.identity(W, H).source)[12:-12, 12:-12].flatten(0, 1)
        # Largest over all cases: 0.22 px (flow, video), 0.04 (affine).
        assert (shift.median(0).values - torch.tensor([-3.0, -2.0])).abs().max() < 0.3


# ---- through the chain


def test_unpainted_frames_are_resampled_once(start: str, tmp_path: Path) -> None:
    """25 moves by fractions of a pixel, against one move by their sum."""
    one = shot(frames=26, init_image=start, schedules={"translation_x": 0.3, "angle": 0.2}, feedback={"border": "wrap"})
    store = FrameStore(tmp_path / "store")
    frames = list(render_shot(one, store=store))
    once, repeated = MotionField.identity(W, H), tensor(texture())
    step = MotionField.homography(deforum_matrix(W, H, translation_x=0.3, angle=0.2), W, H, border="wrap")
    for _ in range(25):
        once, repeated = once.then(step, "wrap"), resample(repeated, step, "wrap")
    middle = torch.zeros(H, W, dtype=torch.bool)
    middle[16:-16, 16:-16] = True
    expected = resample(tensor(texture()), once, "wrap", kernel="spline")
    assert seen_psnr(decoded(frames[-1]), expected, middle) > 50
    assert seen_psnr(repeated, expected, middle) < 45  # so the test can tell: 36 dB
    # Made again from the stored state, the same bytes.
    store.path(frames[17].key).unlink()
    assert [f.png for f in render_shot(one, store=store)] == [f.png for f in frames]


def test_estimated_depth_goes_on_the_same_from_a_stored_frame(start: str, tmp_path: Path) -> None:
    depth = {"source": "model", "model": str(tiny_depth_anything(tmp_path / "depth"))}
    one = shot(frames=5, init_image=start, depth=depth, motion={"source": "3d"}, schedules={"translation_z": 4})
    store = FrameStore(tmp_path / "store")
    frames = list(render_shot(one, store=store))
    flat = list(render_shot(one.model_copy(update={"depth": shot().depth}), store=FrameStore(tmp_path / "flat")))
    assert frames[1].png != flat[1].png  # depth has an effect
    store.path(frames[3].key).unlink()
    again = list(render_shot(one, store=store))
    assert [f.stored for f in again] == [True, True, True, False, True]
    assert [f.png for f in again] == [f.png for f in frames]


def test_depth_from_channel_groups_renders(start: str, tmp_path: Path) -> None:
    one = shot(init_image=start, depth={"source": "groups"}, motion={"source": "3d"}, schedules={"translation_x": 8})
    frames = list(render_shot(one, store=FrameStore(tmp_path)))
    assert len({f.png for f in frames}) == 3


def keys(one: Shot) -> list[str]:
    found = [""]
    for index in range(one.frames):
        found.append(frame_key(one, index, found[-1], PAINTER))
    return found[1:]


def first_change(a: list[str], b: list[str]) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def test_guides_count_by_what_is_in_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for k in range(6):
            np.save(tmp_path / folder / f"{k:04d}.npy", np.full((H, W), 1.0 + k, np.float32))

    def deep(folder: str, **more: Any) -> Shot:
        files = {"source": "files", **more}
        guides = {"depth": str(tmp_path / folder / "####.npy")}
        return shot(frames=6, depth=files, motion={"source": "3d"}, guides=guides)

    before = keys(deep("a"))
    assert keys(deep("b")) == before
    np.save(tmp_path / "b" / "0003.npy", np.full((H, W), 2.0, np.float32))
    assert first_change(before, keys(deep("b"))) == 4  # the depth of the frame that is moved from
    assert first_change(before, keys(deep("a", farthest=6.0))) == 1
    flat = shot(frames=6, motion={"source": "3d"})
    assert keys(flat) == keys(shot(frames=6, motion={"source": "3d"}, depth={"farthest": 9.0, "model": "other"}))
    assert keys(shot(frames=6)) == keys(shot(frames=6, schedules={"fov": 50, "rotation_3d_x": 3}))  # 2D knows no depth


def test_a_lens_is_an_edit_where_it_counts() -> None:
    plane = {"point": [0.0, 0.0, 0.0], "normal": [0.0, 0.0, 1.0]}
    cameras: list[dict[str, Any]] = [CAMERA | {"lens": 50.0 + k} for k in range(6)]

    def seen(changed: list[dict[str, Any]]) -> list[str]:
        return keys(shot(frames=6, motion={"source": "camera", "cameras": changed, "plane": plane}))

    assert first_change(seen(cameras), seen([*cameras[:4], CAMERA, cameras[5]])) == 4


# ---- what cannot be


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"motion": {"source": "camera"}}, "motion.cameras", "no cameras"),
        ({"motion": {"source": "camera", "cameras": [CAMERA] * 3}}, "guides.depth", "over a depth"),
        ({"motion": {"source": "camera", "cameras": [CAMERA] * 2}}, "motion.cameras", "2 cameras for 3 frames"),
        ({"motion": {"source": "flow"}}, "guides.video", "none is given"),
        ({"motion": {"source": "3d"}, "depth": {"source": "files"}}, "guides.depth", "no files"),
        ({"depth": {"nearest": 5.0, "farthest": 5.0}}, "depth.nearest", "only 5"),
        ({"motion": {"absolute": ["fov"]}}, "motion.absolute", "'fov'"),
        (
            {"motion": {"source": "camera", "cameras": [CAMERA | {"kind": "ORTHO"}] * 3,
                        "plane": {"point": [0.0, 0.0, 0.0], "normal": [0.0, 0.0, 0.0]}}},
            "motion.plane.normal", "no length",
        ),
        (
            {"motion": {"source": "camera", "cameras": [CAMERA | {"kind": "ORTHO"}] * 3,
                        "plane": {"point": [0.0, 0.0, 0.0], "normal": [0.0, 0.0, 1.0]}}},
            "motion.cameras[0].kind", "orthographic",
        ),
    ],
)  # fmt: skip
def test_what_a_motion_lacks_is_said(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(KoshiError) as caught:
        shot(**changes)
    found = {fault["field"]: fault["message"] for fault in caught.value.problems}
    assert words in found[field]


def test_a_video_that_is_too_short_or_none_is_said(tmp_path: Path) -> None:
    frame = cv2.imencode(".png", texture())[1].tobytes()
    write_video(tmp_path / "two.mp4", [frame, frame], 24)
    reader = VideoReader(tmp_path / "two.mp4")
    with pytest.raises(KoshiError, match="has 2 frames, and frame 3"):
        reader.picture(2, W, H)
    assert reader.picture(0, W, H).shape == (1, 3, H, W)  # and backwards
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(KoshiError, match="cannot be read"):
        VideoReader(tmp_path / "no.mp4").picture(0, W, H)


# ---- the film of the motion alone


def test_motion_only_shows_just_the_motion(start: str) -> None:
    one = shot(frames=4, init_image=start, schedules={"translation_x": 5, "strength": 0.7})
    frames = [decoded(f) for f in motion_frames(one)]
    assert torch.equal(frames[0], tensor(texture()))
    for k, frame in enumerate(frames):
        assert torch.equal(frame[..., 5 * k :], tensor(texture())[..., : W - 5 * k])
        assert 5 * k == 0 or float(frame[..., : 5 * k].std()) < 1e-6  # grey: uncovered


def test_motion_only_brings_new_boards_when_nothing_old_is_left() -> None:
    frames = [decoded(f) for f in motion_frames(shot(frames=30, schedules={"translation_x": 6}))]
    assert all(float(f.std()) > 0.1 for f in frames)
    hues = {tuple((f.mean((0, 2, 3)) / f.mean()).mul(5).round().tolist()) for f in frames}
    assert len(hues) > 2
    assert torch.allclose(frames[0], checkerboard(W, H, 0), atol=1 / 254)


@settings(max_examples=12, deadline=None)
@given(
    frames=st.integers(1, 6), cadence=st.integers(1, 4), loop=st.sampled_from(["none", "back", "seamless"]),
    interpolation=st.sampled_from([1, 2, 4]), cuts=st.sets(st.integers(0, 5)),
)  # fmt: skip
def test_motion_only_is_as_long_as_the_film(
    frames: int, cadence: int, loop: str, interpolation: int, cuts: set[int]
) -> None:
    """And numbered like it; the frames themselves are those without loop and interpolation."""
    parts = {"frames": frames, "frame_start": 5, "motion": {"cuts": sorted(k for k in cuts if k < frames)}}
    moves = {"translation_x": 2, "zoom": 1.02, "cadence": cadence}
    one = shot(**parts, time={"loop": loop, "interpolation": interpolation}, schedules=moves)
    shown = list(motion_frames(one))
    assert [f.index for f in shown] == list(range(one.film_frames))
    assert [f.number for f in shown] == [one.film_number(k) for k in range(one.film_frames)]
    plain = list(motion_frames(shot(**parts, schedules=moves)))
    assert [f.png for f in shown[: frames * interpolation : interpolation]] == [f.png for f in plain]


def test_motion_only_goes_evenly_between_frames() -> None:
    """A shift of 8 pixels in four parts is four shifts of 2; back again they are shown in reverse."""
    parts = {"frames": 3, "schedules": {"translation_x": 8}, "time": {"interpolation": 4, "loop": "back"}}
    shown = [decoded(f) for f in motion_frames(shot(**parts))]
    assert len(shown) == 16
    for k in range(8):
        assert torch.allclose(shown[k + 1][..., 2 * k + 2 :], shown[0][..., : W - 2 * k - 2], atol=1.5 / 255)
    for k in range(1, 8):
        assert torch.equal(shown[8 + k], shown[8 - k])


def test_motion_only_says_when_depth_needs_the_model() -> None:
    one = shot(motion={"source": "3d"}, depth={"source": "groups"})
    with pytest.raises(KoshiError, match="no model here"):
        list(motion_frames(one))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Guided pictures, masks as strength maps, and colours matched to a picture, on koshi-tiny and in the keys."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from koshi_backend.chain import Painter, frame_key, render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.guided import GuidedPictures
from koshi_backend.mask import Masks, adjusted, painted_share
from koshi_backend.settings import Masking
from koshi_backend.shot import Shot, load_shot, read_shot
from koshi_backend.store import FrameStore
from koshi_backend.video import write_video

CPU = torch.device("cpu")
PAINTER = Painter("model", "float32", "cpu", guided=False)
BASE: dict[str, Any] = {
    "koshi": 1, "width": 64, "height": 64, "frames": 4, "steps": 1, "seed": 3,
    "prompts": [{"text": "a calm sea at dawn, photo"}],
}  # fmt: skip


def shot_of(**parts: Any) -> Shot:
    return load_shot(copy.deepcopy(BASE) | parts)


def pixels(frame: Any) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(frame.png)).convert("RGB"))


def render(one: Shot, store: FrameStore) -> list[np.ndarray]:
    return [pixels(frame) for frame in render_shot(one, store=store)]


def keys(one: Shot) -> list[str]:
    found: list[str] = []
    for index in range(one.frames):
        found.append(frame_key(one, index, found[-1] if index else "", PAINTER))
    return found


def changed(one: Shot, other: Shot) -> list[int]:
    return [k for k, (a, b) in enumerate(zip(keys(one), keys(other), strict=True)) if a != b]


def smooth(seed: int, side: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("guided")
    for name, seed in (("a", 1), ("b", 2), ("start", 3)):
        cv2.imwrite(str(where / f"{name}.png"), smooth(seed))
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255
    cv2.imwrite(str(where / "half.png"), half)
    return where


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("store"))


def picture(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


# Guided pictures


def images(folder: Path, *frames: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"frame": frame, "image": str(folder / f"{name}.png")} for frame, name in frames]


def test_wholly_guided_and_unpainted_is_the_picture_to_the_bit(folder: Path, store: FrameStore) -> None:
    """Whatever the motion uncovers and the corrections do, and at a cut as well."""
    one = shot_of(
        guided_images=images(folder, (0, "a"), (2, "b")),
        motion={"cuts": [3]},
        schedules={"guided": 1, "strength": 0, "translation_x": 9, "contrast": 1.3, "noise": 0.2, "color_match": 1},
    )
    names = ["a", "a", "b", "b"]
    for frame, name in zip(render(one, store), names, strict=True):
        assert np.array_equal(frame, picture(folder / f"{name}.png"))


@settings(max_examples=4, deadline=None)
@given(share=st.floats(0.05, 0.95))
def test_unpainted_frames_come_nearer_evenly(folder: Path, store: FrameStore, share: float) -> None:
    """Without motion a frame is the one before it and the guided picture, mixed by the share."""
    one = shot_of(
        init_image=str(folder / "start.png"), guided_images=images(folder, (1, "b")),
        schedules={"guided": share, "strength": 0, "color_match": 0},
    )  # fmt: skip
    start, goal = (picture(folder / f"{name}.png").astype(float) for name in ("start", "b"))
    for index, frame in enumerate(render(one, store)):
        left = (1 - share) ** index
        assert np.abs(frame - (left * start + (1 - left) * goal)).max() <= 0.6  # rounded to 8 bits


def test_a_frame_that_begins_is_painted_over_the_guided_picture(folder: Path, store: FrameStore) -> None:
    """As over the same picture as init_image."""
    guided = shot_of(guided_images=images(folder, (0, "a")), frames=1, schedules={"strength": 0.4})
    given_one = shot_of(init_image=str(folder / "a.png"), frames=1, schedules={"strength": 0.4})
    assert np.array_equal(render(guided, store)[0], render(given_one, store)[0])


def test_each_way_makes_another_film(folder: Path, store: FrameStore) -> None:
    films = {
        way: render(shot_of(guided_images=images(folder, (0, "a")), guided_as=way, frames=2,
                            schedules={"guided": share, "strength": 0.5}), store)
        for way, share in (("mixed", 0.4), ("shown", 0.4), ("both", 0.4))
    }  # fmt: skip
    films["off"] = render(shot_of(frames=2, schedules={"strength": 0.5}), store)
    last = [film[1] for film in films.values()]
    assert all((a != b).any() for k, a in enumerate(last) for b in last[:k])
    # Shown, it is no beginning: the first frame comes from noise.
    goal = picture(folder / "a.png").astype(float)
    away = {name: np.abs(film[0] - goal).mean() for name, film in films.items()}
    assert away["mixed"] < away["shown"]


def test_latents_are_guided_as_well(folder: Path, store: FrameStore) -> None:
    """Within what the autoencoder loses."""
    one = shot_of(
        guided_images=images(folder, (1, "b")), feedback={"carry": "latent"}, frames=2,
        schedules={"guided": 1, "strength": 0},
    )  # fmt: skip
    apart = np.abs(render(one, store)[1].astype(float) - picture(folder / "b.png"))
    assert apart.mean() < 8.0  # observed 3


def test_with_cadence_as_many_frames_come_out(folder: Path, store: FrameStore) -> None:
    one = shot_of(
        guided_images=images(folder, (0, "a"), (3, "b")), frames=4,
        schedules={"guided": 1, "strength": 0, "cadence": 3, "color_match": 0},
    )  # fmt: skip
    film = render(one, store)
    assert len(film) == 4 and one.made == [0, 3]
    assert np.array_equal(film[3], picture(folder / "b.png"))


def test_an_edit_makes_only_what_it_changes(folder: Path) -> None:
    plain = shot_of()
    guided = shot_of(guided_images=images(folder, (2, "a")))
    assert changed(plain, guided) == [2, 3]
    assert changed(plain, shot_of(guided_images=images(folder, (2, "a")), schedules={"guided": 0})) == []
    assert changed(plain, shot_of(guided_as="both", masking={"blur": 3.0}, schedules={"mask": 0.5})) == []
    assert changed(guided, shot_of(guided_images=images(folder, (2, "a"), (3, "b")))) == [3]
    assert changed(guided, shot_of(guided_images=images(folder, (2, "a")), guided_as="both")) == [2, 3]
    share = {"guided": "step; 0:(0.2), 3:(0.5)"}
    assert changed(guided, shot_of(guided_images=images(folder, (2, "a")), schedules=share)) == [3]
    shown = {"guided_images": images(folder, (2, "a")), "guided_as": "shown"}
    assert changed(shot_of(**shown), shot_of(**shown, schedules=share)) == []  # how much it counts does not


def test_only_the_content_of_a_file_counts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes((folder / "a.png").read_bytes())
    one = shot_of(guided_images=images(folder, (0, "a")))
    assert keys(one) == keys(shot_of(guided_images=images(tmp_path, (0, "other"))))


def test_the_one_in_force(folder: Path) -> None:
    one = shot_of(guided_images=images(folder, (3, "b"), (1, "a")))
    assert [Path(one.guided_at(k) or "none").stem for k in range(4)] == ["none", "a", "a", "b"]
    assert GuidedPictures(one, CPU).at(0, None) is None


def test_files_lie_beside_the_shot(folder: Path) -> None:
    (folder / "a.koshi.json").write_text(
        '{"frames": 2, "prompts": [{"text": "a"}], "guided_images": [{"frame": 1, "image": "a.png"}],'
        ' "color_image": "b.png", "feedback": {"color_reference": "image"}}'
    )
    one = read_shot(folder / "a.koshi.json")
    assert one.guided_images[0].image == str(folder / "a.png") and one.color_image == str(folder / "b.png")


# Masks


def test_grey_is_part_of_the_strength(folder: Path, store: FrameStore, tmp_path: Path) -> None:
    """A mask that is all grey makes the strength so much less."""
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64), 102, np.uint8))
    start = {"init_image": str(folder / "start.png"), "frames": 2}
    masked = shot_of(**start, guides={"mask": str(tmp_path / "grey.png")}, schedules={"strength": 0.8})
    plain = shot_of(**start, schedules={"strength": 0.32})
    full = shot_of(**start, schedules={"strength": 0.8})
    one, other, far = (render(each, store) for each in (masked, plain, full))
    for a, b, c in zip(one, other, far, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
        assert np.abs(a.astype(int) - c).mean() > 2


def test_how_far_the_mask_counts(folder: Path, store: FrameStore) -> None:
    given_parts = {"init_image": str(folder / "start.png"), "frames": 2}
    masked = {**given_parts, "guides": {"mask": str(folder / "half.png")}}
    off, bare = shot_of(**masked, schedules={"mask": 0}), shot_of(**given_parts)
    assert keys(off) == keys(bare)
    assert changed(shot_of(**masked), shot_of(**masked, schedules={"mask": "step; 0:(1), 1:(0)"})) == [1]
    mask = Masks(shot_of(**masked, schedules={"mask": 0.75})).at(1)
    assert mask is not None and mask[:, :32].unique().tolist() == [0.25] and mask[:, 32:].unique().tolist() == [1.0]


def test_a_mask_in_every_frame(folder: Path, tmp_path: Path, store: FrameStore) -> None:
    """Numbered pictures and a video say the same, and an edit of one of them costs from there on."""
    marks = []
    for index in range(4):
        mark = np.zeros((64, 64, 3), np.uint8)
        mark[:, : 16 * (index + 1)] = 255
        cv2.imwrite(str(tmp_path / f"mask_{index:04d}.png"), mark)
        marks.append(cv2.imencode(".png", mark)[1].tobytes())
    write_video(tmp_path / "mask.mp4", marks, 24.0)
    start = {"init_image": str(folder / "start.png"), "schedules": {"color_match": 0}}
    numbered = shot_of(**start, guides={"mask": str(tmp_path / "mask_####.png")})
    film = shot_of(**start, guides={"mask": str(tmp_path / "mask.mp4")})
    ours, theirs = Masks(numbered), Masks(film)
    for index in (0, 3, 1):
        one, other = ours.at(index), theirs.at(index)
        assert one is not None and other is not None
        assert one.mean() == pytest.approx((index + 1) / 4, abs=0.002)
        assert (one - other).abs().mean() < 0.02  # H.264's edges
    before = keys(numbered)
    cv2.imwrite(str(tmp_path / "mask_0002.png"), np.zeros((64, 64), np.uint8))
    assert [k for k, key in enumerate(keys(numbered)) if key != before[k]] == [2, 3]
    assert len(set(keys(film))) == 4
    kept = render(numbered, store)
    assert np.array_equal(kept[2], kept[1])  # nothing is painted where all is black


def test_masks_also_keep_latents_and_hide_guided_pictures(folder: Path, store: FrameStore) -> None:
    one = shot_of(
        init_image=str(folder / "start.png"), guided_images=images(folder, (0, "b")), frames=2,
        guides={"mask": str(folder / "half.png")}, schedules={"guided": 1, "strength": 0, "color_match": 0},
    )  # fmt: skip
    for frame in render(one, store):
        assert np.array_equal(frame[:, :32], picture(folder / "start.png")[:, :32])
        assert np.array_equal(frame[:, 32:], picture(folder / "b.png")[:, 32:])
    latent = shot_of(
        init_image=str(folder / "start.png"), feedback={"carry": "latent"}, frames=2,
        guides={"mask": str(folder / "half.png")}, schedules={"strength": 0.8, "color_match": 0},
    )  # fmt: skip
    first, second = (frame.astype(int) for frame in render(latent, store))
    apart = np.abs(second - first).mean(axis=(0, 2))
    assert apart[:24].max() < apart[40:].min()  # the decoder looks a few pixels around


def test_the_alpha_channel_is_a_mask(folder: Path, tmp_path: Path, store: FrameStore) -> None:
    """Opaque is painted, as in Deforum; turned round, what is opaque stays."""
    rgba = np.dstack([smooth(3)[..., ::-1], np.full((64, 64), 255, np.uint8)])
    rgba[:, :32, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    given_parts = {"init_image": str(tmp_path / "cut.png"), "frames": 2}
    one = shot_of(**given_parts, masking={"alpha": True, "invert": True}, schedules={"strength": 0.8, "color_match": 0})
    for frame in render(one, store):
        assert np.array_equal(frame[:, 32:], rgba[:, 32:, :3]) and frame[:, :32].std() > 3
    mask = Masks(shot_of(**given_parts, masking={"alpha": True})).at(1)
    assert mask is not None and mask[0].tolist() == [0.0] * 32 + [1.0] * 32
    with pytest.raises(KoshiError, match="no alpha channel"):
        Masks(shot_of(init_image=str(folder / "start.png"), masking={"alpha": True})).at(0)


@settings(deadline=None)
@given(st.builds(Masking, brightness=st.floats(0, 4), contrast=st.floats(0, 4), invert=st.booleans(),
                 blur=st.floats(0, 9)), st.integers(0, 99))  # fmt: skip
def test_adjusted_masks_are_masks(masking: Masking, seed: int) -> None:
    greys = torch.from_numpy(smooth(seed, 32)[..., 0].astype(np.float32) / 255.0)
    mask = adjusted(greys, masking)
    assert mask.shape == greys.shape and mask.min() >= 0.0 and mask.max() <= 1.0
    assert torch.equal((mask * 255).round() / 255, mask)
    turned = adjusted(greys, masking.model_copy(update={"invert": not masking.invert}))
    assert torch.allclose(mask + turned, torch.ones_like(mask), atol=1.01 / 255)


def test_soft_edges_end() -> None:
    """A blur leaves black what is far from white, and what is painted reaches no farther than the mask."""
    half = torch.zeros(64, 64)
    half[:, 32:] = 1.0
    mask = adjusted(half, Masking(blur=4.0))
    assert mask[:, :16].max() == 0.0 and mask[:, 48:].min() == 1.0
    assert bool((mask[:, 1:] >= mask[:, :-1]).all()) and len(mask.unique()) > 10
    share = painted_share(mask)
    assert bool(((share > 0) == (mask > 0)).all()) and share[mask >= 0.25].min() == 1.0


# Colours


def test_colours_of_a_picture(folder: Path, store: FrameStore, tmp_path: Path) -> None:
    """With a full match and nothing painted, frames have the picture's colours from the second one on."""
    cv2.imwrite(str(tmp_path / "red.png"), np.clip(smooth(5) * np.array([0.5, 0.7, 1.3]), 0, 255).astype(np.uint8))
    moves = {"strength": 0, "color_match": 1, "zoom": 1.01}
    start = {"init_image": str(folder / "start.png"), "frames": 3}
    for parts in (
        {"color_image": str(tmp_path / "red.png"), "feedback": {"color_mode": "RGB", "color_reference": "image"}},
        {"guided_images": [{"frame": 1, "image": str(tmp_path / "red.png")}], "guided_as": "shown",
         "feedback": {"color_mode": "RGB", "color_reference": "guided"}},
    ):  # fmt: skip
        film = render(shot_of(**start, **parts, schedules=moves), store)
        goal = picture(tmp_path / "red.png").reshape(-1, 3)
        for frame in film[1:]:
            mean, spread = frame.reshape(-1, 3).mean(0), frame.reshape(-1, 3).std(0)
            assert mean == pytest.approx(goal.mean(0), abs=1.5) and spread == pytest.approx(goal.std(0), abs=1.5)


def test_colours_of_a_film_every_so_often(folder: Path, tmp_path: Path) -> None:
    for index in (0, 2):
        cv2.imwrite(str(tmp_path / f"look_{index:04d}.png"), smooth(index))
    look = {"color_image": str(tmp_path / "look_####.png"), "color_every": 2, "feedback": {"color_reference": "image"}}
    one = shot_of(**look)
    read = GuidedPictures(one, CPU)
    found = [read.colors(k) for k in range(4)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[2], found[3])
    assert not np.array_equal(found[0], found[2])
    before = keys(one)
    cv2.imwrite(str(tmp_path / "look_0002.png"), smooth(9))
    assert [k for k, key in enumerate(keys(one)) if key != before[k]] == [2, 3]


# What is refused


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"guided_images": [{"frame": 4, "image": "a.png"}]}, "guided_images[0].frame"),
        ({"guided_images": [{"frame": 0, "image": "gone.png"}]}, "guided_images[0].image"),
        ({"guided_images": [{"frame": 0, "image": "a_####.png"}]}, "guided_images[0].image"),
        ({"guided_images": [{"frame": 0, "picture": "a.png"}]}, "guided_images[0].picture"),
        ({"guided_images": [{"image": "a.png"}], "guided_as": "both", "model": "flux.1-schnell"}, "guided_as"),
        ({"feedback": {"color_reference": "image"}}, "color_image"),
        ({"feedback": {"color_reference": "guided"}}, "feedback.color_reference"),
        ({"color_image": "gone_####.png", "feedback": {"color_reference": "image"}}, "color_image"),
        ({"masking": {"alpha": True}}, "masking.alpha"),
        ({"masking": {"alpha": True}, "init_image": "a.png", "guides": {"mask": "a.png"}}, "masking.alpha"),
        ({"masking": {"bluer": 3}}, "masking.bluer"),
        ({"schedules": {"guided": 1.5}}, "schedules.guided"),
    ],
)
def test_what_does_not_fit_is_named(
    parts: dict[str, Any], field: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(KoshiError) as told:
        shot_of(**parts)
    assert field in [one["field"] for one in told.value.problems]

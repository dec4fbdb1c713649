# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames painted over a video's own, and videos mixed into frames: the right one, as much as asked, and kept.

Every picture of the video shows its number (films.py), so that none can stand in for its neighbour.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from films import number_of, numbered, write_film
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageEnhance, ImageOps
from test_depth import tiny_depth_anything
from torch import Tensor

from koshi_backend import chain
from koshi_backend.chain import Frame, render_shot
from koshi_backend.depth import group_nearness
from koshi_backend.depth.estimate import DepthModel
from koshi_backend.errors import KoshiError
from koshi_backend.hybrid import mask
from koshi_backend.hybrid_checks import frames_of_video, spans
from koshi_backend.models.pool import load_model
from koshi_backend.motion.flow import flow_field
from koshi_backend.moves import Moves
from koshi_backend.preview import motion_frames
from koshi_backend.settings import Hybrid
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

SIDE = 64
CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "width": SIDE, "height": SIDE, "frames": 5, "seed": 3, "steps": 1,
    "prompts": [{"frame": 0, "text": "a modern city at day, photo"}],
    "schedules": {"strength": 0.0, "color_match": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 numbered pictures, without loss."""
    return str(write_film(tmp_path_factory.mktemp("video") / "a.mkv", 24, "ffv1", size=(SIDE, SIDE), pix_fmt="yuv444p"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("store"))


def document(video: str | None, hybrid: dict[str, Any], **parts: Any) -> dict[str, Any]:
    whole = copy.deepcopy(BASE) | {"hybrid": hybrid}
    for name, part in parts.items():
        whole[name] = whole.get(name, {}) | part if isinstance(part, dict) else part
    if video is not None:
        whole["guides"] = {"video": video} | whole.get("guides", {})
    return whole


def render(data: dict[str, Any], store: FrameStore) -> list[Frame]:
    shot = load_shot(data)
    frames = list(render_shot(shot, store=store))
    assert len(frames) == shot.film_frames
    return frames


def made(frames: list[Frame]) -> list[int]:
    return [f.index for f in frames if not f.stored]


def seen(frame: Frame) -> Tensor:
    pixels = cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] / 255.0


def true(number: int) -> Tensor:
    return torch.from_numpy(numbered(number, SIDE, SIDE)).permute(2, 0, 1)[None] / 255.0


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference, of 255."""
    return float((a - b).abs().max()) * 255.0


# ---- which picture


@pytest.mark.parametrize(("first", "every"), [(0, 1), (3, 1), (1, 4)])
def test_every_frame_over_the_video_s_own(video: str, store: FrameStore, first: int, every: int) -> None:
    """Strength 0 paints nothing: the frames are the video's, to what YUV rounds (observed 1 of 255)."""
    timing = {"video": video, "video_first": first, "video_every": every}
    data = document(video, {"over": "every"}, guides=timing)
    assert load_shot(data).feedback.carry == "none"
    frames = render(data, store)
    for k, frame in enumerate(frames):
        assert number_of(seen(frame)) == first + k * every
        assert apart(seen(frame), true(first + k * every)) <= 2.0
    assert [f.stored for f in render(data, store)] == [True] * 5
    assert [number_of(seen(f)) for f in motion_frames(load_shot(data))] == [first + k * every for k in range(5)]


def test_numbered_pictures_count_as_the_shot_s_own_do(tmp_path: Path, store: FrameStore) -> None:
    """Frame n of them is what the shot's frame n would have: the shot begins at 10 and goes in steps of 2."""
    for number in range(10, 40):
        cv2.imwrite(str(tmp_path / f"p_{number:04d}.png"), numbered(number, SIDE, SIDE))
    given = {"video": str(tmp_path / "p_####.png")}
    data = document(None, {"over": "every"}, guides=given, frame_start=10, frame_step=2, frames=3)
    assert [number_of(seen(f)) for f in render(data, store)] == [10, 12, 14]
    data["guides"] |= {"video_first": 1, "video_every": 3}
    assert [number_of(seen(f)) for f in render(data, store)] == [12, 18, 24]
    (tmp_path / "p_0018.png").unlink()
    with pytest.raises(KoshiError, match=r"no p_0018.png, for frame 1 of the shot"):
        load_shot(data)


def test_only_frames_that_begin_over_the_video_s(video: str, store: FrameStore) -> None:
    data = document(video, {"over": "first"}, motion={"cuts": [3]}, guides={"video_first": 2})
    frames = render(data, store)
    assert [number_of(seen(f)) for f in frames] == [2, 2, 2, 5, 5]
    assert frames_of_video(load_shot(data)) == [0, 3]


@pytest.mark.parametrize("composite", ["normal", "before_motion", "after_generation"])
def test_the_picture_that_is_mixed_in_is_that_of_its_own_time(
    video: str, store: FrameStore, composite: str
) -> None:
    """Nothing moves here: what is mixed into the frame before stays one frame behind. Alpha 1 shows nothing else."""
    data = document(video, {"composite": composite}, schedules={"hybrid_alpha": 1.0})
    frames = render(data, store)
    late = 1 if composite == "before_motion" else 0
    assert [number_of(seen(f)) for f in frames[1:]] == [k - late for k in range(1, 5)]
    assert (apart(seen(frames[0]), true(0)) < 2.0) == (composite == "after_generation")  # else there is no frame before


def test_mixed_in_before_the_motion_it_moves_along(tmp_path: Path, store: FrameStore) -> None:
    """A panning video, followed, shows up where its next picture has it (Deforum moves that next picture once more)."""
    wide = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (SIDE, 160, 3)).astype(np.float32), (0, 0), 2.5)
    wide = ((wide - wide.min()) / np.ptp(wide) * 255).astype(np.uint8)
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"{k:04d}.png"), wide[:, 6 * k : 6 * k + SIDE])
    data = document(
        str(tmp_path / "####.png"), {"composite": "before_motion"}, motion={"source": "affine"},
        schedules={"hybrid_alpha": 1.0}, frames=4, feedback={"condition": "start"},
    )  # fmt: skip
    frames = render(data, store)
    for k in (1, 2, 3):
        there = torch.from_numpy(wide[:, 6 * k : 6 * k + SIDE, ::-1].copy()).permute(2, 0, 1)[None] / 255.0
        known = slice(0, SIDE - 16)
        mean = float((seen(frames[k]) - there)[..., known].abs().mean()) * 255.0
        assert mean < 2.0  # observed .3; one step off it is some 30


def test_flow_is_that_between_the_pictures_that_are_used(video: str) -> None:
    shot = load_shot(document(video, {}, motion={"source": "flow"}, guides={"video_first": 1, "video_every": 4}))
    moves = Moves(shot, CPU)
    found = moves.into(2, torch.zeros(1, 3, SIDE, SIDE), {})[0]
    assert number_of(moves.video(1)) == 5 and number_of(moves.video(2)) == 9
    assert torch.equal(found.source, flow_field(moves.video(1), moves.video(2)).source)


# ---- how much, and where


@pytest.mark.parametrize("composite", ["normal", "after_generation"])
def test_alpha_is_the_video_s_share(video: str, store: FrameStore, composite: str) -> None:
    data = document(video, {"composite": composite}, schedules={"hybrid_alpha": "0:(0), 1:(0.25), 2:(0.25), 3:(0)"})
    frames = [seen(f) for f in render(data, store)]
    for k in (1, 2):
        assert apart(frames[k], torch.lerp(frames[k - 1], true(k), 0.25)) < 1.5
    assert torch.equal(frames[3], frames[2]) and torch.equal(frames[4], frames[2])


def test_where_a_move_uncovers_something_the_video_is_seen_if_it_counts_half(video: str, store: FrameStore) -> None:
    data = document(video, {"composite": "normal"}, schedules={"hybrid_alpha": 0.5, "translation_x": 16.0}, frames=2)
    frames = [seen(f) for f in render(data, store)]
    assert apart(frames[1][..., :16], true(1)[..., :16]) < 2.0
    assert apart(frames[1][..., 20:], (frames[0][..., 4:-16] + true(1)[..., 20:]) / 2) < 2.0


def test_a_depth_mask_keeps_what_is_near(video: str, tmp_path: Path, store: FrameStore) -> None:
    near = np.zeros((SIDE, SIDE), np.uint8)
    near[:, : SIDE // 2] = 255
    cv2.imwrite(str(tmp_path / "depth.png"), near)
    for name, left in (("depth", False), ("video_depth", True)):
        data = document(
            video, {"composite": "normal", "mask": name, "inverse": left}, schedules={"hybrid_alpha": 1.0}, frames=2,
            guides={"depth": str(tmp_path / "depth.png")},
        )  # fmt: skip
        before, after = (seen(f) for f in render(data, store))
        kept, new = ((32, 64), (0, 32)) if left else ((0, 32), (32, 64))
        assert torch.equal(after[..., slice(*kept)], before[..., slice(*kept)])
        assert apart(after[..., slice(*new)], true(1)[..., slice(*new)]) < 2.0


def deforum_mask(settings: Hybrid, row: dict[str, float], picture: Image.Image, video: Image.Image) -> np.ndarray:
    """The same with Pillow in 8 bits, as Deforum's documentation and results have it."""
    greys = ImageOps.grayscale(picture), ImageOps.grayscale(video)
    found = Image.blend(*greys, row["hybrid_mask_alpha"]) if settings.mask == "blend" else ImageChops.difference(*greys)
    found = ImageOps.invert(found) if settings.inverse else found
    found = ImageOps.equalize(found) if settings.equalize in ("before", "both") else found
    found = ImageEnhance.Contrast(found).enhance(row["hybrid_mask_contrast"])
    if settings.auto_contrast:
        low, high = np.percentile(np.asarray(found), [row["hybrid_cutoff_low"], row["hybrid_cutoff_high"]])
        spread = ((np.asarray(found, float) - low) / (high - low) * 255).clip(0, 255)
        found = Image.fromarray(spread.astype(np.uint8))
    return np.asarray(ImageOps.equalize(found) if settings.equalize in ("after", "both") else found)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["blend", "difference"]), inverse=st.booleans(), auto=st.booleans(),
    equalize=st.sampled_from(["none", "before"]), seed=st.integers(0, 99),
    numbers=st.tuples(*[st.floats(0.0, 1.0)] * 4),
)  # fmt: skip
def test_masks_are_deforum_s(
    kind: str, inverse: bool, auto: bool, equalize: str, seed: int, numbers: tuple[float, ...]
) -> None:
    """To what 8 bits lose at each step, which equalizing and spreading enlarge (observed: 1.1 and 3.6 in the mean)."""
    hybrid = Hybrid(mask=kind, inverse=inverse, equalize=equalize, auto_contrast=auto)  # type: ignore[arg-type]
    row = {"hybrid_mask_alpha": numbers[0], "hybrid_mask_contrast": 0.5 + 1.5 * numbers[1],
           "hybrid_cutoff_low": 20 * numbers[2], "hybrid_cutoff_high": 80 + 20 * numbers[3]}  # fmt: skip
    random = np.random.default_rng(seed)
    pair = [cv2.GaussianBlur(random.normal(127, 400, (48, 48, 3)), (0, 0), 3).clip(0, 255).astype(np.uint8)
            for _ in range(2)]  # fmt: skip
    found = mask(hybrid, row, *(torch.from_numpy(p).permute(2, 0, 1)[None] / 255.0 for p in pair), None)
    assert found is not None
    wanted = deforum_mask(hybrid, row, *(Image.fromarray(p) for p in pair))
    assert np.abs(found.numpy() * 255.0 - wanted).mean() < 2.5 + 3.0 * auto + 3.0 * (equalize == "before")


@pytest.mark.parametrize("equalize", ["after", "both"])
def test_equalized_masks_have_all_greys_equally_often(equalize: str) -> None:
    hybrid = Hybrid(mask="blend", equalize=equalize)  # type: ignore[arg-type]
    row = {"hybrid_mask_alpha": 0.5, "hybrid_mask_contrast": 0.3}
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) ** 3
    found = mask(hybrid, row, picture, picture, None)
    assert found is not None
    counts = np.histogram(found.numpy(), bins=8, range=(0, 1))[0] / found.numel()
    assert counts.min() > 0.09 and counts.max() < 0.2  # an eighth each; observed .11 to .17


def test_a_mask_of_one_grey_stays_what_it_is() -> None:
    """Deforum divides by nothing there."""
    hybrid = Hybrid(mask="difference", inverse=True, auto_contrast=True)
    row = {"hybrid_mask_contrast": 1.0, "hybrid_cutoff_low": 0.0, "hybrid_cutoff_high": 100.0}
    found = mask(hybrid, row, true(1), true(1), None)
    assert found is not None and torch.equal(found, torch.ones(SIDE, SIDE))


# ---- with the rest of the shot


def test_latents_take_the_video_in_as_pictures_do(video: str, store: FrameStore) -> None:
    """By the difference it makes: what comes out is the video through the autoencoder. Observed .02 and .05 in the
    mean, where the frame without it is .46 away."""
    for composite in ("normal", "after_generation", "before_motion"):
        data = document(
            video, {"composite": composite}, feedback={"carry": "latent"}, frames=3,
            schedules={"hybrid_alpha": f"0:(0), 1:(1), 2:({int(composite == 'before_motion')})"},
        )  # fmt: skip
        frames = [seen(f) for f in render(data, store)]
        shows = true(1)
        assert float((frames[2] - shows).abs().mean()) < 0.08
        assert float((frames[0] - shows).abs().mean()) > 0.3
        if composite == "after_generation":
            assert apart(frames[1], shows) < 2.0


def test_an_edit_of_alpha_makes_only_what_it_changes(video: str, store: FrameStore) -> None:
    """Frames from the first one on whose alpha is another; all others come from the store, and so do all on return."""
    parts = {"strength": 0.4, "hybrid_alpha": "0:(0.2), 3:(0.2), 4:(0.6)"}
    data = document(video, {"composite": "normal", "mask": "blend"}, schedules=parts, seed=4)
    first = render(data, store)
    assert made(first) == [0, 1, 2, 3, 4]
    for change, again in (
        ({"hybrid_alpha": "0:(0.2), 3:(0.2), 4:(0.7)"}, [4]),
        ({"hybrid_mask_contrast": "0:(1), 1:(1), 2:(3), 3:(1)"}, [2, 3, 4]),
        ({"hybrid_cutoff_low": 20.0}, []),  # auto_contrast is off
    ):
        edited = copy.deepcopy(data)
        edited["schedules"] |= change
        assert made(render(edited, store)) == again
    assert [f.png for f in render(data, store)] == [f.png for f in first]
    later = copy.deepcopy(data)
    later["guides"]["video_first"] = 1
    assert made(render(later, store)) == [1, 2, 3, 4]
    without = copy.deepcopy(data)
    without["schedules"]["hybrid_alpha"] = "0:(0.2), 1:(0), 2:(0)"
    plain = {**copy.deepcopy(without), "hybrid": {}, "guides": {}}
    assert [f.key for f in render(without, store)] == [f.key for f in render(plain, store)]  # alpha 0 is no video


def test_over_the_video_one_strength_makes_one_frame(video: str, store: FrameStore) -> None:
    """Nothing is carried: an edit of frame 2 is none of frame 3. And seeds count as always."""
    parts = {"strength": "0:(0.4)"}
    data = document(video, {"over": "every"}, schedules=parts, seed_behavior="iter")
    assert made(render(data, store)) == [0, 1, 2, 3, 4]
    data["schedules"]["strength"] = "0:(0.4), 1:(0.4), 2:(0.6), 3:(0.4)"
    assert made(render(data, store)) == [2]


def test_with_a_cadence_made_frames_are_mixed_and_the_others_follow(video: str, store: FrameStore) -> None:
    data = document(
        video, {"composite": "normal"}, schedules={"cadence": 3, "strength": 0.4, "hybrid_alpha": 0.5}, frames=7,
        time={"inbetween": "blend"}, seed=5,
    )  # fmt: skip
    assert frames_of_video(load_shot(data)) == [3, 6]
    frames = render(data, store)
    assert made(frames) == list(range(7))
    assert [f.stored for f in render(data, store)] == [True] * 7
    between = torch.lerp(seen(frames[3]), seen(frames[6]), 1 / 3)
    assert apart(seen(frames[4]), between) < 2.0
    over = render(document(video, {"over": "every"}, schedules={"cadence": 2}, frames=5), store)
    assert [number_of(seen(f)) for f in over[::2]] == [0, 2, 4] and len(over) == 5


# ---- what cannot be


@pytest.mark.parametrize(
    ("hybrid", "parts", "field", "words"),
    [
        ({"over": "every"}, {"guides": {"video": None}}, "guides.video", "none is given"),
        ({"over": "every"}, {"feedback": {"carry": "pixels"}}, "feedback.carry", "nothing can be carried"),
        ({"over": "first"}, {"init_image": "INIT"}, "hybrid.over", "over init_image"),
        ({"composite": "normal"}, {"feedback": {"carry": "none"}}, "hybrid.composite", "nothing is carried"),
        ({"composite": "normal", "mask": "depth"}, {}, "hybrid.mask", "no depth"),
        ({"over": "every"}, {"guides": {"video_first": 5, "video_last": 4}}, "guides.video_last", "before its first"),
        ({"over": "every"}, {"guides": {"video_last": 2}}, "guides.video_last", "frames 3 to 4 of the shot"),
        ({"composite": "normal"}, {"guides": {"video_last": 2}, "schedules": {"hybrid_alpha": "0:(1), 4:(0)"}},
         "guides.video_last", "frame 3 of the shot"),
        ({"composite": "normal", "auto_contrast": True}, {"schedules": {"hybrid_cutoff_low": "0:(0), 4:(100)"}},
         "schedules.hybrid_cutoff_low", "at frame 4"),
        ({"overr": "every"}, {}, "hybrid.overr", "does not know"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(
    video: str, tmp_path: Path, hybrid: dict[str, Any], parts: dict[str, Any], field: str, words: str
) -> None:
    (tmp_path / "start.png").write_bytes(b"")
    parts = {name: str(tmp_path / "start.png") if part == "INIT" else part for name, part in parts.items()}
    with pytest.raises(KoshiError) as caught:
        load_shot(document(video, hybrid, **parts))
    found = {fault["field"]: fault["message"] for fault in caught.value.problems}
    assert list(found) == [field] and words in found[field]


@pytest.mark.parametrize(
    ("hybrid", "parts"),
    [({"over": "every"}, {}), ({"composite": "after_generation"}, {}), ({}, {"motion": {"source": "flow"}})],
)
def test_a_video_that_ends_early_is_refused_before_anything_is_made(
    video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hybrid: dict[str, Any], parts: dict[str, Any]
) -> None:
    monkeypatch.setattr(chain, "load_model", lambda *given: pytest.fail("the model was loaded"))
    data = document(video, hybrid, frames=12, guides={"video_first": 4, "video_every": 2}, **parts)
    shot, store = load_shot(data), FrameStore(tmp_path)
    for frames in (render_shot(shot, store=store), motion_frames(shot)):
        with pytest.raises(KoshiError, match="ends after 24 frames, and frames 10 to 11 of the shot") as caught:
            next(frames)
        assert caught.value.hint == "Make the shot 10 frames long, or give a longer video."
    assert not any(tmp_path.iterdir())


def test_frames_in_words() -> None:
    assert spans([4]) == "frame 4"
    assert spans([1, 3, 4, 5]) == "frames 1, 3 to 5"
    assert spans([0, 2, 4, 6, 8]) == "frames 0, 2, 4, 6 and more"


# ---- masks by estimated depth


@pytest.mark.parametrize("source", ["model", "groups"])
@pytest.mark.parametrize("name", ["depth", "video_depth"])
def test_depth_masks_of_estimated_depth(
    video: str, store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    """What a depth model, or the latent's channel groups, find near stays: the share that the film has taken at each
    pixel is what they say when they are asked directly, of the picture or of the film, spread over 0..1."""
    folder = tiny_depth_anything(tmp_path / "net")
    data = document(
        video, {"composite": "normal", "mask": name}, schedules={"hybrid_alpha": 1.0}, frames=2, seed=5,
        depth={"source": source, "model": str(folder)},
    )  # fmt: skip
    before, after = (seen(f) for f in render(data, store))
    film, model = true(1), load_model("koshi-tiny", CPU, torch.float32)
    looked_at = before if name == "depth" else film
    if source == "model":
        raw = DepthModel.load(folder).nearness(looked_at)
    else:
        raw = group_nearness(model.encode_picture(looked_at), SIDE, SIDE)
    apart_by = (film - before).abs().amax(1)[0]
    clear = apart_by > 0.25
    share = ((after - before).abs().amax(1)[0] / apart_by)[clear]
    order = np.corrcoef(1.0 - share.numpy(), raw[clear].numpy())[0, 1]
    # The ends are cut off at depths that the picture's own quantiles set, so it is a line but for these.
    assert order > 0.97 and share.max() - share.min() > 0.5  # observed .998 to 1; 1
    assert [f.stored for f in render(data, store)] == [True, True]
    other = copy.deepcopy(data)
    other["hybrid"]["inverse"] = True
    (_, turned) = (seen(f) for f in render(other, store))
    # What was film is picture, and the other way round: together they are both.
    assert apart((after + turned) / 2, (before + film) / 2) < 2.0
    if source == "model":
        monkeypatch.setattr(torch, "manual_seed", lambda seed, draw=torch.manual_seed: draw(seed + 1))
        other["depth"]["model"] = str(tiny_depth_anything(tmp_path / "other"))
        assert made(render(other, store)) == [1]  # another model's files are another key


# ---- in the motion preview


@pytest.mark.parametrize("name", ["none", "blend", "difference", "depth"])
@pytest.mark.parametrize("composite", ["normal", "before_motion", "after_generation"])
def test_the_motion_preview_mixes_as_the_shot_does(
    video: str, store: FrameStore, tmp_path: Path, composite: str, name: str
) -> None:
    """Where nothing is painted both are the same, whatever the mask, if no model has to find it."""
    cv2.imwrite(str(tmp_path / "start.png"), cv2.resize(numbered(7, 32, 32), (SIDE, SIDE)))
    cv2.imwrite(str(tmp_path / "depth.png"), np.tile(np.arange(SIDE, dtype=np.uint8) * 4, (SIDE, 1)))
    data = document(
        video, {"composite": composite, "mask": name}, init_image=str(tmp_path / "start.png"), frames=4,
        schedules={"hybrid_alpha": 0.4, "translation_x": 3.5, "angle": 4.0}, feedback={"border": "wrap"},
        guides={"depth": str(tmp_path / "depth.png")},
    )  # fmt: skip
    for frame, previewed in zip(render(data, store), motion_frames(load_shot(data)), strict=True):
        assert apart(seen(frame), seen(previewed)) <= 2.0  # observed 1.0: frames have 16 bits between them


def test_the_preview_leaves_out_what_a_model_has_to_find(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Moves, "nearness", lambda *given: pytest.fail("a depth was asked for"))
    for source in ("model", "groups"):
        data = document(video, {"composite": "normal", "mask": "depth"}, depth={"source": source}, frames=3)
        plain = document(None, {}, frames=3)
        found, wanted = ([f.png for f in motion_frames(load_shot(d))] for d in (data, plain))
        assert found == wanted


@pytest.mark.parametrize("composite", ["normal", "before_motion", "after_generation"])
def test_the_preview_mixes_into_made_frames_only(video: str, composite: str) -> None:
    """Frames 0, 3 and 6 are made; nothing moves, so that the others show the last one of these."""
    parts = {"cadence": 3, "hybrid_alpha": 1.0}
    shot = load_shot(document(video, {"composite": composite}, schedules=parts, frames=7))
    numbers = [number_of(seen(f)) for f in motion_frames(shot)]
    wanted = {"normal": [3, 3, 3, 6], "after_generation": [3, 3, 3, 6], "before_motion": [0, 3, 3, 3]}[composite]
    assert numbers[3:] == wanted

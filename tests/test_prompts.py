# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts over time: turns, easings, weights, math and --neg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.pool import load_model
from koshi_backend.prompts import EASINGS
from koshi_backend.shot import Shot, load_shot
from koshi_backend.store import FrameStore


def _shot(prompts: list[dict[str, Any]], frames: int = 49, **more: Any) -> Shot:
    return load_shot({"koshi": 1, "width": 64, "height": 64, "frames": frames, "steps": 1, "prompts": prompts, **more})


def _shares(shot: Shot, index: int) -> dict[str, float]:
    return {part.text: part.weight for part in shot.texts.at(index)}


def _faults(prompts: list[dict[str, Any]], frames: int = 49) -> list[dict[str, Any]]:
    with pytest.raises(KoshiError) as caught:
        _shot(prompts, frames)
    return caught.value.problems


def test_a_prompt_holds_until_the_next_one() -> None:
    shot = _shot([{"frame": 30, "text": "b"}, {"frame": 8, "text": "a"}])
    assert [shot.texts.at(k)[0].text for k in (0, 8, 29, 30, 48)] == ["a", "a", "a", "b", "b"]
    assert _shares(shot, 29) == {"a": 1.0}


@pytest.mark.parametrize("ease", EASINGS)
def test_easings_rise_from_nothing_to_all(ease: str) -> None:
    values = [EASINGS[ease](k / 100) for k in range(101)]
    assert np.all(np.diff(values) >= 0.0)
    if ease != "hold":
        assert values[0] == pytest.approx(0.0, abs=1e-12) and values[-1] == pytest.approx(1.0, abs=1e-12)
    if ease in ("linear", "ease_in_out", "sigmoid"):
        assert values[50] == pytest.approx(0.5)


def test_one_prompt_goes_over_into_the_next() -> None:
    shot = _shot([{"text": "a", "ease": "linear"}, {"frame": 40, "text": "b"}])
    assert _shares(shot, 0) == {"a": 1.0}
    assert _shares(shot, 10) == {"a": 0.75, "b": 0.25}
    assert _shares(shot, 40) == _shares(shot, 48) == {"b": 1.0}
    assert shot.texts.at(30)[0].text == "b"  # the stronger one


@given(
    weights=st.lists(st.floats(0.0, 5.0), min_size=12, max_size=12),
    ease=st.sampled_from(sorted(EASINGS)),
    start=st.integers(0, 11),
)
def test_shares_sum_to_one(weights: list[float], ease: str, start: int) -> None:
    shot = _shot(
        [{"text": "a", "ease": ease}, {"frame": 9, "text": "b"}, {"frame": start, "text": "c", "weight": weights}], 12
    )
    for index in range(12):
        shares = _shares(shot, index)
        assert sum(shares.values()) == pytest.approx(1.0)
        weight = weights[index] if index >= start else 0.0
        assert shares.get("c", 0.0) == pytest.approx(weight / (1.0 + weight), abs=1e-5)


def test_texts_that_are_alike_count_together() -> None:
    shot = _shot([{"text": "a", "ease": "linear"}, {"frame": 40, "text": "a"}])
    assert _shares(shot, 13) == {"a": 1.0}


def test_frames_and_texts_may_be_math() -> None:
    shot = _shot([{"text": "a `1+t/4` storey house, seed `s`"}, {"frame": "max_f/2", "text": "b"}], seed=7)
    assert [shot.texts.at(k)[0].text for k in (0, 1, 23, 24)] == [
        "a 1 storey house, seed 7", "a 1.25 storey house, seed 7", "a 6.75 storey house, seed 7", "b",
    ]  # fmt: skip
    assert shot.prompts[1].frame == 24


def test_what_follows_neg_is_negative() -> None:
    shot = _shot([{"text": " a cat --neg blur --neg text", "negative": "dogs"}, {"frame": 3, "text": "--negative"}])
    assert shot.prompts[0].text == "a cat" and shot.prompts[0].negative == "dogs, blur, text"
    assert shot.prompts[1].text == "--negative"


@pytest.mark.parametrize(
    ("prompts", "field", "says"),
    [
        ([{"text": "a"}, {"text": "b"}], "prompts[1].frame", "two prompts"),
        ([{"frame": "t+1", "text": "a"}], "prompts[0].frame", "'t'"),
        ([{"text": "a `1/(t-5)`"}], "prompts[0].text", "between ` and `"),
        ([{"text": "a `t"}, {"frame": 4, "text": "b `foo(t)`"}], "prompts[1].text", "foo"),
        ([{"text": "a", "weight": "0:(-1)"}], "prompts[0].weight", "frame 0 is -1"),
        ([{"text": "a", "weight": "0:(1), 30:(0)"}], "prompts", "frame 30 no prompt"),
        ([{"text": "a", "weight": [1.0, 2.0]}], "prompts[0].weight", "2"),
        ([{"text": "a", "ease": "slow"}], "prompts[0].ease", "linear"),
        ([{"text": " --neg blur"}], "prompts[0].text", "empty"),
    ],
)
def test_faults_name_the_prompt(prompts: list[dict[str, Any]], field: str, says: str) -> None:
    (fault,) = _faults(prompts)
    assert fault["field"] == field
    assert says in fault["message"] + fault["hint"]


def test_a_weighted_prompt_may_share_a_frame() -> None:
    assert len(_shot([{"text": "a"}, {"text": "b", "weight": 1}]).texts.at(0)) == 2


# In the model


@pytest.mark.parametrize("ease", ["linear", "ease_in", "ease_out", "ease_in_out", "sigmoid"])
def test_the_conditioning_moves_along_the_easing(ease: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("koshi-tiny", torch.device("cpu"), torch.float32)
    shot = _shot([{"text": "a calm sea at dawn, photo", "ease": ease}, {"frame": 24, "text": "a forest at night"}], 25)
    encoder, encoded = model.text, []
    monkeypatch.setattr(encoder, "_cache", {})
    real = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda text: encoded.append(text) or real(text))
    states = [encoder.mixed([(p.text, p.weight) for p in shot.texts.at(k)]).states for k in range(25)]
    away = [float((state - states[0]).norm()) for state in states]
    left = [float((state - states[-1]).norm()) for state in states]
    assert np.all(np.diff(away) >= 0) and np.all(np.diff(left) <= 0)
    share = np.array([EASINGS[ease](k / 24) for k in range(25)])
    np.testing.assert_allclose(np.array(away) / away[-1], share, atol=1e-5)
    assert sorted(encoded) == ["a calm sea at dawn, photo", "a forest at night"]  # each once for the whole shot
    assert torch.equal(states[0], encoder.encode(["a calm sea at dawn, photo"]).states)


def test_a_blend_goes_on_after_a_stop_as_it_would_have(tmp_path: Path) -> None:
    prompts = [
        {"text": "a calm sea at dawn, photo", "ease": "linear"}, {"frame": 5, "text": "a desert at noon, photo"},
        {"text": "snow", "weight": "0:(0), 6:(0.5)", "frame": 3},
    ]  # fmt: skip
    shot = _shot(prompts, 8, schedules={"strength": 0.4, "color_match": 1.0})
    whole = [frame.png for frame in render_shot(shot, store=FrameStore(tmp_path / "a"))]
    store = FrameStore(tmp_path / "b")
    begun = render_shot(shot, store=store)
    for _ in range(3):  # in the middle of the blend: its palettes have to come from the store
        next(begun)
    begun.close()
    again = list(render_shot(shot, store=store))
    assert [frame.stored for frame in again] == [True] * 3 + [False] * 5
    assert [frame.png for frame in again] == whole


def test_colours_go_over_with_the_prompt(tmp_path: Path) -> None:
    prompts = [{"text": "a sea at night, photo", "ease": "linear"}, {"frame": 6, "text": "a desert at noon, photo"}]
    shot = _shot(prompts, 8, schedules={"strength": 0.3, "color_match": 1.0})
    store = FrameStore(tmp_path)
    frames = list(render_shot(shot, store=store))
    entries = [store.get(frame.key) for frame in frames]
    anchors = np.array([entry.anchor for entry in entries if entry is not None])
    share = np.array([min(k / 6, 1.0) for k in range(8)])[:, None]
    np.testing.assert_allclose(anchors, anchors[0] + share * (anchors[-1] - anchors[0]), rtol=1e-9, atol=1e-9)
    assert np.linalg.norm(anchors[-1] - anchors[0]) > 5.0

# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a film: exact counts for every combination of cadence, loop, interpolation, cuts and range."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.errors import KoshiError
from koshi_backend.shot import Shot, load_shot
from koshi_backend.timing import drawn, film, film_length, made_frames, seam_share, seam_start

LOOPS = ("none", "back", "seamless")
TEXT = [{"frame": 0, "text": "a calm sea, photo"}]


def shot(frames: int = 12, **parts: Any) -> Shot:
    return load_shot({"width": 64, "height": 64, "frames": frames, "prompts": TEXT, **parts})


@st.composite
def plans(draw: Any) -> dict[str, Any]:
    frames = draw(st.integers(1, 40))
    some = st.lists(st.integers(0, frames - 1), max_size=4)
    return {
        "frames": frames,
        "cadence": draw(st.lists(st.floats(1.0, 100.0) | st.floats(1.0, 5.0), min_size=frames, max_size=frames)),
        "needed": draw(some),
        "cuts": draw(some),
        "loop": draw(st.sampled_from(LOOPS)),
        "interpolation": draw(st.sampled_from((1, 2, 4, 8))),
    }


@given(plans())
@settings(max_examples=400, deadline=None)
def test_every_frame_comes_out_once_and_in_time(plan: dict[str, Any]) -> None:
    frames, cuts, times = plan["frames"], plan["cuts"], plan["interpolation"]
    made = made_frames(frames, plan["cadence"], plan["needed"], cuts)
    spots = list(film(frames, made, cuts, plan["loop"], times))

    assert made == sorted(set(made)) and made[0] == 0 and made[-1] == frames - 1
    assert {*plan["needed"], *cuts, *(cut - 1 for cut in cuts if cut)} <= set(made)
    for here, after in itertools.pairwise(made):
        assert after - here <= int(plan["cadence"][here])

    around = {"none": (frames - 1) * times + 1, "back": max(1, 2 * frames - 2) * times, "seamless": frames * times}
    assert len(spots) == film_length(frames, plan["loop"], times) == around[plan["loop"]]
    # The frames of the shot are all there, at their moments, and in order.
    assert [spot.place for spot in spots[: frames * times : times]] == list(range(frames))
    for spot in spots:
        assert spot.first in made and (spot.second in made or spot.second == frames)
        assert spot.first <= spot.place <= spot.second
        if spot.first != spot.second:
            # It lies between two neighbours, and not across a cut.
            assert made.index(spot.first) + 1 == (made.index(spot.second) if spot.second < frames else len(made))
            assert spot.second not in cuts and 0.0 < spot.share < 1.0


@given(plans())
@settings(max_examples=100, deadline=None)
def test_time_goes_on_evenly_but_where_a_picture_holds_until_a_cut(plan: dict[str, Any]) -> None:
    frames, cuts, times = plan["frames"], plan["cuts"], plan["interpolation"]
    made = made_frames(frames, plan["cadence"], plan["needed"], cuts)
    places = [spot.place for spot in film(frames, made, cuts, plan["loop"], times)]
    for index, place in enumerate(places):
        due = Fraction(index, times)
        if plan["loop"] == "back" and due > frames - 1:
            due = 2 * (frames - 1) - due
        before_cut = {cut - 1 for cut in cuts}
        assert place == due or frames == 1 or (place in before_cut and 0 < due - place < 1)


@pytest.mark.parametrize(("frames", "cadence", "made"), [(10, 3, [0, 3, 6, 9]), (12, 3, [0, 3, 6, 9, 11]), (1, 5, [0])])
def test_the_last_frame_is_always_made(frames: int, cadence: int, made: list[int]) -> None:
    """sd-webui-deforum gives out 118 of 120 frames with its cadence of 2."""
    assert shot(frames, schedules={"cadence": cadence}).made == made


def test_cadence_is_a_schedule_of_whole_parts() -> None:
    assert shot(12, schedules={"cadence": "0:(1.9), 3:(4), 4:(2)"}).made == [0, 1, 3, 7, 9, 11]  # 2.6 at 1, 3.3 at 2


def test_a_cut_takes_the_frame_before_it_along() -> None:
    """So that no picture lies between two scenes."""
    assert shot(12, schedules={"cadence": 5}, motion={"cuts": [7]}).made == [0, 5, 6, 7, 11]


def test_keyframes() -> None:
    keys = {"every": 5, "frames": [7], "prompts": True}
    one = shot(
        12,
        prompts=[*TEXT, {"frame": 4, "text": "a storm, photo"}],
        schedules={"strength": 0.3, "keyframe_strength": "0:(0.8), 11:(0.8)", "cadence": 100},
        time={"keyframes": keys},
        motion={"cuts": [10]},
    )
    assert one.keyframes == {4, 5, 7}  # frame 10 begins anew anyway
    assert one.made == [0, 4, 5, 7, 9, 10, 11]
    assert [k for k, strength in enumerate(one.values["strength"]) if strength != 0.3] == [4, 5, 7]
    assert one.values["strength"][5] == pytest.approx(0.8)


def test_seeds_count_the_frames_that_are_made() -> None:
    one = shot(10, seed=100, seed_behavior="iter", schedules={"cadence": 3})
    assert [one.values["seed"][k] for k in one.made] == [100, 101, 102, 103]
    assert one.values["seed"][:4] == [100, 100, 100, 101]
    keyed = shot(4, seed_behavior="schedule", schedules={"cadence": 3, "seed": [5, 6, 7, 8]})
    assert keyed.values["seed"] == [5, 6, 7, 8]


@given(st.integers(2, 60), st.integers(1, 80), st.integers(1, 7), st.lists(st.integers(1, 59), max_size=2))
@settings(max_examples=200, deadline=None)
def test_a_seam_ends_in_frame_0(frames: int, seam: int, cadence: int, given_cuts: list[int]) -> None:
    """Drawn by each frame's share of what is left, the old way has gone in the last frame, and it goes evenly,
    whichever frames are made."""
    cuts = [cut for cut in given_cuts if cut < frames]
    start = seam_start(frames, seam, cuts)
    made, left = made_frames(frames, [cadence] * frames, (), cuts), 1.0
    for before, index in itertools.pairwise(made):
        share = seam_share(index, before, start, frames)
        assert 0.0 <= share <= 1.0 and (share == 0.0) == (index < start)
        left *= 1.0 - share
        assert left == pytest.approx(1.0 - drawn(index, start, frames))
    if start < frames:
        assert left == pytest.approx(0.0)
        assert not any(start <= cut for cut in cuts)


def test_an_absolute_curve_goes_back_to_where_it_began() -> None:
    curves = {"schedules": {"translation_x": [0, 5, 9], "zoom": [1.0, 1.1, 1.2]}}
    motion = {"absolute": ["translation_x", "zoom"]}
    assert shot(3, **curves, motion=motion).values["translation_x"] == [0, 5, 4]
    loop = shot(3, **curves, motion=motion, time={"loop": "seamless"})
    assert loop.values["translation_x"] == [-9, 5, 4]
    assert loop.values["zoom"][0] == pytest.approx(1 / 1.2)


def test_a_shot_says_how_many_pictures_come_out_and_what_they_are_called() -> None:
    one = shot(5, fps=12, frame_start=101, frame_step=2, time={"loop": "back", "interpolation": 4})
    assert (one.film_frames, one.film_rate, one.film_number(9)) == (32, 48.0, 110)
    assert shot(5, frame_start=101, frame_step=2).film_number(3) == 107


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"schedules": {"cadence": 0}}, "schedules.cadence"),
        ({"schedules": {"cadence": 101}}, "schedules.cadence"),
        ({"schedules": {"keyframe_strength": 1.5}}, "schedules.keyframe_strength"),
        ({"time": {"keyframes": {"frames": [12]}}}, "time.keyframes.frames"),
        ({"time": {"keyframes": {"evry": 3}}}, "time.keyframes.evry"),
        ({"time": {"interpolation": 3}}, "time.interpolation"),
        ({"time": {"seam": 0}}, "time.seam"),
        ({"time": {"loop": "seamless"}, "feedback": {"carry": "none"}}, "time.loop"),
        ({"time": {"loop": "round"}}, "time.loop"),
        ({"audio": "none.wav"}, "audio"),
    ],
)
def test_what_cannot_be_is_named(parts: dict[str, Any], field: str) -> None:
    with pytest.raises(KoshiError) as caught:
        shot(12, **parts)
    assert [problem["field"] for problem in caught.value.problems] == [field]

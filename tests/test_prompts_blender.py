# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts on the timeline, time settings and further curves: as Blender holds them, and as the backend reads them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT, in_versions
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend import prompts as backend
from koshi_backend.settings import SCHEDULES, Prompt
from koshi_backend.shot import Shot, load_shot
from koshi_backend.timing import film, film_length

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)


def _pure(name: str) -> ModuleType:
    """A module of operators/ that needs no Blender; the package around it does."""
    for package, folder in (("koshi_pure", ROOT), ("koshi_pure.operators", ROOT / "operators")):
        sys.modules.setdefault(package, ModuleType(package)).__path__ = [str(folder)]
    return importlib.import_module(f"koshi_pure.operators.{name}")


prompt_text, splice, shot_fields = _pure("prompt_text"), _pure("splice"), _pure("shot_fields")
Spot = prompt_text.Spot


# From a scene's prompts to a shot's


def said(shot: Shot, index: int) -> dict[str, float]:
    """How much of each text there is in a frame."""
    return {part.text: part.weight for part in shot.texts.at(index)}


def a_shot(prompts: list[dict[str, Any]], frames: int, **more: Any) -> dict[str, Any]:
    return {
        "koshi": 1, "model": "koshi-tiny", "width": 128, "height": 128, "fps": 24.0, "frame_start": 0, "frames": frames,
        "seed": 3, "steps": 1, "prompts": prompts, "schedules": {"strength": 0.4}, "feedback": {"condition": "start"},
        **more,
    }  # fmt: skip


spots_of_a_scene = st.dictionaries(
    st.integers(-5, 60),
    st.tuples(st.sampled_from(list(backend.EASINGS)), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(spots_of_a_scene, st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_a_part_of_the_range_says_what_the_whole_says(
    table: dict[int, tuple[str, bool]], first: int, into: int, length: int
) -> None:
    def spots(begin: int, end: int) -> list[Any]:
        return [
            Spot(
                frame, f"text {frame}", ease=ease,
                weights=tuple((7 * (k + frame) % 10) / 10 + 0.1 for k in range(begin, end + 1)) if beside else None,
            )
            for frame, (ease, beside) in table.items()
        ]  # fmt: skip

    if all(beside for _, beside in table.values()):
        table[-5] = ("linear", False)  # else there may be a frame without any prompt
    last = first + into + length
    whole = load_shot(a_shot(prompt_text.in_shot(spots(first, last), first, last, 1, [])[0], last - first + 1))
    begin = first + into
    part = load_shot(a_shot(prompt_text.in_shot(spots(begin, last), begin, last, 1, [])[0], last - begin + 1))
    for frame in range(begin, last + 1):
        now, then = said(part, frame - begin), said(whole, frame - first)
        assert now == pytest.approx(then, abs=2e-6), frame


def test_math_counts_from_the_whole_range() -> None:
    text = "a `t/2` storey house of `max_f-t` stones, at t"
    assert prompt_text.counted_from(text, 8, 25) == "a `(t+8)/2` storey house of `24-(t+8)` stones, at t"
    whole = backend.Track([Prompt(text=text)], 25, 0)
    part = backend.Track([Prompt(text=prompt_text.counted_from(text, 8, 25))], 10, 0)
    assert [part.at(k)[0].text for k in range(10)] == [whole.at(k + 8)[0].text for k in range(10)]


EASED = [
    {"frame": 0, "text": "a sea", "ease": "linear"},
    {"frame": 6, "text": "a hill", "negative": "people", "ease": "sigmoid"},
    {"frame": 14, "text": "a town"},
    {"frame": 3, "text": "snow", "weight": [0.1 * k for k in range(12)]},
]


@pytest.mark.parametrize("at", [1, 5, 9, 11])
def test_a_splice_keeps_prompts_that_go_over_into_one_another(at: int) -> None:
    old = a_shot(EASED, 12)
    new = a_shot([{"frame": 0, "text": "a moor", "ease": "ease_in"}, {"frame": 8, "text": "a hill"}], 12)
    shots = [load_shot(one) for one in (old, new, splice.splice(old, new, at))]
    for frame in range(12):
        assert said(shots[2], frame) == pytest.approx(said(shots[frame >= at], frame), abs=2e-6), frame
    assert splice.unchanged(old, splice.splice(old, old, at), at)
    assert not splice.unchanged(old, splice.splice(old, new, at), at)


def test_a_curve_may_be_keyed_from_the_splice_on() -> None:
    old, new = (a_shot([{"frame": 0, "text": "a sea"}], 6) for _ in range(2))
    new["schedules"] = {"strength": 0.4, "contrast": [1.0, 1.0, 1.0, 1.2, 1.2, 1.2]}
    made = splice.splice(old, new, 2)
    assert made["schedules"]["contrast"] == new["schedules"]["contrast"]
    assert not splice.unchanged(old, made, 2)


def test_a_splice_goes_over_from_one_lora_to_another() -> None:
    old, new = (a_shot([{"frame": 0, "text": "a sea"}], 6) for _ in range(2))
    old["loras"] = [{"file": "ink", "weight": 0.5}, {"file": "ink", "weight": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}]
    new["loras"] = [{"file": "ink", "weight": 0.5}, {"file": "oil", "weight": 1.0}]
    assert splice.splice(old, new, 4)["loras"] == [
        {"file": "ink", "weight": 0.5},
        {"file": "ink", "weight": [0.0, 0.1, 0.2, 0.3, 0.0, 0.0]},
        {"file": "oil", "weight": [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]},
    ]
    assert not splice.unchanged(old, splice.splice(old, new, 4), 4)
    assert splice.unchanged(old, splice.splice(old, old, 4), 4)
    plain = a_shot([{"frame": 0, "text": "a"}], 6)
    assert "loras" not in splice.splice(plain, plain, 2)


@settings(deadline=None)
@given(st.lists(st.integers(1, 7), min_size=12, max_size=12), st.sampled_from([1, 2, 4]), st.integers(1, 11))
def test_pictures_that_are_kept_do_not_depend_on_what_follows(cadence: list[int], times: int, at: int) -> None:
    """Up to the last frame that is made before the splice, the film shows what it has shown."""
    shot = a_shot([{"text": "a sea"}], 12, time={"interpolation": times})
    shot["schedules"]["cadence"] = [float(value) for value in cadence]
    kept = splice.kept_pictures(shot, at)
    made = load_shot(shot).made
    spots = list(film(12, made, (), "none", times))[:kept]
    assert kept >= 1 and all(spot.second < at for spot in spots)


# In Blender


@pytest.fixture(scope="module")
def seen(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return blender.script("prompts", tmp_path_factory.mktemp("prompts"))


TOWN = ("a town " * 20).strip()


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_a_prompt_stands_where_its_marker_stands(seen: Any) -> None:
    cut = "“a town a town a town a town a town a tow…”"
    assert seen["added"] == {
        "marks": [[1, "“a calm sea”"], [10, cut], [20, "“a forest”"]], "frames": [1, 20, 10],
    }  # fmt: skip
    assert seen["marker_moved"] == {"frame": 25, "heard": [[0, "a calm sea"], [9, TOWN], [24, "a forest"]]}
    assert seen["prompt_moved"]["marks"][2] == [31, "“a forest”"]
    assert seen["prompt_moved"]["heard"][2] == [30, "a forest"]
    assert seen["written"] == ["“a calm sea”", cut, "“a desert”"]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_renamed_duplicated_and_deleted_markers(seen: Any) -> None:
    assert seen["renamed"] == {"frame": 31, "off": False, "moved": 33, "names": [*seen["written"][:2], "Act 2"]}
    assert seen["again"] == {
        "frames": [1, 40], "heard": [[0, "a calm sea"], [9, TOWN], [32, "dunes"], [39, "a calm sea"]],
    }  # fmt: skip
    # The earlier one holds from the first frame on, as the first prompt does.
    assert seen["deleted"] == {"off": True, "text": "a calm sea", "heard": [[0, TOWN], [32, "dunes"]]}
    assert seen["placed"] == {"off": False, "heard": [[0, "a calm sea"], [9, TOWN], [32, "dunes"]]}


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_other_markers_are_left_alone(seen: Any) -> None:
    others = seen["others"]
    assert others["off"]  # the marker "beat" at its frame is not taken for it
    assert others["before"] == [[5, "beat"], [12, "beat 2"], [30, "cut"]]
    # A prompt's marker that switches the camera outlives the prompt.
    assert others["after"] == [[5, "beat"], [12, "beat 2"], [12, "“a hill”"], [30, "cut"]]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_copies_files_and_scenes_without_markers(seen: Any) -> None:
    assert seen["copied"] == {
        "heard": [[0, "a sea"], [19, "a hill"]], "first": [[0, "a sea"], [11, "a hill"]],
        "marks": [[[1, "“a sea”"], [20, "“a hill”"]], [[1, "“a sea”"], [12, "“a hill”"]]],
    }  # fmt: skip
    assert seen["hidden"] == {"marks": [], "heard": [[0, "a sea"], [13, "a hill"]]}
    assert seen["shown"] == [[1, "“a sea”"], [14, "“a hill”"]]
    assert seen["loaded"] == {"marks": [[1, "“a sea”"], [17, "“a hill”"]], "heard": [[0, "a sea"], [16, "a hill"]]}
    plain = seen["plain"]
    assert plain["heard"] == [[0, "a calm sea at dawn, photo"], [8, "a hill"]] and plain["marks"] == []
    assert plain["shown"] == [[1, "“a calm sea at dawn, photo”"], [9, "“a hill”"], [30, "“a hill” 2"]]
    assert seen["jumps"] == [[9, 1], [1, 0], [9, 1], [30, 2]]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_what_is_wrong_with_prompts_is_told(seen: Any) -> None:
    assert seen["crowded"] == {"told": ["2 prompts stand at frame 5."], "frames": [5]}
    assert seen["all_off"] == ["No prompt is on the timeline: their markers were deleted."]
    assert seen["silent"].startswith("There is no sound at ")


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_weights_and_easing_reach_the_shot(seen: Any) -> None:
    prompts = {prompt["text"]: prompt for prompt in seen["blend"]["prompts"]}
    hill = prompts["a hill of `t+max_f` stones"]
    assert hill == {"frame": 20, "text": hill["text"], "negative": "people", "ease": "ease_in"}
    assert prompts["a sea"] == {"frame": 0, "text": "a sea", "ease": "linear"}
    # It stands after the last frame, and the one before goes over into it: a quarter of the way, by its easing.
    assert prompts["a town"] == {"frame": 59, "text": "a town"}
    rise = [min(max((frame - 11) / 20, 0.0), 1.0) for frame in range(1, 49)]
    assert prompts["snow"]["frame"] == 10
    np.testing.assert_allclose(prompts["snow"]["weight"], rise, atol=1e-6)
    whole, part = load_shot(a_shot(seen["blend"]["prompts"], 48)), load_shot(a_shot(seen["part"], 25))
    for frame in range(16, 41):
        assert said(part, frame - 16) == pytest.approx(said(whole, frame - 1), abs=2e-6), frame
    assert seen["part_keyframes"] == {"keyframes": {"prompts": True, "frames": [5]}}
    stepped = load_shot(a_shot(seen["stepped"], 24))
    assert said(stepped, 5) == pytest.approx({"a sea": 0.5, "a hill of 28 stones": 0.5})
    assert seen["renumbered"]["paths"] == ["koshi.prompts[2].weight"]
    np.testing.assert_allclose(seen["renumbered"]["snow"], rise, atol=1e-6)
    np.testing.assert_allclose(seen["driven"], [frame / 48 for frame in range(1, 49)], atol=1e-6)


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_a_prompts_frame_takes_no_keyframes(seen: Any) -> None:
    assert all("not animatable" in told for told in seen["frame_keyed"]), seen["frame_keyed"]
    assert seen["linked"] == [False, False, False, False, True]  # of a linked scene; to look at it is allowed
    there = seen["frame_curve"]
    assert there["frame"] == 21 and there["marks"][1] == [21, "“a hill”"]
    assert there["told"] == ["The frame of the prompt at 21 has keyframes or a driver, which do not count."]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_time_colours_noise_and_depth_reach_the_shot(seen: Any) -> None:
    plain, shot = seen["defaults"], seen["set"]
    assert not {"time", "motion", "depth", "guides", "audio"} & set(plain)
    assert list(plain["schedules"]) == [
        "zoom", "angle", "translation_x", "translation_y", "translation_z", "strength", "noise", "guidance",
    ]  # fmt: skip
    assert shot["time"] == {
        "inbetween": "blend", "loop": "seamless", "seam": 6, "interpolation": 4,
        "keyframes": {"every": 8, "prompts": True},
    }  # fmt: skip
    assert shot["motion"] == {"source": "3d"}
    assert shot["depth"] == {"source": "files", "farthest": 9.0}
    assert Path(shot["guides"]["depth"]).name == "depth_####.png"
    assert shot["feedback"] == {
        "carry": "pixels", "condition": "both", "border": "wrap", "color_mode": "none", "noise_mode": "slerp",
        "noise_delta": 0.2,
    }  # fmt: skip
    assert shot["schedules"]["cadence"] == 3
    np.testing.assert_allclose(shot["schedules"]["rotation_3d_y"], [0.01 * k for k in range(48)], atol=1e-6)
    # Every fourth frame: the turns up to it, one after the other.
    sums = [0.0, 0.01 + 0.02 + 0.03 + 0.04, 0.05 + 0.06 + 0.07 + 0.08]
    np.testing.assert_allclose(seen["turned"][:3], sums, atol=1e-6)
    # Blender's render button asks for its own frames, and a preview for one; but these depend on those that follow.
    engine = seen["engine"]["shot"]
    assert seen["engine"]["whole"] and engine["time"] == {k: v for k, v in shot["time"].items() if k != "interpolation"}
    assert "time" not in seen["preview"] and "audio" not in seen["preview"]
    del shot["audio"], shot["guides"], shot["depth"]
    ready = load_shot({**shot, "motion": {}})  # the files are not there
    assert ready.film_frames == 192 and ready.film_rate == 96


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_curves_and_choices_are_the_backends(seen: Any) -> None:
    for name, (default, low, high) in seen["curves"].items():
        spec = SCHEDULES[name]
        assert default == pytest.approx(spec.default), name
        assert low >= spec.low - 1e-6 and high <= spec.high + 1e-6, name
    assert seen["animatable"] == []
    assert seen["eases"] == list(backend.EASINGS)
    assert seen["choices"] == seen["told_choices"]
    plain = load_shot({"frames": 1, "prompts": [{"text": "a"}]}).as_dict()
    for name, (place, default) in shot_fields.FIELDS.items():
        whole: Any = plain
        for step in place.split("."):
            whole = whole[step]
        assert whole == default, name


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_a_strip_plays_at_the_scenes_speed(seen: Any) -> None:
    for frames, places, names, reached in seen["strips"]:
        assert len(names) == places == reached[-1] + 1
        # When a picture is there, all files that the strip names up to its place are there.
        for index, place in enumerate(reached):
            last = int(names[place][:4]) - 5
            assert last <= index or last == frames
    back, none, again, stepped = seen["strips"]
    assert [back[1], none[1], again[1], stepped[1]] == [film_length(6, "back", 1), 6, film_length(6, "back", 1), 10]
    assert none[2] == [f"{5 + 4 * k:04}.png" for k in range(6)]


@pytest.mark.blender
@pytest.mark.timeout(600)
@in_versions("4.5")  # what differs by version is in test_takes.py
def test_takes_that_are_longer_than_their_frames(blender: Blender, tmp_path: Path) -> None:
    seed = 9000 + int(blender.version.replace(".", ""))
    blend = blender.scene(
        tmp_path / "film.blend", frames=7, frame_start=5, seed=seed, steps=1, zoom=1.02, strength=0.3,
        prompts=[[5, "a calm sea at dawn, photo"]],
    )  # fmt: skip
    seen = blender.script("film_takes", tmp_path, file=blend)
    begun, done, anew, seamless = (seen[name] for name in ("cancelled", "resumed", "from_here", "seamless"))
    length = film_length(7, "back", 2)  # 24 pictures, which are the 12 scene frames there and back
    assert begun["phase"] == "cancelled" and seen["unfinished"] and begun["frames"] == length
    assert done["phase"] == "done" and done["done"] == done["frames"] == len(done["pictures"]) == length
    assert done["take"] == [12, 12] and done["range"] == [5, 17]
    assert done["files"] == [f"{5 + 2 * k:04}.png" for k in range(12)]
    # Frames 5, 8 and 11 are made: what lies before the last one before the playhead is the take's, as it was.
    assert anew["phase"] == "done" and anew["kept"] == 3 and anew["frames"] == length
    assert not [note for note in anew["notes"] if "had to be made again" in note]
    same = [name for name, picture in anew["pictures"].items() if done["pictures"][name] == picture]
    assert {f"{5 + k:04}.png" for k in range(3)} <= set(same) and len(same) < length
    assert seamless["phase"] == "done" and seamless["done"] == film_length(7, "seamless", 2) == 14
    assert seamless["take"] == [7, 7]
    assert seen["f12"]["file"] == "0013.png" and seen["f12"]["differ"] == 0, seen["f12"]

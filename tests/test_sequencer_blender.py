# SPDX-License-Identifier: GPL-3.0-or-later
"""The sequencer around Koshi, in a real Blender of every supported version: what a take's strip knows and keeps,
strips as film for a shot, sound as curves, and colours."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def takes(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    # Each version makes frames of its own.
    seed = 9000 + int(blender.version.replace(".", ""))
    return {"seed": seed, **blender.script("strip_takes", tmp_path_factory.mktemp("takes é"), seed)}


def test_a_strip_says_what_its_take_was_made_with(takes: Any) -> None:
    first = takes["first"]
    assert (first["phase"], first["error"], first["notes"]) == ("done", None, [])
    texts = ("5: a calm sea at dawn, photo", "7: a forest at day, photo", "9: a city at night, photo")
    side = first["about"].pop("scene")
    assert first["about"] == {
        "koshi_shot": first["digest"], "koshi_model": "koshi-tiny", "koshi_seed": takes["seed"],
        "koshi_prompt": "\n".join(texts), "koshi_first": 5, "koshi_places": 6,
    }  # fmt: skip
    assert side["start"] == "PROMPT" and side["mask"] == side["camera"] == ""
    # A copy of the scene, and the file after saving and loading, say the same.
    assert takes["copied"] == takes["loaded"] == {**first["about"], "scene": side}


def test_redo_restores_all_settings(takes: Any) -> None:
    assert len(takes["spoiled"]) > 15  # nearly everything was changed
    (first, whole), (third, whole_too) = takes["stopped"]
    assert first != third and first.startswith("Restoring") and whole == whole_too == []
    assert takes["redo"] == ["FINISHED"] and takes["differs"] == [] and takes["same_shot"]
    assert [frame for frame, _ in takes["markers"]] == [5, 7, 9]
    keyed = ("zoom", "angle", "strength", "translation_x", "seed", "contrast")
    assert {f"koshi.{name}" for name in keyed} <= {*takes["keys"]}
    # So a render is the same shot: every frame comes from the store, to the bit, into the same strip.
    again = takes["rendered_again"]
    assert again["digest"] == takes["first"]["digest"] and again["same"]
    assert (again["made"], again["stored"], again["strips"]) == (0, 6, 1)
    stepped = takes["stepped"]
    assert stepped["phase"] == "done" and stepped["differs"] == [] and stepped["step"] == 3
    assert stepped["again"] == stepped["digest"]


def test_redo_takes_from_the_scene_what_the_take_did(takes: Any) -> None:
    assert takes["deep"] == [[], "Camera", "Masked", "EDGES"]
    assert takes["moved"] == ["the camera's motion"]  # it has been animated otherwise since: that is told


def test_replacing_a_take_keeps_the_edit(takes: Any) -> None:
    assert takes["poll"] == [False, False, False]
    assert takes["second"]["phase"] == "done" and takes["replace"] == ["FINISHED"]
    (before, effect_before, curves_before), (after, effect_after, curves_after) = takes["edited"], takes["replaced"]
    # The other take begins a frame earlier and ends two earlier: each picture is where that of its frame was, and the
    # end of the strip, which it has no pictures for, comes in by one.
    assert before["range"] == [107, 110] == effect_before and after["range"] == [107, 109] == effect_after
    assert (before["start"], after["start"]) == (105, 104)
    for kept in ("channel", "blend", "transform", "crop", "modifiers"):
        assert before[kept] == after[kept], kept
    assert len(curves_before) == 1 and curves_after == curves_before and "Hero" in curves_before[0]
    assert takes["effect_input"] == "Hero"
    assert takes["menu"] == [2, True, True]  # a take keeps its number, by which the last operator's panel knows it
    seed = takes["seed"] + 50
    assert takes["menu_read"] == [
        [0, 1, 3], [f"5 frames, seed {seed}", f"6 frames, seed {seed}", "5 frames, seed 7"],
    ]  # fmt: skip
    assert takes["shown_now"] == [[True, "CHECKMARK"]]
    assert takes["replaced_files"] == [f"{n:04}.png" for n in range(4, 9)]
    assert takes["replaced_about"]["koshi_shot"] == takes["second"]["digest"]
    assert takes["replaced_about"]["koshi_first"] == 4 and takes["replaced_about"]["koshi_seed"] == takes["seed"] + 50


def test_all_pieces_of_a_take_are_replaced_in_their_meta_strip(takes: Any) -> None:
    assert [piece[1:] for piece in takes["pieces"]] == [[107, 108], [108, 109]]
    # One of them cannot show it: none is changed.
    assert "ends before frame" in takes["half"] and takes["half_after"] == takes["replaced_files"] * 2
    assert takes["back"] == ["FINISHED"] and takes["pieces_after"] == takes["pieces"]
    assert takes["back_same"] == [True, True]
    assert {piece[0] for piece in takes["pieces"]} <= {*takes["inside"]}


def test_a_new_render_goes_into_the_strip(takes: Any) -> None:
    made = takes["rerendered"]
    assert takes["rerender"] == ["FINISHED"] and made["phase"] == "done"
    assert made["strips"] == 2 and made["digests"] and made["folder"]  # no strip was added
    assert made["ranges"] == [piece[1:] for piece in takes["pieces"]]
    assert takes["add"] == ["FINISHED"]
    assert takes["added"]["range"] == [5, 11] and takes["added"]["same"]


def test_strips_are_named_by_their_takes_and_seeds(takes: Any) -> None:
    (added, other, back), (folder, other_folder) = takes["named"]
    assert added == back == f"{folder} seed {takes['seed']}" and other == f"{other_folder} seed {takes['seed'] + 50}"


def test_a_strip_is_found_beside_its_sequencer(takes: Any) -> None:
    without, with_one, knows_scenes, name = takes["beside"]
    assert not without and with_one == knows_scenes
    assert name == takes["named"][0][1 if knows_scenes else 0]


@pytest.fixture(scope="module")
def films(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    seed = 9500 + int(blender.version.replace(".", ""))
    return blender.script("strip_films", tmp_path_factory.mktemp("films é"), seed)


def test_a_strip_is_video_input(films: Any) -> None:
    assert films["poll"] is False
    # Picture 5 is at frame 3, so that the scene's first frame, 11, shows picture 13: 2 further than its own number.
    assert films["files"] == ["FINISHED", "clip/p_###.png", 2, 1, -1]
    assert films["over"] == "every"
    assert films["shot"]["video"].endswith("p_###.png") and films["shot"]["video_first"] == 2
    # A movie that begins at frame 9: trimmed, it is used no further than it is seen; every second frame with a step.
    for one, which in (("movie", [2, 1, -1]), ("movie_short", [2, 1, 3]), ("movie_step", [2, 2, -1])):
        answer, file, *frames = films[one]
        assert answer == "FINISHED" and file.endswith("/film.mp4") and frames == which, one
    assert films["mix"] == "normal"


def test_an_edited_strip_is_rendered_as_it_is_seen(films: Any) -> None:
    for one, name in (("edited", "clip"), ("rendered", "clip"), ("effect", "blur"), ("movie_flipped", "movie")):
        assert films[one][:2] == ["FINISHED", f"Scene_video_{name}/####.png"], one
    assert films["edited_names"] == [f"{n:04}.png" for n in range(11, 15)]
    assert films["edited_same"] == 0  # the sequencer's own output
    assert films["stopped_same"] and films["stopped_left"] == [["Scene_video_clip"], 2]
    assert films["files_anyway"][1:] == ["clip/p_###.png", 2, 1, -1]
    # Without edits a render has the very pixels, though the scene's view is AgX, other strips lie on top and its
    # channel is muted.
    assert films["rendered_same"] == [0, 0, 0, 0] and films["source"] == "FLOW"
    assert films["scene_strip"] == ["FINISHED", "Scene_video_inner/####.png"] and films["scene_strip_same"] == [0, 0, 0]
    assert films["untouched"][:3] == [2, False, "AgX"]


def test_takes_are_shown_with_the_backends_colours(films: Any) -> None:
    assert films["take_view"] == "Standard"  # the first strip of a scene that graded its pictures
    assert films["take_off"] == [0, 0, 0, 0]
    assert films["graded_off"] > 20  # a view is seen, or the zeros would say nothing
    assert films["exact"] == ["FINISHED"] and films["exact_off"] == [0, 0, 0, 0]
    assert films["shown_scene"] in (None, ["Standard", "AgX"])


def test_an_interpolated_strip_is_aligned_with_its_take(films: Any) -> None:
    assert films["between"] == ["FINISHED"]
    phase, made, stored, frames, error = films["between_status"]
    assert (phase, error, frames) == ("done", None, 13) and stored >= 4 and made == 13 - stored
    assert films["aligned"] == [[32, 35], [32, 35], 13, 4.0]  # as trimmed as the take is
    assert films["aligned_off"] == [0, 0, 0]  # at full speed it is the take
    assert films["slower_off"] == 0 and films["half_is_new"] > 0  # at half of it, pictures between its frames
    assert films["slow"] == ["FINISHED"] and films["slow_range"] == [[32, 41], "0015.png", 0]
    assert films["beyond"] == [["0011.png", 27, True], ["0023.png", 40, True]]
    assert films["takes"] == [[4, 4]]


def test_many_pictures_between_frames_are_one_strip_all_the_same(films: Any) -> None:
    same, slow = films["many"]
    # The picture under the take's first shown frame is the fifth; at full speed what is seen is the take.
    assert same == ["META", [32, 35], [32, 35], [5, 5, 2, 1], True] and films["many_off"] == [0, 0, 0]
    assert films["many_last"] == 0
    assert slow == ["META", [32, 41], [32, 41], [5, 3, 1], True]
    assert films["stepped_speed"] == [pytest.approx(4 / 3, abs=1e-3), [32, 35]]


@pytest.fixture(scope="module")
def heard(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    seen = blender.script("strip_sound", tmp_path_factory.mktemp("sound é"))
    if not seen["sound"]:
        assert seen["poll"] is False
        pytest.skip(f"this build of Blender {blender.version} has no sound")
    return seen


def frame(seconds: float, start: int = 11) -> int:
    """The scene's frame at a time of the sound, which begins at frame 11 and has 24 a second."""
    return start + math.floor(seconds * 24)


def peaks(course: list[float], above: float) -> list[int]:
    """The frames, from 1, at which a course rises over a value."""
    return [k + 2 for k, (before, after) in enumerate(pairwise(course)) if before <= above < after]


KICKS, HATS = [0.5, 1.0, 1.5, 2.25, 3.0], [0.75, 2.0, 2.6]  # as in strip_sound.py


def test_bands_of_a_sound_become_keyframes(heard: Any) -> None:
    zoom = heard["zoom"]
    assert heard["channel"] is True  # it is muted, is heard all the same, and is muted again
    assert peaks(zoom, 1.03) == [frame(at) for at in KICKS]  # the louder copy of it on another channel is not heard
    assert min(zoom) == 1.0 and max(zoom) == pytest.approx(1.05)
    assert zoom[:11] == [1.0] * 11 and zoom[107:] == [1.0] * 13  # the strip's 96 frames
    strength = heard["strength"]
    assert peaks(strength[:106], 0.45) == [frame(2.0)] and strength[frame(2.6) - 1] < 0.45
    angle = heard["angle"]
    falling = angle[frame(2.6) : frame(3.5)]
    assert all(after < before for before, after in pairwise(falling))
    # The voice ends at 2.5 s; 13 frames of falling at 12 a release. Observed: .001 off.
    assert angle[frame(3.0) - 1] / max(angle) == pytest.approx(math.exp(-13 / 12), abs=0.02)


def test_beats_become_markers(heard: Any) -> None:
    for at in KICKS:
        assert min(abs(marked - frame(at)) for marked in heard["low_beats"]) <= 1
    assert len(heard["low_beats"]) <= len(KICKS) + 1  # the voice begins too
    assert [min(abs(marked - frame(at)) for marked in heard["high_beats"]) <= 1 for at in HATS] == [True] * 3
    assert len(heard["high_beats"]) == heard["markers"] - 1  # those before are gone, the artist's own is not


def test_what_was_done_to_the_strip_counts(heard: Any) -> None:
    shift, left = heard["shift"], 31 + 30
    inside = [frame(at, 31) for at in KICKS if left <= frame(at, 31) < 31 + 60]
    assert peaks(shift[: left + 35], 2.5) == inside
    assert max(shift) == pytest.approx(4.0)
    assert shift[:58] == [1.5] * 58 and shift[95:] == [1.5] * 25  # before and after it the curve is what it was
    for at in inside:
        assert min(abs(marked - at) for marked in heard["trimmed_beats"]) <= 1
    assert heard["left"] == [1, False, False, 1, 120]
    if heard["speed"] is not None:  # at twice the speed
        span, answer, marked = heard["speed"]
        assert span == [31, 79] and answer == ["FINISHED"]
        for at in KICKS:
            assert min(abs(one - frame(at / 2, 31)) for one in marked) <= 1


def test_a_long_sound_is_heard_in_portions(heard: Any) -> None:
    whole, parts, off, yielded = heard["portions"]
    assert whole == parts and max(off) < 1e-3  # of 1, how loud the bands are
    assert yielded == [pytest.approx(36 / 96), pytest.approx(72 / 96), 1.0]
    assert heard["gone"] == 'The strip "beat" is gone.'


def test_what_cannot_be_heard_is_told(heard: Any) -> None:
    driver, nothing, swapped = heard["refused"]
    assert "driver" in driver and "Keyframes" in nothing and "swap" in swapped

# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes in the sequencer: cancelled and resumed, rendered anew from a frame on, long ones."""

from __future__ import annotations

import copy
import importlib
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from koshi_backend.chain import Painter, frame_key
from koshi_backend.shot import load_shot

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)


def _splice() -> ModuleType:
    """operators/splice.py, which needs no Blender; the package around it does."""
    for name, folder in (("koshi_splice", ROOT), ("koshi_splice.operators", ROOT / "operators")):
        package = sys.modules.setdefault(name, ModuleType(name))
        package.__path__ = [str(folder)]
    return importlib.import_module("koshi_splice.operators.splice")


splice = _splice()
SHOT: dict[str, Any] = {
    "koshi": 1, "model": "koshi-tiny", "width": 128, "height": 128, "fps": 24.0, "frame_start": 5, "frames": 10,
    "seed": 7, "steps": 1, "prompts": [{"frame": 0, "text": "a sea"}, {"frame": 6, "text": "a forest"}],
    "schedules": {"zoom": 1.0, "strength": [0.3 + 0.01 * k for k in range(10)]},
    "feedback": {"carry": "pixels", "condition": "start"}, "strength_convention": "denoise",
}  # fmt: skip


def _keys(data: dict[str, Any]) -> list[str]:
    shot = load_shot(data)
    painter, keys = Painter.of(shot, torch.device("cpu"), torch.float32), [""]
    for index in range(shot.frames):
        keys.append(frame_key(shot, index, keys[-1], painter))
    return keys[1:]


@given(
    at=st.integers(1, 9),
    zoom=st.one_of(st.just(1.02), st.lists(st.floats(0.9, 1.1), min_size=10, max_size=10)),
    seeds=st.one_of(st.none(), st.lists(st.integers(0, 100), min_size=10, max_size=10)),
    texts=st.dictionaries(st.integers(0, 9), st.sampled_from(["a sea", "a desert", "a town"]), max_size=3),
    cuts=st.sets(st.integers(1, 9), max_size=2),
)
def test_a_spliced_shots_frames_are_the_takes_and_then_the_scenes(
    at: int, zoom: Any, seeds: Any, texts: dict[int, str], cuts: set[int]
) -> None:
    new = copy.deepcopy(SHOT)
    new["schedules"]["zoom"] = zoom
    if seeds:
        new["schedules"]["seed"] = seeds
    new["prompts"] = [{"frame": k, "text": text} for k, text in sorted({0: "a hill", **texts}.items())]
    if cuts:
        new["motion"] = {"cuts": sorted(cuts)}
    made = splice.splice(SHOT, new, at)
    assert _keys(made)[:at] == _keys(SHOT)[:at]  # so the store has them
    old_shot, new_shot, shot = load_shot(SHOT), load_shot(new), load_shot(made)
    for index in range(10):
        source = old_shot if index < at else new_shot
        assert shot.texts.at(index)[0].text == source.texts.at(index)[0].text
        assert shot.begins(index) == source.begins(index)
        assert {n: v[index] for n, v in shot.values.items()} == {n: v[index] for n, v in source.values.items()}
    assert splice.unchanged(SHOT, splice.splice(SHOT, SHOT, at), at)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompts": [*SHOT["prompts"], {"frame": 8, "text": "a town"}]},
        {"motion": {"cuts": [7]}},
        {"schedules": {**SHOT["schedules"], "zoom": 1.01}},
        {"frames": 11, "schedules": {"zoom": 1.0, "strength": [*SHOT["schedules"]["strength"], 0.5]}},
    ],
)
def test_a_change_after_the_splice_is_seen(change: dict[str, Any]) -> None:
    assert not splice.unchanged(SHOT, splice.splice(SHOT, {**SHOT, **change}, 5), 5)


def test_what_holds_for_the_whole_shot_cannot_change_in_it() -> None:
    new = {**SHOT, "steps": 4, "feedback": {"carry": "pixels", "condition": "both"}}
    with pytest.raises(splice.BridgeError, match="the mode and the steps"):
        splice.splice(SHOT, new, 3)
    for at in (0, 10, 11):
        with pytest.raises(splice.BridgeError, match=r"has the frames 5 to 14"):
            splice.splice(SHOT, SHOT, at)


# In Blender


@pytest.fixture(scope="module")
def taken(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("takes")
    (folder / "long").mkdir()
    blend = blender.scene(
        folder / "take.blend", frames=8, frame_start=5, seed=4000 + int(blender.version.replace(".", "")), zoom=1.02,
        strength=0.35, prompts=[[5, "a calm sea at dawn, photo"], [9, "a forest at day, photo"]],
    )  # fmt: skip
    return blender.script("takes", folder / "long", file=blend)


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_takes_in_blender(taken: dict[str, Any]) -> None:
    assert taken["none"]["code"] == "no_take"

    assert len(taken["ticks"]) > 2 and max(taken["ticks"]) < 0.01  # observed: .0012 to .0019
    here, can_be_told = taken["left"].pop("here")
    assert bool(re.fullmatch(r"About \d+ s left", here)) == can_be_told, here
    assert taken["left"] == {
        "one": "", "seconds": "About 50 s left", "minutes": "About 5 minutes left", "hours": "About 2.0 hours left",
        "stored": "About 25 s left", "over": "",
    }  # fmt: skip

    cancelled, resumed = taken["cancelled"], taken["resumed"]
    assert cancelled["phase"] == "cancelled" and cancelled["poll"]
    assert cancelled["takes"] == [[cancelled["done"], 8]]
    assert resumed["phase"] == "done" and resumed["stored"] >= cancelled["done"] and not resumed["poll"]
    assert resumed["digest"] == cancelled["digest"]  # as it was, not with the strength that was changed since
    assert resumed["takes"] == [[8, 8]]

    again, more = taken["from_here"], taken["again"]
    assert again["phase"] == "done" and again["kept"] == 4
    assert (again["stored"], again["made"]) == (4, 4)
    assert again["takes"] == [[8, 8], [8, 8]]
    frames = [resumed["frames"], again["frames"], more["frames"]]
    for number in range(5, 13):
        name = f"{number:04}.png"
        assert len({one[name] for one in frames}) == (1 if number < 9 else 3), name
    assert any("another seed" in note for note in more["notes"])

    assert "the steps" in taken["steps"]["message"]
    assert taken["first"]["code"] == "cannot_splice"
    assert taken["renamed"]["phase"] == "done" and [8, 8] in taken["renamed"]["takes"][-1:]
    assert taken["undone"]["phase"] == "done" and taken["undone"]["error"] is None


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_long_takes_in_blender(taken: dict[str, Any]) -> None:
    ranges = [[1 + 1000 * k, 1001 + 1000 * k, 1, 1000] for k in range(10)]
    assert taken["long"] == ranges
    assert taken["names"] == [f"{n:04}.png" for k in range(10) for n in (1 + 1000 * k, 1000 + 1000 * k)]
    assert taken["whole"] and taken["mended"] == 10_000
    assert taken["stepped"] == [f"{1 + place // 3 * 3:04}.png" for place in range(499 * 3 + 1)]
    assert taken["seconds"] < 1.0  # of the processor; observed: .25 to .7, the latter on a crowded machine

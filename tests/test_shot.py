# SPDX-License-Identifier: GPL-3.0-or-later
"""The Shot document: what it accepts, what it refuses, and that it says why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from koshi_backend.errors import KoshiError
from koshi_backend.shot import Shot, load_shot, read_shot

WHOLE: dict[str, Any] = {
    "koshi": 1,
    "model": "koshi-tiny",
    "width": 256,
    "height": 256,
    "fps": 24,
    "frames": 48,
    "seed": 3,
    "prompts": [
        {"frame": 0, "text": "a calm sea at dawn, photo"},
        {"frame": 24, "text": "a calm sea at night, photo"},
    ],
    "schedules": {"zoom": "0:(1.0), 47:(1.02)", "angle": 0.5, "strength": [0.6] * 48},
}


def faults(**changes: Any) -> dict[str, dict[str, Any]]:
    """The problems of WHOLE with changes, by field."""
    with pytest.raises(KoshiError) as caught:
        load_shot({**WHOLE, **changes})
    assert caught.value.code == "bad_shot"
    return {p["field"]: p for p in caught.value.problems}


def test_the_design_document_s_example_is_a_whole_shot() -> None:
    shot = load_shot(WHOLE)
    assert shot.values["zoom"][47] == pytest.approx(1.02)
    assert shot.values["angle"] == [0.5] * 48
    assert shot.values["seed"] == [3.0] * 48
    assert shot.steps == 4
    assert shot.texts.at(23)[0].text.endswith("dawn, photo")
    assert shot.texts.at(24)[0].text.endswith("night, photo")


def test_json_round_trip_keeps_the_shot_and_its_digest() -> None:
    shot = load_shot(WHOLE)
    again = load_shot(json.loads(json.dumps(shot.as_dict())))
    assert again == shot
    assert again.digest == shot.digest
    assert load_shot({**WHOLE, "seed": 4}).digest != shot.digest


def test_a_prompt_that_begins_late_holds_from_the_start() -> None:
    shot = load_shot({**WHOLE, "prompts": [{"frame": 10, "text": "a reef"}]})
    assert shot.texts.at(0)[0].text == "a reef"


def test_empty_prompts() -> None:
    assert "prompts" in faults(prompts=[])
    assert "prompts[0].text" in faults(prompts=[{"frame": 0, "text": " "}])


def test_a_nan_in_a_curve_is_named_with_its_frame() -> None:
    found = faults(schedules={"zoom": [1.0] * 7 + [float("nan")] + [1.0] * 40})["schedules.zoom"]
    assert "frame 7" in found["message"]


def test_a_value_out_of_range_is_named_with_frame_value_and_range() -> None:
    found = faults(schedules={"strength": "0:(0.5), 47:(1.5)"})["schedules.strength"]
    assert found["frame"] == 24
    assert "between 0 and 1" in found["hint"]
    found = faults(schedules={"strength": "0:(0.5), 47:(1.5)"}, frame_start=101)["schedules.strength"]
    assert "it is frame 125" in found["message"]


@pytest.mark.parametrize("side", [250, 0, -16, 48, 1808])
def test_sizes_that_are_not_multiples_of_16_get_the_nearest_ones(side: int) -> None:
    found = faults(width=side)["width"]
    assert str(side) in found["message"]
    assert "16" in found["hint"]


def test_250_is_told_240_or_256() -> None:
    assert "240 or 256" in faults(height=250)["height"]["hint"]


def test_an_unknown_model_is_told_the_known_ones() -> None:
    found = faults(model="flux.2-klein-4")["model"]
    assert "flux.2-klein-4b" in found["hint"]


def test_a_range_that_runs_backwards() -> None:
    data = {k: v for k, v in WHOLE.items() if k not in ("frames", "schedules")}
    with pytest.raises(KoshiError) as caught:
        load_shot({**data, "frame_start": 10, "frame_end": 2})
    assert [p["field"] for p in caught.value.problems] == ["frame_end"]
    assert load_shot({**data, "frame_start": 10, "frame_end": 12}).frames == 3
    assert "frame_end" in faults(frame_start=0, frame_end=10)  # disagrees with frames


def test_unknown_keys_are_refused_and_the_near_one_is_named() -> None:
    assert "'steps'" in faults(stepz=3)["stepz"]["hint"]
    assert "'zoom'" in faults(schedules={"zom": 1})["schedules.zom"]["hint"]
    assert "feedback.carri" in faults(feedback={"carri": "pixels"})


def test_all_faults_are_listed_at_once() -> None:
    found = faults(width=250, model="?", prompts=[], seed=-1, schedules={"zoom": "0:(t)", "zoo": 1})
    assert set(found) == {"width", "model", "prompts", "seed", "schedules.zoom", "schedules.zoo"}


def test_expressions_are_evaluated_at_every_frame() -> None:
    shot = load_shot({**WHOLE, "schedules": {"zoom": "0:(1.0025+0.002*sin(1.25*3.14*t/30))"}})
    assert shot.values["zoom"][1] == pytest.approx(1.0025 + 0.002 * math.sin(1.25 * 3.14 / 30))
    found = faults(schedules={"zoom": "0:(1.0025+0.002*sine(t))"})["schedules.zoom"]
    assert "at character 17" in found["message"] and "'sin'" in found["hint"]


def test_a_later_version_says_to_update() -> None:
    assert "Update" in faults(koshi=2)["koshi"]["hint"]


def test_deforum_strength_is_turned_round_and_only_on_request() -> None:
    assert load_shot(WHOLE).values["strength"][0] == 0.6
    turned = load_shot({**WHOLE, "strength_convention": "deforum"})
    assert turned.values["strength"][0] == pytest.approx(0.4)
    assert load_shot(turned.as_dict()).values["strength"][0] == pytest.approx(0.4)  # not turned twice
    silent = {key: value for key, value in WHOLE.items() if key != "schedules"}
    for told in ({}, {"schedules": {}}):  # then Deforum's own default holds, .65
        shot = load_shot(silent | told | {"strength_convention": "deforum"})
        assert shot.values["strength"][0] == pytest.approx(0.35)


@pytest.mark.parametrize(
    "odd",
    [
        {"frames": 10**12, "strength_convention": "deforum"},  # must not be filled with values before it is refused
        {"schedules": {"zoom": 10**400}},
        {"schedules": {"zoom": [10**400] * 48}},
        {"schedules": {"zoom": "9" * 5000 + ":(1)"}},
        {"model": "~nouserxyz/a"},
        {"model": "a" * 5000},
        {"model": ""},
        {"model": "a\0b"},
        {"init_image": "a" * 5000},
        {"init_image": "~nouserxyz/a.png"},
        {"koshi": True},
        {"fps": 1e-5},
    ],
)
def test_odd_values_are_refused_in_words(odd: dict[str, Any]) -> None:
    assert len(faults(**odd)) == 1


def test_a_schedule_of_the_wrong_type_is_one_fault() -> None:
    found = faults(schedules={"zoom": {"0": 1}})
    assert list(found) == ["schedules.zoom"]


@pytest.mark.parametrize("junk", [None, 3, [], "x", {"frames": "ten"}, {"frames": 10**9, "prompts": 3}])
def test_junk_is_refused_in_words(junk: object) -> None:
    with pytest.raises(KoshiError):
        load_shot(junk)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.koshi.json"
    broken.write_text('{"koshi": 1,')
    with pytest.raises(KoshiError, match="line 1"):
        read_shot(broken)
    with pytest.raises(KoshiError, match="cannot be read"):
        read_shot(tmp_path / "none.koshi.json")
    for text in ('{"frames": ' + "9" * 5000 + "}", "[" * 100_000):
        broken.write_text(text)
        with pytest.raises(KoshiError):
            read_shot(str(broken))
    with pytest.raises(KoshiError):
        read_shot("a\0b")


def test_an_init_image_is_looked_for_beside_the_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "start.png").write_bytes(b"a picture")
    file = tmp_path / "shots" / "a.koshi.json"
    file.write_text(json.dumps({**WHOLE, "init_image": "start.png"}))
    monkeypatch.chdir(tmp_path)
    assert read_shot(Path("shots/a.koshi.json")).init_image == str((tmp_path / "shots" / "start.png").resolve())


def test_every_example_in_the_project_loads() -> None:
    examples = sorted((Path(__file__).parent.parent / "examples").glob("*.koshi.json"))
    assert examples
    for example in examples:
        assert isinstance(read_shot(example), Shot)

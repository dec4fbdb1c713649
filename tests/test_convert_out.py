# SPDX-License-Identifier: GPL-3.0-or-later
"""Shots as projects of other tools: what is carried comes back the same, and Deforum can read what it gets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_convert import SETTINGS, deforum_series

from koshi_backend.cli import main
from koshi_backend.convert import read_file, read_settings
from koshi_backend.convert.deforum_out import to_settings
from koshi_backend.convert.keys import find_row
from koshi_backend.convert.leftover import flattened, written_values
from koshi_backend.convert.parseq_out import to_manifest
from koshi_backend.convert.report import Report
from koshi_backend.convert.webui_settings import SETTINGS as WEBUI
from koshi_backend.settings import ABSOLUTE, SCHEDULES
from koshi_backend.shot import Shot, load_shot

HERE = Path(".")
SEEDS = ("seed", "subseed")


@st.composite
def schedules(draw: st.DrawFn, name: str, frames: int) -> Any:
    """Any kind of schedule, within the range of its name."""
    spec = SCHEDULES[name]
    low, high = max(spec.low, -25.0), min(spec.high, 2.0**31 if name in SEEDS else 25.0)
    numbers = st.integers(0, int(high)).map(float) if name in SEEDS else st.floats(low, high)
    kind = draw(st.sampled_from(["number", "list", "keys", "text", "cubic", "step"]))
    if kind == "number":
        return draw(numbers)
    if kind == "list":
        return draw(st.lists(numbers, min_size=frames, max_size=frames))
    one, two = draw(numbers), draw(numbers)
    if kind == "text":
        reach = min(one, two), max(one, two)
        middle, swing = sum(reach) / 2, (reach[1] - reach[0]) / 2
        return draw(st.sampled_from([
            f"0:({middle:.17f}+{swing * 0.99:.17f}*sin(t/3))", f"0:({one!r}), \"max_f/2\":({two!r})",
            f"0:(where(t<2, {one!r}, {two!r}))", f"0:(clamp({one!r}+t, {low!r}, {high!r}))",
            f"{frames - 1}:({one!r})", f"0:(+({one!r})), 3:({two!r})", f"{one!r}", f"0:({reach[0]!r}+0), 4:({two!r})",
        ]))  # fmt: skip
    frames_of = sorted(draw(st.sets(st.integers(0, frames + 1), max_size=4)) | {0})
    keys = ", ".join(f"{frame}:({draw(numbers)!r})" for frame in frames_of)
    return keys if kind == "keys" else {"keys": keys, "interpolation": "bezier" if kind == "cubic" else "step"}


@st.composite
def shots(draw: st.DrawFn) -> Shot:
    frames = draw(st.integers(1, 9))
    names = draw(st.sets(st.sampled_from(sorted(SCHEDULES)), max_size=6))
    carry = draw(st.sampled_from(["pixels", "pixels", "pixels", "none"]))
    over = draw(st.sampled_from(["none", "first", *(["every"] if carry == "none" else [])]))
    every = draw(st.integers(1, 3))
    percents = [f"0:({draw(st.integers(*reach))})" for reach in ((0, 40), (50, 100))]
    words = st.text("abc de,.:'()é", min_size=1, max_size=12).map(lambda text: f"a {text.strip()}".strip())
    prompts = [
        {"frame": frame, "text": draw(words), "negative": draw(st.just("") | words)}
        for frame in sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=3)))
    ]
    return load_shot({
        "frames": frames, "width": 16 * draw(st.integers(4, 100)), "height": 16 * draw(st.integers(4, 100)),
        "fps": draw(st.floats(1, 120)), "seed": draw(st.integers(0, 2**32)), "steps": draw(st.integers(1, 50)),
        "prompts": prompts, "schedules": {name: draw(schedules(name, frames)) for name in sorted(names)} |
            dict(zip(("hybrid_cutoff_low", "hybrid_cutoff_high"), percents, strict=True)),
        "seed_behavior": draw(st.sampled_from(["iter", "fixed", "random", "ladder", "alternate"])),
        "seed_iter_n": draw(st.integers(1, 4)),
        "motion": {"source": draw(st.sampled_from(["2d", "3d"])),
                   "absolute": [name for name in sorted(names & set(ABSOLUTE) - {"zoom"}) if draw(st.booleans())]},
        "feedback": {"border": draw(st.sampled_from(["replicate", "wrap", "reflect"])),
                     "color_mode": draw(st.sampled_from(["LAB", "RGB", "HSV", "none"])),
                     "color_reference": draw(st.sampled_from(["prompt", "first", "previous"])),
                     "noise_type": draw(st.sampled_from(["gaussian", "perlin"])),
                     "noise_mode": draw(st.sampled_from(["fixed", "incremental", "subseed"])),
                     "carry": carry},
        "hybrid": {"over": over, "composite": draw(st.sampled_from(
                       ["none", "after_generation", *(["normal", "before_motion"] if carry != "none" else [])])),
                   "mask": draw(st.sampled_from(["none", "blend", "difference", "depth", "video_depth"])),
                   "equalize": draw(st.sampled_from(["none", "before", "after", "both"])),
                   "inverse": draw(st.booleans()), "auto_contrast": draw(st.booleans())},
        "depth": {"source": "model", "model": "Intel/dpt-hybrid-midas"},
        "guides": {"video": __file__, "video_first": draw(st.integers(0, 4)), "video_every": every,
                   "video_last": draw(st.none() | st.integers(4 + every * frames, 99))},
    })  # fmt: skip


def check_same(shot: Shot, back: Shot, report: Report) -> None:
    one, two = flattened(shot.as_dict()), flattened(back.as_dict())
    for field in report.carried:
        part, _, name = field.partition(".")
        if name == "cadence":  # of which the whole part counts
            assert list(map(int, back.values[name])) == list(map(int, shot.values[name]))
        elif part == "schedules":
            # observed up to 3e-7: lists are written with as few keys as keep them to 1e-6
            assert back.values[name] == pytest.approx(shot.values[name], abs=1e-5, rel=1e-9), field
        elif field == "prompts":
            mine, theirs = ([(p["frame"], p["text"], p["negative"]) for p in flat["prompts"]] for flat in (one, two))
            assert mine == theirs
        elif field != "motion.absolute":
            assert one[field] == two[field], field
    if back.made == shot.made:  # seeds count the frames that are made
        assert back.values["seed"] == shot.values["seed"]


RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RANDOM
@given(shots())
def test_to_deforum_and_back_is_the_identity(shot: Shot) -> None:
    report = Report("koshi", "", "denoise")
    written = json.loads(json.dumps(to_settings(shot, report, HERE), allow_nan=False))
    assert set(written) == set(WEBUI)
    found = read_settings(written, HERE)
    assert found.report.dialect == "webui" and not found.report.unknown
    check_same(shot, found.shot, report)
    assert {"frames", "width", "height", "fps", "seed", "steps", "prompts"} <= set(report.carried)


@RANDOM
@given(shots())
def test_deforum_itself_can_read_every_schedule(shot: Shot) -> None:
    """The strict reader has no commas in functions, no pi, min or where, and needs a key at frame 0."""
    written = to_settings(shot, Report("koshi", "", "denoise"), HERE)
    names = {"strength_schedule": "strength", "noise_schedule": "noise", "zoom": "zoom", "fov_schedule": "fov"}
    for key, name in names.items():
        if key == "zoom" and written["animation_mode"] != "2D":
            continue
        if key == "fov_schedule" and written["animation_mode"] != "3D":
            continue
        if key == "noise_schedule" and written["animation_mode"] in ("Interpolation", "Video Input"):
            continue  # no frame comes from the one before, and so no noise is added to it
        expected = shot.values[name]
        if key == "strength_schedule":
            if written["animation_mode"] == "Interpolation":
                continue
            expected = [1.0 - value for value in expected]
        assert deforum_series(written[key], shot.frames, shot.seed) == pytest.approx(expected, abs=1e-5)


@RANDOM
@given(shots())
def test_to_parseq_and_back_is_the_identity(shot: Shot) -> None:
    report = Report("koshi", "", "denoise")
    written = json.loads(json.dumps(to_manifest(shot, report, HERE), allow_nan=False))
    found = read_settings(written, HERE)
    assert len(written["rendered_frames"]) == found.shot.frames == shot.frames
    for field in report.carried:
        part, _, name = field.partition(".")
        if name == "cadence":
            assert list(map(int, found.shot.values[name])) == list(map(int, shot.values[name]))
        elif part == "schedules" and name != "seed":
            assert found.shot.values[name] == pytest.approx(shot.values[name], abs=1e-9, rel=1e-12), field
    assert found.shot.values["seed"] == shot.values["seed"]
    assert found.shot.motion.source == shot.motion.source and found.shot.fps == shot.fps
    at, was = ([one.texts.at(t)[0][:2] for t in range(shot.frames)] for one in (found.shot, shot))
    assert at == was


@pytest.mark.parametrize("file", ["webui_2d.txt", "webui_3d.txt", "forge.txt", "xlabs.txt", "parseq.json"])
def test_a_project_goes_through_koshi_unchanged(file: str) -> None:
    """Deforum to Koshi to Deforum to Koshi: the second shot is the first."""
    first = read_file(SETTINGS / file)
    again = read_settings(to_settings(first.shot, Report("koshi", "", "denoise"), HERE), HERE)
    # Parseq does not say how colours are matched; webui has no keyframes, and seeds count the frames that are made.
    lost = {"parseq.json": {"color_match"}, "forge.txt": {"keyframe_strength", "seed"}}.get(file, set())
    for name in set(first.shot.values) - lost:
        values = written_values(first.shot)[name]
        assert again.shot.values[name] == pytest.approx(values, abs=1e-5), name
    for field in ("frames", "width", "height", "fps", "seed", "prompts"):
        assert getattr(again.shot, field) == getattr(first.shot, field), field


def test_webui_s_settings_are_all_known_and_written() -> None:
    assert not [key for key in WEBUI if find_row(key) is None]
    units = [key for key in WEBUI if key.startswith("cn_")]
    assert len(units) == 5 * 17


def test_numbers_have_no_exponents_and_texts_stay_texts() -> None:
    document = {"frames": 5, "prompts": [{"text": "a"}],
                "schedules": {"angle": 1e-7, "zoom": "0:(1.0), 4:(1+0.1*sin(t))",
                              "noise": "0:(min(0.1, t/50))"}}  # fmt: skip
    written = to_settings(load_shot(document), Report("koshi", "", "denoise"), HERE)
    assert written["angle"] == "0: (0.0000001)"
    assert written["zoom"] == "0: (1), 4: (1+0.1*sin(t))"
    assert "min" not in written["noise_schedule"]


def test_what_has_no_place_is_reported() -> None:
    document = {"frames": 5, "prompts": [{"text": "a"}], "schedules": {"translation_z": 3, "color_match": 0.3},
                "feedback": {"condition": "reference", "border": "reflect"}, "motion": {"cuts": [2]}}  # fmt: skip
    report = Report("koshi", "", "denoise")
    to_settings(load_shot(document), report, HERE)
    told = {left["key"] for left in report.not_carried}
    assert told == {"schedules.translation_z", "schedules.color_match", "feedback.condition", "feedback.border",
                    "feedback.color_reference", "feedback.noise_mode", "motion.cuts", "model"}  # fmt: skip


def test_files_keep_their_place_on_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = tmp_path / "shots" / "a.koshi.json"
    shot.parent.mkdir()
    (shot.parent / "start.png").write_bytes(b"")
    (shot.parent / "film.mp4").write_bytes(b"")
    shot.write_text(json.dumps({
        "koshi": 1, "frames": 3, "prompts": [{"text": "a"}], "init_image": "start.png",
        "schedules": {"strength": 0.25}, "motion": {"source": "flow", "flow_method": "farneback"},
        "guides": {"video": "film.mp4"}}))  # fmt: skip
    out, back = tmp_path / "deforum" / "a.txt", tmp_path / "back" / "a.koshi.json"
    assert main(["convert", str(shot), "--to", "deforum", "-o", str(out), "--json"]) == 0
    written = json.loads(out.read_text())
    for name, file in (("init_image", "start.png"), ("video_init_path", "film.mp4")):
        assert (out.parent / written[name]).resolve() == (shot.parent / file).resolve()
    assert written["use_init"] and written["strength"] == 0.75 and written["hybrid_motion"] == "Optical Flow"
    assert main(["convert", str(out), "-o", str(back), "--json"]) == 0
    again = json.loads(back.read_text())
    assert (back.parent / again["guides"]["video"]).resolve() == (shot.parent / "film.mp4").resolve()
    assert again["motion"]["source"] == "flow" and again["motion"]["flow_method"] == "farneback"
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["out"] for line in told] == [str(out), str(back)]


def test_shots_whose_guides_are_elsewhere() -> None:
    """The table of a farm's shot does not need its depth files."""
    shot = Path(__file__).parent.parent / "examples" / "motion_camera_depth.koshi.json"
    document = json.loads(shot.read_text())
    document["guides"] = {"depth": "gone/####.exr", "vector": "gone/####.exr"}
    found = read_settings(document, HERE)
    assert found.shot.motion.source == "camera" and found.shot.guides.depth == "gone/####.exr"
    report = Report("koshi", "", "denoise")
    to_settings(found.shot, report, HERE)
    assert {"motion.source", "motion.cameras", "guides.depth"} <= {left["key"] for left in report.not_carried}


def test_the_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(SETTINGS / "xlabs.txt"), "--to", "parseq"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["rendered_frames"]
    assert len(rows) == 50 and rows[0]["strength"] == pytest.approx(0.35)  # XLabs' .65 changes, Parseq's keeps
    assert "Not carried over" in printed.err and math.isclose(rows[5]["zoom_delta"], 1.04)


HYBRID: dict[str, Any] = {
    "frames": 5, "prompts": [{"text": "a"}],
    "guides": {"video": "film.mp4", "video_first": 4, "video_every": 2, "video_last": 20},
}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ({"hybrid": {"over": "every"}, "audio": "film.mp4", "schedules": {"strength": "0:(0.3), 4:(0.5)"}},
         {"animation_mode": "Video Input", "add_soundtrack": "Init Video", "strength_schedule": "0:(0.7), 4:(0.5)"}),
        ({"hybrid": {"over": "first", "composite": "before_motion", "mask": "video_depth", "inverse": True,
                     "auto_contrast": True, "equalize": "both"}, "motion": {"source": "perspective"},
          "depth": {"source": "model", "model": "Intel/dpt-hybrid-midas"},
          "schedules": {"hybrid_alpha": "0:(0), 4:(0.9)", "hybrid_cutoff_low": 10.0, "hybrid_mask_contrast": 2.0,
                        "strength": "0:(0.2), 1:(0.5)"}},
         {"animation_mode": "2D", "hybrid_motion": "Perspective", "hybrid_composite": "Before Motion",
          "hybrid_use_first_frame_as_init_image": True, "strength": 0.8, "hybrid_comp_mask_type": "Video Depth",
          "hybrid_comp_mask_equalize": "Both", "hybrid_comp_alpha_schedule": "0:(0), 4:(0.9)",
          "depth_algorithm": "Midas-3-Hybrid"}),
        ({"hybrid": {"composite": "normal", "mask": "difference"}, "motion": {"source": "3d"},
          "schedules": {"hybrid_alpha": 0.25}},
         {"animation_mode": "3D", "hybrid_composite": "Normal", "hybrid_comp_mask_type": "Difference",
          "hybrid_use_first_frame_as_init_image": False}),
    ],
)  # fmt: skip
def test_films_go_out_and_come_back(tmp_path: Path, parts: dict[str, Any], written: dict[str, Any]) -> None:
    (tmp_path / "film.mp4").write_bytes(b"")
    path = tmp_path / "a.koshi.json"
    path.write_text(json.dumps({"koshi": 1, **HYBRID, **parts}))
    shot = read_file(path).shot
    report = Report("koshi", "", "denoise")
    found = to_settings(shot, report, tmp_path)
    spread = {name: value.replace(" ", "") if isinstance(value, str) and ":" in value else value
              for name, value in found.items()}  # fmt: skip
    timing = {"extract_from_frame": 4, "extract_nth_frame": 2, "extract_to_frame": 12, "video_init_path": "film.mp4"}
    wanted = written | timing
    assert {name: spread[name] for name in wanted} == {
        name: value.replace(" ", "") if isinstance(value, str) and ":" in value else value
        for name, value in wanted.items()
    }
    left = {one["key"] for one in report.not_carried}
    gone = {key for key in left if key.startswith(("hybrid", "guides", "schedules.hybrid", "audio"))}
    assert gone == {"guides.video_last"}  # 12 is the last one that five frames need
    back = read_settings(json.loads(json.dumps(found)), tmp_path)
    check_same(shot, back.shot, report)
    assert back.shot.hybrid == shot.hybrid and back.shot.audio == shot.audio
    kept = ("video", "video_first", "video_every")
    assert [getattr(back.shot.guides, name) for name in kept] == [getattr(shot.guides, name) for name in kept]


def test_timing_that_webui_cannot_say_is_told(tmp_path: Path) -> None:
    """Of every third frame it takes 0, 3, 6, never 1, 4, 7."""
    shot = load_shot({**HYBRID, "guides": {"video": __file__, "video_first": 1, "video_every": 3},
                      "hybrid": {"over": "every"}})  # fmt: skip
    report = Report("koshi", "", "denoise")
    found = to_settings(shot, report, HERE)
    assert found["extract_from_frame"] == 0 and found["extract_nth_frame"] == 1
    assert "guides.video_first" in {left["key"] for left in report.not_carried}

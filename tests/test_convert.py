# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects of other tools as shots: values, conventions, modes, and what becomes of every key.

The files in tests/settings are written for these tests from the tools' documented defaults.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend.cli import main
from koshi_backend.convert import read_file, read_settings
from koshi_backend.convert.keys import ROWS
from koshi_backend.errors import KoshiError
from koshi_backend.settings import SCHEDULES

SETTINGS = Path(__file__).parent / "settings"
FILES = sorted(SETTINGS.iterdir())
NOWHERE = Path("nowhere")
CLOSE = 1e-9  # observed 0 to 2e-16; the tools' own numbers are asked for to 1e-3


def webui(**changes: Any) -> dict[str, Any]:
    """A small settings file of webui, without grain and slow zoom."""
    plain = {"deforum_git_commit_id": "x", "animation_mode": "2D", "max_frames": 10, "seed": 42, "zoom": "0: (1)",
             "noise_schedule": "0: (0)", "amount_schedule": "0: (0)", "prompts": {"0": "a reef"}}  # fmt: skip
    return {**plain, **changes}


def values(data: dict[str, Any], name: str, **options: Any) -> list[float]:
    return read_settings(data, NOWHERE, **options).shot.values[name]


# ---- an independent small reading of Deforum's rules: split at commas and colons, numbers mark, expressions fill


def deforum_series(text: str, frames: int, seed: int = 0) -> list[float]:
    scope = {**vars(math), "arcsin": math.asin, "abs": abs, "__builtins__": {}}
    number = re.compile(r"^(?=.)([+-]?([0-9]*)(\.([0-9]+))?)$")
    keys: dict[int, str] = {}
    for item in text.split(","):
        frame, value = item.split(":")
        bare = re.sub(r"['\"()]", "", frame).strip()
        if not number.match(bare):
            bare = str(int(eval(frame.strip().strip("\"'"), {**scope, "max_f": frames - 1, "s": seed})))
        keys[int(bare)] = value.strip()
    series: list[float | None] = [None] * frames
    current: str | None = None
    for t in range(frames):
        if t in keys:
            current = keys[t]
            bare = re.sub(r"['\"()]", "", current)
            if number.match(bare):
                series[t], current = float(bare), None
        if current is not None:
            series[t] = float(eval(current, {**scope, "t": t, "max_f": frames - 1, "s": seed}))
    known = [t for t, value in enumerate(series) if value is not None]
    found = []
    for t in range(frames):
        left, right = max((k for k in known if k <= t), default=known[0]), min((k for k in known if k >= t), default=-1)
        low, high = series[left], series[right] if right >= 0 else series[left]
        assert low is not None and high is not None
        found.append(low if right <= left else low + (high - low) * (t - left) / (right - left))
    return found


CURVES_2D = {"zoom": "zoom", "angle": "angle", "translation_x": "translation_x", "noise": "noise_schedule",
             "contrast": "contrast_schedule", "sharpen": "amount_schedule",
             "guidance": "cfg_scale_schedule"}  # fmt: skip
CURVES_3D = {"translation_x": "translation_x", "translation_z": "translation_z", "rotation_3d_y": "rotation_3d_y",
             "fov": "fov_schedule", "perspective_flip_phi": "perspective_flip_phi"}  # fmt: skip


@pytest.mark.parametrize(("file", "curves"), [("webui_2d.txt", CURVES_2D), ("webui_3d.txt", CURVES_3D)])
def test_every_value_is_webui_s(file: str, curves: dict[str, str]) -> None:
    data, shot = json.loads((SETTINGS / file).read_text()), read_file(SETTINGS / file).shot
    for name, key in {**curves, "strength": "strength_schedule"}.items():
        expected = deforum_series(data[key], data["max_frames"], shot.seed)
        if name == "strength":
            expected = [1.0 - value for value in expected]
        assert shot.values[name] == pytest.approx(expected, abs=CLOSE), name


# Measured with the code of webui itself, ten frames, s = 42.
MEASURED = [
    ("0:(1), 5:(2)", [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2]),
    ("0:1, 5:2", [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2, 2, 2]),
    ("0:(t), 5:(9)", [0, 1, 2, 3, 4, 9, 9, 9, 9, 9]),
    ("0:(0), (2+3):(4)", [0, 0.8, 1.6, 2.4, 3.2, 4, 4, 4, 4, 4]),
    ("0:(1), 99:(2), -3:(7)", [1] * 10),
    ("0: (s), \"max_f-1\":(2)", [42] * 8 + [2, 2]),
    # an exponent, a trailing point and blanks inside make an expression there, which is held
    ("0:(1e-3), 5:(1)", [0.001] * 5 + [1] * 5),
    ("0:(5.), 5:(6)", [5] * 5 + [6] * 5),
    ("0:( 1 ), 5:(6)", [1] * 5 + [6] * 5),
    # quotes and parentheses are dropped before webui asks whether it is a number
    ("0:(-(1)), 5:(4)", [-1, 0, 1, 2, 3, 4, 4, 4, 4, 4]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MEASURED)
def test_webui_s_measured_values(text: str, expected: list[float]) -> None:
    assert values(webui(angle=text), "angle") == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5:(2)", [2] * 10), ("0:(where(t<5, 1, 2))", [1] * 5 + [2] * 5), ("0:(1),", [1] * 10), ("0.75", [0.75] * 10),
     (0.75, [0.75] * 10), ({"0": 1, "9": 10}, list(range(1, 11))), ("0:(pi)", [math.pi] * 10)],
)  # fmt: skip
def test_what_webui_refuses_is_read(value: Any, expected: list[float]) -> None:
    assert values(webui(angle=value), "angle") == pytest.approx(expected, abs=CLOSE)


def test_a043_evaluates_expressions_at_their_keys_only() -> None:
    shot = read_file(SETTINGS / "comfy_a043.json").shot
    assert shot.values["angle"] == pytest.approx([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10], abs=CLOSE)


def test_koshi_flux_s_expressions_count_although_it_dropped_them() -> None:
    shot = read_file(SETTINGS / "koshi_flux.json").shot
    assert shot.values["angle"] == pytest.approx([1 + 0.5 * math.sin(t) for t in range(24)], abs=CLOSE)


# ---- dialects and what strength means

DIALECTS = {
    "comfy_a043.json": ("comfy", "denoise", 0.65), "forge.txt": ("forge", "deforum", 0.15),
    "koshi_flux.json": ("koshi-flux", "denoise", 0.25), "nasty_python.txt": ("webui", "deforum", 0.35),
    "notebook.txt": ("notebook", "deforum", 0.2), "parseq.json": ("parseq", "deforum", 0.4),
    "schedules.json": ("schedules", "deforum", 0.35), "schedules.txt": ("schedules", "denoise", 0.4),
    "webui_2d.txt": ("webui", "deforum", 0.35), "webui_3d.txt": ("webui", "deforum", 0.35),
    "webui_parseq.txt": ("webui", "deforum", 0.4), "xlabs.txt": ("xlabs", "denoise", 0.65),
}  # fmt: skip


@pytest.mark.parametrize("file", DIALECTS)
def test_the_dialect_says_what_strength_means(file: str) -> None:
    found = read_file(SETTINGS / file)
    dialect, convention, first = DIALECTS[file]
    assert (found.report.dialect, found.report.strength_convention) == (dialect, convention)
    assert found.shot.values["strength"][0] == pytest.approx(first)


def test_the_same_numbers_mean_what_the_call_says() -> None:
    data = json.loads((SETTINGS / "xlabs.txt").read_text())
    own, given = values(data, "strength"), values(data, "strength", convention="deforum")
    assert own == pytest.approx([1 - value for value in given])
    assert values(data, "strength", dialect="notebook") == pytest.approx(given)


@given(st.floats(0, 1))
def test_no_number_changes_the_dialect(strength: float) -> None:
    report = read_settings(webui(strength_schedule=f"0: ({strength:.6f})"), NOWHERE).report
    assert (report.dialect, report.strength_convention) == ("webui", "deforum")


def test_an_undecidable_file_says_so() -> None:
    data = {"W": 512, "H": 512, "max_frames": 3, "zoom": "0:(1)", "prompts": {"0": "a"}}
    report = read_settings(data, NOWHERE).report
    assert report.dialect == "webui" and "--dialect" in report.decided


def test_strength_beyond_its_range_is_cut_as_there() -> None:
    found = values(webui(strength_schedule="0:(1.5), 9:(-0.3)"), "strength")
    assert found == pytest.approx([1 - min(max(1.5 - 0.2 * t, 0), 1) for t in range(10)], abs=CLOSE)


def test_a_strength_keeps_its_keys() -> None:
    document = read_settings(webui(strength_schedule="0: (0.65), 4: (0.4+0.1*sin(t)), 9: (0.85)"), NOWHERE).document
    assert document["schedules"]["strength"] == "0:(0.35), 4:(1-(0.4+0.1*sin(t))), 9:(0.15)"


# ---- modes


def test_a_mode_s_own_curves_count_and_no_others() -> None:
    everything = {name: "0: (1.5)" for name in ("zoom", "angle", "translation_x", "translation_z", "rotation_3d_x")}
    flat = read_settings(webui(**everything), NOWHERE)
    deep = read_settings(webui(**everything, animation_mode="3D", use_depth_warping=False), NOWHERE)
    assert set(everything) - set(flat.document["schedules"]) == {"translation_z", "rotation_3d_x"}
    assert set(everything) - set(deep.document["schedules"]) == {"zoom", "angle"}
    assert {"zoom", "angle"} <= set(deep.report.no_effect)
    assert (flat.shot.motion.source, deep.shot.motion.source) == ("2d", "3d")
    assert deep.shot.depth.source == "plane"


def test_defaults_of_a_mode_move_nothing_in_the_other() -> None:
    """webui fills translation_z with 1.75 in 2D, and zoom with a slow sine in 3D."""
    flat = read_settings({"deforum_git_commit_id": "x", "max_frames": 5}, NOWHERE)
    deep = read_settings({"deforum_git_commit_id": "x", "max_frames": 5, "animation_mode": "3D"}, NOWHERE)
    assert flat.shot.values["translation_z"] == [0.0] * 5 and flat.shot.values["zoom"][0] == pytest.approx(1.0025)
    assert deep.shot.values["translation_z"] == [1.75] * 5 and deep.shot.values["zoom"] == [1.0] * 5
    assert "zoom" in flat.report.defaults and "translation_z" in deep.report.defaults


def test_the_flip_counts_when_it_is_on_and_keeps_the_translation() -> None:
    bent = {"perspective_flip_phi": "0: (10)", "translation_x": "0: (5)"}
    assert values(webui(**bent), "perspective_flip_phi") == [0.0] * 10
    found = read_settings(webui(**bent, enable_perspective_flip=True), NOWHERE)
    assert found.shot.values["perspective_flip_phi"] == [10.0] * 10
    assert found.shot.values["translation_x"] == [5.0] * 10
    assert any("perspective flip" in note for note in found.report.notes)


def test_interpolation_blends_prompts_and_carries_no_picture() -> None:
    shot = read_file(SETTINGS / "webui_interpolation.txt").shot
    assert shot.feedback.carry == "none"
    assert [prompt.ease for prompt in shot.prompts] == ["linear", "linear", "hold"]
    assert [prompt.negative for prompt in shot.prompts] == ["a dog", "a bush", ""]


# ---- prompts, seeds, files


def test_prompts_by_frame_and_expression() -> None:
    found = read_file(SETTINGS / "webui_2d.txt")
    assert [prompt.frame for prompt in found.shot.prompts] == [0, 20, 34]
    first = found.shot.prompts[0]
    assert (first.text, first.negative) == ("masterpiece, tiny cute bunny, vibrant, sunny day", "nsfw, nude, lowres")
    assert "lora" not in found.shot.prompts[2].text
    assert {left["key"] for left in found.report.not_carried} >= {"prompts"}


def test_the_notebook_s_negative_prompts_have_keys_of_their_own() -> None:
    shot = read_file(SETTINGS / "notebook.txt").shot
    told = [(prompt.frame, prompt.text, prompt.negative) for prompt in shot.prompts]
    assert told == [(0, "a beautiful apple", "mountain"), (10, "a beautiful apple", "water"),
                    (20, "a beautiful banana", "water")]  # fmt: skip


def test_seed_schedules_count_in_their_behaviour_only() -> None:
    schedule = '0:(s), 1:(-1), "max_f-2":(-1), "max_f-1":(s)'
    still = values(webui(seed_schedule=schedule, seed_behavior="fixed"), "seed")
    assert still == [42.0] * 10
    path = values(webui(seed_schedule=schedule, seed_behavior="schedule"), "seed")
    assert path[0] == path[8] == path[9] == 42 and len(set(path[1:8])) == 7


def test_a_random_seed_is_the_file_s_own() -> None:
    one, two = (read_settings(webui(seed=-1, angle=angle), NOWHERE).shot.seed for angle in ("0:(1)", "0:(2)"))
    assert one == read_settings(webui(seed=-1, angle="0:(1)"), NOWHERE).shot.seed != two


def test_relative_files_are_meant_from_the_settings_file(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "project", tmp_path / "shots" / "one.koshi.json"
    folder.mkdir()
    data = webui(use_init=True, init_image="stills/start.png", strength=0.7)
    beside = read_settings(data, folder).document["init_image"]
    assert beside == os.path.join("stills", "start.png")
    other = read_settings(data, folder, out=elsewhere).document["init_image"]
    assert (elsewhere.parent / other).resolve() == (folder / "stills" / "start.png").resolve()


def test_the_initial_picture_has_its_own_strength() -> None:
    found = values(webui(use_init=True, init_image="start.png", strength=0.8, strength_schedule="0:(0.6)"), "strength")
    assert found == pytest.approx([0.2] + [0.4] * 9)


def test_an_address_on_the_net_is_reported_and_not_fetched() -> None:
    data = webui(use_init=True, init_image="https://example.org/a.png", parseq_manifest="http://example.org/doc.json")
    left = {entry["key"]: entry["why"] for entry in read_settings(data, NOWHERE).report.not_carried}
    assert "fetches nothing" in left["init_image"] and "fetches nothing" in left["parseq_manifest"]


# ---- Parseq


def test_parseq_moves_come_from_its_deltas() -> None:
    found = read_file(SETTINGS / "parseq.json")
    rows = {row["frame"]: row for row in json.loads((SETTINGS / "parseq.json").read_text())["rendered_frames"]}
    held = [rows.get(t, rows[12]) if t < 15 else rows[t] for t in range(20)]
    shot = found.shot
    for name, field in (("zoom", "zoom_delta"), ("translation_x", "translation_x_delta"), ("noise", "noise"),
                        ("guidance", "scale"), ("sharpen", "antiblur_amount")):  # fmt: skip
        assert shot.values[name] == pytest.approx([row[field] for row in held], abs=CLOSE), name
    assert shot.values["strength"] == pytest.approx([1 - row["strength"] for row in held], abs=CLOSE)
    assert shot.values["seed"] == [math.floor(row["seed"]) for row in held]
    assert shot.values["subseed_strength"] == pytest.approx([row["seed"] % 1 for row in held], abs=CLOSE)
    assert (shot.frames, shot.fps, shot.feedback.noise_mode) == (20, 20.0, "subseed")
    assert [(p.frame, p.text, p.negative) for p in shot.prompts] == [(0, "a red barn", "people"),
                                                                      (9, "a blue barn", "people")]  # fmt: skip
    assert any("2 of 20" in note for note in found.report.notes)


def test_parseq_inside_settings_replaces_what_it_manages() -> None:
    found, alone = read_file(SETTINGS / "webui_parseq.txt"), read_file(SETTINGS / "parseq.json")
    for name in ("zoom", "translation_x", "strength", "seed", "guidance"):
        assert found.shot.values[name] == pytest.approx(alone.shot.values[name]), name
    assert found.shot.values["angle"] == [0.5] * 20  # not managed
    assert (found.shot.frames, found.shot.fps) == (20, 20.0)
    data = json.loads((SETTINGS / "webui_parseq.txt").read_text())
    kept = read_settings({**data, "parseq_non_schedule_overrides": False}, NOWHERE).shot
    assert (kept.frames, kept.fps) == (10, 15.0)
    places = read_settings({**data, "parseq_use_deltas": False}, NOWHERE).shot
    assert places.values["zoom"][5] == pytest.approx(1.05)


def test_parseq_as_a_file_beside_the_settings() -> None:
    found = read_settings(webui(parseq_manifest="parseq.json"), SETTINGS)
    assert found.shot.frames == 20 and "parseq_manifest" in found.report.carried


# ---- nothing is fatal, and nothing is silent


def accounted(found: Any) -> set[str]:
    report = found.report
    left = {re.sub(r"\[.*\]$", "", entry["key"]) for entry in report.not_carried}
    return {*report.carried, *report.no_effect, *report.unknown, *left}


@pytest.mark.parametrize("file", [file.name for file in FILES if file.name not in ("comfy_a043.json", "parseq.json")])
def test_every_key_is_accounted_for(file: str) -> None:
    from koshi_backend.convert.command import _table_of
    from koshi_backend.convert.loose import read_text

    data = _table_of(read_text(SETTINGS / file), SETTINGS / file)
    found = read_file(SETTINGS / file)
    assert set(data) - {"motion_params"} <= accounted(found)
    assert not set(found.report.unknown) - {"made_up_key", "cn_9_enabled", "wobble"}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["0:(1)", "0:(t", "3:(2),", "0:(1/0)", "None", "3D", "schedule", "0:(1), 1:(-1)", "LAB", "RAFT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ROWS)), JUNK, max_size=25),
       st.sampled_from(["webui", "forge", "notebook", "xlabs", "comfy", "koshi-flux"]))  # fmt: skip
def test_no_value_is_fatal(data: dict[str, Any], dialect: str) -> None:
    found = read_settings(data, NOWHERE, dialect=dialect)
    assert set(data) <= accounted(found)
    json.dumps([found.document, found.report.as_dict()], allow_nan=False)
    found.report.as_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "empty"), ("{'a': ", "too soon"), ("{]", "a name is missing"), ("[]", "holds no settings"),
     ("[{}, {}]", "2 settings"), ("hello", "holds no settings"), ("{\"a\": [1 2]}", "comma"),
     ('{"rendered_frames": []}', "rendered frames"), ('{"koshi": 1, "frames": 0}', "frames"),
     ("[" * 500, "nested"), ('{"nodes": [], "links": []}', "API format")],
)  # fmt: skip
def test_what_is_no_project_is_refused_in_words(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "file.txt"
    file.write_text(text)
    with pytest.raises(KoshiError, match=told):
        read_file(file)


def test_text_of_any_editor(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    text = json.dumps(webui(prompts={"0": "a café"}), ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        file.write_bytes(text.encode(encoding))
        assert read_file(file).shot.prompts[0].text == "a café"


# ---- the command


def test_the_table_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(SETTINGS / "schedules.json"), "--table"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert next(iter(rows[0])) == "frame" and set(rows[0]) == {"frame", "steps", *SCHEDULES}
    assert [int(row["frame"]) for row in rows] == list(range(10))
    assert float(rows[9]["strength"]) == pytest.approx(0.15) and float(rows[0]["angle"]) == 0.5


def test_files_report_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "new" / "shot.koshi.json", tmp_path / "report.json"
    call = ["convert", str(SETTINGS / "webui_3d.txt"), "-o", str(out), "--json", "--report", str(report)]
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and told["out"] == str(out) and told["dialect"] == "webui"
    assert set(told["not_carried"][0]) == {"key", "value", "why"} and told["unknown"] == []
    assert json.loads(report.read_text())["carried"] == told["carried"]
    assert main(["convert", str(out), "--table", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["table"]["rows"]) == 30


def test_unreadable_files_end_in_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (tmp_path / "missing.txt", tmp_path):
        assert main(["convert", str(file), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_settings"


def koshi(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "koshi_backend", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_converted_file_renders(tmp_path: Path) -> None:
    data = webui(W=64, H=64, max_frames=3, steps=1, zoom="0: (1.02)", prompts={"0": "a reef at day, photo"})
    source, shot = tmp_path / "settings.txt", tmp_path / "shot.koshi.json"
    source.write_text(json.dumps(data))
    assert koshi("convert", source, "-o", shot).returncode == 0
    done = koshi("animate", shot, "--out", tmp_path / "frames", "--json")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "frames").glob("*.png"))) == 3

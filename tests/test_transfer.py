# SPDX-License-Identifier: GPL-3.0-or-later
"""Shots and other tools' projects as a scene's keyframes and back, and curves through the clipboard."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT, in_versions, versions
from hypothesis import given, settings
from hypothesis import strategies as st

from koshi_backend import curves
from koshi_backend import schedules as text
from koshi_backend.convert import read_file
from koshi_backend.convert.command import _checked
from koshi_backend.settings import SCHEDULES

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)


def _pure(name: str) -> ModuleType:
    """A module of operators/ that needs no Blender; the package around it does."""
    for package, folder in (("koshi_pure", ROOT), ("koshi_pure.operators", ROOT / "operators")):
        sys.modules.setdefault(package, ModuleType(package)).__path__ = [str(folder)]
    return importlib.import_module(f"koshi_pure.operators.{name}")


course, formula = _pure("course"), _pure("formula")

OTHERS = sorted((ROOT / "tests" / "settings").iterdir())
SEEDS = 2**31, 2**23  # how far Blender holds a number, and one that changes
SHAPES: dict[str, Any] = {
    "koshi": 1, "frames": 60, "frame_start": 5, "fps": 29.97003, "seed": 11, "width": 128, "height": 192,
    "prompts": [
        {"text": "a calm sea", "ease": "sigmoid"},
        {"frame": "max_f/2", "text": "a hill", "negative": "people"},
        {"frame": 9, "text": "snow", "weight": "cubic; 0:(0.5), 20:(1), 30:(0.8), 59:(0.6)"},
        {"frame": 0, "text": "rain", "weight": "0:(0.2+0.1*cos(t/9))"},
    ],
    "schedules": {
        "zoom": "bezier; 0:(1), 7:(1.05), 17:(1.02), 41:(1.1), 59:(1)",
        "angle": "cubic; 0:(0), 10:(5), 24:(-3), 50:(4)",
        "translation_x": {"keys": "0:(0), 13:(9), 24:(-7), 47:(3), 59:(1)", "interpolation": "quadratic"},
        "translation_y": "step; 0:(1), 20:(-2), 40:(3)",
        "strength": "3:(0.5), 20:(0.25), 40:(0.75)",
        "noise": "0:(0.01*abs(sin(t/7))), 30:(0.05), 45:(0.02), \"max_f\":(0.01*t/max_f)",
        "rotation_3d_y": "0:(where(t<20, t/10, arctan2(t, 30)*2)), 50:(1)",
        "rotation_3d_z": "0:(t & 7)",
        "contrast": "0:(round(t/20, 1))",
        "cadence": "0:(1), 20:(3)", "subseed": 7,
        "fov": [70.0 - abs(30 - k) / 10 for k in range(60)],
        "seed": "0:(5), 30:(9)",
    },
}  # fmt: skip


# No Blender


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["linear", "step", "quadratic", "cubic", "bezier"]),
    st.lists(st.tuples(st.integers(0, 90), st.integers(-300, 300)), min_size=2, max_size=7, unique_by=lambda k: k[0]),
)
def test_written_keys_are_kept_whatever_the_curve(kind: str, keys: list[tuple[int, int]]) -> None:
    """The keys alone, or with Bezier pieces between them, give what the backend draws."""
    keys.sort()
    schedule = f"{kind}; " + ", ".join(f"{frame}:({value / 100})" for frame, value in keys)
    values = text.evaluate(schedule, 95)
    knots = course.written(schedule, values)
    assert knots is not None
    np.testing.assert_allclose(course.evaluate(knots, 95), values, rtol=1e-9, atol=1e-9)
    places = {knot.frame for knot in knots}
    assert {frame for frame, _ in keys} <= places
    halves = {(a + b) / 2 for (a, _), (b, _) in itertools.pairwise(keys)}
    assert places - {frame for frame, _ in keys} <= halves
    assert len(places) == len(keys) or curves.drawn_as(kind, len(keys)) == "quadratic"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(1, 9))
def test_baked_values_need_few_keys(bends: list[int], length: int) -> None:
    values = [float(value) for value in np.cumsum(np.repeat(bends, length))]
    knots = course.straight(values)
    np.testing.assert_allclose(course.evaluate(knots, len(values)), values, atol=1e-5)
    assert len(knots) <= len(bends) + 2


def test_arithmetic_as_drivers() -> None:
    def said(schedule: str, frames: int = 30, start: int = 0, turned: bool = False) -> str:
        values = text.evaluate(schedule, frames)
        return formula.formula(schedule, [1 - v for v in values] if turned else values, start, 0, turned)

    assert said("0:(1+0.1*sin(2*pi*t/max_f))") == "1 + 0.1 * sin(2 * pi * frame / 29)"
    assert said("0:(arcsin(t/40))", start=5) == "asin((frame - 5) / 40)"
    assert said("0:(where(t>5, t**2, -(t+1)))") == "(frame ** 2 if frame > 5 else -(frame + 1))"
    assert said("0:(2), 10:(3), 20:(t/10)", start=1) == (
        "2 + 0.1 * (frame - 1) if frame < 11 else 3 - 0.1 * (frame - 11) if frame < 21 else (frame - 1) / 10"
    )
    assert said("0:(0.01*t)", turned=True) == "1 - (0.01 * frame)"
    for schedule, why in (
        ("0:(t & 3)", "bits"), ("0:(round(t/3))", "round()"), ("cubic; 0:(t), 5:(1)", "cubic"),
        ("0:(" + "+".join(["t"] * 200) + ")", "255"),
    ):  # fmt: skip
        with pytest.raises(formula.NoDriver, match=why.replace("(", r"\(").replace(")", r"\)")):
            said(schedule)


# In Blender


@pytest.fixture(scope="session")
def laid(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """All examples, all settings of other tools and every shape of curve, laid on a scene, baked and with drivers."""
    folder = tmp_path_factory.mktemp("laid é")
    shots = {path.name.partition(".")[0]: json.loads(path.read_text("utf-8")) for path in ROOT.glob("examples/*.json")}
    shots |= {f"{path.stem}_{path.suffix[1:]}": read_file(path).document for path in OTHERS}
    shots["shapes"] = SHAPES
    for name, shot in shots.items():
        (folder / f"{name}.koshi.json").write_text(json.dumps(shot), encoding="utf-8")
    return shots, blender.script("import_shots", folder)


Laid = tuple[dict[str, Any], Any]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_a_scene_has_the_shots_values(laid: Laid) -> None:
    """The law: what a scene says after an import is what the shot says, at every frame."""
    shots, seen = laid
    assert len(seen) == 2 * len(shots) > 80
    for name, document in shots.items():
        shot = _checked(document)
        values = shot._given
        for mode in ("BAKE", "DRIVERS"):
            got = seen[f"{name} {mode}"]
            assert got["range"][:2] == [shot.frame_start, shot.frame_start + shot.frames - 1]
            assert got["range"][2] == pytest.approx(shot.fps) and got["size"] == [shot.width, shot.height]
            for schedule, spec in SCHEDULES.items():
                wanted = values.get(schedule, [spec.default] * shot.frames)
                if schedule in ("cadence", "subseed"):
                    wanted = [int(value) for value in wanted]
                if schedule == "seed":
                    path = shot.values["seed"] if "seed" in values else [shot.seed] * shot.frames
                    wanted = [value % SEEDS[len(set(path)) > 1] for value in path]
                found = np.broadcast_to(got["values"][schedule], shot.frames)
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{name} {mode} {schedule}")


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_curves_keep_their_interpolation(laid: Laid) -> None:
    shown = laid[1]["shapes BAKE"]
    keys = {path: [(key[0], key[2]) for key in found] for path, found in shown["keys"].items()}
    assert keys["zoom"] == [(frame, "BEZIER") for frame in (5, 12, 22, 46, 64)]
    assert keys["angle"] == [(frame, "BEZIER") for frame in (5, 15, 29, 55)]
    assert keys["translation_x"] == [(frame, "BEZIER") for frame in (5, 18, 23.5, 29, 40.5, 52, 64)]
    assert keys["translation_y"] == [(frame, "CONSTANT") for frame in (5, 25, 45)]
    assert keys["strength"] == [(frame, "LINEAR") for frame in (8, 25, 45)]
    assert keys["fov"] == [(frame, "LINEAR") for frame in (5, 35, 64)]  # a list of 60 values
    assert keys["prompts[2].weight"] == [(frame, "BEZIER") for frame in (5, 25, 35, 64)]
    assert len(keys["noise"]) > 30 and shown["told"] == []
    driven = laid[1]["shapes DRIVERS"]
    assert driven["keys"]["prompts[3].weight"] == "0.2 + 0.1 * cos((frame - 5) / 9)"
    turn = "((frame - 5) / 10 if frame - 5 < 20 else atan2(frame - 5, 30) * 2) if frame < 55 else 1"
    assert driven["keys"]["rotation_3d_y"] == turn
    assert {told.partition(" ")[0] for told in driven["told"]} == {"rotation_3d_z", "contrast"}
    assert driven["keys"]["zoom"] == shown["keys"]["zoom"]
    linear = laid[1]["zoom BAKE"]["keys"]["zoom"]
    assert linear == [[0, 1.0, "LINEAR"], [47, 1.02, "LINEAR"]]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_prompts_become_markers(laid: Laid) -> None:
    shown = laid[1]["shapes BAKE"]
    assert shown["prompts"] == [
        [5, "a calm sea", "", "sigmoid", False], [34, "a hill", "people", "hold", False],
        [14, "snow", "", "hold", True], [5, "rain", "", "hold", True],
    ]  # fmt: skip
    assert sorted(shown["markers"]) == [[5, "“a calm sea”"], [5, "“rain”"], [14, "“snow”"], [34, "“a hill”"]]


@pytest.fixture(scope="session")
def moved(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """What the operators did; other tools' files in two versions."""
    folder = tmp_path_factory.mktemp("transfer é")
    shot = {
        "koshi": 1, "frames": 24, "frame_start": 5, "seed": 3, "prompts": [{"text": "a sea"}],
        "schedules": {"zoom": "0:(1.0), 20:(1.02)", "translation_x": "0:(2*sin(t/5))"},
        "feedback": {"position": "warped"},
    }  # fmt: skip
    (folder / "own.koshi.json").write_text(json.dumps(shot), encoding="utf-8")
    (folder / "broken.json").write_text('{"koshi": 1}', encoding="utf-8")
    given = ROOT / "tests" / "settings" / "webui_3d.txt", folder / "own.koshi.json", folder / "broken.json", folder
    return folder, blender.script("transfer", *given, *(["all"] if blender.version in versions("4.2", "5.2") else []))


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_schedules_through_the_clipboard(moved: tuple[Path, Any]) -> None:
    seen = moved[1]["clipboard"]
    assert seen["linear"] == "0:(1.0), 24:(1.5), 29:(1.25)"
    assert seen["strength"] == "0:(0.8), 29:(0.5)"  # Deforum's keeps
    assert seen["constant"] == "0:(0.0)" and seen["operator"] == ["FINISHED"]
    assert 20 < seen["smooth"].count(":") <= 30
    # Pasted again: the eased zoom from its text, the strength from its own.
    eased = text.evaluate(seen["smooth"], 30)
    np.testing.assert_allclose(seen["again"]["zoom"], eased, atol=2e-6)
    np.testing.assert_allclose(seen["again"]["strength"], seen["before"]["strength"], atol=1e-6)
    assert seen["pasted"] == [[11, 0, "LINEAR"], [21, 5, "LINEAR"], [40, -1, "LINEAR"]]
    assert seen["driver"] == "10 * sin(2 * pi * (frame - 11) / 12) if frame < 31 else 3"
    assert seen["driven"] == pytest.approx(10 * math.sin(math.pi / 2))
    assert seen["baked"] == [[11, 0, "LINEAR"], [14, 3, "LINEAR"], [15, 0, "LINEAR"]]
    assert seen["turned"] == pytest.approx(0.35)
    assert seen["seed"] == [[frame, seed, "CONSTANT"] for frame, seed in ((11, 5), (12, 6), (13, 7), (14, 9))]
    assert seen["size"] == [1.0, 1.02, 1.0404]  # of a curve that holds sizes
    assert seen["moves"] == "0:(1.0), 1:(1.02)"
    assert "a parenthesis is not closed" in seen["wrong"]


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_a_shot_in_and_out(moved: tuple[Path, Any]) -> None:
    seen = moved[1]["own"]
    assert seen["import"] == ["FINISHED"] and seen["range"] == [5, 28]
    assert "feedback.position is not taken over" in seen["text"]
    assert "begin anew at 12," in seen["text"]  # the scene's own cuts stay
    assert seen["keys"]["zoom"] == [[5, 1.0, "LINEAR"], [25, 1.02, "LINEAR"]]
    assert seen["keys"]["translation_x"] == "2 * sin((frame - 5) / 5)"
    assert seen["exported"] == seen["sampled"]
    assert "how many frames" in seen["broken"] and "No such file" in seen["missing"]
    told, seed = seen["meanwhile"]
    assert "render has begun meanwhile, so nothing was imported" in told and seed == 77 and seen["poll"] is False
    # A name with a full stop in it is nobody else's file.
    names = ["city.koshi.json", "city.v2.koshi.json", "city.koshi.json", "city.txt", "city.koshi.json"]
    assert moved[1]["named"] == names


@pytest.mark.blender
@pytest.mark.timeout(600)
@in_versions("4.2", "5.2")  # the backend converts, three processes each
def test_other_tools_files_in_and_out(moved: tuple[Path, Any]) -> None:
    folder, seen = moved[0], moved[1]["others"]
    wanted = read_file(ROOT / "tests" / "settings" / "webui_3d.txt")
    assert seen["range"] == [0, wanted.shot.frames - 1]
    for left in wanted.report.not_carried:
        assert left["key"] in seen["text"]
    assert "webui paints with its own checkpoint" in seen["deforum"]
    assert "a Parseq document has no place for it" in seen["parseq"]
    for name, dialect in (("deforum", "webui"), ("parseq", "parseq")):
        back = read_file(folder / name)
        assert back.report.dialect == dialect and back.shot.frames == wanted.shot.frames
        for schedule in ("translation_x", "rotation_3d_y", "strength", "noise"):
            then = np.broadcast_to(seen["shot"]["schedules"].get(schedule, 0.0), wanted.shot.frames)
            # Texts give back their curve to 1e-6.
            np.testing.assert_allclose(back.shot.values[schedule], then, rtol=1e-5, atol=2e-6, err_msg=schedule)

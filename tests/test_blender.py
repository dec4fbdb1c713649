# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension in real Blender of every version: what is installed, what a scene says, what its camera does."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import in_versions

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]


# The extension


def test_zip_carries_what_runs_and_nothing_else(extension_zip: Path) -> None:
    names = zipfile.ZipFile(extension_zip).namelist()
    for needed in (
        "blender_manifest.toml", "__init__.py", "panels/sidebar.py", "operators/render.py",
        "bridge_server/client.py", "bridge_server/server.py", "koshi_backend/schedules.py", "LICENSE",
        "koshi_backend/chain.py",
        "koshi_backend/weights/koshi-tiny/model_index.json",
        "koshi_backend/weights/koshi-tiny/transformer/diffusion_pytorch_model.safetensors",
    ):  # fmt: skip
        assert needed in names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"panels", "operators", "bridge_server", "koshi_backend", "presets"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    files = {name for name in names if "/" not in name}
    # The last two say which packages the set-up installs, and in which versions.
    assert files <= {
        "blender_manifest.toml", "__init__.py", "LICENSE", "README.md", "NOTICE", "pyproject.toml", "constraints.txt"
    }  # fmt: skip


@in_versions("5.2")  # test_repository.py has it of every version's own check
def test_manifest_is_valid(blender: Blender, extension_zip: Path) -> None:
    blender.run("--command", "extension", "validate", extension_zip)


def test_enabling_and_disabling_leaves_nothing_behind(blender: Blender) -> None:
    seen = blender.script("registration")
    assert seen["enabled"]["scene"] and "render" in seen["enabled"]["operators"]
    assert not seen["enabled"]["threads"] and not seen["enabled"]["timers"]
    assert not seen["enabled"]["keys"]  # Koshi takes no shortcut away from anybody
    assert len(seen["leftovers"]) == 50
    for left in seen["leftovers"]:
        assert not any(left.values()), left
    assert seen["again"] == seen["enabled"]
    for first, last in (seen["off"], seen["on"]):
        assert last == first  # after 50 times there is what there was after 5
    assert seen["seconds"] < 0.25  # nothing heavy in register()
    assert seen["forbidden"] == []


# Sampling


@pytest.fixture(scope="session")
def sampled(blender: Blender) -> Any:
    return blender.script("sampling")


@pytest.mark.parametrize("case", ["bezier", "driver", "python_driver", "nla", "hidden", "noise_modifier"])
def test_sampled_values_are_the_evaluated_ones(sampled: Any, case: str) -> None:
    np.testing.assert_allclose(sampled[case]["sampled"], sampled[case]["expected"], rtol=1e-6, atol=1e-5)


def test_bezier_easing_is_not_linear(sampled: Any) -> None:
    eased = np.array(sampled["bezier"]["sampled"][:16]) - np.array(sampled["bezier"]["linear"])
    assert np.abs(eased).max() > 0.005


def test_playhead_stays_where_it_was(sampled: Any) -> None:
    assert sampled["bezier"]["playhead"] == [17, 0.5]
    assert sampled["hidden"]["window"] == "Scene"


def test_a_driver_that_does_not_work_is_told(sampled: Any) -> None:
    error = sampled["broken_driver"]
    assert error["code"] == "bad_shot"
    assert error["problems"][0]["field"] == "translation_x"


@pytest.mark.parametrize(("name", "title"), [("angle", "Angle"), ("seed", "Seed")])
def test_a_key_that_is_no_number_is_refused_by_curve_and_frame(sampled: Any, name: str, title: str) -> None:
    error = sampled["no_number"][name]
    assert error["code"] == "bad_shot" and "Graph Editor" in error["hint"]
    (fault,) = error["problems"]
    assert fault["field"] == name and 1 < fault["frame"] <= 5
    assert error["message"] == f"{title} is no number at frame {fault['frame']} (nan)."


def test_a_driver_that_gives_no_number_is_told(sampled: Any) -> None:
    (note,) = sampled["no_number"]["driver"]
    assert note == "The driver of Zoom gives 0.1, less, or no number at frame 7. Its smallest value counts."
    assert sampled["no_number"]["mended"] == []


def test_constants_are_one_number(sampled: Any) -> None:
    assert sampled["constant"] == {"zoom": 1.01, "seed": 7, "listed": False}
    assert sampled["seeds"] == list(range(1, 25))


def test_twenty_curves_of_10_000_frames_take_less_than_a_second(sampled: Any) -> None:
    assert (sampled["long"]["curves"], sampled["long"]["frames"]) == (20, 10_000)
    assert sampled["long"]["moving"] > 10
    assert sampled["long"]["seconds"] < 1.0  # of the processor; observed in all versions: .27 to .37


def test_blenders_output_settings_are_used(sampled: Any) -> None:
    expected = {"width": 960, "height": 512, "fps": pytest.approx(30 / 1.001), "frames": 10, "frame_start": 1}
    assert sampled["output"] == expected


def test_prompts_are_counted_from_the_shots_first_frame(sampled: Any) -> None:
    heard = {span: [(p["frame"], p["text"]) for p in given] for span, given in sampled["prompts"].items()}
    assert heard == {
        "1-50": [(0, "a"), (7, "b"), (19, "c"), (39, "d")],
        "10-30": [(0, "b"), (10, "c")],  # the last prompt before the range holds at its beginning
        "8-8": [(0, "b")],
        "-3-4": [(0, "a")],
    }


# The camera


@pytest.fixture(scope="session")
def camera(blender: Blender) -> Any:
    return blender.script("camera")


def test_camera_motion_is_what_blender_projects(camera: Any) -> None:
    for name, case in camera["cases"].items():
        assert case["moved"] > 1.0, name  # or the case would show nothing
        # A pan is no similarity, only nearly one.
        assert case["error"] < (0.25 if name.startswith(("pan", "tilt")) else 0.01), name


def test_camera_signs_are_deforums(camera: Any) -> None:
    signs = camera["signs"]
    assert signs["push"]["zoom"] > 1.005
    assert signs["clockwise"]["angle"] == pytest.approx(
        np.degrees(0.02), abs=1e-3
    )  # the picture turns the other way
    assert signs["right"]["translation_x"] < -1
    assert signs["up"]["translation_y"] > 1


def test_curves_come_on_top_of_the_camera(camera: Any) -> None:
    alone, both = camera["composed"]["alone"], camera["composed"]["both"]
    turn = np.exp(-1j * np.radians(alone["angle"][1:]))
    shift = 3.0 / turn  # the curve's shift happens after the camera's turn
    assert both["zoom"] == pytest.approx(1.02, abs=1e-5)
    np.testing.assert_allclose(both["translation_x"][1:], shift.real, atol=1e-3)
    np.testing.assert_allclose(both["translation_y"][1:], shift.imag, atol=1e-3)


def test_the_focus_distance_is_told(camera: Any) -> None:
    notes = {name: " ".join(lines) for name, lines in camera["notes"].items()}
    assert "8 units" in notes["object"] and "focus object" in notes["object"]
    assert "3.25 units" in notes["distance"]
    assert "origin" in notes["origin"]
    assert "5 units" in notes["behind"] and "behind" in notes["behind"]


def test_a_cut_moves_nothing(camera: Any) -> None:
    assert camera["cut"]["translation_x"] == 0.0
    assert "cuts to" in camera["cut"]["notes"][0]
    assert camera["no_camera"]["problems"][0]["frame"] == 1


@pytest.mark.parametrize("source", ["CAMERA", "EXACT"])
def test_a_camera_that_shows_nothing_is_refused(camera: Any, source: str) -> None:
    for case, frame in ((source, 1), (f"{source} parent", 3)):
        error = camera["no_scale"][case]
        assert error["code"] == "camera_scale"
        assert error["message"].startswith(f'Frame {frame}: The camera "Camera" is scaled to 0') and error["hint"]
        assert error["problems"][0]["frame"] == frame
    assert camera["no_scale"][f"{source} small"] is None

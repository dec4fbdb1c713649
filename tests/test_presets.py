# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of the panels in Blender's own preset system, and those that Koshi brings."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT

from koshi_backend.shot import load_shot

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]

OURS = sorted((ROOT / "presets").glob("koshi/*/*.py"))


@pytest.fixture(scope="session")
def seen(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("presets é")
    for name in ("film.mp4", "picture.png", "a.safetensors", "b'é.safetensors"):
        (folder / name).touch()
    return {"folder": folder, **blender.script("presets", folder)}


def test_ours_are_found_and_make_shots(seen: Any) -> None:
    assert sorted(seen["own"]) == sorted(f"{path.parent.name}/{path.stem}" for path in OURS)
    for name, shot in seen["shots"].items():
        assert load_shot(shot).frames == 24, name
    # Some of them are what a new scene has; the others say what they are named for.
    plain = [name for name, differs in seen["own"].items() if not differs]
    assert sorted(plain) == ["feedback/Balanced", "mask/Hard_Edge", "motion/Still", "time/Every_Frame"]
    assert seen["own"]["motion/Tunnel"] == pytest.approx({"zoom": 1.04, "angle": 0.25})
    assert seen["shots"]["motion/Fly_Forward_3D"]["motion"] == {"source": "3d"}
    assert seen["shots"]["video/Restyle"]["hybrid"] == {"over": "every"}
    assert seen["shots"]["guided/Shown_Only"]["guided_as"] == "shown"
    assert seen["shots"]["mask/Around_It"]["masking"] == {"invert": True, "blur": 6.0}
    assert seen["shots"]["time/Every_Second_Frame"]["schedules"]["cadence"] == 2


def test_each_of_ours_sets_all_of_its_kind(seen: Any) -> None:
    """Otherwise something of the preset before would stay. Guidance and steps are the model's, depth the scene's."""
    for kind in sorted({path.parent.name for path in OURS}):
        said = []
        for path in (path for path in OURS if path.parent.name == kind):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            targets = [one.targets[0] for one in body if isinstance(one, ast.Assign)]
            said.append({target.attr for target in targets if isinstance(target, ast.Attribute)})
        held = set(seen["holds"][kind]) - {"guidance", "steps", "subseed", "subseed_strength"}
        held -= {name for name in held if name.startswith(("depth_", "flow_"))}
        assert all(names == held for names in said), kind


def test_presets_of_ones_own(seen: Any) -> None:
    assert seen["added"] == {"Mine_é": True}  # in the user's folder
    # A value with keyframes gets a key at the playhead.
    assert seen["chosen"] == [1.25, 3.0, "wrap"] and seen["keys"] == [[1, 1], [10, 3], [20, 1]]
    assert seen["removed"] == [] and seen["ours stay"]


def test_presets_of_loras_hold_their_files(seen: Any) -> None:
    """Files by whole paths, as the other .blend lies elsewhere; the list before goes with its keyframes."""
    folder: Path = seen["folder"]
    worn = seen["loras"]["worn"]
    assert [Path(file) for file, _, _ in worn] == [folder / "a.safetensors", folder / "b'é.safetensors"]
    assert [rest for _, *rest in worn] == [[0.8, True], [-0.25, False]]
    assert seen["loras"]["curves"] == [] and seen["loras"]["left"] == []

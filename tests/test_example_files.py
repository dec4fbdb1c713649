# SPDX-License-Identifier: GPL-3.0-or-later
"""The example .blend files: they are made, and each renders and moves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ROOT, in_versions
from PIL import Image

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
EXAMPLES = {path.stem.removeprefix("make_"): path for path in sorted((ROOT / "examples" / "blend").glob("make_*.py"))}


def test_there_is_one_of_each_kind() -> None:
    assert set(EXAMPLES) == {"push_in", "orbit", "music", "restyle"}


def test_each_version_makes_them(blender: Blender, tmp_path: Path) -> None:
    """And what it opens again makes a shot."""
    shots = blender.script("examples", tmp_path, *EXAMPLES.values())
    assert set(shots) == set(EXAMPLES)
    for name, shot in shots.items():
        assert shot["frames"] >= 12 and shot["prompts"], name
        assert max(shot["width"], shot["height"]) <= 256, name
    assert len(set(shots["music"]["schedules"]["zoom"])) > 10


@in_versions("4.5")  # what they use does not differ by version
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_made_and_renders(blender: Blender, tmp_path: Path, name: str) -> None:
    blend = tmp_path / f"{name}.blend"
    blender.run("--python-exit-code", 5, "-P", EXAMPLES[name], "--", blend)
    assert blend.stat().st_size < 500_000
    rendered = blender.koshi(blend, "render", "--frame-end", 2)
    assert (rendered["ok"], rendered["done"]) == (True, 2)
    pictures = [np.asarray(Image.open(path)).astype(int) for path in sorted(Path(rendered["out"]).glob("*.png"))]
    assert min(picture.std() for picture in pictures) > 15  # something is in them
    for before, after in pairwise(pictures):
        assert np.abs(after - before).mean() > 1.0

# SPDX-License-Identifier: GPL-3.0-or-later
"""Cameras of every kind: Koshi's fields against Blender's own projection of points, and what a cut does."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blender_scripts.fixtures import Blender
from PIL import Image

from koshi_backend.chain import Painter, frame_key, render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.moves import Moves
from koshi_backend.shot import load_shot, read_shot
from koshi_backend.store import FrameStore

BASE: dict[str, Any] = {
    "koshi": 1, "width": 64, "height": 64, "steps": 1, "seed": 3, "prompts": [{"text": "a calm sea at dawn, photo"}],
}  # fmt: skip
pytest_plugins = ("blender_scripts.fixtures",)
LIMIT = 0.05  # pixels


@pytest.fixture(scope="session")
def scenes(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("scenes")
    return folder, blender.script("camera_scenes", folder)


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_exact_motion_is_where_blender_projects_points(scenes: tuple[Path, dict[str, Any]]) -> None:
    folder, told = scenes
    assert len(told) >= 20
    for name, known in told.items():
        shot = read_shot(folder / f"{name}.koshi.json")
        moves = Moves(shot, torch.device("cpu"))
        for index, truth in enumerate(known["truth"], 1):
            pixels, here, was = (np.array(truth[part]) for part in ("pixels", "here", "was"))
            # Blender's ray and Blender's projection agree on where the points are, or the judge is no good.
            assert np.abs(here[:, :2] - pixels).max() < 2e-3, name
            if shot.begins(index):
                continue
            field = moves.into(index, torch.zeros(1, 3, shot.height, shot.width), {})[0]
            x, y = pixels.T
            valid = field.valid[y, x].numpy() & (was[:, 2] > 0.1)
            error = np.linalg.norm(field.source[y, x].numpy() - was[:, :2], axis=1)
            assert valid.sum() > 0.5 * len(pixels) > 20, (name, valid.mean())
            assert np.linalg.norm(was[:, :2] - pixels, axis=1)[valid].max() > 0.5, name  # or the case shows nothing
            # Observed: at most 0.011.
            assert error[valid].max() < LIMIT, (name, index, error[valid].max())


@pytest.mark.blender
@pytest.mark.timeout(600)
def test_flat_motion_is_the_best_similarity_of_what_blender_projects(scenes: tuple[Path, dict[str, Any]]) -> None:
    folder, told = scenes
    for name, known in told.items():
        shot = read_shot(folder / f"{name}.koshi.json")
        table = known["flat"]
        for index, truth in enumerate(known["truth"], 1):
            if shot.begins(index):
                continue
            middle = complex(shot.width / 2 - 0.5, shot.height / 2 - 0.5)
            before, now = (np.array(part) @ [1, 1j] - middle for part in truth["plane"])
            a, b = before - before.mean(), now - now.mean()
            factor = (b * a.conj()).sum() / (abs(a) ** 2).sum()
            zoom, angle, x, y = (
                table[n][index] if isinstance(table[n], list) else table[n]
                for n in ("zoom", "angle", "translation_x", "translation_y")
            )
            corners = np.array([u * shot.width + 1j * v * shot.height for u in (-0.5, 0.5) for v in (-0.5, 0.5)])
            best = now.mean() + factor * (corners - before.mean())
            given = zoom * np.exp(-1j * np.radians(angle)) * (corners + complex(x, y))
            assert np.abs(best - corners).max() > 0.3, name
            # Observed: at most 0.003.
            assert np.abs(given - best).max() < LIMIT, (name, index, np.abs(given - best).max())


PLAIN = {
    "plain", "zooming_lens", "shifted", "shifting", "vertical_fit", "horizontal_fit_of_a_tall_picture", "tall_picture",
    "orthographic", "orthographic_growing", "by_angles_and_modifiers", "wide_pixels", "tall_pixels", "render_border",
    "every_second_frame", "motion_blurred", "half_size",
}  # fmt: skip


@pytest.mark.blender
def test_a_plain_camera_is_read_from_its_curves_to_the_bit(scenes: tuple[Path, dict[str, Any]]) -> None:
    """And any other one is evaluated."""
    errors = {name: known["curves"] for name, known in scenes[1].items() if known["curves"] is not None}
    assert errors == dict.fromkeys(PLAIN, 0.0)


@pytest.mark.blender
def test_cuts_and_steps_are_in_the_shot(scenes: tuple[Path, dict[str, Any]]) -> None:
    folder, told = scenes
    shots = {name: read_shot(folder / f"{name}.koshi.json") for name in told}
    cuts = {name: shot.motion.cuts for name, shot in shots.items() if shot.motion.cuts}
    assert cuts == {
        "cameras_bound_to_markers": [2, 4], "every_third_frame_with_a_cut": [1], "linked_from_a_library": [2],
    }  # fmt: skip
    assert "cuts to the camera" in told["linked_from_a_library"]["notes"][0]
    stepped = shots["every_second_frame"]
    assert (stepped.frames, [stepped.number(k) for k in range(3)]) == (3, [1, 3, 5])
    files = sorted(path.name for path in (folder / "every_second_frame").glob("*.exr"))
    assert files == [f"geometry_{number:04d}.exr" for number in (1, 3, 5)]


# Cuts, without Blender


def shot(**given: Any) -> Any:
    return load_shot({**BASE, "frames": 4, **given})


def test_a_cut_begins_anew(tmp_path: Path) -> None:
    """With fixed noise it is frame 0 again, to the bit, and nothing before it has a say."""
    given = {"feedback": {"noise_mode": "fixed"}, "schedules": {"zoom": 1.05, "strength": 0.5}}
    whole, cut = (list(render_shot(shot(**given, motion=motion))) for motion in ({}, {"cuts": [2]}))
    assert [frame.png for frame in cut[:2]] == [frame.png for frame in whole[:2]]
    assert cut[2].png == cut[0].png != whole[2].png
    assert cut[3].png == cut[1].png
    assert cut[2].key == cut[0].key


def test_what_comes_before_a_cut_is_not_in_its_key() -> None:
    painter = Painter("model", "float32", "cpu", guided=False)
    plain, cut = shot(), shot(motion={"cuts": [2]})
    assert frame_key(cut, 2, "a", painter) == frame_key(cut, 2, "b", painter)
    assert frame_key(plain, 2, "a", painter) != frame_key(plain, 2, "b", painter)
    assert frame_key(cut, 3, "a", painter) != frame_key(cut, 3, "b", painter)


def test_a_lost_frame_is_made_again_from_the_cut_only(tmp_path: Path) -> None:
    given, store = shot(motion={"cuts": [2]}), FrameStore(tmp_path / "store")
    first = list(render_shot(given, store=store))
    again = FrameStore(tmp_path / "again")
    for at in (2, 3):
        again.put(first[at].key, store.get(first[at].key))
    told: list[str] = []
    longer = shot(frames=5, motion={"cuts": [2]})
    frames = render_shot(longer, store=again, progress=lambda p: told.append(p.message))
    made = [frame.stored for frame in frames]
    assert made == [False, False, True, True, False]


def test_a_start_picture_for_every_cut(tmp_path: Path) -> None:
    colours = {5: (200, 30, 30), 9: (30, 30, 200)}
    for number, colour in colours.items():
        Image.new("RGB", (BASE["width"], BASE["height"]), colour).save(tmp_path / f"start_{number:04d}.png")
    given = {
        "frame_start": 5, "frame_step": 2, "motion": {"cuts": [2]}, "schedules": {"strength": 0.0},
        "init_image": str(tmp_path / "start_####.png"),
    }  # fmt: skip
    frames = list(render_shot(shot(**given)))
    assert [frame.number for frame in frames] == [5, 7, 9, 11]
    seen = [Image.open(BytesIO(frame.png)).getpixel((8, 8)) for frame in frames]
    assert seen == [colours[5], colours[5], colours[9], colours[9]]
    (tmp_path / "start_0009.png").unlink()
    with pytest.raises(KoshiError, match=r"start_0009\.png"):
        shot(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"motion": {"cuts": [4]}}, ["motion.cuts", "frame 4", "4 frames"]),
        ({"motion": {"cuts": [-1]}}, ["motion.cuts"]),
        ({"frame_step": 0}, ["frame_step"]),
        ({"guides": {"structure": "nowhere_####.png"}}, ["guides.structure", "nowhere_0000.png"]),
    ],
)
def test_faults_are_told(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(KoshiError) as error:
        shot(**given)
    for word in words:
        assert word in str(error.value)


def test_a_range_counts_its_steps() -> None:
    assert load_shot({**BASE, "frame_start": 1, "frame_end": 10, "frame_step": 4}).frames == 3

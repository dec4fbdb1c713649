# SPDX-License-Identifier: GPL-3.0-or-later
"""Deforum's films as they come into a shot: which frames, when they are mixed in, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from films import write_film
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert import NOWHERE, webui

from koshi_backend.convert import read_settings

FILM = {"video_init_path": "film.mp4"}


def document(tmp: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The shot's document, why keys were left, and the notes."""
    found = read_settings(webui(**{**FILM, **changes}), tmp)
    return found.document, {one["key"]: one["why"] for one in found.report.not_carried}, found.report.notes


def test_video_input_paints_over_every_frame(tmp_path: Path) -> None:
    """Its strength counts, its motion does not."""
    found, left, _ = document(
        NOWHERE, animation_mode="Video Input", strength_schedule="0:(0.8), 5:(0.6)", zoom="0:(1.1)",
        add_soundtrack="Init Video",
    )  # fmt: skip
    assert found["hybrid"] == {"over": "every"} and found["guides"] == {"video": "film.mp4"}
    assert found["feedback"]["carry"] == "none" and found["audio"] == "film.mp4"
    assert "zoom" not in found["schedules"] and "strength" in found["schedules"]
    shot = read_settings(webui(**FILM, animation_mode="Video Input", strength_schedule="0:(0.8)"), NOWHERE).shot
    assert shot.values["strength"] == pytest.approx([0.2] * 10)
    assert not {"animation_mode", "video_init_path", "add_soundtrack"} & set(left)


def test_a_film_on_the_net_is_told(tmp_path: Path) -> None:
    for mode in ({"animation_mode": "Video Input"}, {"hybrid_composite": "Normal"}):
        found, left, _ = document(NOWHERE, **mode, video_init_path="https://example.org/film.mp4")
        assert "hybrid" not in found and "fetches nothing" in left[next(iter(mode))]


def test_composites_and_masks_keep_their_sense() -> None:
    found, left, notes = document(
        NOWHERE, hybrid_composite="Before Motion", hybrid_motion="Affine", hybrid_comp_alpha_schedule="0:(0), 9:(0.9)",
        hybrid_comp_mask_type="Video Depth", hybrid_comp_mask_inverse=True, hybrid_comp_mask_equalize="After",
        hybrid_comp_mask_auto_contrast=True, hybrid_comp_mask_auto_contrast_cutoff_low_schedule="0:(10.7)",
        hybrid_comp_mask_contrast_schedule="0:(1.5)", hybrid_use_first_frame_as_init_image=True, strength=0.9,
        hybrid_comp_mask_blend_alpha_schedule="0:(0.7)", use_init=True, init_image="start.png",
    )  # fmt: skip
    assert found["hybrid"] == {"over": "first", "composite": "before_motion", "mask": "video_depth", "inverse": True,
                               "equalize": "after", "auto_contrast": True}  # fmt: skip
    assert found["schedules"]["hybrid_cutoff_low"] == 10.0  # webui takes the whole part
    assert found["schedules"]["hybrid_mask_contrast"] == 1.5 and "hybrid_mask_alpha" not in found["schedules"]
    assert found["depth"]["source"] == "model" and found["motion"]["source"] == "affine"
    assert "init_image" not in found and any("goes before init_image" in note for note in notes)
    shot = read_settings(webui(**FILM, hybrid_composite="Normal", strength=0.9), NOWHERE).shot
    assert shot.hybrid.over == "first"  # webui's default
    assert shot.values["strength"][0] == pytest.approx(0.1) and shot.values["hybrid_alpha"] == [0.5] * 10
    assert not [key for key in left if key.startswith("hybrid")]


def test_what_a_shot_cannot_do_is_told() -> None:
    _, left, _ = document(NOWHERE, hybrid_composite="Normal", hybrid_use_init_image=True)
    assert "guided_images" in left["hybrid_composite"]
    _, left, _ = document(
        NOWHERE, animation_mode="3D", use_depth_warping=False, hybrid_composite="Normal", hybrid_comp_mask_type="Depth"
    )
    assert "moves the picture" in left["hybrid_comp_mask_type"]
    _, left, _ = document(NOWHERE, hybrid_motion="Affine", hybrid_composite="None", extract_from_frame=8,
                          extract_to_frame=4)  # fmt: skip
    assert "no frame" in left["extract_to_frame"]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 30), every=st.integers(1, 7), length=st.integers(1, 60))
def test_the_frames_are_those_that_webui_takes(start: int, every: int, length: int) -> None:
    """Those from `start` to `stop` whose number is a multiple of `every`; as many make the shot."""
    stop = start + length
    found = read_settings(
        webui(**FILM, animation_mode="Video Input", max_frames=10, extract_from_frame=start, extract_nth_frame=every,
              extract_to_frame=stop), NOWHERE,
    ).shot  # fmt: skip
    taken = [k for k in range(start, stop + 1) if k % every == 0]
    if taken:
        assert [found.video_frame(k) for k in range(found.frames)] == taken
    else:
        assert found.frames == 10


def test_the_shot_is_as_long_as_the_film(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", 23)
    found, _, notes = document(tmp_path, animation_mode="Video Input", extract_nth_frame=4)
    assert found["frames"] == 6 and any("gives 6 frames" in note for note in notes)
    same = document(tmp_path, hybrid_motion="Optical Flow")[0]
    assert same["frames"] == 23
    assert document(tmp_path, hybrid_motion="Optical Flow", hybrid_use_init_image=True)[0]["frames"] == 10
    assert document(tmp_path)[0]["frames"] == 10  # no film in it
    json.dumps(found)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Guided images, masks and colours of files: Deforum's settings as shots, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koshi_backend.cli import main
from koshi_backend.convert.command import read_settings
from koshi_backend.convert.deforum_out import to_settings
from koshi_backend.convert.leftover import flattened
from koshi_backend.convert.report import Report
from koshi_backend.convert.webui_settings import SETTINGS as WEBUI
from koshi_backend.errors import KoshiError
from koshi_backend.shot import Shot, load_shot

HERE = Path(".")
FILE = __file__  # any file that is there: nothing here looks into it
LOOPER = {"use_looper": True, "init_images": json.dumps({"0": FILE, "max_f/2": FILE}), "max_frames": 41}


def read(**changed: Any) -> Any:
    """webui's settings, changed."""
    return read_settings(WEBUI | {"prompts": {"0": "a"}, "seed": 3, **changed}, HERE)


def left(found: Any) -> set[str]:
    return {entry["key"] for entry in found.report.not_carried}


def film(folder: Path) -> str:
    (folder / "film.mp4").write_bytes(b"")
    return str(folder / "film.mp4")


# Deforum to Koshi


def test_guided_images_by_frame() -> None:
    found = read(**LOOPER)
    assert [(one.frame, one.image) for one in found.shot.guided_images] == [(0, FILE), (20, FILE)]
    assert found.shot.guided_as == "mixed"
    assert {"use_looper", "init_images", "image_strength_schedule", "blendFactorMax"} <= set(found.report.carried)
    assert found.shot.values["strength"] == pytest.approx([0.25] * 41)  # not .35, which is strength_schedule's
    assert "strength_schedule" in found.report.no_effect


def test_the_share_is_webui_s_at_every_frame() -> None:
    """Worked out by hand from generate.py: 20 frames of tweening in gaps of 30; after the last picture of 25."""
    images = json.dumps({"0": FILE, "30": FILE})
    found = read(**LOOPER | {"init_images": images, "max_frames": 70, "tweening_frames_schedule": "0: (20)",
                             "blendFactorMax": "0: (0.35)", "blendFactorSlope": "0: (0.25)"})  # fmt: skip
    share = found.shot.values["guided"]
    assert share[0] == pytest.approx(0.35 - 0.25)
    assert share[10] == pytest.approx(0.35 - 0.25 * math.cos(1.0))
    assert share[20] == pytest.approx(0.35 - 0.25 * math.cos(0.0))
    assert share[21] == share[29] == 0.07
    assert share[30] == pytest.approx(0.35 - 0.25 * math.cos(1.0))  # 30 % 30 = 0, and 30 % 20 = 10
    assert share[60] == pytest.approx(0.35 - 0.25 * math.cos(0.0))  # 60 % 25 = 10
    assert share[48] == 0.07  # 48 % 25 = 23


def test_without_tweening_little_is_mixed_in() -> None:
    assert set(read(**LOOPER | {"tweening_frames_schedule": "0: (0)"}).shot.values["guided"]) == {0.07}


def test_pictures_on_the_net_are_not_fetched() -> None:
    images = json.dumps({"0": "https://example.org/one.png", "20": FILE, "99": FILE, "x": FILE})
    found = read(**LOOPER | {"init_images": images})
    assert [one.frame for one in found.shot.guided_images] == [20]
    assert {"init_images['0']", "init_images['x']"} <= left(found)
    none = read(**LOOPER | {"init_images": '{"0": "https://example.org/one.png"}'})
    assert none.shot.guided_images == [] and {"init_images", "init_images['0']", "use_looper"} <= left(none)
    assert none.shot.values["strength"] == pytest.approx([0.35] * 41)  # then it is as if they were off
    assert read(**LOOPER | {"init_images": "no table"}).shot.guided_images == []


def test_guided_images_are_for_the_modes_that_have_them() -> None:
    found = read(**LOOPER | {"animation_mode": "Interpolation"})
    assert found.shot.guided_images == [] and "init_images" in found.report.no_effect


def test_colours_are_matched_to_guided_images_where_to_nothing_else() -> None:
    found = read(**LOOPER | {"color_correction_factor": "0: (0.075)"}).shot
    assert found.feedback.color_reference == "guided" and found.feedback.color_mode == "LAB"
    assert found.values["color_match"] == [0.075] * 41
    both = read(**LOOPER | {"color_correction_factor": "0: (0.075)", "color_coherence": "LAB"})
    assert both.shot.feedback.color_reference == "first" and "color_correction_factor" in left(both)


def test_masks(tmp_path: Path) -> None:
    found = read(use_mask=True, mask_file=FILE, invert_mask=True, mask_overlay_blur=4, mask_contrast_adjust=1.5,
                 mask_brightness_adjust=0.5, full_res_mask=True, overlay_mask=False, fill=0)  # fmt: skip
    assert found.shot.guides.mask == FILE
    made = found.shot.masking
    assert (made.invert, made.blur, made.contrast, made.brightness) == (True, 4.0, 1.5, 0.5)
    assert left(found) >= {"full_res_mask", "overlay_mask", "fill"} and "use_mask" in found.report.carried
    video = read(use_mask=True, mask_file=FILE, use_mask_video=True, video_mask_path=film(tmp_path))
    assert video.shot.guides.mask == film(tmp_path) and "mask_file" in video.report.no_effect
    alpha = read(use_mask=True, use_alpha_as_mask=True, use_init=True, init_image=FILE)
    assert alpha.shot.masking.alpha and alpha.shot.guides.mask is None
    none = read(use_mask=True, use_alpha_as_mask=True)
    assert {"use_mask", "use_alpha_as_mask"} <= left(none) and not none.shot.masking.alpha
    words = read(use_mask=True, mask_file=FILE, mask_schedule='0: ("<a face>")')
    assert "mask_schedule" in left(words)
    off = read(invert_mask=True, mask_overlay_blur=9)
    assert {"invert_mask", "mask_overlay_blur"} <= set(off.report.no_effect)


def test_colours_of_files(tmp_path: Path) -> None:
    image = read(color_coherence="Image", color_coherence_image_path=FILE).shot
    assert (image.feedback.color_reference, image.feedback.color_mode, image.color_image) == ("image", "LAB", FILE)
    assert set(image.values["color_match"]) == {1.0}
    video = read(color_coherence="Video Input", video_init_path=film(tmp_path), color_coherence_video_every_N_frames=3)
    assert video.shot.color_image == film(tmp_path) and video.shot.color_every == 3
    assert "video_init_path" in video.report.carried
    gone = read(color_coherence="Image", color_coherence_image_path="https://example.org/one.png")
    assert gone.shot.feedback.color_mode == "none" and {"color_coherence", "color_coherence_image_path"} <= left(gone)


# And back

AMOUNTS = st.one_of(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=6, max_size=6),
                    st.sampled_from(["0:(0.2), 5:(0.9)", "0:(0.5+0.4*sin(t))"]))  # fmt: skip


@st.composite
def shots(draw: st.DrawFn) -> Shot:
    frames = sorted(draw(st.sets(st.integers(1, 5), max_size=3)))
    guided = draw(st.booleans())
    document: dict[str, Any] = {
        "frames": 6, "seed": draw(st.integers(0, 99)), "prompts": [{"text": "a"}], "init_image": FILE,
        "seed_behavior": draw(st.sampled_from(["iter", "fixed", "ladder"])),
        "schedules": {"strength": draw(AMOUNTS), "guided": draw(AMOUNTS), "color_match": draw(AMOUNTS),
                      "mask": draw(st.sampled_from([1, 0.5]))},
        "guided_images": [{"frame": frame, "image": FILE} for frame in [0, *frames]] if guided else [],
        "guided_as": draw(st.sampled_from(["mixed", "both", "shown"])),
        "guides": {"mask": draw(st.sampled_from([None, FILE]))},
        "color_image": FILE, "color_every": draw(st.integers(1, 4)),
        "feedback": {"color_mode": draw(st.sampled_from(["LAB", "RGB", "none"])),
                     "color_reference": draw(st.sampled_from(["first", "image", *(["guided"] if guided else [])]))},
    }  # fmt: skip
    document["masking"] = {"invert": draw(st.booleans()), "blur": draw(st.floats(0, 9)),
                           "contrast": draw(st.floats(0, 3)), "brightness": draw(st.floats(0, 3)),
                           "alpha": document["guides"]["mask"] is None and draw(st.booleans())}  # fmt: skip
    return load_shot(document)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shots())
def test_what_is_carried_comes_back(shot: Shot) -> None:
    report = Report("koshi", "", "denoise")
    written = json.loads(json.dumps(to_settings(shot, report, HERE), allow_nan=False))
    assert set(written) == set(WEBUI)
    back = read_settings(written, HERE).shot
    one, two = flattened(shot.as_dict()), flattened(back.as_dict())
    for field in report.carried:
        part, _, name = field.partition(".")
        if part == "schedules":
            assert back.values[name] == pytest.approx(shot.values[name], abs=1e-5), field
        elif field not in ("prompts", "motion.absolute"):
            assert one[field] == two[field], field
    assert back.values["seed"] == shot.values["seed"]
    told = {*report.carried, *(entry["key"] for entry in report.not_carried)}
    if shot.guided_images and shot.guided_as != "shown":
        assert {"guided_images", "schedules.guided", "schedules.strength"} <= set(report.carried)
    if shot.guides.mask:
        assert {"guides.mask", "masking.invert", "masking.blur", "masking.contrast"} <= set(report.carried)
    silent = flattened(load_shot({"frames": 6, "prompts": [{"text": "a"}]}).as_dict())
    ours = {"guided_images", "guided_as", "color_image", "color_every", "guides.mask", "init_image"}
    assert {field for field in ours if one[field] != silent[field]} <= told


def test_relative_files_keep_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = tmp_path / "shots" / "a.koshi.json"
    shot.parent.mkdir()
    for name in ("one.png", "two.png", "look.png", "mask.png"):
        (shot.parent / name).write_bytes(b"")
    shot.write_text(json.dumps({
        "koshi": 1, "frames": 3, "prompts": [{"text": "a"}], "guides": {"mask": "mask.png"}, "color_image": "look.png",
        "schedules": {"color_match": 1}, "feedback": {"color_reference": "image"},
        "guided_images": [{"frame": 0, "image": "one.png"}, {"frame": 2, "image": "two.png"}]}))  # fmt: skip
    out, back = tmp_path / "deforum" / "a.txt", tmp_path / "back" / "deeper" / "a.koshi.json"
    assert main(["convert", str(shot), "--to", "deforum", "-o", str(out)]) == 0
    assert main(["convert", str(out), "-o", str(back)]) == 0
    assert main(["convert", str(shot), "-o", str(tmp_path / "moved.koshi.json")]) == 0
    capsys.readouterr()
    for file in (back, tmp_path / "moved.koshi.json"):
        again = json.loads(file.read_text())
        names = [*(one["image"] for one in again["guided_images"]), again["color_image"], again["guides"]["mask"]]
        places = [(file.parent / name).resolve() for name in names]
        assert places == [(shot.parent / f"{name}.png").resolve() for name in ("one", "two", "look", "mask")]


def test_what_stays_behind_is_told() -> None:
    report = Report("koshi", "", "denoise")
    to_settings(load_shot({
        "frames": 3, "prompts": [{"text": "a"}], "guided_images": [{"frame": 1, "image": FILE}], "guided_as": "both",
        "init_image": FILE, "masking": {"alpha": True}, "schedules": {"mask": 0.5},
    }), report, HERE)  # fmt: skip
    told = {entry["key"] for entry in report.not_carried}
    assert {"guided_images", "guided_as", "init_image", "schedules.mask"} <= told


def test_a_shot_with_wrong_pictures_is_still_refused() -> None:
    with pytest.raises(KoshiError, match="guided_images"):
        read_settings({"koshi": 1, "frames": 3, "prompts": [{"text": "a"}], "guided_images": [{"frame": 1}]}, HERE)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview Current Frame, Live and Motion Preview in real Blender; the kinds of jobs that the server tells apart."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

from bridge_server.jobs import Queue
from koshi_backend.chain import render_shot
from koshi_backend.preview import kept_motion_frames, motion_frames
from koshi_backend.shot import Shot, load_shot
from koshi_backend.store import FrameStore

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def told(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One Blender does everything (blender_scripts/preview.py)."""
    return blender.script("preview", tmp_path_factory.mktemp("preview") / "saved.blend")


# What is made for a frame


def test_a_preview_begins_at_its_block(told: Any) -> None:
    """First frame, last frame, how many: blocks of 8 count from the shot's first frame, of those that are made."""
    assert told["blocks"] == {
        "1": [1, 1, 1], "8": [1, 8, 8], "9": [9, 9, 1], "12": [9, 12, 4], "20": [17, 20, 4],
        "0": [-7, 0, 8], "25": [25, 25, 1],
    }  # fmt: skip
    assert told["stepped"] == {
        "1": [1, 1, 1], "3": [1, 1, 1], "24": [1, 22, 8], "25": [25, 25, 1], "27": [25, 25, 1], "28": [25, 28, 2],
    }  # fmt: skip


def test_a_preview_begins_at_the_last_cut(told: Any) -> None:
    """Cameras change at frames 6 and 11, blocks begin at 1 and 9."""
    assert told["cuts"] == {
        "5": [1, 5, 5], "6": [6, 6, 1], "8": [6, 8, 3], "9": [9, 9, 1], "10": [9, 10, 2], "11": [11, 11, 1],
        "14": [11, 14, 4],
    }  # fmt: skip


def test_sizes_keep_the_renders_shape(told: Any) -> None:
    assert told["sizes"] == {
        "256x128@128": [128, 64], "1920x1080@256": [256, 144], "1080x1920@256": [144, 256], "1000x1000@256": [256, 256],
        "128x128@512": [128, 128], "1792x128@256": [896, 64], "64x64@256": [64, 64], "640x480@250": [256, 192],
    }  # fmt: skip


def test_shifts_shrink_with_the_picture(told: Any) -> None:
    small, full = told["asked"], told["full"]
    assert small["schedules"]["translation_x"][1:] == pytest.approx(
        [x / 2 for x in full["schedules"]["translation_x"][1:]], rel=1e-6
    )
    same = {name: full["schedules"][name] for name in full["schedules"] if name != "translation_x"}
    assert small["schedules"] == {**same, "translation_x": small["schedules"]["translation_x"]}
    assert small == {**full, "width": 128, "height": 64, "schedules": small["schedules"]}


# The preview of a frame


def test_the_preview_is_the_frame_of_its_small_shot(told: Any, tmp_path: Path) -> None:
    picture = told["picture"]
    assert (picture["answer"], picture["phase"], picture["frame"], picture["begins"]) == (["FINISHED"], "done", 5, 1)
    assert picture["playhead"] == 5
    *_, last = render_shot(load_shot(told["asked"]), store=FrameStore(tmp_path))
    assert Path(picture["path"]).read_bytes() == last.png
    assert (picture["source"], picture["size"], picture["runtime"]) == ("FILE", [128, 64], True)


def test_one_frame_further_costs_one_frame_and_back_none(told: Any) -> None:
    jobs, (back, path) = told["jobs"], told["back"]
    assert [jobs[told[name]]["made"] for name in ("job", "next job")] == [5, 1]
    assert jobs[back]["made"] == 0 and path == told["picture"]["path"]
    assert {jobs[told["job"]]["kind"]} == {"preview"}


def test_the_image_comes_back_when_somebody_removed_it(told: Any) -> None:
    assert told["again"]["size"] == [128, 64] and told["again"]["path"] != told["picture"]["path"]


def test_the_newest_wins(told: Any) -> None:
    latest = told["latest"]
    assert latest["phase"] == "done"
    assert told["jobs"][latest["older"]]["state"] == "cancelled"
    assert told["jobs"][latest["newer"]]["state"] == "done"


def test_an_error_is_a_sentence(told: Any) -> None:
    assert "There is no prompt" in told["error"] and "Traceback" not in told["error"]
    assert told["failed"] == ["failed", "bad_shot"]


# Live


def test_live_asks_for_what_has_changed_and_for_nothing_else(told: Any) -> None:
    live = told["live"]
    assert live["first"] and live["prompt"] and live["frame"] and not live["nothing new"]
    assert live["shown"] == ["done", 1]
    assert live["error"] == ["failed", "no_camera", False]


def test_live_finishes_what_it_makes_until_the_playhead_rests(told: Any) -> None:
    live = told["live"]
    assert not live["moving"] and not live["still moving"] and live["at rest"]
    assert live["newest"] == ["done", 6] and told["overtaken"] == "cancelled"


def test_previews_wait_for_a_render(told: Any) -> None:
    live = told["live"]
    assert live["while rendering"] is False
    assert live["waits"][0] == "waiting" and "render is over" in live["waits"][1]
    assert live["afterwards"] == ["done", 3]


def test_live_leaves_nothing_behind(told: Any) -> None:
    assert told["live"]["left"] == [] and told["live"]["timer"] is False


def test_nothing_of_a_preview_is_saved(told: Any) -> None:
    assert "Koshi Preview" in told["unsaved"]
    saved = told["saved"]
    assert not [name for name in saved["images"] if name.startswith("Koshi")]
    assert not [name for name in (*saved["scene"], *saved["manager"]) if "preview" in name or "live" in name]
    assert saved["size"] == 128  # which is a setting


# The motion alone


def motion_of(document: dict[str, Any]) -> Shot:
    return load_shot({name: value for name, value in document.items() if name != "model"})


def test_the_motion_preview_is_the_shots_motion(told: Any) -> None:
    """Without a prompt, with a model that is nowhere, of every second frame; file k shows at the k-th scene frame."""
    motion = told["motion"]
    assert motion["answer"] == ["FINISHED"] and motion["shot"]["model"] == "/there/is/no/such/model"
    expected = [frame.png for frame in motion_frames(motion_of(motion["shot"]))]
    assert len(expected) == 4 and len(set(expected)) == 4
    folder = Path(motion["path"]).parent
    assert sorted(file.name for file in folder.iterdir()) == [f"{k:04d}.png" for k in range(1, 8)]
    for frame, number in told["seen"].items():
        assert (folder / f"{number:04d}.png").read_bytes() == expected[(int(frame) - 3) // 2], frame
    assert told["replayed"] == [zlib.crc32(png) for png in expected]  # from the store: its job had ended


def test_the_film_follows_the_timeline(told: Any) -> None:
    motion = told["motion"]
    assert (motion["source"], motion["shown"], motion["auto"]) == ("SEQUENCE", "Koshi Motion", True)
    assert motion["user"] == [3, 7, 0] and motion["runtime"]


def test_the_server_tells_the_kinds_apart(told: Any) -> None:
    render, motion, preview, joined = told["apart"]
    assert len({render, motion, preview}) == 3 and joined == motion
    jobs = told["jobs"]
    assert [jobs[name]["kind"] for name in (render, motion, preview)] == ["render", "motion", "preview"]
    assert {jobs[name]["state"] for name in (render, motion, preview)} == {"done"}
    assert jobs[motion]["model"] == "" and jobs[told["motion"]["job"]]["kind"] == "motion"


def test_jobs_of_other_kinds_are_not_joined() -> None:
    queue = Queue()
    render, _ = queue.submit("d" * 64, {}, 2, 5, "koshi-tiny")
    preview, attached = queue.submit("d" * 64, {}, 2, 5, "koshi-tiny", kind="preview")
    assert preview is not render and not attached
    assert queue.submit("d" * 64, {}, 2, 5, "koshi-tiny", kind="preview") == (preview, True)
    assert (render.record()["kind"], preview.record()["kind"]) == ("render", "preview")


def test_motion_frames_lie_in_the_store_under_keys_of_their_own(tmp_path: Path) -> None:
    shot = load_shot(
        {"koshi": 1, "width": 64, "height": 64, "frames": 3, "prompts": [{"text": "a calm sea"}],
         "schedules": {"angle": 5.0}}
    )  # fmt: skip
    store = FrameStore(tmp_path)
    kept = list(kept_motion_frames(shot, store))
    assert [store.png(frame.key) for frame in kept] == [frame.png for frame in kept]
    made = {frame.key for frame in render_shot(shot, store=store)}
    assert not made & {frame.key for frame in kept} and len(made) == 3

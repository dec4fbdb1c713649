# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering from real Blender with the real server and worker: frames, strips, what is found again, what is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import in_versions
from PIL import Image

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender, Rendered

from flow import flow_error

from bridge_server.client import Client, read_connection
from koshi_backend.chain import render_shot
from koshi_backend.motion import deforum_matrix
from koshi_backend.shot import read_shot

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
# Whole processes each: what differs by version in them is seen in the oldest and the newest, what does not in one.
in_oldest_and_newest = in_versions("4.2", "5.2")
in_newest = in_versions("5.2")


def test_rendered_frames(rendered: Rendered) -> None:
    result = rendered.result
    assert result["ok"] is True
    assert (result["frames"], result["made"] + result["stored"]) == (8, 8)
    assert [path.name for path in rendered.frames] == [f"{n:04d}.png" for n in range(5, 13)]
    pictures = [np.asarray(Image.open(path)) for path in rendered.frames]
    assert {picture.shape for picture in pictures} == {(128, 128, 3)}
    for before, after in pairwise(pictures):
        assert np.abs(after.astype(int) - before).mean() > 0.5
    assert min(picture.std() for picture in pictures) > 5
    assert rendered.frames[0].parent.parent == rendered.blend.parent / "koshi"


def test_the_keyframed_motion_is_in_the_frames(blender: Blender, tmp_path: Path) -> None:
    """Measured optical flow against Blender's eased curves. Observed: at most 0.05 px."""
    assert motion_error(blender, tmp_path, 0.0) < 0.15


@in_newest  # how much is made anew is the backend's matter
def test_the_keyframed_motion_is_in_frames_that_are_half_made_anew(blender: Blender, tmp_path: Path) -> None:
    """Observed: at most 0.24 px."""
    assert motion_error(blender, tmp_path, 0.5) < 0.5


def motion_error(blender: Blender, tmp_path: Path, strength: float) -> float:
    """The largest error of the frames' motion in pixels; held against no motion at all it is 1 to 4."""
    blend = blender.scene(
        tmp_path / "motion.blend", name="Motion", width=192, height=192, frames=5, seed=3, strength=strength,
        zoom=[1.0, 1.04], angle=[0.0, 3.0], translation_x=[0.0, 3.0], prompts=[[1, "a modern city at day, photo"]],
    )  # fmt: skip
    shot = blender.koshi(blend, "sample")["shot"]
    result = blender.koshi(blend, "render")
    pictures = [np.asarray(Image.open(path)) for path in sorted(Path(result["out"]).iterdir())]
    assert flow_error(pictures[-2], pictures[-1], np.eye(3)) > 1.0
    moves = ("zoom", "angle", "translation_x")
    matrices = [deforum_matrix(192, 192, **{m: shot["schedules"][m][k] for m in moves}) for k in range(1, 5)]
    return max(flow_error(*pair, matrix) for pair, matrix in zip(pairwise(pictures), matrices, strict=True))


def test_an_exact_camera_and_a_moving_thing_are_followed(blender: Blender, tmp_path: Path) -> None:
    """Started from Blender's own render and never painted over, frame 3 is what Blender renders there."""
    blend = tmp_path / "exact.blend"
    blender.script("exact_scene", blend)
    rendered = blender.koshi(blend, "render")
    assert rendered["ok"] is True
    first, *_, last = (np.asarray(Image.open(path)).astype(float) for path in sorted(Path(rendered["out"]).iterdir()))
    truth = {k: np.asarray(Image.open(tmp_path / f"truth_{k}.png").convert("RGB")).astype(float) for k in (1, 3)}
    assert np.abs(first - truth[1]).mean() < 2.0  # 1.0: other samples
    away = np.abs(last - truth[3]).max(2)
    assert np.abs(truth[1] - truth[3]).mean() > 10.0
    assert np.median(away) < 3.0  # 1.0
    assert (away > 40).mean() < 0.13  # 0.098: what comes into view, which the model paints as a sea
    if blender.version == "4.5":  # test_engine.py has it of every version, with a shorter way
        # Without Blender, from what `sample` wrote, the same frames to the bit.
        blender.koshi(blend, "sample", "-o", tmp_path / "exact.koshi.json")
        again = [frame.png for frame in render_shot(read_shot(tmp_path / "exact.koshi.json"))]
        assert again == [path.read_bytes() for path in sorted(Path(rendered["out"]).iterdir())]


def test_strip_shows_the_frames(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    seen = blender.script("strips", tmp_path / "seen.png", 7, file=rendered.blend)
    (strip,) = seen["strips"]
    assert strip["type"] == "IMAGE"
    assert (strip["start"], strip["end"]) == (5, 13)
    assert strip["directory"].startswith("//koshi")
    assert [Path(path) for path in strip["files"]] == rendered.frames
    assert strip["shot"] == rendered.result["digest"]
    assert seen["view"] == "Standard"
    shown = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(rendered.frames[2])))


def test_second_render_comes_from_the_store(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in rendered.frames}
    again = blender.koshi(rendered.blend, "render", "--save")
    assert (again["made"], again["stored"], again["ok"]) == (0, 8, True)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in rendered.frames} == before
    seen = blender.script("strips", tmp_path / "seen.png", 5, file=rendered.blend)
    assert len(seen["strips"]) == 1  # the same shot goes into the same strip
    assert len(seen["strips"][0]["files"]) == 8


def test_another_shot_gets_a_strip_of_its_own(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    shorter = blender.koshi(rendered.blend, "render", "--frame-end", 7, "--save")
    assert (shorter["frames"], shorter["ok"]) == (3, True)
    seen = blender.script("strips", tmp_path / "seen.png", 5, file=rendered.blend)
    assert [(s["start"], s["end"]) for s in seen["strips"]] == [(5, 13), (5, 8)]
    assert len({s["channel"] for s in seen["strips"]}) == 2
    assert len({s["files"][0] for s in seen["strips"]}) == 2


def test_sample_writes_the_shot(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    blender.run(rendered.blend, "--command", "koshi", "sample", "-o", tmp_path / "shot.koshi.json")
    shot = json.loads((tmp_path / "shot.koshi.json").read_text(encoding="utf-8"))
    assert shot == rendered.shot
    assert [p["frame"] for p in shot["prompts"]] == [0, 4]
    assert len(shot["schedules"]["strength"]) == 8


def test_buttons_from_a_script(blender: Blender, rendered: Rendered) -> None:
    seen = blender.script("operators", file=rendered.blend)
    assert seen["render"] == ["FINISHED"]
    assert (seen["status"]["phase"], seen["status"]["done"]) == ("done", 8)
    assert seen["one"].startswith("1 frame in ") and seen["one"].endswith("s, kept from before")
    assert seen["connect"] == ["FINISHED"] and "process" in seen["server"]
    sea, forest = "a calm sea at dawn, photo", "a forest at day, photo"
    assert seen["prompts"] == [[2, ""], [4, ""], [5, sea], [9, forest]]
    assert seen["again"] == ["CANCELLED"]
    assert seen["removed"] == [4, 5, 9]
    assert "Add a prompt in Koshi > Prompts" in seen["error"]
    assert "Traceback" not in seen["error"]
    assert seen["panel"]["code"] == "bad_shot"
    assert seen["poll_cancel"] is False
    nothing = {"phase": "idle", "error": None, "notes": [], "frames": 0, "server": True}
    assert seen["stop"] == {
        "there": True, "said": ["FINISHED"], "gone": True, "server": "", "message": "The Koshi backend is stopped.",
        "again": ["FINISHED"],
    }  # fmt: skip
    assert seen["elsewhere"] == nothing  # of the file that was open before; the backend is still the same


def connection(blender: Blender) -> Path:
    return Path(blender.environment["KOSHI_CONNECTION"])


def jobs_of(blender: Blender, digest: str) -> list[dict[str, Any]]:
    with Client(read_connection(connection(blender))) as client:
        return [job for job in client.jobs() if job["digest"] == digest]


@contextmanager
def paused_worker(blender: Blender, folder: Path, frames: int) -> Iterator[None]:
    """Waits for some frames, then holds the worker still: no test shall depend on how fast it is."""
    begin = time.monotonic()
    while len(list(folder.glob("koshi/*/*.png"))) < frames:
        assert time.monotonic() - begin < 120, "no frames came"
        time.sleep(0.02)
    with Client(read_connection(connection(blender))) as client:
        worker = client.status()["worker"]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """Reads what a Blender prints up to the line with `words`."""
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        read.append(line)
        if words in line:
            return line
    pytest.fail(f"{words!r} was never printed: {read}")


posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows cannot hold a process still")


@posix_only
@in_oldest_and_newest
def test_killed_blender_finds_its_render_again(blender: Blender, tmp_path: Path) -> None:
    blend = blender.scene(tmp_path / "long.blend", frames=12, seed=4000 + int(blender.version.replace(".", "")))
    first = blender.start(blend, "--command", "koshi", "render", "--json")
    with paused_worker(blender, tmp_path, 2):
        first.kill()  # SIGKILL: no chance to say goodbye
        first.communicate()
        second = blender.start(blend, "--command", "koshi", "render", "--save", "--json")
        wait_for_line(second, "of 12 frames")  # shows what is there already
    out, err = second.communicate(timeout=blender.timeout)
    result = json.loads(out.splitlines()[-1])
    assert (second.returncode, result["ok"], result["attached"]) == (0, True, True), err
    (job,) = jobs_of(blender, result["digest"])  # one job, so nothing was asked for twice
    assert (job["state"], job["made"], job["stored"]) == ("done", 12, 0)
    assert len(list(Path(result["out"]).iterdir())) == 12  # and no .part is left


@posix_only
@in_oldest_and_newest
def test_connect_goes_on_showing_a_running_render(blender: Blender, tmp_path: Path) -> None:
    blend = blender.scene(tmp_path / "long.blend", frames=12, seed=1000 + int(blender.version.replace(".", "")))
    first = blender.start(blend, "--command", "koshi", "render")
    expression = (
        "import bpy, sys; print('READY', file=sys.stderr, flush=True); bpy.ops.koshi.connect();"
        "editor = bpy.context.scene.sequence_editor;"
        "strips = editor.strips if hasattr(editor, 'strips') else editor.sequences;"  # 4.2 has the latter
        "print('STRIPS', [len(s.elements) for s in strips])"
    )
    with paused_worker(blender, tmp_path, 2):
        first.kill()
        first.communicate()
        second = blender.start(blend, "--python-exit-code", 5, "--python-expr", expression)
        wait_for_line(second, "READY")
        time.sleep(1.0)
    out, err = second.communicate(timeout=blender.timeout)
    assert "STRIPS [12]" in out, err


@in_oldest_and_newest  # test_takes.py cancels in every version
def test_cancel_keeps_the_finished_frames(blender: Blender, tmp_path: Path) -> None:
    blend = blender.scene(tmp_path / "long.blend", frames=40, seed=2000 + int(blender.version.replace(".", "")))
    seen = blender.script("cancel", file=blend)
    assert seen["phase"] == "cancelled"
    assert seen["seconds"] < 1.0
    assert 2 <= seen["done"] < 40
    assert len(seen["files"]) == seen["elements"] == seen["done"]
    assert seen["longest_tick"] < 0.01  # the window never freezes; the first frame also makes the strip
    finished = blender.koshi(blend, "render", "--frame-end", seen["done"])
    assert (finished["ok"], finished["made"], finished["stored"]) == (True, 0, seen["done"])


@posix_only
@in_oldest_and_newest
def test_ctrl_c_cancels(blender: Blender, tmp_path: Path) -> None:
    blend = blender.scene(tmp_path / "long.blend", frames=40, seed=3000 + int(blender.version.replace(".", "")))
    process = blender.start(blend, "--command", "koshi", "render", "--json")
    wait_for_line(process, "of 40 frames")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    result = json.loads(out.splitlines()[-1])
    assert result["ok"] is False and 0 < result["done"] < 40
    (job,) = jobs_of(blender, result["digest"])
    assert job["state"] == "cancelled"


# What goes wrong is told in words, with an exit code, and nothing is written


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prompts": ({"prompts": []}, "Add a prompt in Koshi > Prompts"),
    "empty prompt": ({"prompts": [[1, "  "]]}, "frame 1 is empty"),
    "two prompts at one frame": ({"prompts": [[1, "a"], [1, "b"]]}, "2 prompts stand at frame 1"),
    "size": ({"width": 250}, "240 and 256"),
    "percentage": ({"percentage": 30}, "at 30 % of 128"),
    "size too large": ({"width": 2048}, "1792"),
    "no such model": ({"model": "CUSTOM", "model_path": "//nowhere"}, "There is no model at"),
    "no model path": ({"model": "CUSTOM"}, "no path is given"),
    "not a model": ({"model": "CUSTOM", "model_path": "//"}, "model"),
}


@dataclass(frozen=True)
class Refused:
    """What one call of Koshi said to a file of each bad kind."""

    files: dict[str, Path]
    before: dict[str, bytes]
    ended: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def refused(blender: Blender, rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    folder = tmp_path_factory.mktemp("bad")
    files = {case: folder / case / "bad.blend" for case in BAD}
    blender.scenes({files[case]: settings for case, (settings, _) in BAD.items()})
    before = {case: path.read_bytes() for case, path in files.items()}
    ended = blender.run("--command", "koshi", "render", *files.values(), "--save", "--json", code=1)
    return Refused(files, before, ended)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(refused: Refused, case: str) -> None:
    path, words = refused.files[case], BAD[case][1]
    answer = json.loads(refused.ended.stdout.splitlines()[-1])
    (shot,) = (shot for shot in answer["shots"] if shot["file"] == str(path))
    assert answer["ok"] is False and shot["ok"] is False
    assert words in f"{shot['error']['message']} {shot['error']['hint']}" and words in refused.ended.stderr
    assert "Traceback" not in refused.ended.stdout + refused.ended.stderr
    assert path.read_bytes() == refused.before[case]
    assert not (path.parent / "koshi").exists()


@in_newest
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frame-start", 5, "--frame-end", 3], "ends at 3, before it starts at 5"),
        (["--scene", "Nothing"], 'no scene "Nothing"'),
    ],
)
def test_bad_options_are_refused_in_words(
    blender: Blender, rendered: Rendered, tmp_path: Path, options: list[object], words: str
) -> None:
    blend = own_copy(rendered, tmp_path)
    ended = blender.run(blend, "--command", "koshi", "render", "--save", "--json", *options, code=1)
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert answer["ok"] is False and words in answer["error"]["message"] and words in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert blend.read_bytes() == rendered.blend.read_bytes()
    assert not (tmp_path / "koshi").exists()


def own_copy(rendered: Rendered, folder: Path) -> Path:
    """A file that can be rendered, beside which nothing lies."""
    return Path(shutil.copy(rendered.blend, folder / "shot.blend"))


@in_newest
def test_wrong_arguments_are_refused(blender: Blender, rendered: Rendered) -> None:
    for arguments in (["render", "--frame-start", "one"], ["paint"], []):
        ended = blender.run(rendered.blend, "--command", "koshi", *arguments, code=2)
        assert "usage:" in ended.stderr


def test_without_backend_python_the_way_out_is_told(
    blender: Blender, rendered: Rendered, tmp_path: Path
) -> None:
    blend = own_copy(rendered, tmp_path)
    elsewhere = {"KOSHI_CONNECTION": str(tmp_path / "none.json")}
    error = blender.koshi(blend, "render", code=1, KOSHI_PYTHON="", **elsewhere)["error"]
    assert error["code"] == "backend_not_set" and "Set Up Backend" in error["hint"]
    error = blender.koshi(blend, "render", code=1, KOSHI_PYTHON=str(tmp_path / "no" / "python"), **elsewhere)[
        "error"
    ]
    assert error["code"] == "backend_not_found"
    assert not (tmp_path / "koshi").exists()


@in_newest
def test_a_backend_that_cannot_start_is_told(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    blend = own_copy(rendered, tmp_path)
    error = blender.koshi(
        blend, "render", code=1, KOSHI_PYTHON=blender.python, KOSHI_CONNECTION=str(tmp_path / "c.json")
    )["error"]
    assert error["code"] == "server_start_failed"
    assert "Traceback" not in error["message"] + error["hint"]


@in_newest
def test_wrong_token_is_told(blender: Blender, rendered: Rendered, tmp_path: Path) -> None:
    copy = tmp_path / "connection.json"
    data = json.loads(connection(blender).read_text(encoding="utf-8"))
    copy.write_text(json.dumps({**data, "token": "0" * len(data["token"])}), encoding="utf-8")
    blend = own_copy(rendered, tmp_path)
    error = blender.koshi(blend, "render", code=1, KOSHI_CONNECTION=str(copy))["error"]
    assert error["code"] == "wrong_token"
    assert not (tmp_path / "koshi").exists()

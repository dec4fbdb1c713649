# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi in a real Blender window: what a person does while a render is under way, and that the window stays alive.

CONTRIBUTING.md says how to run them. Where KOSHI_BLENDER names no program they are skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageChops

if TYPE_CHECKING:
    from window.fixtures import Window

from bridge_helpers import until
from packages import wheel

from bridge_server.client import read_connection

pytest_plugins = ("window.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]


def stretch() -> float:
    """How many times as long as on a quiet machine something may take just now: 1 on a quiet one."""
    begin, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.3:
        pass
    times = (time.monotonic() - begin) / 0.3
    return 1.0 if times < 1.2 else 2 * times  # a moment may be twice as busy as this one


def whole(seen: dict[str, Any], frames: int) -> None:
    """The render is done, and one strip has all its frames, each with its file."""
    assert seen["told"]["phase"] == "done", seen["told"]
    assert seen["told"]["done"] == frames
    (strip,) = seen["strips"]
    assert strip["files"] == [f"{number:04d}.png" for number in range(1, frames + 1)]
    assert strip["missing"] == []


def test_the_cancel_button(window: Window) -> None:
    seen = window.play("cancelling", frames=200, seed=1)
    assert seen["told"]["phase"] == "cancelled"
    assert seen["seconds"] < 1.0 * stretch()
    kept = seen["told"]["done"]
    assert 2 <= kept < 200
    assert [len(strip["files"]) for strip in seen["strips"]] == [kept]
    assert seen["strips"][0]["missing"] == []


def test_import_through_the_file_browser(window: Window) -> None:
    shot = {
        "koshi": 1, "frames": 12, "frame_start": 5, "prompts": [{"text": "a hill"}], "feedback": {"position": "warped"},
    }  # fmt: skip
    file = window.folder / "imported.koshi.json"
    file.write_text(json.dumps(shot), encoding="utf-8")
    seen = window.play("importing", file=str(file))
    assert seen["range"] == [5, 16] and seen["prompts"] == ["a hill"]
    assert "feedback.position is not taken over" in seen["text"]
    assert seen["undone"] == 1 and seen["written"] == 12
    assert seen["meanwhile"] == 9  # a render had begun while the file browser was open: nothing was imported


def test_undo_and_redo(window: Window) -> None:
    seen = window.play("undo", frames=20, seed=2)
    assert [press["place"] for press in seen["seen"]] == [2, 1, 0, 1, 2, 1]  # Blender did undo and redo
    whole(seen["after"], 20)
    # The render is one step: undone, the strip is gone as before it, and redone it is there again.
    assert (seen["undone"]["shown"], seen["redone"]["shown"]) == (0, 20)
    assert seen["undone"]["place"] == seen["redone"]["place"] == 1
    assert len(seen["strips"][0]["files"]) == 20


def test_moving_the_playhead_and_playing(window: Window) -> None:
    seen = window.play("playback", frames=24, seed=3)
    whole(seen, 24)
    assert len(seen["passed"]) > 3  # it did play
    assert seen["playing"] and seen["stopped"]


def test_scenes_workspaces_names_and_deleting(window: Window) -> None:
    seen = window.play("scenes", frames=20, seed=4)
    assert seen["other"]
    assert seen["renamed"]["shown"] == [seen["renamed"]["told"]["done"]]  # it grows where nobody looks
    assert seen["deleted"]["shown"] == [seen["deleted"]["told"]["done"]]  # and is made anew
    whole(seen["end"], 20)
    assert seen["end"]["others"] == [[]]
    assert seen["gone"]
    without = seen["without"]
    assert without["told"]["phase"] == "done"
    assert len(without["files"]) == 10
    assert [note for note in without["told"]["notes"] if "is gone; its frames still arrive in" in note]


def test_saving_and_opening_files(window: Window) -> None:
    seen = window.play("files", frames=40, seed=5)
    assert not seen["saved"]["dirty"]
    assert seen["elsewhere"]["file"].endswith("second.blend")
    for moment in ("saved", "elsewhere"):  # the render goes on, and its frames are where the strip says
        assert seen[moment]["told"]["phase"] == "rendering"
        (strip,) = seen[moment]["strips"]
        assert len(strip["files"]) == seen[moment]["told"]["done"]
        assert strip["missing"] == []
    for moment, notes in (("reverted", [True]), ("opened", [])):  # told once, in the next file that is open
        assert seen[moment]["told"]["phase"] == "idle"
        assert ["goes on in the backend" in note for note in seen[moment]["told"]["notes"]] == notes
    whole(seen["end"], 40)
    assert seen["end"]["told"]["job"] == seen["saved"]["told"]["job"]  # the very same job


def test_removing_the_add_on(window: Window) -> None:
    seen = window.play("removal", frames=40, seed=6)
    assert seen["before"] == ["koshi-reader"]
    assert seen["seconds"] < 1.0 * stretch()  # until its thread has ended
    assert not seen["registered"]
    folder = Path(os.environ.get("KOSHI_WINDOW_PICTURES") or window.folder)
    told, read = (Image.open(folder / f"{name}.png").convert("L") for name in ("removed", "removed-and-read"))
    differences = ImageChops.difference(told, read).point(lambda value: 255 * (value > 8)).histogram()
    assert differences[255] > 15000  # pixels: the message, which Esc closes, says that the render goes on
    assert seen["enabled"]["phase"] == "idle"
    assert seen["attached"] and seen["told"]["job"] == seen["job"]
    whole(seen, 40)


def test_killing_the_backend(window: Window) -> None:
    seen = window.play("killed", frames=12, seed=7)
    error = seen["killed"]["told"]["error"]
    assert error["message"].startswith("The connection to the Koshi server")
    assert "render again" in error["hint"]
    assert seen["killed"]["shown"] == seen["killed"]["told"]["done"] >= 3
    whole(seen, 12)
    assert seen["told"]["stored"] >= seen["killed"]["shown"]


def test_dragging_a_prompts_marker(window: Window) -> None:
    seen = window.play("markers")
    assert seen["begin"] == [["“a calm sea at dawn, photo”", 1], ["“a forest”", 20]]
    dragged = seen["dragged"]["frame"]
    assert dragged > 25 and seen["dragged"]["marker"] == dragged
    assert seen["dragged"]["kept"] == dragged  # noted when the timeline was drawn, while the mouse was still down
    assert seen["heard"] == [0, dragged - 1]
    assert seen["undone"] == {"frame": 20, "marker": 20, "kept": 20}
    assert seen["redone"]["frame"] == dragged
    assert seen["renamed"] == {"frame": dragged, "name": "Act 2"}
    assert seen["deleted"] == {"off": [False, True], "heard": [0]}
    assert seen["back"] == {"off": [False, False], "heard": [0, dragged - 1]}


def test_sound_and_film_from_strips(window: Window) -> None:
    seen = window.play("strips")
    assert seen["sound"] == ["FINISHED", False, 1, 24]
    hits = [1 + int(24 * at) for at in (0.5, 1.0, 2.0)]
    zoom = seen["zoom"]
    rises = [k + 2 for k, (before, after) in enumerate(itertools.pairwise(zoom)) if before <= 1.03 < after]
    assert rises == hits and max(zoom) == pytest.approx(1.05, abs=1e-3)
    assert len(seen["beats"]) == 3 and max(abs(a - b) for a, b in zip(seen["beats"], hits, strict=True)) <= 1
    listening = seen["listening"]
    # Esc is heard after the portion that is under way: nothing is keyed, and the scene is as it was.
    assert listening["further"] <= 1 and listening["stopped_portions"]
    assert listening["stopped"] == [0, False, 1, 24, 0]
    assert listening["done_portions"] == 11 and listening["done"] == [1, False, 1, 24, 0]
    assert listening["undone"]  # one step
    assert seen["stopped"] == ["NONE", "none", 0, 1]  # Esc: nothing was changed, and the copy of the scene is gone
    assert seen["done"] == ["FILE", "every", 24, 1]
    assert seen["asked"] == [["INTERFACE"]] * 3  # no undo step for a question
    assert seen["copied"].startswith("0:(")  # one of the curves that are offered


def test_takes_are_redone_replaced_and_filled(window: Window) -> None:
    seen = window.play("takes", seed=21)
    assert len(set(seen["takes"])) == 2  # each on a channel of its own
    assert seen["second"] == [71, 2, [1, 3], []]
    assert seen["redo"] == [21, 1, [1], ["koshi.zoom"]] and seen["undone"] == seen["second"]
    # A strip that was cut and made half transparent stays so, whatever it shows.
    kept = [2, 4, seen["takes"][1], 0.5]
    assert seen["replaced"] == seen["back"] == kept and seen["rerendered"] == [kept, True]
    assert seen["between"] == ["IMAGE", "IMAGE", "IMAGE", "SPEED"] and seen["phase"] == "done"
    assert seen["from_here"] == ["done", 2, 2]  # what lies before the playhead is not painted again
    assert seen["missing"] == []


# The longest that Blender's main thread may be away from a timer of 1 ms, what Blender's threads together may work in
# that time, and how long a tick of the operator may last, in seconds. On idle cores .041 to .043 were observed (the aim
# is .05), .071 and .010; beside other tests up to .091, .117 and .011 (CONTRIBUTING.md).
AWAY = 0.07
WORKED = 0.15
TICK = 0.02


def test_the_window_stays_alive(window: Window) -> None:
    before = stretch()
    seen = window.play("heartbeat", fast=200, slow=8, seed=8)
    times = max(before, stretch())
    for part in ("idle", "project", "first", "fast", "stored", "slow"):  # to be read with pytest's -s
        heart = seen[part]
        redraws = sorted(heart["redraws"]) or [0]
        print(f"\n{part}: longest {1000 * heart['longest']:.0f} ms; {heart['over_50_ms']} gaps over 50 ms")
        middle, high = redraws[len(redraws) // 2], redraws[len(redraws) * 9 // 10]
        tick = 1000 * heart.get("told", {}).get("longest_tick", 0.0)
        print(f"    {len(redraws)} redraws: median {middle} ms, one in ten over {high} ms; longest tick {tick:.0f} ms")
        print(f"    [ms, of that worked, at second, frames done] {heart['worst'][:4]}")
    for part, frames in (("project", 4), ("first", 4), ("fast", 200), ("stored", 200), ("slow", 8)):
        assert seen[part]["told"]["phase"] == "done", part
        assert seen[part]["told"]["done"] == frames, part
        assert seen[part]["told"]["longest_tick"] < TICK * times, part
        # By software it takes up to a quarter of a second; only the switch of a scene to the Standard view needs it.
        assert seen[part]["views"] == 0 or part == "first", part
    assert seen["stored"]["told"]["stored"] == 200
    assert [len(strip["files"]) for strip in seen["strips"]] == [4, 200, 8]
    for part in ("fast", "stored"):
        assert seen[part]["worked"] < WORKED, seen[part]
        assert seen[part]["longest"] < AWAY * times, seen[part]


def test_installing_from_disk(window: Window) -> None:
    (zipped,) = window.folder.glob("koshi-*.zip")
    seen = window.play("installing", zipped=str(zipped))
    assert seen == {"removed": True, "take": True, "installed": True, "works": True}


def test_a_beginning(window: Window) -> None:
    seen = window.play("beginning", seed=10)
    assert {"VIEW_3D", "SEQUENCE_EDITOR", "PROPERTIES"} <= set(seen["areas"])
    assert seen["areas"].count("SEQUENCE_EDITOR") == 2  # with its preview
    assert (seen["view"], seen["tab"]) == ("CAMERA", "Koshi")
    shares = seen["shares"]
    assert shares["sequencer"] < 0.35 and shares["channels"] < 8  # nothing is in it yet
    assert shares["preview"] > 0.25 and shares["view"] > 0.5
    assert (seen["chosen"], seen["undone"]) == ("every", "none")
    if seen["german"] is not None:
        end = seen["german"]
        assert end["phase"] == "done" and re.match(r"12 Einzelbilder in \d+\.\d s", end["message"]), end
        assert any(note.startswith("Diese Datei ist noch nicht gespeichert") for note in end["notes"]), end


def test_setting_the_backend_up(window: Window) -> None:
    """Headless, test_setup.py has all that may go wrong; here are the buttons, and the window beside it."""
    listed = window.folder / "packages.txt"
    listed.write_text(f"{wheel(window.folder, 'koshi_trial')}\n", encoding="utf-8")
    seen = window.play("setting_up", folder=str(window.folder / "Käthe's backend"), packages=str(listed))
    if (seen["done"]["error"] or {}).get("code") == "no_python":
        pytest.skip("the window's Blender finds no Python to make environments with")
    assert seen["before"] == "absent"
    assert seen["cancelled"]["phase"] == "cancelled" and seen["cancelled"]["seconds"] < 1.0 * stretch()
    assert seen["cleared"] in ("absent", "unfinished")  # as far as it had come
    assert seen["done"] == {"phase": "done", "text": "The backend is set up", "error": None, "condition": "ready"}
    assert seen["away"] < 0.4 * stretch()  # one may go on working
    # The packages that stand in are no backend, and the diagnostics say so, in lines to ask for help with.
    assert [line for line in seen["copied"] if line.startswith("ok ")]
    assert [line for line in seen["copied"] if line.startswith("FAIL ")], seen["copied"]


@pytest.mark.timeout(3600)
def test_the_artists_walk(bare_window: Window) -> None:
    """docs/guide.md's, with mouse and keyboard, from a Blender without Koshi; the set-up's backend does the work.

    The packages of that backend are those that run this test, unless KOSHI_REAL_SETUP=1 has them downloaded.
    """
    window, frames = bare_window, 6
    folder, films = window.folder, window.folder / "Films"
    if os.environ.get("KOSHI_REAL_SETUP") != "1":
        listed = folder / "packages.txt"
        listed.write_text(wheel(folder, "koshi_trial", shares=site.getsitepackages()[0]) + "\n", encoding="utf-8")
        window.environment["KOSHI_SETUP_REQUIREMENTS"] = str(listed)
        window.environment["KOSHI_BASE_PYTHON"] = os.path.realpath(sys.executable)
    films.mkdir()
    zipped = window.build(folder / "Downloads")
    seen = window.play("walk", 3500, zipped=str(zipped), films=str(films), frames=frames)
    if (seen["set-up"]["error"] or {}).get("code") == "no_python":
        pytest.skip("the window's Blender finds no Python to make environments with")
    assert seen["set-up"] == {"phase": "done", "error": None, "condition": "ready"}
    pid = read_connection(window.rig.connection_path).pid
    assert str(folder / "data" / "backend") in Path(f"/proc/{pid}/cmdline").read_text()
    whole(seen["first"], frames)
    again = seen["again"]["told"]
    assert seen["keys"] == [[4, 0], [6, -0.8]]
    assert again["phase"] == "done" and (again["stored"], again["made"]) == (4, 2)  # the frames before the change
    assert [len(strip["files"]) for strip in seen["again"]["strips"]] == [frames, frames]
    assert not any(strip["missing"] for strip in seen["again"]["strips"])
    assert seen["file"] == str(films / "city.blend") and (films / "city.blend").is_file()
    assert len(list(films.rglob("*.png"))) >= frames  # beside the file


def test_closing_blender(window: Window) -> None:
    seen = window.play("closing", frames=40, seed=9)
    blender = window.blender
    assert blender is not None
    try:
        code = blender.wait(30)
    except subprocess.TimeoutExpired:
        pytest.fail(f"Blender does not end:\n{window.log()}")
    took = time.monotonic() - seen["at"]
    assert code == 0, window.log()
    assert took < 2.0 * stretch()

    def job() -> dict[str, Any]:
        with window.rig.connect() as client:
            return next(record for record in client.jobs() if record["id"] == seen["job"])

    until(lambda: job()["state"] == "done", 300)

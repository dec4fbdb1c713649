# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi in a real Blender window: the render engine by its keys, and the previews. See test_window.py."""

from __future__ import annotations

import itertools
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from window.fixtures import Window

from bridge_helpers import frames_of, until
from test_window import stretch, whole

pytest_plugins = ("window.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def keeps_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the screen is looked at here."""
    if not os.environ.get("KOSHI_WINDOW_PICTURES"):
        monkeypatch.setenv("KOSHI_WINDOW_PICTURES", str(tmp_path))


def test_the_engines_keys(window: Window) -> None:
    seen = window.play("engine", seed=61)
    one = painted(window, seen["one"]["shot"])
    picture = pixels(Path(seen["one"]["picture"]))
    np.testing.assert_array_equal(picture, one[3])
    assert seen["one"]["windows"] == 2 and seen["one"]["closed"] == 1
    left, bottom, width, height = seen["one"]["on_screen"]
    places = [[left + x, bottom + y, width, height] for x, y in itertools.product((-1, 0, 1), repeat=2)]
    assert 0.0 in [apart(screenshot("engine-one", place), picture) for place in places]  # to the bit, on the screen
    animation = painted(window, seen["all"]["shot"])
    assert [Path(file).name for file in seen["all"]["files"]] == ["0002.png", "0003.png", "0004.png", "0005.png"]
    for number, file in enumerate(seen["all"]["files"], 2):
        np.testing.assert_array_equal(pixels(Path(file)), animation[number])
    assert seen["all"]["at"] == 3  # the playhead
    assert "The prompt at frame 1 is empty" in seen["prompt"]["told"][-1]
    assert "There is no model at /no/such/model" in seen["model"]["told"][-1]
    beside = seen["beside"]
    whole(beside, 12)
    assert beside["begun"]["phase"] == "rendering" and beside["begun"]["done"] < 12  # when F12 was pressed
    assert beside["waits"] == "Waits until Blender's render is over"
    np.testing.assert_array_equal(pixels(Path(beside["picture"])), painted(window, beside["shot"])[3])
    anew = painted(window, seen["anew"]["shot"])[3]
    np.testing.assert_array_equal(pixels(Path(seen["anew"]["picture"])), anew)
    assert np.abs(anew.astype(int) - pixels(Path(beside["picture"]))).mean() > 5
    assert seen["anew"]["sequencer"] and len(seen["anew"]["strips"]) == 1
    for part, how in (("one", "complete"), ("all", "complete"), ("prompt", "cancel"), ("model", "cancel")):
        assert seen[part]["ended"] == [how], part


TICK = 0.01  # seconds of the processor; .003 to .005 were seen


def test_the_previews(window: Window) -> None:
    seen = window.play("previews", frames=24, seed=71)
    current, live, motion = seen["current"], seen["live"], seen["motion"]
    for part, name in ((current, "current"), (live, "live")):
        shot = part["shot"]
        assert part["phase"] == "done" and part["shown"] == ["Koshi Preview", 128, 128], part
        frames, last = painted(window, shot), shot["frame_start"] + shot["frames"] - 1
        np.testing.assert_array_equal(pixels(Path(part["path"])), frames[last])
        assert most_like(screenshot(f"preview-{name}", part["on_screen"]), frames) == last
    assert (current["frame"], seen["windows"], live["windows"]) == (4, 2, 1)  # a free editor is used
    # What the playhead passes is not all asked for, and where it was let go is what is seen in the end.
    assert live["frame"] == live["playhead"] == live["shot"]["frame_start"] + live["shot"]["frames"] - 1 == 23
    assert 1 <= live["asked"] < len(live["passed"])
    assert live["tick"] < TICK
    assert live["off"]
    assert motion["phase"] == "done" and motion["shown"][0] == "Koshi Motion" and motion["path"].endswith("0001.png")
    assert len(motion["passed"]) > 3 and motion["stopped"]
    playing = screenshot("preview-motion", motion["on_screen"])
    films = {int(path.stem): pixels(path) for path in Path(motion["path"]).parent.glob("*.png")}
    assert len(films) == 24
    assert most_like(playing, films) in motion["passed"][-4:]  # of 24


def test_stopping_the_engine(window: Window) -> None:
    seen = window.play("stopping", seed=64)
    assert seen["seconds"] < 1.0 * stretch() and seen["ended"] == ["cancel"]
    assert seen["job"]["state"] == "cancelled" and 2 <= seen["job"]["done"] < 40
    assert seen["sequencer"] == [True, True, True]  # during the render, after it, and in an undo step of meanwhile
    assert seen["then"] == ["complete"]  # and what was painted before Esc is not painted again
    assert (seen["again"]["state"], seen["again"]["frames"], seen["again"]["stored"]) == ("done", 2, 2)
    assert window.blender is not None
    window.blender.wait(30)  # it takes no simulated keys any more, and ends

    def last() -> str:
        with window.rig.connect() as client:
            return next(job["state"] for job in client.jobs() if job["id"] == seen["last"])

    until(lambda: last() == "cancelled", 10)  # nobody waits for what a closed Blender was to show


def test_nothing_runs_of_itself(window: Window) -> None:
    """In a Blender of its own: one in which something has run may have Blender's own threads left."""
    if window.blender is not None:
        window.blender.kill()
        window.blender.wait()
    seen = window.play("resting")
    nothing = seen["without"]
    assert not nothing["timers"] and not nothing["threads"]
    for moment in ("enabled", "drawn", "polled", "menu", "left", "preferences", "other", "disabled", "closed"):
        assert seen[moment] == nothing, moment
    assert seen["asked"] > 40
    # Only whoever chooses the engine, or opens a file that has it, has its timer, which does what a render's thread may
    # not; it ends with that.
    for moment in ("chosen", "opened", "enabled_beside"):
        assert seen[moment] == {**nothing, "timers": ["_serve"]}, moment


def painted(window: Window, shot: dict[str, Any]) -> dict[int, np.ndarray]:
    """The backend's pictures of a shot, by the frame's number."""
    with window.rig.connect() as client:
        client.submit(shot)
        pictures = frames_of(list(client.events(300)))
    opened = {index: np.asarray(Image.open(BytesIO(png)).convert("RGB")) for index, png in pictures.items()}
    return {shot["frame_start"] + index: picture for index, picture in opened.items()}


def pixels(path: Path) -> np.ndarray:
    """A picture that Blender has written, or a screenshot."""
    return np.asarray(Image.open(path).convert("RGB"))


def screenshot(name: str, place: list[int]) -> np.ndarray:
    """The part of a screenshot that is left, bottom, width and height of `place`."""
    screen = pixels(Path(os.environ["KOSHI_WINDOW_PICTURES"]) / f"{name}.png")
    left, bottom, width, height = place
    end = screen.shape[0] - bottom
    return screen[end - height : end, left : left + width]


def most_like(seen: np.ndarray, pictures: dict[int, np.ndarray]) -> int:
    """The number of the picture that it is."""
    return min(pictures, key=lambda number: apart(seen, pictures[number]))


def apart(seen: np.ndarray, picture: np.ndarray) -> float:
    """The mean difference between a picture and what is seen of it at another size, in steps of 8 bits."""
    height, width = picture.shape[:2]
    smaller = np.asarray(Image.fromarray(seen).resize((width, height), Image.Resampling.BOX)).astype(int)
    return float(np.abs(smaller - picture)[2:-2, 2:-2].mean())

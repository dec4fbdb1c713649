# SPDX-License-Identifier: GPL-3.0-or-later
"""The KOSHI render engine, in real Blender with the real server and worker: F12, Ctrl-F12, -a, -f, a farm's options."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import in_versions
from PIL import Image

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

from bridge_server.client import Client, read_connection
from koshi_backend.chain import render_shot
from koshi_backend.shot import read_shot

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
# A whole process each: the oldest and the newest, where a version of Blender has no say in it.
in_oldest_and_newest = in_versions("4.2", "5.2")


def scene_file(blender: Blender, path: Path, **settings: object) -> Path:
    """A .blend with a camera, 6 frames at 64 x 64; `settings` as in engine_scene.py. Each version has own frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"seed": int(blender.version.replace(".", "")) * 100, **settings}
    script = Path(__file__).parent / "blender_scripts" / "engine_scene.py"
    blender.run("--python-exit-code", 5, "-P", script, "--", path, json.dumps(given))
    return path


def pixels(path: Path) -> np.ndarray:
    """The picture's colours as [H, W, 3]; whatever Blender wrote must be opaque."""
    picture = Image.open(path)
    if picture.mode == "RGBA":
        assert picture.getextrema()[3] == (255, 255)
    return np.asarray(picture.convert("RGB"))


def connection(blender: Blender) -> Path:
    return Path(blender.environment["KOSHI_CONNECTION"])


@pytest.fixture(scope="session")
def pressed(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The .blend, the folder with pictures, and the report of the script that presses F12 in many ways."""
    folder = tmp_path_factory.mktemp("engine")
    blend = scene_file(blender, folder / "shot.blend", name="My Shot")
    return blend, folder, blender.script("engine", folder, file=blend)


Pressed = tuple[Path, Path, dict[str, Any]]


def test_every_way_gives_the_same_frames_to_the_bit(blender: Blender, pressed: Pressed, tmp_path: Path) -> None:
    blend, folder, _ = pressed
    blender.run(blend, "-E", "KOSHI", "-o", tmp_path / "a" / "####", "-a")
    blender.run(blend, "-E", "KOSHI", "-o", tmp_path / "f" / "####", "-f", 3)
    sidebar = Path(blender.koshi(blend, "render")["out"])
    blender.koshi(blend, "export", "-o", tmp_path / "shot.koshi.json")
    # This process has a store of its own, so nothing is handed from one to the other.
    plain = [frame.png for frame in render_shot(read_shot(tmp_path / "shot.koshi.json"))]
    assert [path.read_bytes() for path in sorted(sidebar.iterdir())] == plain
    animated = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in animated] == [f"{n:04d}.png" for n in range(1, 7)]
    for number, path in enumerate(animated, 1):
        wanted = pixels(sidebar / f"{number:04d}.png")
        np.testing.assert_array_equal(pixels(path), wanted)
        np.testing.assert_array_equal(pixels(folder / "all" / f"{number:04d}.png"), wanted)
    for name, number in (("four.png", 4), ("six.png", 6), ("two.png", 2), ("deep.png", 2)):
        np.testing.assert_array_equal(pixels(folder / name), pixels(sidebar / f"{number:04d}.png"))
    (single,) = (tmp_path / "f").iterdir()
    assert single.name == "0003.png"
    np.testing.assert_array_equal(pixels(single), pixels(sidebar / "0003.png"))
    assert len({png for png in plain}) == 6  # and they are not one picture


def test_renders_of_the_scene_are_made_before_the_engine_paints(blender: Blender, tmp_path: Path) -> None:
    # Exported first: the engine sets the view, and what is painted over must not depend on that.
    blend = scene_file(blender, tmp_path / "seen.blend", frames=3, seen=True)
    blender.koshi(blend, "export", "-o", tmp_path / "shot.koshi.json")
    blender.run(blend, "-E", "KOSHI", "-o", tmp_path / "a" / "####", "-a")
    plain = list(render_shot(read_shot(tmp_path / "shot.koshi.json")))
    for frame in plain:
        (tmp_path / "plain.png").write_bytes(frame.png)
        painted = pixels(tmp_path / "a" / f"{frame.number:04d}.png")
        np.testing.assert_array_equal(painted, pixels(tmp_path / "plain.png"))
    assert len(plain) == 3


def test_a_frame_is_made_once(pressed: Pressed) -> None:
    seen = pressed[2]
    assert seen["four"]["jobs"] == [[4, 4, 0, "done"]]  # frame 4 needs those before it
    assert seen["six"]["jobs"] == [[6, 2, 4, "done"]]
    assert seen["two"]["jobs"] == [[2, 0, 2, "done"]]
    assert [job[1] for job in seen["all"]["jobs"]] == [0, 0]  # the first frame alone, then all of them
    assert seen["all"]["jobs"][1] == [6, 0, 6, "done"]


def test_the_playhead_stays(pressed: Pressed) -> None:
    seen = pressed[2]
    assert [seen[name]["playhead"] for name in ("four", "six", "two", "all")] == [[4, 0], [6, 0], [2, 0], [2, 0]]


def test_the_frame_step_is_honoured(pressed: Pressed) -> None:
    _, folder, seen = pressed
    assert sorted(path.name for path in (folder / "step").iterdir()) == ["0001.png", "0003.png", "0005.png"]
    # The shot is made of these frames: one job for the first, one for all three.
    assert [job[0] for job in seen["step"]["jobs"]] == [1, 3]
    assert "step" in seen["refused"]["between_steps"]


def test_another_scene_and_another_view_layer(pressed: Pressed) -> None:
    _, folder, seen = pressed
    assert [job[0] for job in seen["other"]] == [1, 2]
    first, second = sorted((folder / "other").iterdir())
    assert pixels(first).std() > 1 and not np.array_equal(pixels(first), pixels(folder / "two.png"))
    assert pixels(second).std() > 1


def test_colours_are_kept(pressed: Pressed) -> None:
    seen = pressed[2]
    assert seen["view"] == ["Standard", 0.0]  # the file was made with AgX and dither
    assert seen["changes"] == ["View Transform AgX", "Exposure 1.5", "Dither 0.5"]
    assert seen["pressed"] == ["FINISHED"] and seen["changes_after"] == []


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("border", "Render Region"),
        ("multiview", "Stereoscopy"),
        ("size", "64 and 80 would fit"),
        ("outside", "Frame 9 is not in the shot, which goes from frame 1 to 6"),
        ("prompt", "The prompt at frame 1 is empty"),
        ("model", "There is no model at"),
    ],
)
def test_what_it_cannot_do_is_told(pressed: Pressed, case: str, words: str) -> None:
    _, folder, seen = pressed
    assert "Koshi: " in seen["refused"][case] and words in seen["refused"][case]
    assert "Traceback" not in seen["refused"][case]
    assert not list(folder.glob(f"refused_{case}*"))  # no black picture
    assert seen["wrong_jobs"] == []


def test_blenders_panels_go_with_the_engine(pressed: Pressed) -> None:
    seen = pressed[2]
    for needed in (
        "RENDER_PT_color_management", "RENDER_PT_format", "RENDER_PT_frame_range", "RENDER_PT_output",
        "RENDER_PT_post_processing", "RENDER_PT_encoding", "DATA_PT_lens", "DATA_PT_camera", "KOSHI_PT_engine",
        "EEVEE_MATERIAL_PT_surface", "DATA_PT_camera_dof", "RENDER_PT_stamp",
    ):  # fmt: skip
        assert needed in seen["panels"], needed
    for useless in (
        "RENDER_PT_freestyle", "RENDER_PT_opengl_sampling", "RENDER_PT_stereoscopy", "RENDER_PT_eevee_hair",
    ):  # fmt: skip
        assert useless not in seen["panels"], useless
    assert seen["panels_left"] == ["KOSHI_PT_engine"]  # the class itself, which is no longer registered


def test_a_farm_chooses_model_device_steps_and_where_the_shot_begins(
    blender: Blender, pressed: Pressed, tmp_path: Path
) -> None:
    blend, folder, _ = pressed
    part = ("-o", tmp_path / "part" / "####", "-s", 3, "-e", 4, "-a", "--", "--koshi-start", 1)
    blender.run(blend, "-E", "KOSHI", *part)
    for name in ("0003.png", "0004.png"):
        np.testing.assert_array_equal(pixels(tmp_path / "part" / name), pixels(folder / "all" / name))
    # The file names a model that is not here; another add-on's arguments are left alone.
    chosen = ("--koshi-model", "koshi-tiny", "--koshi-device", "cpu", "--koshi-steps", 2, "--cycles-device", "CPU")
    lost = blender.run(
        blend, "--python-expr", "import bpy; k = bpy.context.scene.koshi; k.model = 'CUSTOM'; k.model_path = '/no'",
        "-E", "KOSHI", "-o", tmp_path / "chosen" / "####", "-e", 2, "-a", "--", *chosen,
    )  # fmt: skip
    assert lost.stderr.count("Standard") == 1
    assert len(list((tmp_path / "chosen").iterdir())) == 2
    again = pixels(tmp_path / "chosen" / "0001.png")
    assert not np.array_equal(again, pixels(folder / "all" / "0001.png"))


def test_takes_in_the_sequencer_do_not_keep_the_engine_from_painting(blender: Blender, tmp_path: Path) -> None:
    blend = scene_file(blender, tmp_path / "taken.blend", seed=int(blender.version.replace(".", "")) * 100 + 70)
    seen = blender.script("engine_takes", tmp_path, file=blend)
    wanted = [pixels(Path(seen["new"], f"{number:04d}.png")) for number in (1, 2, 3)]
    painted = sorted((tmp_path / "painted").iterdir())
    assert len(painted) == 3
    for path, new in zip(painted, wanted, strict=True):
        np.testing.assert_array_equal(pixels(path), new)
    assert not np.array_equal(wanted[0], pixels(Path(seen["old"], "0001.png")))
    np.testing.assert_array_equal(pixels(tmp_path / "still.png"), wanted[1])
    assert seen["sequencer"] and seen["after_refusal"]  # as it was
    assert len(seen["saved"]) > 10 and all(seen["saved"])  # in a file saved meanwhile, too
    assert seen["name"].endswith("++++") and seen["jobs"] == 2  # one for the first frame, one for all
    assert "too small" in seen["too_small"]
    assert not seen["killed"] and seen["afterwards"] == [True, True]
    assert seen["healed"][0] and "koshi_sequencer" not in seen["healed"][1]
    assert "prompt" in seen["refused"]
    assert seen["muted"] and seen["color_muted"]
    assert seen["edit"] == [False, True]
    assert pixels(tmp_path / "edit.png")[0, 0].tolist() == [255, 0, 0]  # Blender renders an edit


@in_oldest_and_newest
def test_another_engines_render_on_the_card_gets_the_models_memory(blender: Blender) -> None:
    log = Path(blender.environment["KOSHI_CACHE"]) / "server.log"
    seen = blender.script("room", int(blender.version.replace(".", "")) * 100 + 90, log)
    assert seen["made"] == [2, 2]
    before, *after = seen["unloaded"]
    assert after == [before, before + 1]


NO_PROMPT = ("--python-expr", "import bpy; bpy.context.scene.koshi.prompts.clear()")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-f", 9), "Frame 9 is not in the shot"),
        ((*NO_PROMPT, "-a"), "no prompt"),
        (("-a", "--", "--koshi-device", "cuda:99"), "This computer has no device 'cuda:99'. "),
    ],
    ids=["frame", "shot", "device"],
)
def test_errors_end_blender_with_1(
    blender: Blender, pressed: Pressed, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    ends_with_1(blender, pressed, tmp_path, options, words)


@in_oldest_and_newest
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-a", "--", "--koshi-device", "toaster"), "'toaster' is not a device"),
        (("-a", "--", "--koshi-modle", "x"), "there is no --koshi-modle"),
    ],
)
def test_wrong_options_end_blender_with_1(
    blender: Blender, pressed: Pressed, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    ends_with_1(blender, pressed, tmp_path, options, words)


def ends_with_1(
    blender: Blender, pressed: Pressed, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    ended = blender.run(pressed[0], "-E", "KOSHI", "-o", tmp_path / "####", *options, code=1)
    assert words in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@in_oldest_and_newest
def test_ctrl_c_stops_the_animation_with_an_error(blender: Blender, tmp_path: Path) -> None:
    blend = scene_file(blender, tmp_path / "long.blend", frames=200, width=128, height=128)
    process = blender.start(blend, "-E", "KOSHI", "-o", tmp_path / "out" / "####", "-a")
    while len(list(tmp_path.glob("out/*.png"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "The render was stopped" in out + err
    made = len(list(tmp_path.glob("out/*.png")))
    assert 2 <= made < 200
    state, last = "", time.monotonic() + 10  # the frame that is being painted ends at its next step
    while state != "cancelled" and time.monotonic() < last:
        with Client(read_connection(connection(blender))) as client:
            state = [job for job in client.jobs() if job["frames"] == 200][-1]["state"]
    assert state == "cancelled"  # nobody waits for the rest


@in_oldest_and_newest
def test_two_blenders_share_one_backend(
    blender: Blender, blender_of: Callable[[str], Blender], pressed: Pressed, tmp_path: Path
) -> None:
    seed = int(blender.version.replace(".", "")) * 100
    one = scene_file(blender, tmp_path / "one.blend", seed=seed + 50)
    other = blender_of("5.2" if blender.version == "4.2" else "4.2")
    two = scene_file(other, tmp_path / "two.blend", seed=seed + 51)
    runs = [
        blender.start(one, "-E", "KOSHI", "-o", tmp_path / "out" / "####", "-a"),
        other.start(two, "--command", "koshi", "render", "--json"),
    ]
    ended = [run.communicate(timeout=blender.timeout) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    result = json.loads(ended[1][0].splitlines()[-1])
    assert (result["made"], result["stored"]) == (6, 0)
    assert len(list((tmp_path / "out").iterdir())) == 6
    with Client(read_connection(connection(blender))) as client:
        jobs = client.jobs()
    assert result["job"] in [job["id"] for job in jobs]
    # The engine's: its first frame alone, then all of them.
    assert [job for job in jobs if (job["frames"], job["made"], job["stored"]) == (6, 5, 1)]

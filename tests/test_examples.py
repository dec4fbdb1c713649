# SPDX-License-Identifier: GPL-3.0-or-later
"""Every shot in examples/: it loads, it names only files that are there, it shows what its name says, it renders."""

from __future__ import annotations

import importlib
import json
import struct
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_exr import attribute, small_exr

from koshi_backend.chain import render_shot
from koshi_backend.frame import noise_recipe
from koshi_backend.guides import frame_file
from koshi_backend.moves import Moves
from koshi_backend.noise import frame_noise
from koshi_backend.preview import motion_frames
from koshi_backend.schedules import check
from koshi_backend.shot import Shot, load_shot, read_shot
from koshi_backend.store import FrameStore

FOLDER = Path(__file__).resolve().parent.parent / "examples"
FILES = {path.name.removesuffix(".koshi.json"): path for path in sorted(FOLDER.glob("*.koshi.json"))}
MOTIONS = [name for name in FILES if name.startswith("motion_")]
CPU = torch.device("cpu")


def shot(name: str, frames: int | None = None, **changes: Any) -> Shot:
    """An example, cut to its first frames, with some keys of the document changed."""
    whole = read_shot(FILES[name]).as_dict()
    if frames is not None:
        whole["frames"] = frames
        schedules = whole["schedules"].items()
        whole["schedules"] = {key: v[:frames] if isinstance(v, list) else v for key, v in schedules}
        whole["guided_images"] = [one for one in whole["guided_images"] if one["frame"] < frames]
        if whole["motion"]["cameras"]:
            whole["motion"]["cameras"] = whole["motion"]["cameras"][:frames]
    for key, value in changes.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    return load_shot(whole)


def pictures(one: Shot, count: int = 4) -> list[np.ndarray]:
    frames = islice(motion_frames(one), count)
    return [cv2.imdecode(np.frombuffer(f.png, np.uint8), cv2.IMREAD_COLOR).astype(float) for f in frames]


def test_there_is_one_of_each_kind() -> None:
    shots = [read_shot(path) for path in FILES.values()]
    assert {s.motion.source for s in shots} == {"2d", "3d", "camera", "flow", "affine", "perspective"}
    assert {s.feedback.border for s in shots} == {"replicate", "wrap", "reflect"}
    assert {s.depth.source for s in shots} == {"plane", "files", "groups"}  # a model would have to be downloaded
    assert {s.time.loop for s in shots} == {"none", "back", "seamless"}
    assert {len(s.made) < s.frames for s in shots} == {bool(s.keyframes) for s in shots} == {True, False}
    assert max(s.time.interpolation for s in shots) > 1
    assert {s.hybrid.over for s in shots} == {"none", "first", "every"}
    assert {s.hybrid.composite for s in shots} >= {"none", "normal", "after_generation"}
    modes = {"fixed", "incremental", "slerp", "subseed", "warped", "scaled"}
    assert {s.feedback.noise_mode for s in shots} == modes
    assert {s.feedback.noise_type for s in shots} == {"gaussian", "perlin"}


@pytest.mark.parametrize("name", FILES)
def test_loads_without_a_remark(name: str) -> None:
    one = read_shot(FILES[name])
    assert [note for s in one.schedules.values() for note in check(s, one.frames, one.seed)] == []
    assert max(prompt.frame for prompt in one.prompts) < one.frames
    assert one.model == "koshi-tiny"


@pytest.mark.parametrize("name", FILES)
def test_its_files_lie_in_the_folder(name: str) -> None:
    """As written: no absolute names, none outside, and a file for every frame."""
    written, one = json.loads(FILES[name].read_text()), read_shot(FILES[name])
    for given in [written.get("init_image"), *written.get("guides", {}).values()]:
        if not isinstance(given, str):
            continue
        assert not Path(given).is_absolute() and ".." not in Path(given).parts
        for index in range(one.frames):
            assert frame_file(str(FOLDER / given), one.number(index)).is_file()


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 2_500_000


def test_the_readme_names_every_example() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", [name for name in MOTIONS if name != "motion_3d_groups"])
def test_motion_only_moves(name: str) -> None:
    """A guide's clip begins slowly: its first move is .3 px in the median, so four frames are looked at."""
    frames = pictures(shot(name))
    assert all(np.isfinite(f).all() for f in frames)
    assert np.abs(frames[3] - frames[0]).mean() > 2.0  # of 255; observed at least 4


OFF: dict[str, dict[str, Any]] = {
    "motion_2d": {"schedules": {"zoom": 1.0, "angle": 0.0, "translation_x": 0.0}},
    "motion_absolute": {"motion": {"absolute": []}},
    "motion_wrap": {"feedback": {"border": "replicate"}},
    "motion_reflect": {"feedback": {"border": "replicate"}},
    "motion_flip": {"schedules": {"perspective_flip_phi": 0.0, "perspective_flip_gamma": 0.0}},
    "motion_3d": {"motion": {"source": "2d"}},
    "motion_3d_depth": {"depth": {"source": "plane"}},
    "motion_camera_plane": {"motion": {"plane": {"point": [0.0, 0.0, -1.0], "normal": [0.0, 0.0, 1.0]}}},
    "motion_camera_depth": {"guides": {"vector": None}},
    "motion_flow": {"motion": {"flow_factor": 0.0}},
    "motion_affine": {"motion": {"source": "perspective"}},
    "motion_perspective": {"motion": {"source": "affine"}},
}


@pytest.mark.parametrize("name", OFF)
def test_what_it_is_named_for_has_an_effect(name: str) -> None:
    """The same shot without it moves otherwise: somewhere by more than half a pixel, or by what is uncovered."""
    fields = []
    for one in (shot(name), shot(name, **OFF[name])):
        moves, picture = Moves(one, CPU), torch.zeros(1, 3, one.height, one.width)
        fields.append([moves.into(index, picture, {})[0] for index in (1, 2, 3, 4)])
    apart = max(float((a.source - b.source).abs().max()) for a, b in zip(*fields, strict=True))
    uncovered = any(not torch.equal(a.valid, b.valid) for a, b in zip(*fields, strict=True))
    assert apart > 0.5 or uncovered


def test_every_motion_is_looked_at() -> None:
    assert set(OFF) | {"motion_3d_groups"} == set(MOTIONS)


def test_the_boat_sails_by_itself() -> None:
    """Only pixels of the boat and its surroundings follow the vectors; the city follows the camera."""
    fields = []
    for one in (shot("motion_camera_depth"), shot("motion_camera_depth", guides={"vector": None})):
        fields.append(Moves(one, CPU).into(4, torch.zeros(1, 3, one.height, one.width), {})[0])
    own = (fields[0].source - fields[1].source).abs().amax(-1) > 0.5
    assert 0.002 < float(own.float().mean()) < 0.1  # observed .02


@pytest.mark.parametrize("mode", ["fixed", "incremental", "slerp", "subseed", "warped", "scaled"])
def test_the_noise_is_the_one_it_is_named_for(mode: str) -> None:
    """Its noise in frame 5 is not that of another mode. Warped noise is the fixed one until half a cell is passed."""
    noises = []
    for chosen in (mode, "incremental" if mode == "fixed" else "fixed"):
        one = shot(f"noise_{mode}", feedback={"noise_mode": chosen})
        moves, picture, state = Moves(one, CPU), torch.zeros(1, 3, one.height, one.width), None
        for index in range(6):
            row = {name: values[index] for name, values in one.values.items()}
            field = moves.into(index, picture, {})[0] if index else None
            noise, state = frame_noise(noise_recipe(one, index, row), field, state)
        noises.append(noise)
    assert not torch.equal(*noises)
    assert float(noises[0].var()) == pytest.approx(1.0, abs=0.05)


def test_seeds_climb_a_ladder() -> None:
    one = shot("seeds")
    first = one.seed
    assert one.values["seed"][:5] == [first, first + 2, first + 1, first + 3, first + 2]


@pytest.mark.parametrize("name", FILES)
def test_renders(name: str, tmp_path: Path) -> None:
    """Its first two frames, small and in two steps. Guides in OpenEXR keep their size."""
    fixed = name == "motion_camera_depth"
    one = shot(name, 2, **({} if fixed else {"width": 96, "height": 96}), steps=2)
    first, second, *_ = render_shot(one, store=FrameStore(tmp_path))
    assert first.png != second.png
    for frame in (first, second):
        picture = cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (one.height, one.width, 3)
        assert picture.std() > 8.0  # no grey nothing


def test_notes_are_stripped_and_no_pixel_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG with texts; an OpenEXR file with a text in its header, which moves all rows up."""
    monkeypatch.syspath_prepend(str(FOLDER))
    strip = importlib.import_module("strip_notes").strip
    note = PngInfo()
    note.add_text("File", "/somewhere/scene.blend")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=note)
    plain = small_exr({"Z": np.random.default_rng(1).random((40, 3), np.float32)}, codec=3)
    text = attribute("File", "string", b"/somewhere/scene.blend")
    kept = attribute("BlenderMultiChannel", "string", b"Blender V2.55.1 and newer")
    last = attribute("displayWindow", "box2i", struct.pack("<4i", 0, 0, 2, 39))
    at = plain.index(last) + len(last) + 1
    count = (struct.unpack_from("<Q", plain, at)[0] - at) // 8

    def with_head(head: bytes) -> bytes:
        places = struct.unpack_from(f"<{count}Q", plain, at)
        moved = struct.pack(f"<{count}Q", *(place + len(head) for place in places))
        return plain[:8] + head + plain[8:at] + moved + plain[at + 8 * count :]

    (tmp_path / "a.exr").write_bytes(with_head(text + kept + text))
    assert strip(tmp_path / "a.png") > 30 and strip(tmp_path / "a.exr") == 2 * len(text)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    assert (tmp_path / "a.exr").read_bytes() == with_head(kept)
    assert strip(tmp_path / "a.png") == strip(tmp_path / "a.exr") == 0
    (tmp_path / "b.txt").write_text("no picture")
    with pytest.raises(ValueError, match="no PNG"):
        strip(tmp_path / "b.txt")

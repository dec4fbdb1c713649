# SPDX-License-Identifier: GPL-3.0-or-later
"""`--command koshi`: batches, export and import, doctor. tests/test_blender_render.py has one shot."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import in_versions

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

from test_engine import scene_file

from koshi_backend.settings import SCHEDULES, Depth, Feedback, Guides, Hybrid, Masking, Motion, Time
from koshi_backend.shot import load_shot

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]

# Up to six processes each: what may differ by version is tried in the oldest and the newest, what argparse does in one.
in_oldest_and_newest = in_versions("4.2", "5.2")
in_newest = in_versions("5.2")
RATES = (24, 25, 29.97003, 23.97602, 59.94006, 12.5, 0.5, 7, 119.8801, 1000)


# Batches


@in_oldest_and_newest
def test_one_failure_does_not_stop_the_others(blender: Blender, tmp_path: Path) -> None:
    seed = int(blender.version.replace(".", "")) * 100 + 70
    good = scene_file(
        blender, tmp_path / "good.blend", name="Main", seed=seed, more_scenes={"More": seed + 1, "Edit": None}
    )
    bad = scene_file(blender, tmp_path / "bad.blend", width=70)
    missing, broken = tmp_path / "missing.blend", tmp_path / "broken.blend"
    broken.write_bytes(b"no blend file")
    ended = blender.run(
        "--command", "koshi", "render", missing, good, broken, bad, "--all-scenes", "--range", "1-2", "--save",
        "--json", code=1,
    )  # fmt: skip
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert (answer["ok"], answer["done"], answer["failed"]) == (False, 2, 3)
    told = [(Path(shot["file"]).name, shot["scene"], shot["ok"]) for shot in answer["shots"]]
    assert told == [
        ("missing.blend", None, False), ("good.blend", "Main", True), ("good.blend", "More", True),
        ("broken.blend", None, False), ("bad.blend", "Scene", False),
    ]  # fmt: skip
    assert [Path(skipped).name for skipped in answer["skipped"]] == ['good.blend, scene "Edit"']
    assert "64 and 80 would fit" in answer["shots"][-1]["error"]["hint"]
    last = ended.stderr.strip().splitlines()[-4:]
    assert last[0].endswith("2 of 5 shots are rendered.") and all("Failed: " in line for line in last[1:])
    assert "Traceback" not in ended.stdout + ended.stderr
    # It was saved: the strips are there, and the same again comes from the store.
    expression = (
        "import bpy; print('STRIPS', [(s.name, len((s.sequence_editor.strips if hasattr(s.sequence_editor, 'strips')"
        " else s.sequence_editor.sequences)) if s.sequence_editor else 0) for s in bpy.data.scenes])"
    )
    again = blender.run(good, "--python-expr", expression, "--command", "koshi", "render", "--scene", "More",
                        "--scene", "Nothing", "--json", code=1)  # fmt: skip
    assert "('Edit', 0), ('Main', 1), ('More', 1)" in again.stdout
    answer = json.loads(again.stdout.splitlines()[-1])
    assert [(shot["scene"], shot["ok"]) for shot in answer["shots"]] == [("More", True), ("Nothing", False)]
    assert (answer["shots"][0]["made"], answer["shots"][0]["stored"]) == (0, 2)


@in_newest
def test_wrong_arguments(blender: Blender, tmp_path: Path) -> None:
    for given in (["--range", "a-b"], ["--range", "-1"], ["--koshi-model", "x"]):
        ended = blender.run("--command", "koshi", "render", *given, code=2)
        assert "usage:" in ended.stderr


# Export and import


def number(pick: random.Random, low: float, high: float) -> float:
    """A value as Blender gives it: single precision, seven digits."""
    return float(f"{np.float32(pick.uniform(low, high)):.7g}")


def course(pick: random.Random, frames: int, low: float, high: float) -> float | list[float]:
    """One schedule as Blender exports it: a number, or a list that is not all the same."""
    kind = pick.randrange(4)
    if kind == 0 or frames == 1:
        return number(pick, low, high)
    if kind == 1:  # long holds
        steps = [number(pick, low, high) for _ in range(3)]
        values = [steps[3 * k // frames] for k in range(frames)]
    else:
        values = [number(pick, low, high) for _ in range(frames)]
    return values if len(set(values)) > 1 else values[0]


def any_more(pick: random.Random, frames: int, song: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Schedules and settings that a shot names only where they are not what it means without them."""
    spans = {
        "transform_center_x": (0, 1), "perspective_flip_phi": (-9, 9), "perspective_flip_fv": (20, 90),
        "rotation_3d_z": (-9, 9), "fov": (20, 90), "aspect_ratio": (0.5, 2), "keyframe_strength": (0, 0.9),
        "contrast": (0.5, 0.9), "sharpen": (0.1, 1), "color_match": (0.4, 1), "subseed_strength": (0.1, 1),
    }  # fmt: skip
    schedules = {name: course(pick, frames, *span) for name, span in spans.items() if pick.random() < 0.4}
    for name in ("cadence", "subseed"):
        if pick.random() < 0.4:
            schedules[name] = [float(pick.randint(2, 9)) for _ in range(frames)]
            if len(set(schedules[name])) == 1:
                schedules[name] = schedules[name][0]
    choices: list[dict[str, Any]] = [
        {"time": {"loop": "back", "interpolation": 4, "keyframes": {"prompts": True}}},
        {"time": {"loop": "seamless", "seam": 5, "inbetween": "blend", "keyframes": {"every": 7}}, "audio": song},
        {"motion": {"source": "3d"}, "depth": {"source": "groups"}},
        {"motion": {"source": "3d"}, "guides": {"depth": song.replace("song.wav", "depth_####.png")},
         "depth": {"source": "files", "near": "black", "spacing": "linear", "nearest": 0.25, "farthest": 30.5}},
        {"motion": {"source": "3d"}, "depth": {"source": "model", "model": "some/other"}},
        {},
    ]  # fmt: skip
    feedback: list[dict[str, Any]] = [
        {}, {"border": "wrap", "color_mode": "none", "noise_type": "perlin"},
        {"color_reference": "previous", "noise_mode": "slerp", "noise_delta": 0.25, "noise_scale": 0.9},
    ]  # fmt: skip
    plain = pick.choice(choices) | {"feedback": pick.choice(feedback)}
    curves, media = any_media(pick, frames, Path(song).parent)
    return schedules | curves, joined(plain, media if "motion" not in plain or "motion" not in media else {})


FILES = ("song.wav", "clip.mp4", "start.png", "look.png", "plan.png", "dawn.png", "dusk.png", "ink.safetensors",
         "a.mp4", "a.png")  # fmt: skip


def any_media(pick: random.Random, frames: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Films, pictures and LoRAs, and the curves that belong to them."""
    clip, start, look, plan, dawn, dusk, ink = (str(folder / name) for name in FILES[1:8])
    media: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        ((), {}),
        ((), {"guides": {"video": clip, "video_first": 4, "video_every": 2, "video_last": 90},
              "hybrid": {"over": "every"}, "feedback": {"carry": "none"}}),
        (("hybrid_alpha", "hybrid_mask_alpha", "hybrid_mask_contrast", "hybrid_cutoff_low", "hybrid_cutoff_high"),
         {"guides": {"video": clip},
          "hybrid": {"over": "first", "composite": "normal", "mask": "blend", "inverse": True, "equalize": "both",
                     "auto_contrast": True}}),
        ((), {"guides": {"video": clip}, "hybrid": {"composite": "after_generation", "mask": "video_depth"},
              "depth": {"source": "groups", "nearest": 0.5}}),
        ((), {"guides": {"video": str(folder / "clip_####.png")},
              "motion": {"source": "flow", "flow_method": "farneback", "flow_factor": 0.5}}),
        (("mask",), {"init_image": start, "masking": {"alpha": True, "invert": True, "blur": 2.5}}),
        (("guided",), {"guides": {"mask": str(folder / "mask_####.png"), "structure": plan, "structure_as": "edges"},
                       "masking": {"contrast": 2.0, "brightness": 0.5}, "guided_as": "both",
                       "guided_images": [{"frame": k, "image": pick.choice([dawn, dusk])}
                                         for k in sorted({0, frames // 2})]}),
        ((), {"loras": [{"file": ink, "weight": course(pick, frames, -1, 2)}, {"file": ink, "weight": 0.5}],
              "feedback": {"color_reference": "image", "color_mode": "RGB"}, "color_image": look, "color_every": 3}),
        ((), {"time": {"keyframes": {"frames": sorted({0, frames // 2})}},
              "masking": {"where": f"0:([{start}]), 4:(!{{everywhere}})", "noise": "{everywhere}"}}),
        ((), {"seed_behavior": "iter", "seed_iter_n": 3, "time_rounding": "bfl", "feedback": {"carry": "latent"}}),
    ]  # fmt: skip
    names, told = pick.choice(media)
    spans = {"hybrid_mask_contrast": (2, 9), "hybrid_cutoff_low": (1, 9), "hybrid_cutoff_high": (90, 99)}
    return {name: course(pick, frames, *spans.get(name, (0.6, 0.9))) for name in names}, told


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both tables as one, and so those in them."""
    both = {key: joined(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], dict)}
    return {**one, **other, **both}


def any_prompts(pick: random.Random, frames: int) -> list[dict[str, Any]]:
    """Prompts that take turns, by their frames, and then some that count beside them."""
    texts = ["a sea at dawn", "ein Wald, Öl auf Leinwand", 'the "old" town\nat night', "`t` trees --neg people"]
    places = [0, *(sorted(pick.sample(range(1, frames), 2)) if frames > 2 else ())]
    prompts: list[dict[str, Any]] = [{"frame": k, "text": pick.choice(texts)} for k in places]
    for prompt in prompts[:-1]:
        prompt |= pick.choice([{}, {"ease": "sigmoid"}, {"ease": "linear", "negative": "rain"}])
    if pick.random() < 0.5:
        beside = {"frame": pick.randrange(frames), "text": "snow", "weight": course(pick, frames, 0, 2)}
        prompts.append(beside)
    return prompts


def any_shot(pick: random.Random, song: str) -> dict[str, Any]:
    """A shot as `export` writes it, of anything that a scene can hold."""
    frames = pick.randint(1, 24)
    seeds = [pick.randrange(2**23 + 1) for _ in range(frames)] if pick.random() < 0.4 else [7] * frames
    more_schedules, more = any_more(pick, frames, song)
    spans = {"zoom": (0.5, 2), "angle": (-40, 40), "strength": (0, 1), "noise": (0, 1), "guidance": (0, 30)}
    schedules: dict[str, Any] = {}
    for name in ("zoom", "angle", "translation_x", "translation_y", "translation_z", "strength", "noise", "guidance"):
        schedules[name] = course(pick, frames, *spans.get(name, (-70.0, 70.0)))
    schedules |= more_schedules
    if len(set(seeds)) > 1:
        schedules["seed"] = seeds
    condition = pick.choice(["start", "reference", "both"])
    return {
        **more,
        "koshi": 1,
        "model": pick.choice(["koshi-tiny", "flux.2-klein-4b", "flux.1-dev"]),
        "width": 16 * pick.randint(4, 60),
        "height": 16 * pick.randint(4, 60),
        "fps": pick.choice(RATES),
        "frame_start": pick.choice([0, 1, 5, 1001]),
        "frames": frames,
        "seed": seeds[0],
        "steps": pick.randint(1, 60),
        "prompts": any_prompts(pick, frames),
        "schedules": schedules,
        "feedback": {"carry": "pixels", "condition": condition, **more["feedback"]},
        "strength_convention": "denoise",
    }


BY_HAND: dict[str, dict[str, Any]] = {
    "keys": {"frames": 48, "schedules": {"zoom": "0:(1.0), 20:(1.02), 47:(0.99)", "angle": "0:(2*sin(t/5))"}},
    "deforum": {"frames": 3, "strength_convention": "deforum"},
    "ladder": {"frames": 5, "seed": 100, "seed_behavior": "ladder"},
    "absolute": {"frames": 3, "schedules": {"zoom": [1, 2, 6]}, "motion": {"absolute": ["zoom"]}},
    "dev": {"frames": 2, "model": "flux.1-dev"},
    "more": {
        "frames": 2, "prompts": [{"text": "a", "negative": "b"}], "schedules": {"fov": 60, "zoom": 1.5, "new": 1},
        "motion": {"source": "flow"}, "feedback": {"carry": "none", "noise_delta": 0.05}, "init_image": "a.png",
        "guides": {"depth": None, "video": "a.mp4"}, "new": 1, "frame_step": 2,
        "time": {"keyframes": {"frames": [1], "every": 2}},
    },
    "iter": {"frames": 4, "seed_behavior": "iter", "schedules": {"cadence": 2.5}},
    "math": {"frames": 9, "prompts": [{"text": "a"}, {"frame": "max_f/2", "text": "b", "weight": "0:(0), 8:(1)"}]},
    "zoom": {"frames": 2, "schedules": {"zoom": 30}},
    "seeds": {"frames": 2, "schedules": {"seed": [2**23, 2**23 + 1]}},
    "text": {"frames": 2, "schedules": {"zoom": "0:(1.0"}},
    "length": {"schedules": {}},
    "version": {"koshi": 2, "frames": 1},
    "noprompt": {"frames": 2, "prompts": []},
    "places": {"frames": 2, "motion": {"absolute": 5}},
    "pictures": {"frames": 2, "guided_images": 5},
}  # fmt: skip


@pytest.fixture(scope="session")
def exchanged(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """Shots by file name, and what Blender made of them."""
    folder = tmp_path_factory.mktemp("shots")
    pick = random.Random(7)
    for name in FILES:
        (folder / name).touch()
    shots = {f"any{k:02d}": any_shot(pick, str(folder / "song.wav")) for k in range(40)}
    shots |= {name: {"koshi": 1, "prompts": [{"text": "a sea"}]} | more for name, more in BY_HAND.items()}
    for name, shot in shots.items():
        (folder / f"{name}.koshi.json").write_text(json.dumps(shot), encoding="utf-8")
    (folder / "broken.koshi.json").write_text("{", encoding="utf-8")
    return shots, blender.script("headless_exchange", folder)


Exchanged = tuple[dict[str, Any], Any]


def test_import_and_export_give_the_same_shot_again(exchanged: Exchanged) -> None:
    shots, seen = exchanged
    for name in (name for name in shots if name.startswith("any")):
        assert seen["shots"][f"{name}.koshi.json"] == shots[name], name
        assert seen["left"][f"{name}.koshi.json"] == []


def test_keys_are_those_that_were_written(exchanged: Exchanged) -> None:
    keys = exchanged[1]["keys"]["keys.koshi.json"]
    assert keys["zoom"] == [[0, 1.0, "LINEAR"], [20, 1.02, "LINEAR"], [47, 0.99, "LINEAR"]]
    assert len(keys["angle"]) == 48


def test_import_means_what_the_backend_means(exchanged: Exchanged) -> None:
    shots, seen = exchanged
    for name in ("keys", "deforum", "ladder", "absolute", "dev", "math"):
        assert seen["left"][f"{name}.koshi.json"] == []
        wanted, got = load_shot(shots[name]), load_shot(seen["shots"][f"{name}.koshi.json"])
        for schedule, values in wanted.values.items():
            # Single precision and seven digits; the worst seen is 1.2e-7 of the value.
            np.testing.assert_allclose(got.values[schedule], values, rtol=1e-6, atol=1e-6, err_msg=f"{name} {schedule}")
        for field in ("model", "width", "height", "fps", "frame_start", "frames", "steps"):
            assert getattr(got, field) == getattr(wanted, field), field
        assert got.feedback == wanted.feedback
        for index in range(wanted.frames):
            said = [{part.text: part.weight for part in shot.texts.at(index)} for shot in (got, wanted)]
            assert said[0] == pytest.approx(said[1])
    again = load_shot(seen["shots"]["iter.koshi.json"])  # seeds that go on count the frames that are made
    assert again.values["seed"] == load_shot(shots["iter"]).values["seed"] and not seen["left"]["iter.koshi.json"]


def test_what_a_scene_cannot_hold_is_listed(exchanged: Exchanged) -> None:
    left = exchanged[1]["left"]["more.koshi.json"]
    assert sorted(left) == [
        "frame_step", "new", "schedules.new",
    ]  # fmt: skip


def test_the_tables_are_the_backends(exchanged: Exchanged) -> None:
    tables = exchanged[1]["tables"]
    assert tables["defaults"] == {name: SCHEDULES[name].default for name in tables["defaults"]}
    models = {"feedback": Feedback(), "motion": Motion(), "guides": Guides(), "depth": Depth(), "time": Time(),
              "hybrid": Hybrid(), "masking": Masking()}  # fmt: skip
    for name, model in models.items():
        defaults = model.model_dump(mode="json")
        for read in tables["read"][name]:
            defaults.pop(read)
        assert tables["fixed"][name] == defaults, name


def test_wrong_shots_are_told(exchanged: Exchanged) -> None:
    errors = exchanged[1]["errors"]
    assert "not JSON" in errors["broken.koshi.json"]
    assert "version 1" in errors["version.koshi.json"]
    assert "how many frames" in errors["length.koshi.json"]
    assert "schedule zoom" in errors["text.koshi.json"]
    assert "no prompt" in errors["noprompt.koshi.json"]
    assert "a scene holds 0.1 to 10" in errors["zoom.koshi.json"]
    assert "up to 8388608" in errors["seeds.koshi.json"]
    assert "motion.absolute is 5" in errors["places.koshi.json"]
    assert "guided_images is not a list" in errors["pictures.koshi.json"]
    assert len(errors) == 9


@in_oldest_and_newest  # what an import makes of a scene is seen in every version above
def test_import_command(blender: Blender, exchanged: Exchanged, tmp_path: Path) -> None:
    shots = exchanged[0]
    for name in ("keys", "more", "zoom"):
        (tmp_path / f"{name}.koshi.json").write_text(json.dumps(shots[name]), encoding="utf-8")
    blend = tmp_path / "made.blend"

    def run(shot: str, *options: object, code: int = 0) -> Any:
        ended = blender.run("--command", "koshi", "import", tmp_path / shot, *options, "--json", code=code)
        return json.loads(ended.stdout.splitlines()[-1])

    error = run("more.koshi.json", "--save", blend, code=1)["error"]
    assert error["code"] == "not_carried" and "schedules.new" in error["message"] and "--partial" in error["hint"]
    assert "a scene holds 0.1 to 10" in run("zoom.koshi.json", code=1)["error"]["message"]
    assert not blend.exists()
    assert "schedules.new" in run("more.koshi.json", "--partial")["not_carried"]
    done = run("keys.koshi.json", "--save", blend)
    assert (done["ok"], done["frames"], done["not_carried"]) == (True, 48, [])
    exported = tmp_path / "again.koshi.json"
    blender.koshi(blend, "export", "-o", exported)
    assert json.loads(exported.read_text(encoding="utf-8"))["frames"] == 48


# Doctor


@in_oldest_and_newest
def test_doctor(blender: Blender, tmp_path: Path) -> None:
    ended = blender.run("--command", "koshi", "doctor", "--json")
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["ok"] and report["backend"]["ok"]
    found = {check["name"]: check["found"] for check in report["blender"]["checks"]}
    assert found["Blender"].startswith(blender.version) and "koshi 0.1.0" in found["extension"]
    for python, words in (("", "not set up yet"), (blender.python, "The backend's own check failed")):
        nowhere = {"KOSHI_PYTHON": python, "KOSHI_CONNECTION": str(tmp_path / "none.json")}
        ended = blender.run("--command", "koshi", "doctor", code=1, **nowhere)
        assert words in ended.stdout and "FAIL" in ended.stdout and "no backend runs" in ended.stdout
        assert "Traceback" not in ended.stdout + ended.stderr


@in_newest
def test_help(blender: Blender) -> None:
    told = blender.run("--command", "koshi", "--help").stdout
    for command in ("render", "sample", "export", "import", "doctor"):
        assert command in told
    told = blender.run("--command", "koshi", "render", "--help").stdout
    for option in ("--all-scenes", "--scene", "--range", "--json", "FILE.blend"):
        assert option in told

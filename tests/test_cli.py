# SPDX-License-Identifier: GPL-3.0-or-later
"""The `koshi` command as a real process: results, exit codes, words, and nothing overwritten by a bad call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import pytest
import torch

from koshi_backend.cli import main

Ran = subprocess.CompletedProcess[str]
SHOT: dict[str, Any] = {
    "koshi": 1,
    "width": 64,
    "height": 64,
    "fps": 12,
    "frames": 4,
    "frame_start": 1,
    "seed": 3,
    "steps": 1,
    "prompts": [{"frame": 0, "text": "a reef at day, photo"}],
    "schedules": {"zoom": "0:(1.0), 3:(1.02)"},
}


def koshi(*arguments: object, **environment: str) -> Ran:
    return subprocess.run(
        [sys.executable, "-m", "koshi_backend", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """The same without a process: one costs five seconds, and there are many things that `koshi` refuses."""

    def run(*arguments: object, **environment: str) -> Ran:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = main([str(argument) for argument in arguments])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def write_shot(folder: Path, **changes: Any) -> Path:
    file = folder / "shot.koshi.json"
    file.write_text(json.dumps({**SHOT, **changes}))
    return file


def test_motion_only_needs_no_model(tmp_path: Path) -> None:
    shot = write_shot(tmp_path, model="flux.2-klein-9b", frames=5, schedules={"translation_x": 3})
    done = koshi("animate", shot, "--out", tmp_path / "frames", "--motion-only", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 5
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert "loading" not in done.stderr


def test_animate_writes_frames_then_a_video_from_the_store(tmp_path: Path) -> None:
    shot = write_shot(tmp_path)
    first = koshi("animate", shot, "--out", tmp_path / "frames", "--json")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert {k: result[k] for k in ("ok", "frames", "made", "stored")} == {
        "ok": True,
        "frames": 4,
        "made": 4,
        "stored": 0,
    }
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [f"{k:04d}.png" for k in range(1, 5)]
    assert cv2.imread(str(tmp_path / "frames" / "0001.png")).shape == (64, 64, 3)

    film = koshi("animate", shot, "--out", tmp_path / "film.mp4", "--json")
    assert json.loads(film.stdout)["stored"] == 4
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.video[0].average_rate == 12
        assert sum(1 for _ in container.decode(video=0)) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": []}, "there is no prompt"),
        ({"schedules": {"zoom": [1, float("nan"), 1, 1]}}, "frame 1 is nan"),
        ({"width": 250}, "240 or 256"),
        ({"model": "flux-9"}, "Known models"),
        ({"frame_start": 9, "frame_end": 2}, "before it starts"),
        ({"schedules": {"zoom": "0:(1+1/(t-2))"}}, "frame 2: 1/0 divides by zero"),
    ],
)
def test_bad_shots_are_refused_in_words_and_nothing_is_overwritten(
    here: Callable[..., Ran], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    out = tmp_path / "frames"
    out.mkdir()
    (out / "0001.png").write_text("precious")
    done = here("animate", write_shot(tmp_path, **changes), "--out", out, "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "bad_shot"
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (out / "0001.png").read_text() == "precious"


def test_a_truncated_model_is_refused_and_nothing_is_overwritten(
    here: Callable[..., Ran], tiny: Path, tmp_path: Path
) -> None:
    import shutil

    model = shutil.copytree(tiny, tmp_path / "model")
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:500_000])
    film = tmp_path / "film.mp4"
    film.write_text("precious")
    done = here("animate", write_shot(tmp_path, model=str(model)), "--out", film, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "bad_model_file"
    assert film.read_text() == "precious"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".part")]


@pytest.mark.parametrize("out", ["film.avi", "taken"])
def test_an_unfit_place_for_the_result_is_refused_before_rendering(
    here: Callable[..., Ran], tmp_path: Path, out: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    done = here("animate", write_shot(tmp_path), "--out", tmp_path / out, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "bad_output"
    assert not list(Path(os.environ["KOSHI_STORE"]).glob("*"))


def test_generate_and_doctor(tmp_path: Path) -> None:
    out = tmp_path / "a picture.png"
    done = koshi(
        "generate",
        "a forest at dawn, ink",
        "--out",
        out,
        "--width",
        96,
        "--height",
        64,
        "--seed",
        1,
        "--json",
    )
    assert json.loads(done.stdout)["ok"], done.stderr
    assert cv2.imread(str(out)).shape == (64, 96, 3)
    report = json.loads(koshi("doctor", "--json").stdout)
    assert report["ok"]
    assert {c["name"] for c in report["checks"]} >= {"packages", "device", "frame store", "koshi-tiny"}


def test_generate_refuses_in_words(here: Callable[..., Ran], tmp_path: Path) -> None:
    for arguments in (
        ["  "],
        ["a sea", "--width", 250],
        ["a sea", "--image", tmp_path / "no.png"],
        ["a sea", "--steps", 0],
    ):
        done = here("generate", *arguments, "--out", tmp_path / "x.png", "--json")
        assert done.returncode == 1
        assert not json.loads(done.stdout)["ok"]
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("device", ["cuda:99", "cuda"])
def test_a_device_that_is_not_there_is_refused(here: Callable[..., Ran], tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    shot, out = write_shot(tmp_path), tmp_path / "out"
    for arguments in (
        ["animate", shot, "--out", out],
        ["animate", shot, "--out", out, "--motion-only"],
        ["generate", "a sea", "--out", tmp_path / "out.png"],
        ["feedback", "--prompt", "a sea", "--output", out],
        ["groups"],
    ):
        done = here(*arguments, "--device", device, "--json")
        assert done.returncode == 1
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "bad_device" and f"no device '{device}'" in error["message"]
        assert "Leave it out" in error["hint"] and "Traceback" not in done.stderr
    assert not out.exists() and not (tmp_path / "out.png").exists()
    by_variable = here("animate", shot, "--out", out, KOSHI_DEVICE=device)
    assert by_variable.returncode == 1 and f"no device '{device}'" in by_variable.stderr


def test_kill_9_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    shot = write_shot(tmp_path, frames=12, width=128, height=128, steps=4)
    command = [sys.executable, "-m", "koshi_backend", "animate", str(shot), "--out", str(tmp_path / "a")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "0003.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list((tmp_path / "a").glob("*.png")))
    assert 3 <= there < 12
    again = json.loads(koshi("animate", shot, "--out", tmp_path / "a", "--json").stdout)
    assert again["stored"] >= there
    undisturbed = koshi("animate", shot, "--out", tmp_path / "b", "--json", KOSHI_STORE=str(tmp_path / "fresh"))
    assert json.loads(undisturbed.stdout)["made"] == 12
    for file in sorted((tmp_path / "b").iterdir()):
        assert file.read_bytes() == (tmp_path / "a" / file.name).read_bytes()


def test_ctrl_c_ends_politely(tmp_path: Path) -> None:
    shot = write_shot(tmp_path, frames=200, width=128, height=128, steps=4)
    process = subprocess.Popen(
        [sys.executable, "-m", "koshi_backend", "animate", str(shot), "--out", str(tmp_path / "a"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background inherits an ignored Ctrl-C, and Python would leave it so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "0001.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "cancelled"
    assert "kept" in err
    assert "Traceback" not in err


def test_serve_says_where_it_is_and_a_second_one_where_the_first_is() -> None:
    command = [sys.executable, "-m", "koshi_backend", "serve", "--json"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert first.stdout is not None
        said = json.loads(first.stdout.readline())
        assert said["ok"]
        assert said["pid"] == first.pid
        assert said["address"][0] == "127.0.0.1"
        second = koshi("serve", "--json")
        assert second.returncode == 3
        error = json.loads(second.stdout)["error"]
        assert error["code"] == "already_running"
        assert str(first.pid) in error["hint"]
    finally:
        first.terminate()
        assert first.wait(20) == 0
        assert first.stdout is not None
        first.stdout.close()


def test_wrong_arguments_end_in_json_too(here: Callable[..., Ran], tmp_path: Path) -> None:
    done = koshi("animate", write_shot(tmp_path), "--json")
    assert done.returncode == 2
    assert "--out" in json.loads(done.stdout)["error"]["message"]
    zero = here("generate", "a sea", "--width", 0, "--out", tmp_path / "x.png", "--json")
    assert zero.returncode == 1
    assert "width" in json.loads(zero.stdout)["error"]["message"]


def test_a_store_that_cannot_be_used_is_found_by_the_doctor(here: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    for store in (tmp_path / "afile", "/proc/nope/x"):
        done = here("doctor", "--json", KOSHI_STORE=str(store))
        assert done.returncode == 1
        (check,) = (c for c in json.loads(done.stdout)["checks"] if not c["ok"])
        assert check["name"] == "frame store"


def test_a_cache_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    done = koshi("animate", write_shot(tmp_path), "--out", "/proc/koshi/frames", "--json", KOSHI_CACHE="/proc/nope")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "bad_output"
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "koshi_backend", "templates"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_prompt_that_is_too_long_says_so(tmp_path: Path) -> None:
    done = koshi("generate", "sea " * 60, "--out", tmp_path / "x.png", "--width", 64, "--height", 64)
    assert done.returncode == 0
    assert "too long" in done.stderr


def test_models_lists_what_is_there_without_fetching_anything(tmp_path: Path) -> None:
    from huggingface_hub.constants import REPO_ID_SEPARATOR

    def listed(**environment: str) -> dict[str, Any]:
        done = koshi("models", "--json", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1", **environment)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        return {"default": report["default"], **{model["name"]: model for model in report["models"]}}

    report = listed()
    tiny, klein = report["koshi-tiny"], report["flux.2-klein-4b"]
    assert report["default"] == "koshi-tiny"
    assert tiny["embedded"]
    assert 10e6 < tiny["bytes"] < 25e6
    assert klein["installed"] is None
    # A download that was broken off is not an installed model; a whole one is.
    cache = tmp_path / REPO_ID_SEPARATOR.join(["models", *klein["repository"].split("/")])
    snapshot = cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    for part in ("transformer", "vae", "text_encoder"):
        (snapshot / part).mkdir(parents=True)
        (snapshot / part / "model.safetensors").write_bytes(b"weights")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name)
    assert listed()["flux.2-klein-4b"]["installed"] is None
    (snapshot / "tokenizer").mkdir()
    (snapshot / "tokenizer" / "tokenizer.json").write_text("{}")
    assert listed()["flux.2-klein-4b"]["installed"] == str(snapshot)
    assert "koshi-tiny" in koshi("models").stdout.splitlines()[0]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting the backend up from the add-on's button: real Blender, real processes, real environments.

All that may go wrong is tried with a package of a few kilobytes (KOSHI_SETUP_REQUIREMENTS); the whole thing, PyTorch
included, once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, versions
from packages import wheel

from bridge_server.setup import place, pythons, requirements, words
from bridge_server.setup.progress import Progress

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
ONE_VERSION = "4.5"  # the set-up is a program of its own: what Blender starts it matters little
OTHER_VERSION = "5.2"


def in_version(version: str, extension: Path, folder: Path, environment: dict[str, str]) -> Blender:
    """A Blender with Koshi and a profile of its own, in which no Python runs the backend yet."""
    from blender_scripts.fixtures import Blender, _python

    own = {
        **environment,
        "KOSHI_PYTHON": "",
        "KOSHI_CACHE": str(folder / "cache é"),
        "KOSHI_DATA": str(folder / "data é"),
        "KOSHI_CONNECTION": str(folder / "connection.json"),
        "BLENDER_USER_RESOURCES": str(folder / f"profile {version}"),
    }
    made = Blender(version, _python(version), own, timeout=900)
    made.run("--command", "extension", "install-file", "--repo", "user_default", "--enable", extension)
    return made


# ---- whatever goes wrong


@pytest.fixture(scope="module", params=versions(ONE_VERSION))
def cases(
    request: pytest.FixtureRequest,
    extension_zip: Path,
    backend_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """All cases in one Blender."""
    folder = tmp_path_factory.mktemp("setup")
    blender = in_version(request.param, extension_zip, folder, backend_environment)
    wanted, other = folder / "wanted.txt", folder / "other.txt"
    wanted.write_text(f"# what stands for torch and the others\n{wheel(folder, 'koshi_trial')}\n")
    other.write_text("koshi-trial-elsewhere\n")
    return blender.script("setup_cases", folder, wanted, other)


def test_it_refuses_while_online_access_is_off(cases: dict[str, Any]) -> None:
    seen = cases["offline"]
    assert "Allow Online Access" in seen["said"]
    assert seen["condition"] == "absent" and seen["names"] is None


def test_killed_half_way_it_begins_again(cases: dict[str, Any]) -> None:
    killed, again = cases["killed"], cases["again"]
    assert killed["condition"] == "unfinished" and killed["python"] is None
    assert killed["error"]["code"] == "setup_interrupted" and "again" in killed["error"]["hint"]
    assert again["said"] == "FINISHED" and again["condition"] == "ready"
    (environment,) = (name for name in again["names"] if name.startswith("env-"))
    assert again["names"] == [environment, "koshi-backend.json"]  # nothing is left of the one that was killed
    assert "é" in again["python"] and " " in again["python"]


def test_another_blender_finds_it(cases: dict[str, Any]) -> None:
    assert cases["elsewhere"]["backend"] == cases["again"]["python"]


def test_without_a_network_what_works_stays(cases: dict[str, Any]) -> None:
    seen = cases["no_network"]
    assert seen["error"]["code"] == "no_network"
    assert "no network" in seen["said"] and "Package Index" in seen["said"]
    assert seen["python"] == cases["again"]["python"]
    assert len([name for name in seen["names"] if name.startswith("env-")]) == 1


def test_a_broken_environment_is_repaired(cases: dict[str, Any]) -> None:
    assert cases["broken"]["condition"] == "broken"
    assert "Repair" in cases["broken"]["told"]["hint"]
    assert cases["repaired"]["said"] == "FINISHED" and cases["repaired"]["condition"] == "ready"


def test_one_of_another_version_is_known(cases: dict[str, Any]) -> None:
    assert cases["outdated"]["condition"] == "outdated"
    assert cases["outdated"]["python"]  # and may be used until it is updated


def test_removing_leaves_other_things_alone(cases: dict[str, Any]) -> None:
    assert cases["removed"]["said"] == "FINISHED"
    assert cases["removed"]["kept"] == ["notes.txt"]
    assert "nothing that Koshi has set up" in cases["remove again"]


def test_cancel_acts_at_once_and_leaves_nothing(cases: dict[str, Any]) -> None:
    seen = cases["cancelled"]
    assert seen["phase"] == "cancelled" and seen["condition"] == "absent" and not seen["names"]
    assert seen["seconds"] < 1.0 * stretch()


def test_an_impossible_folder_is_named(cases: dict[str, Any]) -> None:
    seen = cases["impossible"]
    assert seen["error"]["code"] == "cannot_write" and seen["folder"] in seen["said"]


def test_preferences_reach_the_backend_that_is_started(cases: dict[str, Any]) -> None:
    chosen = {"HF_HUB_CACHE": "/models", "KOSHI_STORE_GB": "7.5", "KOSHI_OFFLOAD": "block", "KOSHI_VRAM": "8"}
    chosen["KOSHI_QUANTIZE"] = "fp8"
    assert cases["variables"] == [
        {"HF_HUB_OFFLINE": "1"},
        {**chosen, "HF_HUB_OFFLINE": "1"},
        chosen,
    ]


def test_clearing_the_store_deletes_frames_and_prompts_only(cases: dict[str, Any]) -> None:
    left = ["ab", "notes.txt", "prompts", "cd"]
    assert cases["store"] == {"before": [2, 300], "said": "FINISHED", "after": [0, 0], "left": left}


def test_pip_ends_with_the_set_up_that_started_it() -> None:
    leash = ROOT / "bridge_server" / "setup" / "leash.py"
    command = [sys.executable, "-I", str(leash), "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.close()  # as when the set-up is killed
        assert process.wait(60) == 1


def stretch() -> float:
    """How many times as long as on a quiet machine something may take just now."""
    begin, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.2:
        pass
    return max(1.0, 2 * (time.monotonic() - begin) / 0.2)


@pytest.mark.parametrize(("megabytes", "code"), [(12, "disk_too_small"), (45, "disk_full")])
def test_a_small_disk(megabytes: int, code: str, tmp_path: Path) -> None:
    """On a disk of that size: refused before anything is written, or cleared away when it is full after all."""
    disk, listed = tmp_path / "small disk", tmp_path / "wanted.txt"
    disk.mkdir()
    listed.write_text(wheel(tmp_path, "koshi_large", megabytes=60))
    within = 'mount -t tmpfs -o size="$1" none "$2" || exit 9; disk=$2; shift 2; "$@"; ls -A "$disk"'
    mount = ["unshare", "-rm", "sh", "-c", within]
    if shutil.which("unshare") is None or subprocess.run([*mount, "", "1m", str(disk), "true"], check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    command = [sys.executable, "-m", "bridge_server.setup", "install", "--folder", str(disk / "backend")]
    environ = {**os.environ, "KOSHI_SETUP_REQUIREMENTS": str(listed), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*mount, "", f"{megabytes}m", str(disk), *command, "--source", str(ROOT)],
        env=environ, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    status = json.loads((Path(os.environ["KOSHI_CACHE"]) / "setup" / "status.json").read_text())
    assert status["phase"] == "failed" and status["error"]["code"] == code, status
    assert str(disk) in status["error"]["message"] and "folder on another" in status["error"]["hint"]
    assert ran.stdout.split() == []  # nothing is left on it


def test_uv_does_it_too(tmp_path: Path) -> None:
    """As it is asked to where there is one: it reads addresses and writes environments in ways of its own."""
    if pythons.find_uv() is None:
        pytest.skip("there is no uv")
    listed, folder = tmp_path / "wanted é.txt", tmp_path / "Käthe's backend"
    listed.write_text(wheel(tmp_path, "koshi_trial"), encoding="utf-8")
    own = {"KOSHI_SETUP_REQUIREMENTS": str(listed), "KOSHI_SETUP_TOOL": "uv", "PYTHONPATH": str(ROOT)}
    own |= {"KOSHI_CACHE": str(tmp_path / "cache"), "KOSHI_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-m", "bridge_server.setup", "install", "--folder", str(folder), "--source", str(ROOT)]
    ran = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, timeout=240, check=False)
    log = (tmp_path / "cache" / "setup" / "setup.log").read_text(encoding="utf-8")
    assert ran.returncode == 0, log
    assert re.search(r"^\$ \S*uv\S* venv .*\n(.*\n)*\$ \S*uv\S* pip install ", log, re.MULTILINE), log
    assert place.ready_python(folder) is not None


# ---- the whole thing


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute of work; a busy machine needs many for it
def test_the_whole_set_up_and_a_second_blender(
    extension_zip: Path, backend_environment: dict[str, str], tmp_path: Path
) -> None:
    from blender_scripts.fixtures import stop_backend

    folder = tmp_path / "Käthe Ångström"
    folder.mkdir()
    blender = in_version(ONE_VERSION, extension_zip, folder, backend_environment)
    other = in_version(OTHER_VERSION, extension_zip, folder, backend_environment)
    try:
        made = blender.script("setup_shared", "set up")
        assert made["said"] == ["FINISHED"] and "Käthe" in made["python"]
        assert made["connected"]["said"] == "FINISHED", made["connected"]
        assert made["report"]["backend"]["ok"], made["report"]
        blend = blender.scene(folder / "shot.blend", name="Set Up", frames=2, seed=4509)
        assert blender.koshi(blend, "render")["made"] == 2  # with the environment that the button has made

        seen = other.script("setup_shared", "connect")
        assert (seen["condition"], seen["python"]) == ("ready", made["python"])
        server = made["connected"]["server"].partition(",")[2].partition(",")[0]
        assert server.strip().startswith("process") and server in seen["connected"]["server"]
        assert seen["tunnel"]["said"] == "FINISHED" and server in seen["tunnel"]["server"]
        assert not seen["stop"]
        assert seen["far"]["error"]["code"] == "offline"
        assert seen["wrong"]["error"]["code"] == "bad_remote" and "host:port" in seen["wrong"]["said"]

        gone = other.script("setup_shared", "remove")
        assert gone["said"] == ["FINISHED"] and not gone["there"] and gone["condition"] == "absent"
    finally:
        stop_backend(folder / "connection.json")
        shutil.rmtree(folder, ignore_errors=True)  # 1.5 GB


def test_the_zip_carries_the_whole_backend(extension_zip: Path) -> None:
    with zipfile.ZipFile(extension_zip) as file:
        names = set(file.namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("koshi_backend", "bridge_server")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not (wanted | {"pyproject.toml", "constraints.txt"}) - names


# ---- the choice of packages, and what is said


@pytest.mark.parametrize(
    ("system", "nvidia", "first", "last"),
    [
        ("linux", False, ["torch==2.0+cpu"], ["torch==2.0"]),
        ("linux", True, ["torch==2.0,!=2.0+cpu"], ["torch==2.0"]),
        ("win32", False, ["torch==2.0"], ["torch==2.0"]),
        ("win32", True, ["torch==2.0+cu130", "--extra-index-url", "https://index/cu130"], ["torch==2.0"]),
        ("darwin", False, ["torch==2.0"], ["torch==2.0"]),
    ],
)
def test_pytorch_suits_the_card(system: str, nvidia: bool, first: list[str], last: list[str]) -> None:
    build = requirements.build_for(nvidia, system)
    attempts = requirements.torch_attempts("2.0", build, "https://index/", False, system)
    assert (attempts[0], attempts[-1]) == (first, last)
    without = requirements.torch_attempts("2.0", build, "", True, system)
    assert not [word for attempt in without for word in attempt if "http" in word]
    # Whatever the common index lacks is uv's to find: the processor's build for Linux, any card's for Windows.
    chosen = [attempt[1] for attempt in without if attempt[0] == requirements.UV_CHOOSES]
    assert chosen == {("linux", False): ["cpu"], ("win32", True): ["auto"]}.get((system, nvidia), [])
    mirrored = requirements.torch_attempts("2.0", build, "", False, system)
    assert not [attempt for attempt in mirrored if attempt[0] == requirements.UV_CHOOSES]


def test_what_is_needed_is_what_was_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOSHI_SETUP_REQUIREMENTS", raising=False)
    needed = requirements.requirements(ROOT)
    assert f"torch=={needed.torch}\n" in (ROOT / "constraints.txt").read_text()
    assert needed.names and not [name for name in needed.names if name.startswith("torch")]
    assert needed.digest != replace(needed, digest="").digest


def test_progress_from_what_pip_says() -> None:
    progress, seen = Progress(), []
    for line in (
        "Collecting torch==2.13.0+cpu",
        "  Downloading torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (188.9 MB)",
        "Progress 94450000 of 188900000",
        "Collecting opencv-python-headless>=4.10",
        "Processing /wheels/opencv_python_headless-5.0.0-cp37-abi3-manylinux_2_28_x86_64.whl (from x)",
        "Installing collected packages: torch, opencv-python-headless",
    ):
        assert progress.read(line), line
        seen.append((progress.detail, progress.fraction))
    assert not progress.read("Looking in links: /wheels")
    assert seen[2][0] == "torch, 94 of 189 MB"
    assert seen[-1][0] == "unpacking 2 packages"
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and 0.1 < fractions[2] < fractions[-1] < 1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk_full"),
        ("Failed to establish a new connection\nERROR: No matching distribution found for av", "no_network"),
        ("SSLCertVerificationError(1, 'certificate verify failed')\nNo matching distribution", "bad_certificate"),
        ("ERROR: HTTP error 403 while getting https://host/simple/", "refused"),
        ("ERROR: No matching distribution found for av>=14", "not_offered"),
        ("    The user requested (constraint) filelock==4.2\nERROR: ResolutionImpossible: for help", "not_offered"),
        ("zipfile.BadZipFile: Bad magic number", "damaged_download"),
        ("error: dns error: failed to lookup address information", "no_network"),  # uv's
        ("something new", "setup_failed"),
    ],
)
def test_what_went_wrong_is_said_in_words(said: str, code: str) -> None:
    error = words.explain(said, "installing the packages", Path("/backend"), Path("/log"))
    assert error.code == code
    assert error.message.endswith(".") or code == "setup_failed"
    assert error.hint.endswith(".") and "Traceback" not in error.message


def test_no_model_is_downloaded_while_online_access_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    from koshi_backend.errors import KoshiError
    from koshi_backend.models import pool

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(KoshiError) as caught:
        pool.model_files("flux.2-klein-4b")
    assert caught.value.code == "downloads_off" and "Allow Online Access" in caught.value.hint

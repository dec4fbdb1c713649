# SPDX-License-Identifier: GPL-3.0-or-later
"""`koshi models` against a local hub: real HTTP, huggingface_hub's own client, real processes that are really killed.

koshi-tiny's files stand for the published ones: they have the same layout.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hub_server import COMMIT, Hub, Repository, serve
from huggingface_hub import constants
from test_setup import stretch

from koshi_backend.models.catalogue import list_models
from koshi_backend.models.checkpoint_check import verify_files
from koshi_backend.models.registry import MODELS

OPEN, GATED = "flux.2-klein-4b", "flux.2-klein-9b"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SECOND_COPY = MODELS[OPEN].file  # at the root, as the publisher has it


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The model's files, and those of a repository that Koshi does not need."""
    tiny = ROOT / "koshi_backend" / "weights" / "koshi-tiny"
    made = Repository.of(tiny)
    made.files |= {
        SECOND_COPY: b"the transformer once more", "teaser.png": b"picture", "LICENSE.md": b"terms",
        "text_encoder/pytorch_model.bin": b"pickle", "text_encoder/onnx/model.onnx": b"other",
    }  # fmt: skip
    return made


@pytest.fixture
def hub(published: Repository) -> Iterator[Hub]:
    gated = Repository(published.files, gated="auto")
    with serve(Hub({MODELS[OPEN].repository: published, MODELS[GATED].repository: gated})) as served:
        yield served
    published.sizes.clear()


@pytest.fixture
def around(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Variables of a process that knows this hub only, with a cache of its own and no token."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **told, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf home é"), "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0", "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip


def start(around: dict[str, str], *arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "koshi_backend", "models", *arguments],
        env=around, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def koshi(around: dict[str, str], *arguments: str, code: int = 0, **more: Any) -> dict[str, Any]:
    """Run it with --json; returns the object, with what was said on stderr as "said"."""
    with start(around, *arguments, "--json", **more) as process:
        out, said = process.communicate(timeout=120)
    assert process.returncode == code, (out, said)
    assert len(out.splitlines()) == 1
    return {**json.loads(out), "said": said}


def verified(around: dict[str, str], name: str = OPEN) -> dict[str, Any]:
    """`koshi models verify` in this process, which need not load torch anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(Path(around["HF_HOME"]) / "hub"))
        return verify_files(name)


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def cache(around: dict[str, str], name: str = OPEN) -> Path:
    return Path(around["HF_HOME"]) / "hub" / ("models--" + MODELS[name].repository.replace("/", "--"))


def partials(around: dict[str, str]) -> list[Path]:
    return list(cache(around).glob("blobs/*.incomplete"))


# --- what goes well ---------------------------------------------------------------------------------------------


def test_a_pull_and_then_everything_without_a_network(hub: Hub, around: dict[str, str], tmp_path: Path) -> None:
    listed = {one["name"]: one for one in koshi(around, "list")["models"]}
    assert listed[OPEN]["installed"] is None and not hub.asked
    pulled = koshi(around, "pull", OPEN)
    folder = cache(around) / "snapshots" / COMMIT
    assert Path(pulled["folder"]) == folder
    assert "Apache-2.0" in pulled["said"] and "MB" in pulled["said"]
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {WEIGHTS, "vae/config.json", "tokenizer/tokenizer.json", "model_index.json", "LICENSE.md"} <= names
    assert not names & {SECOND_COPY, "teaser.png", "text_encoder/pytorch_model.bin", "text_encoder/onnx/model.onnx"}
    large = {name: len(data) for name, data in hub.repositories[MODELS[OPEN].repository].files.items()}
    assert hub.sent == {name: large[name] for name in names if name.endswith(".safetensors")}
    assert pulled["fetched"] == pulled["bytes"] == sum((folder / name).stat().st_size for name in names)

    offline = {**around, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    hub.forget()
    assert koshi(offline, "pull", OPEN)["fetched"] == 0
    listed = {one["name"]: one for one in koshi(offline, "list")["models"]}
    assert listed[OPEN]["installed"] == str(folder)
    checked = koshi(offline, "verify", OPEN)
    assert set(checked["checksums"]["right"]) == names and not checked["checksums"]["unknown"]
    picture = tmp_path / "picture.png"
    drawn = subprocess.run(
        [sys.executable, "-m", "koshi_backend", "generate", "a sea at dawn, photo", "--model", OPEN, "--out", picture,
         "--width", "64", "--height", "64", "--seed", "3"],
        env=offline, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert drawn.returncode == 0 and picture.is_file(), drawn.stderr
    assert koshi(around, "pull", OPEN)["fetched"] == 0
    assert not hub.asked  # what is here is not asked for again, network or not

    freed = koshi(offline, "remove", OPEN)["freed"]
    assert freed >= pulled["bytes"] and not cache(around).exists()
    assert koshi(offline, "remove", OPEN, code=1)["error"]["code"] == "not_installed"
    assert koshi(offline, "pull", OPEN, code=1)["error"]["code"] == "downloads_off"


def test_the_hub_s_own_client_finds_what_was_pulled_and_koshi_what_that_has_fetched(
    hub: Hub, around: dict[str, str]
) -> None:
    """Both keep one cache: neither fetches what the other has."""
    by_client = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:]))"
    patterns = ["*.json", "scheduler/*", "tokenizer/*", "transformer/*", "vae/*", "text_encoder/*", "*.md"]
    command = [sys.executable, "-c", by_client, MODELS[OPEN].repository, *patterns]
    koshi(around, "pull", OPEN)
    before = hub.total
    ran = subprocess.run(command, env=around, capture_output=True, text=True, timeout=60, check=True)
    assert Path(ran.stdout.strip()) == cache(around) / "snapshots" / COMMIT
    assert hub.total - before <= len(b"pickle")
    koshi(around, "remove", OPEN)
    subprocess.run(command, env=around, capture_output=True, timeout=60, check=True)
    before = hub.total
    assert koshi(around, "pull", OPEN)["fetched"] == 0 and hub.total == before
    # The listing that the client leaves names files that nobody fetched: that must not make it half a model.
    assert verified(around)["ok"] and verified(around)["checksums"]["right"]


def test_without_links_no_file_lies_there_twice(around: dict[str, str]) -> None:
    without = {**around, "HF_HUB_DISABLE_SYMLINKS": "1"}  # as on Windows
    pulled = koshi(without, "pull", OPEN)
    on_disk = sum(file.stat().st_size for file in cache(around).rglob("*") if file.is_file())
    assert pulled["bytes"] <= on_disk < 1.01 * pulled["bytes"]
    assert len(verified(around)["checksums"]["right"]) == pulled["files"]


def test_what_is_here_of_a_model_is_counted_with_links_and_without(tmp_path: Path) -> None:
    """Also while a pull moves files: one may be gone between two looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        place = tmp_path / ("models--" + MODELS[OPEN].repository.replace("/", "--"))
        for folder in ("blobs", "snapshots/abc/vae"):
            (place / folder).mkdir(parents=True)
            (place / folder / "a").write_bytes(b"12345")
        (place / "snapshots" / "abc" / "link").symlink_to(place / "blobs" / "a")
        (place / "blobs" / "gone").symlink_to(place / "nowhere")
        listed = {one["name"]: one for one in list_models()["models"]}
    assert listed[OPEN]["partial"] == 10


# --- what is broken off -----------------------------------------------------------------------------------------


def test_killed_it_goes_on_and_fetches_nothing_twice(hub: Hub, around: dict[str, str]) -> None:
    hub.rate = 12e6
    with start(around, "pull", OPEN) as process:
        until(lambda: hub.sent.get(WEIGHTS, 0) > 8e6)
        process.send_signal(signal.SIGKILL)
    (partial,) = partials(around)
    kept = partial.stat().st_size
    assert kept > 5e6
    assert verified(around)["problems"][0]["hint"] == f"koshi models pull {OPEN}"
    listed = {one["name"]: one for one in koshi(around, "list")["models"]}
    assert listed[OPEN]["installed"] is None and listed[OPEN]["partial"] >= kept

    hub.rate, whole = 0.0, len(hub.repositories[MODELS[OPEN].repository].files[WEIGHTS])
    before = hub.sent[WEIGHTS]
    hub.asked.clear()
    pulled = koshi(around, "pull", OPEN)
    assert hub.sent[WEIGHTS] - before == whole - kept
    assert [span for _, path, span in hub.asked if path.endswith(WEIGHTS) and "cdn" in path] == [f"bytes={kept}-"]
    assert pulled["fetched"] < pulled["bytes"] - 5e6
    assert not partials(around) and verified(around)["ok"]


# A server that is as silent as these is waited for.
PATIENT = {"HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"}


@pytest.mark.parametrize("silent", ["in the weights", "in the small files", "at once"])
def test_ctrl_c_stops_within_a_second_also_while_nothing_comes(
    silent: str, hub: Hub, around: dict[str, str]
) -> None:
    """In the midst of the weights, at all of the small files, which come several at once, and at the first question."""
    if silent == "in the weights":
        hub.silent_after, hub.times = 4 << 20, 9
    elif silent == "at once":
        hub.mute = "/api/"
    else:
        koshi(around, "pull", OPEN)
        for link in (cache(around) / "snapshots").rglob("*.json"):
            link.resolve().unlink()
            link.unlink()
        (cache(around) / "refs" / "main").unlink()
        hub.mute = ".json"
        hub.forget()
    ctrl_c = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with start({**around, **PATIENT}, "pull", OPEN, "--json", **ctrl_c) as process:
        until(lambda: hub.sent.get(WEIGHTS, 0) >= 4 << 20 or any(hub.mute and hub.mute in one[1] for one in hub.asked))
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
        took = time.monotonic() - begin
    assert process.returncode == 130 and json.loads(out)["error"]["code"] == "cancelled", (out, said)
    assert "goes on from there" in said and took < stretch(), took
    assert hub.mute or partials(around)[0].stat().st_size >= 3 << 20


CANCELS = """
import json, sys, time
from pathlib import Path
from koshi_backend.chain import render_shot
from koshi_backend.errors import Cancelled
from koshi_backend.models.hub_cache import repository_folder
from koshi_backend.models.pull import pull
from koshi_backend.models.registry import MODELS
from koshi_backend.shot import load_shot

name, enough, asked = sys.argv[1], int(sys.argv[2]), []

def cancelled():
    here = sum(file.stat().st_size for file in repository_folder(MODELS[name].repository).glob("blobs/*.incomplete"))
    if here >= enough and not asked:
        asked.append(time.monotonic())
    return bool(asked) and time.monotonic() > asked[0] + 0.5

shot = load_shot({"model": name, "width": 64, "height": 64, "frames": 1, "prompts": [{"frame": 0, "text": "a sea"}]})
try:
    list(render_shot(shot, cancelled=cancelled))
except Cancelled:
    print(json.dumps(time.monotonic() - asked[0] - 0.5), flush=True)
sys.stdin.readline()
print(json.dumps(pull(MODELS[name])), flush=True)
"""


def test_a_render_that_is_cancelled_leaves_its_download_behind_which_harms_no_other(
    hub: Hub, around: dict[str, str]
) -> None:
    """As Blender cancels while the backend fetches the shot's model. The line that was left speaks again in the midst
    of the next download, of the same file in the same process."""
    hub.silent_after, hub.times = 4 << 20, 1
    with subprocess.Popen(
        [sys.executable, "-c", CANCELS, OPEN, str(3 << 20)], env={**around, **PATIENT}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        took = float(process.stdout.readline())
        (partial,) = partials(around)
        kept = partial.stat().st_size
        assert took < stretch() and kept >= 3 << 20
        hub.rate, before = 12e6, hub.sent[WEIGHTS]
        process.stdin.write("\n")
        process.stdin.flush()
        until(lambda: hub.sent[WEIGHTS] > before)
        hub.speak = True
        assert json.loads(process.stdout.readline())["ok"]
        process.stdin.close()
    assert verified(around)["ok"]


def test_a_server_that_falls_silent_is_left_in_words_and_taken_up_again(hub: Hub, around: dict[str, str]) -> None:
    hub.silent_after, hub.times = 4 << 20, 99
    failed = koshi(around, "pull", OPEN, code=1)
    assert failed["error"]["code"] == "stalled" and "goes on from there" in failed["error"]["hint"]
    assert "waiting for transformer" in failed["said"] or "Progress" not in failed["said"]
    kept = sum(file.stat().st_size for file in partials(around))
    assert kept >= 3 << 20
    hub.silent_after, before = None, hub.total
    pulled = koshi(around, "pull", OPEN)
    assert hub.total - before <= pulled["bytes"] - kept


def test_a_line_that_breaks_now_and_then_is_no_matter(hub: Hub, around: dict[str, str]) -> None:
    hub.cut_after, hub.times = 2 << 20, 1
    assert koshi(around, "pull", OPEN)["ok"]
    assert hub.times == 0
    assert any(span and span != "bytes=0-" for _, _, span in hub.asked)


# --- what arrives wrong -----------------------------------------------------------------------------------------


def test_wrong_bytes_are_refused_and_removed(hub: Hub, around: dict[str, str]) -> None:
    hub.wrong = {WEIGHTS}
    failed = koshi(around, "pull", OPEN, code=1)["error"]
    assert failed["code"] == "bad_checksum" and WEIGHTS in failed["message"] and "removed" in failed["message"]
    assert not partials(around)
    sha = hub.repositories[MODELS[OPEN].repository].sha256(WEIGHTS)
    assert not (cache(around) / "blobs" / sha).exists()
    assert verified(around)["problems"]  # it is not installed
    hub.wrong = {"vae/config.json"}  # a small one, which git's own hash tells
    failed = koshi(around, "pull", OPEN, code=1)["error"]
    assert failed["code"] == "bad_checksum" and "vae/config.json" in failed["message"]
    hub.wrong = set()
    assert koshi(around, "pull", OPEN)["ok"] and verified(around)["ok"]


def test_an_old_part_that_is_damaged_costs_only_its_own_bytes(hub: Hub, around: dict[str, str]) -> None:
    sha = hub.repositories[MODELS[OPEN].repository].sha256(WEIGHTS)
    partial = cache(around) / "blobs" / f"{sha}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1_000_000)
    assert koshi(around, "pull", OPEN)["ok"] and verified(around)["ok"]


def test_verify_finds_what_the_disk_has_lost_and_repair_mends_it(hub: Hub, around: dict[str, str]) -> None:
    folder = Path(koshi(around, "pull", OPEN)["folder"])
    blob = (folder / WEIGHTS).resolve()
    stat = blob.stat()
    with blob.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x7f")
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a bad disk does it
    checked = koshi(around, "verify", OPEN, code=1)
    assert checked["checksums"]["wrong"] == [WEIGHTS]
    assert checked["problems"][0]["hint"] == f"koshi models pull {OPEN} --repair"
    before = hub.total
    koshi(around, "pull", OPEN, "--repair")
    assert hub.total - before == stat.st_size  # that file and no other
    assert verified(around)["ok"]


# --- room -------------------------------------------------------------------------------------------------------


def test_too_little_room_is_said_before_the_first_byte(hub: Hub, around: dict[str, str], published: Repository) -> None:
    published.sizes[WEIGHTS] = 10**15
    failed = koshi(around, "pull", OPEN, code=1)["error"]
    assert failed["code"] == "disk_too_small"
    assert "1000000.0 GB needed" in failed["message"].replace("1000000.1", "1000000.0")
    assert not hub.total and not partials(around)


def test_a_disk_that_is_full_after_all(hub: Hub, around: dict[str, str]) -> None:
    """Another program may have filled it meanwhile. What was fetched stays, so that room is all that is needed."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))}
    failed = koshi(around, "pull", OPEN, code=1, **limit)["error"]
    assert failed["code"] == "disk_full" and "kept" in failed["hint"]
    (partial,) = partials(around)
    kept, before = partial.stat().st_size, hub.total
    assert kept == 6 << 20
    pulled = koshi(around, "pull", OPEN)
    assert hub.total - before <= pulled["bytes"] - kept


@pytest.mark.parametrize(("megabytes", "code"), [(40, "disk_too_small"), (96, "")])
def test_a_small_disk(megabytes: int, code: str, around: dict[str, str], tmp_path: Path) -> None:
    """A real one: 25 MB of files and 64 MB to spare do not fit on the first and do on the second."""
    disk = tmp_path / "disk"
    disk.mkdir()
    within = 'mount -t tmpfs -o size="$1" none "$2" || exit 9; shift 2; exec "$@"'
    mount = ["unshare", "-rm", "sh", "-c", within, ""]
    if shutil.which("unshare") is None or subprocess.run([*mount, "1m", str(disk), "true"], check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    command = [sys.executable, "-m", "koshi_backend", "models", "pull", OPEN, "--json"]
    ran = subprocess.run(
        [*mount, f"{megabytes}m", str(disk), *command], env={**around, "HF_HUB_CACHE": str(disk / "hub")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    told = json.loads(ran.stdout)
    assert told["ok"] == (not code), told
    assert not code or told["error"]["code"] == code


# --- doors ------------------------------------------------------------------------------------------------------


def test_a_gated_model_says_before_it_starts_what_to_do(hub: Hub, around: dict[str, str]) -> None:
    failed = koshi(around, "pull", GATED, code=1)["error"]
    assert failed["code"] == "gated"
    assert f"{hub.address}/{MODELS[GATED].repository}" in failed["hint"]
    assert f"{hub.address}/settings/tokens" in failed["hint"] and "hf auth login" in failed["hint"]
    assert not [path for _, path, _ in hub.asked if "resolve" in path] and not hub.total

    failed = koshi({**around, "HF_TOKEN": "hf_wrong"}, "pull", GATED, code=1)["error"]
    assert failed["code"] == "token_refused" and "401" in failed["message"] and "settings/tokens" in failed["hint"]

    hub.tokens.add("hf_stranger")
    failed = koshi({**around, "HF_TOKEN": "hf_stranger"}, "pull", GATED, code=1)["error"]
    assert failed["code"] == "access_denied" and "has not been let in" in failed["message"]
    assert f"{hub.address}/{MODELS[GATED].repository}" in failed["hint"] and not hub.total

    pulled = koshi({**around, "HF_TOKEN": "hf_good"}, "pull", GATED)
    assert pulled["ok"] and verified(around, GATED)["ok"]


def test_a_door_that_is_shut_while_files_come(hub: Hub, around: dict[str, str]) -> None:
    """The page may say that all is open, and the files yet be refused."""
    hub.repositories[MODELS[OPEN].repository] = Repository(hub.repositories[MODELS[GATED].repository].files, gated="")
    hub.repositories[MODELS[OPEN].repository].gated = "auto"
    hub.welcome = set()
    failed = koshi({**around, "HF_TOKEN": "hf_good"}, "pull", OPEN, code=1)["error"]
    assert failed["code"] == "access_denied"


@pytest.mark.parametrize(
    ("trouble", "code"), [("gone", "no_network"), ("down", "server_error"), ("unknown", "not_found")]
)
def test_no_hub_no_model(trouble: str, code: str, hub: Hub, around: dict[str, str]) -> None:
    if trouble == "gone":
        around = {**around, "HF_ENDPOINT": "http://127.0.0.1:1"}
    elif trouble == "down":
        hub.down = True
    else:
        del hub.repositories[MODELS[OPEN].repository]
    failed = koshi(around, "pull", OPEN, code=1)["error"]
    assert failed["code"] == code and failed["message"].endswith(".") and failed["hint"].endswith(".")


def test_only_one_pulls_a_model_at_a_time(hub: Hub, around: dict[str, str]) -> None:
    hub.rate = 1e5
    with start(around, "pull", OPEN) as process:
        until(lambda: hub.total > 0)
        assert koshi(around, "pull", OPEN, code=1)["error"]["code"] == "busy"
        process.kill()
    hub.rate = 0.0
    assert koshi(around, "pull", OPEN)["ok"]  # the lock goes with its holder


def test_what_cannot_be_removed_is_said(around: dict[str, str]) -> None:
    folder = cache(around)
    folder.mkdir(parents=True)
    (folder.parent / ".locks").write_text("in the place of a folder")
    assert koshi(around, "remove", OPEN, code=1)["error"]["code"] == "cannot_write"


def test_a_repository_of_another_make_is_refused_before_it_is_fetched(hub: Hub, around: dict[str, str]) -> None:
    files = hub.repositories[MODELS[OPEN].repository].files
    kept = {name: data for name, data in files.items() if not name.startswith("text_encoder")}
    hub.repositories[MODELS[OPEN].repository] = Repository(kept)
    failed = koshi(around, "pull", OPEN, code=1)["error"]
    assert failed["code"] == "bad_repository" and "text_encoder" in failed["message"] and not hub.total


# --- words and numbers ------------------------------------------------------------------------------------------


def test_progress_in_bytes_speed_and_time_left(hub: Hub, around: dict[str, str]) -> None:
    hub.rate = 12e6
    said = koshi(around, "pull", OPEN, "--progress")["said"]
    lines = [line for line in said.splitlines() if line.startswith("Progress ")]
    done = [int(line.split()[1]) for line in lines]
    totals = {line.split()[3].rstrip(",") for line in lines}
    assert len(lines) > 3 and done == sorted(done) and {str(done[-1])} == totals
    assert any("MB/s" in line and "left" in line and WEIGHTS in line for line in lines), lines

# SPDX-License-Identifier: GPL-3.0-or-later
"""One model in every layout that people have on their disks: found, drawn with, and refused by name when damaged.

The files are written by safetensors, diffusers and transformers themselves, from small random models whose settings
are those that a file without config.json is taken to have.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from conftest import ROOT
from layouts import COMFY, CPU, LAYOUTS, Made, all_in_one, draw, make, native, sharded
from safetensors.torch import load_file, save_file

from koshi_backend import create_pipeline
from koshi_backend.errors import KoshiError
from koshi_backend.models.checkpoint_check import as_text, check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.loader import find_family, load_transformer
from koshi_backend.models.pool import model_files

EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp(request.param), tiny)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, for each test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@EVERY
def test_the_same_picture_from_every_layout(made: Made, layout: Callable[[Made, Path], Path], tmp_path: Path) -> None:
    name = layout(made, tmp_path / "model")
    assert torch.equal(draw(name), made.picture)
    report = check_files(str(name))
    assert report["ok"], report["problems"]
    assert {"transformer", "vae", "text_encoder"} <= {part["part"] for part in report["parts"]}
    assert "everything fits" in as_text(report)


# --- damage -----------------------------------------------------------------------------------------------------


def remove(state: dict[str, torch.Tensor], name: str) -> None:
    del state[name]


def add(state: dict[str, torch.Tensor], name: str) -> None:
    state[name + "_more"] = torch.zeros(2)


def widen(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = torch.cat([state[name], state[name][:1]]).contiguous()


def quantise(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = state[name].to(torch.int8)


DAMAGE = {"missing": remove, "unknown": add, "misshapen": widen, "whole numbers": quantise, "cut short": None}


def transformer_files(name: Path) -> list[Path]:
    path = model_files(str(name)).transformer
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


@EVERY
@pytest.mark.parametrize("way", DAMAGE)
def test_damage_is_named(made: Made, layout: Callable[[Made, Path], Path], way: str, tmp_path: Path) -> None:
    name = layout(made, tmp_path / "model")
    file = transformer_files(name)[0]
    change = DAMAGE[way]
    state = load_file(file)
    mine = sorted(n for n in state if n.startswith(COMFY) or not n.startswith(("vae.", "text_encoders.")))
    damaged = next(n for n in mine if state[n].ndim == 2)
    whole = file.read_bytes()
    file.unlink()  # it may be a link
    if change is None:
        file.write_bytes(whole[:-100])
    else:
        change(state, damaged)
        save_file(state, file)
    with pytest.raises(KoshiError) as caught:
        load_family(model_files(str(name)), CPU, torch.float32, "test")
    assert caught.value.code == ("bad_model_file" if change is None else "bad_model")
    expected = file.name if change is None else damaged.removeprefix(COMFY)
    assert expected in caught.value.message


@EVERY
def test_no_weight_is_read_before_all_headers_fit(
    made: Made, layout: Callable[[Made, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the autoencoder is told before minutes are spent on the transformer."""
    name = layout(made, tmp_path / "model")
    path = model_files(str(name)).autoencoder
    file = next(path.glob("*.safetensors")) if path.is_dir() else path
    state = load_file(file)
    damaged = next(n for n in state if n.endswith("mid.block_1.conv1.weight") or "mid_block.resnets.0.conv1.w" in n)
    file.unlink()
    save_file({n: t for n, t in state.items() if n != damaged}, file)
    monkeypatch.setattr("koshi_backend.models.tensor_files.TensorFiles.read", None)
    with pytest.raises(KoshiError, match=r"block_1\.conv1\.weight|resnets\.0\.conv1\.weight"):
        load_family(model_files(str(name)), CPU, torch.float32, "test")


def test_a_tensor_in_two_shards_is_named(made: Made, tmp_path: Path) -> None:
    name = sharded(made, tmp_path / "model")
    first, second = transformer_files(name)[:2]
    twin = next(iter(load_file(first)))
    save_file({**load_file(second), twin: torch.zeros(3)}, second)
    with pytest.raises(KoshiError) as caught:
        draw(name)
    assert twin in caught.value.message
    assert second.name in caught.value.message


def test_damaged_text_encoders_are_named_in_a_single_file(made: Made, tmp_path: Path) -> None:
    file = all_in_one(made, tmp_path / "model")
    state = load_file(file)
    damaged = next(n for n in sorted(state) if n.startswith("text_encoders.") and ".layer" in n and state[n].ndim == 2)
    save_file({n: t for n, t in state.items() if n != damaged}, file)
    with pytest.raises(KoshiError) as caught:
        draw(file)
    assert damaged.split(".transformer.")[1].removeprefix("model.").removeprefix("text_model.") in caught.value.message


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
def test_pickles_are_not_opened(tmp_path: Path, tiny: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    torch.save({"double_blocks.0.img_mod.lin.weight": torch.zeros(1)}, file)
    with pytest.raises(KoshiError, match="pickle") as caught:
        create_pipeline(str(file))
    assert "safetensors" in caught.value.hint
    folder = shutil.copytree(tiny, tmp_path / "folder")
    (weights,) = (folder / "vae").glob("*.safetensors")
    weights.unlink()
    file.rename(folder / "vae" / file.name)
    with pytest.raises(KoshiError, match="pickle"):
        create_pipeline(str(folder)).load()


@pytest.mark.parametrize("name", ["model.gguf", "notes.txt"])
def test_other_files_are_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(KoshiError, match=r"not a GGUF file|neither a safetensors nor a GGUF file"):
        create_pipeline(str(tmp_path / name))


# --- memory -----------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_short_later_harms_no_loaded_model(made: Made, tmp_path: Path) -> None:
    """Were the weights mapped, the process would end here."""
    file = native(made, tmp_path / "model")
    net = load_transformer(file, CPU, torch.float32, find_family(file))
    file.write_bytes(b"")
    assert all(torch.equal(tensor, made.transformer[name]) for name, tensor in net.state_dict().items())


PEAK = """
import ctypes, gc, sys
from pathlib import Path
import torch
from koshi_backend.models.family import load_family
from koshi_backend.models.pool import pick_dtype
from koshi_backend.models.registry import TINY_FOLDER
def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
def load():
    cpu = torch.device("cpu")
    return load_family(TINY_FOLDER, cpu, pick_dtype(cpu), "test")
load()  # what the libraries load when they are first used
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS:")
model = load()
print((kilobytes("VmHWM:") - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_no_second_copy(tiny: Path) -> None:
    """Nor a wider one: the processor computes in float32, the file has two bytes a number."""
    ran = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    weights = sum(file.stat().st_size for file in tiny.rglob("*.safetensors"))
    assert int(ran.stdout) <= 1.2 * weights  # observed: 1.01

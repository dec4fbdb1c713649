# SPDX-License-Identifier: GPL-3.0-or-later
"""Encoded prompts on disk: the text encoder is not read for a known one, and the pictures are the same to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flux3_models import make_model as make_flux3_model
from test_families import CPU, HEIGHT, PROMPT, WIDTH, make_flux1_model, make_flux2_model
from torch import Tensor

from koshi_backend.models import pool
from koshi_backend.models.family import load_family
from koshi_backend.models.model import FluxModel
from koshi_backend.models.text_states import PromptStore
from koshi_backend.paths import prompts_folder

SEA = "a calm sea at dawn, photo"
KEY = "ab" * 32


@pytest.fixture(scope="module", params=["schnell", "klein", "flux.2-dev", "flux.3"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "schnell":
        return make_flux1_model(folder, request.param).folder
    if request.param == "flux.3":
        return make_flux3_model(folder, "klein")
    return make_flux2_model(folder, request.param, tiny).folder


def draw(model: FluxModel, prompt: str = PROMPT) -> Tensor:
    return model.decode(model.denoise(prompt, model.noise(3, WIDTH, HEIGHT), steps=1))


def load(folder: Path, store: PromptStore | None) -> FluxModel:
    return load_family(folder, CPU, torch.float32, "test", store)


def entries(store: PromptStore) -> list[Path]:
    return sorted(store.root.glob("??/*.safetensors"))


def test_a_known_prompt_needs_no_text_encoder(folder: Path, tmp_path: Path) -> None:
    expected, store = draw(load(folder, None)), PromptStore(tmp_path)
    first = load(folder, store)
    assert not first.text.is_read
    assert torch.equal(draw(first), expected)
    assert first.text.is_read and len(entries(store)) == 1
    again = load(folder, PromptStore(tmp_path))
    assert torch.equal(draw(again), expected)
    assert not again.text.is_read
    assert all(part.is_meta for net in again.text.networks for part in net.parameters())
    draw(again, "another word")
    assert again.text.is_read and len(entries(store)) == 2


def test_a_shot_renders_the_same_from_nothing_and_from_known_prompts(tiny: Path) -> None:
    """As the pool loads it, with the store where the user keeps frames."""
    pool._loaded.clear()
    expected = draw(load(tiny, None), SEA)
    for known in (False, True):
        model = pool.load_model(str(tiny), CPU, torch.float32)
        assert torch.equal(draw(model, SEA), expected)
        assert model.text.is_read is not known
        pool._loaded.clear()
    assert len(entries(PromptStore())) == 1 and PromptStore().root == prompts_folder()


def test_an_entry_is_kept_under_all_that_changes_it(tiny: Path, tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "store")

    def read(folder: Path, prompt: str = SEA, dtype: torch.dtype = torch.float32) -> bool:
        """Whether the encoder had to be read."""
        model = load_family(folder, CPU, dtype, "test", store)
        model.text.encode([prompt])
        return model.text.is_read

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert read(tiny)
    assert not read(tiny) and not read(copy)  # the same weights elsewhere
    assert read(tiny, "a calm sea at night, photo") and read(tiny, dtype=torch.bfloat16)
    settings = json.loads((copy / "koshi.json").read_text())
    for change in ({"max_sequence_length": 20}, {"text_encoder_out_layers": settings["text_encoder_out_layers"][::-1]}):
        (copy / "koshi.json").write_text(json.dumps(settings | change))
        assert read(copy) and not read(copy)
    (copy / "koshi.json").write_text(json.dumps(settings))
    template = next(file for file in (copy / "tokenizer").iterdir() if "assistant" in file.read_text(errors="replace"))
    kept = template.read_text()
    template.write_text(kept.replace("assistant", "user"))
    assert read(copy)  # another template makes other tokens of the same text
    template.write_text(kept)
    assert not read(copy)
    (weights,) = (copy / "text_encoder").glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert read(copy)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swapped", "no sums"])
def test_a_damaged_entry_is_dropped_and_made_anew(tiny: Path, tmp_path: Path, damage: str) -> None:
    store, expected = PromptStore(tmp_path), draw(load(tiny, None), SEA)
    draw(load(tiny, store), SEA)
    (file,) = entries(store)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    elif damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data = bytearray()
    elif damage == "swapped":
        store.put(KEY, {"states": torch.zeros(1, 2, 3)})
        data = bytearray(store.path(KEY).read_bytes())
        store.path(KEY).unlink()
    else:
        data = data.replace(b'"sha256"', b'"sha255"')
    file.write_bytes(bytes(data))
    again = load(tiny, PromptStore(tmp_path))
    assert torch.equal(draw(again, SEA), expected)
    assert again.text.is_read
    third = load(tiny, PromptStore(tmp_path))
    assert torch.equal(draw(third, SEA), expected) and not third.text.is_read


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_back_as_they_went_in(tmp_path: Path, dtype: torch.dtype) -> None:
    given = {"states": torch.randn(1, 5, 7).to(dtype), "pooled": torch.randn(1, 3).to(dtype)}
    PromptStore(tmp_path).put(KEY, given)
    found = PromptStore(tmp_path).get(KEY)
    assert found is not None and found.keys() == given.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], given[name]) for name in given)
    assert PromptStore(tmp_path).get("cd" * 32) is None


def test_old_entries_go_and_used_ones_stay(tmp_path: Path) -> None:
    store = PromptStore(tmp_path, limit_gb=50e3 / 1e9)  # some four of these
    keys = [f"{k:02x}" * 32 for k in range(12)]
    for k, key in enumerate(keys):
        store.put(key, {"states": torch.full((1, 100, 25), float(k))})
        assert store.get(keys[0]) is not None  # used again and again
    assert 2 <= len(entries(store)) <= 5
    assert store.get(keys[-1]) is not None and store.get(keys[1]) is None


def test_a_folder_that_cannot_be_written_is_no_error(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    model = load(tiny, PromptStore(tmp_path / "file" / "in it"))
    assert torch.equal(draw(model, SEA), draw(load(tiny, None), SEA))
    assert "not kept" in caplog.text


def test_a_damaged_entry_that_cannot_be_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may only be read, or on Windows while another program has the file open."""

    def refuse(*given: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied")

    store, key = PromptStore(tmp_path), "ab" * 32
    store.put(key, {"states": torch.ones(3)})
    store.path(key).write_bytes(b"no entry")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert store.get(key) is None


def test_what_a_prompt_loses_is_said_although_it_is_known(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long: Any = "a calm sea " * 400
    for known in (False, True):
        caplog.clear()
        model = load(tiny, PromptStore(tmp_path))
        model.text.encode([long])
        assert model.text.is_read is not known
        assert "too long" in caplog.text

# SPDX-License-Identifier: GPL-3.0-or-later
"""Text encoders' files: other tools' names, shards, what is left unread, and damage, which is told by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_models import CPU, PROMPTS, encoder, make_flux1, make_mistral, make_qwen
from transformers import (
    AutoTokenizer,
)

from koshi_backend.errors import KoshiError
from koshi_backend.models.tensor_files import TensorFiles
from koshi_backend.models.text_flux1 import Flux1TextEncoder
from koshi_backend.models.text_mistral import MistralTextEncoder


@pytest.fixture(scope="module")
def qwen(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("qwen")
    return folder, make_qwen(folder, tiny)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    return folder, make_mistral(folder)


@pytest.fixture(scope="module")
def flux1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("flux1")
    return folder, make_flux1(folder)


def parts(tmp_path: Path, source: Path) -> Path:
    """A copy of a model folder."""
    for file in source.rglob("*"):
        if file.is_file():
            place = tmp_path / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return tmp_path


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(file)
    edit(state)
    save_file({name: tensor.clone() for name, tensor in state.items()}, file, {"format": "pt"})


@pytest.mark.parametrize("family", ["qwen", "mistral"])
def test_what_lies_above_the_used_layers_is_never_read(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the vision tower: such tensors may be missing, or be of any shape."""
    source = request.getfixturevalue(family)[0]
    expected = encoder(family, source)[0].encode(PROMPTS).states
    folder = parts(tmp_path, source)

    def spoil(state: dict[str, torch.Tensor]) -> None:
        above = [n for n in state if any(mark in n for mark in ("layers.4.", "layers.5.", "vision", "multi_modal"))]
        assert len(above) >= 22
        for k, name in enumerate(above):
            if k % 2:
                state[name] = torch.full((3,), float("nan"))
            else:
                del state[name]
        state["language_model.lm_head.weight" if family == "mistral" else "lm_head.weight"] = torch.zeros(1)
        del state[next(n for n in state if n.endswith("model.norm.weight"))]

    change(folder / "text_encoder" / "model.safetensors", spoil)
    read: list[str] = []
    original = TensorFiles.read
    monkeypatch.setattr(TensorFiles, "read", lambda self, *given: read.append(given[0]) or original(self, *given))  # type: ignore[func-returns-value]
    ours, _ = encoder(family, folder)
    assert torch.equal(ours.encode(PROMPTS).states, expected)
    assert len(read) == 1 + 4 * (11 if family == "qwen" else 9)  # the embedding and four layers
    assert len(ours.model.layers) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.", "model.", ""])
def test_the_language_model_is_found_under_every_name_it_has_had(
    mistral: tuple[Path, Any], tmp_path: Path, prefix: str
) -> None:
    folder = parts(tmp_path, mistral[0])

    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            if name.startswith("language_model.model."):
                state[prefix + name.removeprefix("language_model.model.")] = state.pop(name)
            elif prefix == "model.language_model.":
                state["model." + name] = state.pop(name)

    change(folder / "text_encoder" / "model.safetensors", rename)
    expected = MistralTextEncoder(mistral[0], CPU, torch.float32).encode(PROMPTS).states
    assert torch.equal(MistralTextEncoder(folder, CPU, torch.float32).encode(PROMPTS).states, expected)


def test_a_whole_t5_s_and_a_whole_clip_s_other_parts_are_left_alone(flux1: tuple[Path, Any], tmp_path: Path) -> None:
    """Other tools' files name the embedding twice, keep counted positions, or hold the halves that FLUX.1 lacks."""
    folder = parts(tmp_path, flux1[0])

    def more_t5(state: dict[str, torch.Tensor]) -> None:
        state["encoder.embed_tokens.weight"] = state.pop("shared.weight")
        state["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch.zeros(1)

    def more_clip(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state["text_model." + name] = state.pop(name)  # as published
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        state["text_projection.weight"] = torch.zeros(2)

    change(folder / "text_encoder_2" / "model.safetensors", more_t5)
    change(folder / "text_encoder" / "model.safetensors", more_clip)
    expected = Flux1TextEncoder(flux1[0], CPU, torch.float32).encode(PROMPTS)
    ours = Flux1TextEncoder(folder, CPU, torch.float32).encode(PROMPTS)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_shards_are_read(flux1: tuple[Path, Any], tmp_path: Path) -> None:
    folder = parts(tmp_path, flux1[0])
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    flux1[1][1].save_pretrained(folder / "text_encoder_2", max_shard_size="20KB")
    assert len(list((folder / "text_encoder_2").glob("model-*.safetensors"))) > 1
    expected = Flux1TextEncoder(flux1[0], CPU, torch.float32).encode(PROMPTS)
    assert torch.equal(Flux1TextEncoder(folder, CPU, torch.float32).encode(PROMPTS).states, expected.states)


WEIGHTS = {
    "qwen": ("text_encoder", "model.layers.3.mlp.up_proj.weight"),
    "mistral": ("text_encoder", "language_model.model.layers.0.self_attn.k_proj.weight"),
    "flux1": ("text_encoder_2", "encoder.block.1.layer.0.SelfAttention.q.weight"),
    "clip": ("text_encoder", "encoder.layers.2.mlp.fc1.bias"),
}


@pytest.mark.parametrize("family", WEIGHTS)
def test_spoilt_files_are_refused_with_the_name(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kind = "flux1" if family == "clip" else family
    folder = parts(tmp_path, request.getfixturevalue(kind)[0])
    part, name = WEIGHTS[family]
    file = folder / part / "model.safetensors"
    whole = file.read_bytes()
    config = (folder / part / "config.json").read_text()

    def refused(code: str, *words: str) -> KoshiError:
        with pytest.raises(KoshiError) as caught:
            encoder(kind, folder)
        assert caught.value.code == code
        assert all(word in caught.value.message for word in words), caught.value.message
        file.write_bytes(whole)
        (folder / part / "config.json").write_text(config)
        return caught.value

    short = name.removeprefix("language_model.").removeprefix("model.")
    change(file, lambda state: state.pop(name))
    refused("bad_model", short, "missing")
    change(file, lambda state: state.update({name: torch.zeros(5, 7)}))
    refused("bad_model", name, "shape (5, 7)")
    change(file, lambda state: state.update({name: state[name].to(torch.int8)}))
    refused("bad_model", name, "whole numbers")
    change(file, lambda state: state.update({"layers.odd.weight": torch.zeros(1)}))
    refused("bad_model", "layers.odd.weight", "does not know")

    def several(state: dict[str, torch.Tensor]) -> None:
        del state[name]
        state["one.more"] = state["another"] = torch.zeros(1)

    change(file, several)
    assert len(refused("bad_model", part, "3 faults").problems) == 3
    file.write_bytes(whole[:-100])
    refused("bad_model_file", part)
    file.write_bytes(b"\x80\x02}q\x00." * 40)  # a pickle
    refused("bad_model_file", part)
    file.unlink()
    refused("bad_model_file", part)
    (folder / part / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused("bad_model", part, "bert")
    (folder / part / "config.json").write_text(config[: len(config) // 2])
    refused("bad_model_file", part)
    size = "d_model" if family == "flux1" else "hidden_size"
    for bad in ('"many"', "-3", "31"):
        inner = json.loads(config)
        (inner["text_config"] if family == "mistral" else inner)[size] = json.loads(bad)
        (folder / part / "config.json").write_text(json.dumps(inner))
        with pytest.raises(KoshiError):
            encoder(kind, folder)


@pytest.mark.parametrize("family", ["qwen", "mistral", "flux1"])
def test_the_tokenizer_of_another_model_is_refused(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """On a GPU a token without an embedding would stop the whole process, in the middle of a shot."""
    folder = parts(tmp_path, request.getfixturevalue(family)[0])
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens([f"<new{k}>" for k in range(400)])
    tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(KoshiError, match="different models"):
        encoder(family, folder)


def test_too_few_layers_are_refused(mistral: tuple[Path, Any], tmp_path: Path) -> None:
    folder = parts(tmp_path, mistral[0])
    (folder / "koshi.json").unlink()  # FLUX.2 dev's own layers, 10, 20 and 30
    with pytest.raises(KoshiError, match="has 6 layers; 30 are needed"):
        MistralTextEncoder(folder, CPU, torch.float32)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Model files that are not as they should be: refused with the tensor's or the file's name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from koshi_backend import create_pipeline
from koshi_backend.errors import KoshiError
from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig
from koshi_backend.models.identity import model_identity
from koshi_backend.models.loader import load_autoencoder, load_transformer
from koshi_backend.models.parts import folder_files
from koshi_backend.models.registry import PARTS, is_whole

CPU = torch.device("cpu")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def change(file: Path, name: str, tensor: torch.Tensor | None) -> None:
    state = load_file(file)
    state.pop(name, None)
    if tensor is not None:
        state[name] = tensor
    save_file(state, file)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("size", [0, 4, 1000, 100_000])
def test_a_file_cut_short_is_named(copy: Path, part: str, size: int) -> None:
    (file,) = (copy / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(KoshiError) as caught:
        create_pipeline(str(copy)).generate_image("a sea", None, width=64, height=64, seed=0)
    assert caught.value.code == "bad_model_file"
    assert part in caught.value.message


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/chat_template.jinja",
        "text_encoder/config.json",
        "transformer/config.json",
        "vae/config.json",
        "koshi.json",
    ],
)
def test_every_small_file_cut_in_half_is_refused_in_words(copy: Path, file: str) -> None:
    path = copy / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(KoshiError) as caught:
        create_pipeline(str(copy)).generate_image("a sea", None, width=64, height=64, seed=0)
    assert caught.value.code in ("bad_model_file", "bad_model")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("transformer/config.json", {"rope_theta": None}),
        ("vae/config.json", {"norm_num_groups": "eight"}),
        ("koshi.json", {"text_encoder_out_layers": []}),
        ("koshi.json", {"text_encoder_out_layers": [-1]}),
        ("koshi.json", {"max_sequence_length": 0}),
        ("koshi.json", {"text_encoder_out_layers": [1, 2, 9]}),
    ],
)
def test_settings_that_make_no_sense_are_refused(copy: Path, file: str, changes: dict[str, object]) -> None:
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(KoshiError, match=r"config|koshi\.json|layers"):
        create_pipeline(str(copy)).load()


def test_missing_unknown_and_misshapen_tensors_are_all_listed(copy: Path) -> None:
    change(copy / WEIGHTS, "proj_out.weight", None)
    change(copy / WEIGHTS, "transformer_blocks.1.attn.to_k.weight", None)
    change(copy / WEIGHTS, "something.else.weight", torch.zeros(3))
    change(copy / WEIGHTS, "norm_out.linear.weight", torch.zeros(512, 255))
    with pytest.raises(KoshiError) as caught:
        load_transformer(copy / "transformer", CPU, torch.float32)
    found = {p["field"]: p["message"] for p in caught.value.problems}
    assert "missing" in found["proj_out.weight"]
    assert "missing" in found["transformer_blocks.1.attn.to_k.weight"]
    assert "does not know" in found["something.else.weight"]
    assert "(512, 255)" in found["norm_out.linear.weight"]


def test_shards_are_read_and_a_missing_one_is_named(copy: Path) -> None:
    file = copy / WEIGHTS
    state = load_file(file)
    whole = load_transformer(copy / "transformer", CPU, torch.float32).state_dict()
    names = sorted(state)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for shard, members in shards.items():
        save_file({n: state[n] for n in members}, file.parent / shard)
    index = {"weight_map": {n: shard for shard, members in shards.items() for n in members}}
    (file.parent / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    file.unlink()
    again = load_transformer(copy / "transformer", CPU, torch.float32).state_dict()
    assert all(torch.equal(whole[n], again[n]) for n in whole)
    (file.parent / "b.safetensors").unlink()
    with pytest.raises(KoshiError, match=r"lacks b\.safetensors"):
        load_transformer(copy / "transformer", CPU, torch.float32)


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', "[]"])
def test_a_broken_shard_index_is_named(copy: Path, text: str) -> None:
    (copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    with pytest.raises(KoshiError, match="index"):
        load_transformer(copy / "transformer", CPU, torch.float32)


def test_the_small_decoder_comes_with_the_whole_encoder_in_one_native_file(tmp_path: Path) -> None:
    config = AutoencoderConfig(widths=(32, 32, 64, 64), decoder_widths=(32, 64, 96, 96))
    net = Autoencoder(config)
    file = tmp_path / "full_encoder_small_decoder.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, file)
    loaded = load_autoencoder(file, CPU, torch.float32)
    assert loaded.config == config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), net.parameters(), strict=True))


def test_a_wrong_size_is_told_by_the_tensor_that_differs_from_the_rest(copy: Path) -> None:
    for name in ("x_embedder.weight", "single_transformer_blocks.0.attn.norm_q.weight"):
        state = load_file(copy / WEIGHTS)
        change(copy / WEIGHTS, name, torch.cat([state[name], state[name][:1]]))
        with pytest.raises(KoshiError) as caught:
            load_transformer(copy / "transformer", CPU, torch.float32)
        assert [fault["field"] for fault in caught.value.problems] == [name]
        change(copy / WEIGHTS, name, state[name])


def test_halves_that_cannot_be_joined_are_named_together(copy: Path) -> None:
    change(copy / WEIGHTS, "transformer_blocks.0.attn.to_k.weight", torch.zeros(256, 255))
    with pytest.raises(KoshiError, match=r"attn\.to_q\.weight \+ .*\(256, 255\).* must come to \(768, 256\)"):
        load_transformer(copy / "transformer", CPU, torch.float32)


def test_a_half_finished_download_is_not_taken_for_a_model(tiny: Path, copy: Path) -> None:
    assert is_whole(tiny, PARTS["flux2"])
    (copy / WEIGHTS).unlink()
    assert not is_whole(copy, PARTS["flux2"])
    shutil.rmtree(copy / "vae")
    assert not is_whole(copy, PARTS["flux2"])


def test_the_wrong_kind_of_file_is_refused(tiny: Path) -> None:
    with pytest.raises(KoshiError, match=r"no FLUX transformer"):
        load_transformer(tiny / "vae", CPU, torch.float32)
    with pytest.raises(KoshiError, match=r"no FLUX autoencoder"):
        load_autoencoder(tiny / "transformer", CPU, torch.float32)


def test_a_folder_without_its_parts_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(KoshiError, match="lacks tokenizer"):
        create_pipeline(str(copy)).load()


def test_the_identity_follows_the_bytes_not_the_place(tiny: Path, copy: Path) -> None:
    assert model_identity(copy) == model_identity(tiny)
    change(copy / WEIGHTS, "proj_out.weight", torch.zeros(128, 256, dtype=torch.bfloat16))
    assert model_identity(copy) != model_identity(tiny)


def test_a_file_whose_name_ends_in_capitals_counts_too(copy: Path) -> None:
    """It is read as any other; Windows has such names. Left out, a retrained model would serve old pictures."""
    file = copy / "MODEL.SAFETENSORS"
    shutil.copy(copy / WEIGHTS, file)
    files = replace(folder_files(copy), transformer=file)
    before = model_identity(files)
    change(file, "proj_out.weight", torch.zeros(128, 256, dtype=torch.bfloat16))
    assert model_identity(files) != before


def test_what_cannot_be_remembered_leaves_nothing_behind(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk is full, or another program has the file open on Windows."""
    monkeypatch.setenv("KOSHI_CACHE", str(copy / "cache"))

    def refuse(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert model_identity(copy) and not list((copy / "cache").iterdir())


def test_bfloat16_keeps_the_statistics_in_float32(tiny: Path) -> None:
    net = load_autoencoder(tiny / "vae", CPU, torch.bfloat16)
    assert net.decoder.conv_in.weight.dtype == torch.bfloat16
    assert net.bn.running_mean is not None
    assert net.bn.running_mean.dtype == torch.float32

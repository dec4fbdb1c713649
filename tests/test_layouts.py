# SPDX-License-Identifier: GPL-3.0-or-later
"""One model in every layout that people have on their disks: found, drawn with, and refused by name when damaged.

The files are written by safetensors, diffusers and transformers themselves, from small random models whose settings
are those that a file without config.json is taken to have.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from conftest import ROOT
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_families import make_flux1_model, make_flux2_model
from test_flux1 import FULL_AUTOENCODER, randomise

from koshi_backend import create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.checkpoint import read_header
from koshi_backend.models.checkpoint_check import as_text, check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer
from koshi_backend.models.identity import model_identity
from koshi_backend.models.loader import find_family, load_autoencoder, load_transformer, open_transformer
from koshi_backend.models.pool import installed_folder, model_files
from koshi_backend.models.registry import MODELS, find_model, find_traits
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

CPU = torch.device("cpu")
WIDTH, HEIGHT = 64, 48
COMFY = "model.diffusion_model."
HUB_NAME = {"flux1": "flux.1-schnell", "flux2": "flux.2-klein-4b"}
TEXTS = {"flux1": {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}, "flux2": {"text_encoder": "qwen3_4b"}}


@dataclass(frozen=True)
class Made:
    """A diffusers folder, and the same weights by native names."""

    family: str
    folder: Path
    transformer: dict[str, torch.Tensor]
    autoencoder: dict[str, torch.Tensor]
    picture: torch.Tensor

    def texts(self) -> dict[str, dict[str, torch.Tensor]]:
        return {part: load_file(self.folder / part / "model.safetensors") for part in TEXTS[self.family]}


def draw(name: str | Path) -> torch.Tensor:
    model = load_family(model_files(str(name)), CPU, torch.float32, "test")
    noise = model.noise(3, WIDTH, HEIGHT)
    return model.decode(model.denoise("a word", noise, steps=2))


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    widths: dict[str, Any] = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 32}
    if request.param == "flux1":
        make_flux1_model(folder, "schnell")
        net: Any = FluxTransformer2DModel(
            num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=32,
            pooled_projection_dim=24, axes_dims_rope=(4, 14, 14), guidance_embeds=False,
        )  # fmt: skip
        randomise(net, 1).save_pretrained(folder / "transformer")
        vae: Any = AutoencoderKL(**widths, **FULL_AUTOENCODER)
    else:
        make_flux2_model(folder, "klein", tiny)
        vae = AutoencoderKLFlux2(**widths)
    randomise(vae, 5).save_pretrained(folder / "vae")
    model = load_family(folder, CPU, torch.float32, "test")
    states = [
        {name: tensor.clone().contiguous() for name, tensor in part.state_dict().items()}
        for part in (model.transformer, model.autoencoder)
    ]
    return Made(request.param, folder, *states, draw(folder))


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, for each test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


# --- the layouts: each returns the model's name -----------------------------------------------------------------


def settings_only(made: Made, folder: Path) -> None:
    """Tokenizers, the text encoders' configurations and koshi.json, without any weights."""
    keep = shutil.ignore_patterns("transformer", "vae", "scheduler", "model_index.json", "*.safetensors")
    shutil.copytree(made.folder, folder, ignore=keep, dirs_exist_ok=True)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def diffusers_folder(made: Made, place: Path) -> Path:
    return Path(shutil.copytree(made.folder, place))


def sharded(made: Made, place: Path) -> Path:
    shutil.copytree(made.folder, place)
    kind = FluxTransformer2DModel if made.family == "flux1" else Flux2Transformer2DModel
    net = kind.from_pretrained(place / "transformer")
    shutil.rmtree(place / "transformer")
    net.save_pretrained(place / "transformer", max_shard_size="300KB")
    assert len(list((place / "transformer").glob("*.safetensors"))) > 2
    return place


def native(made: Made, place: Path) -> Path:
    """Beside it the parts of a diffusers folder."""
    shutil.copytree(made.folder, place, ignore=shutil.ignore_patterns("transformer", "model_index.json"))
    save_file(made.transformer, place / "mine.safetensors")
    return place / "mine.safetensors"


def comfy_prefixed(made: Made, place: Path) -> Path:
    """Beside it the native autoencoder."""
    shutil.copytree(made.folder, place, ignore=shutil.ignore_patterns("transformer", "vae", "model_index.json"))
    save_file(prefixed(made.transformer, COMFY), place / "mine.safetensors")
    save_file(made.autoencoder, place / "ae.safetensors")
    return place / "mine.safetensors"


def repository_root(made: Made, place: Path) -> Path:
    """As Black Forest Labs' repositories without the transformer's folder; the folder is named."""
    file = comfy_prefixed(made, place)
    save_file(made.transformer, file)
    file.rename(place / MODELS[HUB_NAME[made.family]].file)
    return place


def all_in_one(made: Made, place: Path) -> Path:
    settings_only(made, place)
    whole = prefixed(made.transformer, COMFY) | prefixed(made.autoencoder, "vae.")
    for part, state in made.texts().items():
        name = TEXTS[made.family][part]
        whole |= prefixed(state, f"text_encoders.{name}.transformer.")
        whole[f"text_encoders.{name}.logit_scale"] = torch.tensor(4.6055)  # as ComfyUI saves it
    save_file(whole, place / "all.safetensors")
    return place / "all.safetensors"


def comfy_tree(made: Made, place: Path) -> Path:
    """Without tokenizers, which the hub's cache has; other models' files lie there too."""
    for folder in ("diffusion_models/flux", "vae", "text_encoders"):
        (place / folder).mkdir(parents=True)
    save_file(made.transformer, place / "diffusion_models" / "flux" / "mine.safetensors")
    save_file(made.autoencoder, place / "vae" / "named-as-you-like.safetensors")
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}, place / "vae" / "sd.safetensors")
    (place / "vae" / "broken.safetensors").write_bytes(b"12")
    for part, state in made.texts().items():
        save_file(state, place / "text_encoders" / f"{TEXTS[made.family][part]}.safetensors")
    save_file({"model.embed_tokens.weight": torch.zeros(9, 31)}, place / "text_encoders" / "other.safetensors")
    settings_only(made, hub_snapshot(place.parent, MODELS[HUB_NAME[made.family]].repository))
    return place / "diffusion_models" / "flux" / "mine.safetensors"


def hub_snapshot(place: Path, repository: str) -> Path:
    """An empty snapshot in the hub's cache, which lies in `place`."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = place / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    return folder / "snapshots" / commit


def hub_cache(made: Made, place: Path) -> Path:
    """As the hub's client leaves it: links to blobs."""
    shutil.copytree(made.folder, place / "copy")
    folder = hub_snapshot(place.parent, MODELS[HUB_NAME[made.family]].repository)
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir()
    for k, file in enumerate(sorted(f for f in (place / "copy").rglob("*") if f.is_file())):
        link = folder / file.relative_to(place / "copy")
        link.parent.mkdir(exist_ok=True)
        file.rename(blobs / f"{k:040x}")
        link.symlink_to(blobs / f"{k:040x}")
    return Path(HUB_NAME[made.family])


LAYOUTS: list[Callable[[Made, Path], Path]] = [
    diffusers_folder, sharded, native, comfy_prefixed, repository_root, all_in_one, comfy_tree, hub_cache
]  # fmt: skip
EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


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
    with pytest.raises(KoshiError, match=r"not a safetensors file|\.safetensors"):
        create_pipeline(str(tmp_path / name))


# --- headers ----------------------------------------------------------------------------------------------------

KINDS = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.float8_e4m3fn, torch.bool]
TENSORS = st.dictionaries(
    st.text("abcö.", min_size=1, max_size=6),
    st.tuples(st.lists(st.integers(0, 3), max_size=3), st.sampled_from(KINDS)),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(tensors=TENSORS, cut=st.integers(1, 40), at=st.integers(0, 200), byte=st.integers(0, 255))
def test_headers_are_read_as_the_format_s_own_library_reads_them(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], cut: int, at: int, byte: int
) -> None:
    """Cut short they are refused; with a byte changed they are refused, or hold places that are inside the file."""
    file = tmp_path_factory.mktemp("header") / "a.safetensors"
    save_file({name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in tensors.items()}, file)
    ours = read_header(file)
    with safe_open(file, "pt") as theirs:
        assert set(ours) == set(theirs.keys())
        for name, tensor in ours.items():
            part = theirs.get_slice(name)
            assert (list(tensor.shape), tensor.kind) == (part.get_shape(), part.get_dtype())
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    with pytest.raises(KoshiError, match="cut short"):
        read_header(file)
    changed = bytearray(whole)
    changed[at % len(changed)] = byte
    file.write_bytes(changed)
    os.utime(file, ns=(at, byte))
    try:
        for tensor in read_header(file).values():
            assert 8 <= tensor.begin <= tensor.end <= len(whole)
    except KoshiError as error:
        assert error.code == "bad_model_file"


def test_a_klein_4b_file_is_verified_by_its_header(tmp_path: Path) -> None:
    """7.75 GB with holes for weights: reading them would take many seconds and as much memory."""
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in Flux2Transformer(Flux2Config()).state_dict().items()}
    file = tmp_path / "flux-2-klein-4b.safetensors"
    size = write_sparse(file, shapes)
    assert size > 7.75e9
    opened = open_transformer(file)
    assert sum(math.prod(shape) for shape in opened.files.shapes.values()) == 3_875_544_576
    report = check_files(str(file))
    assert report["taken_for"] == "FLUX.2 Klein 4B"
    assert [part["part"] for part in report["parts"]] == ["transformer"]
    lacking = {fault["field"]: fault["hint"] for fault in report["problems"]}
    assert set(lacking) == {"tokenizer", "vae"}
    assert all("flux.2-klein-4b" in hint for hint in lacking.values())
    name = "single_blocks.19.linear2.weight"
    write_sparse(file, {**shapes, name: (3072, 12287)})
    assert [fault["field"] for fault in check_files(str(file))["problems"]] == [name]


def write_sparse(file: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """A bfloat16 file with a true header and nothing behind it; returns its size."""
    table, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(table).encode()
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + at)
    return file.stat().st_size


# --- names and what they say ------------------------------------------------------------------------------------


def test_what_shapes_do_not_tell_is_told_by_the_name(made: Made, tmp_path: Path) -> None:
    file = native(made, tmp_path / "model")
    if made.family == "flux1":
        assert not find_traits(str(file)).embeds
        with pytest.raises(KoshiError, match=r"embeds no guidance, unlike FLUX\.1 dev"):
            find_traits(f"{file}#flux.1-dev")
        with pytest.raises(KoshiError, match=r"FLUX\.1 transformer"):
            find_traits(f"{file}#flux.2-klein-4b")
        return
    assert not find_traits(str(file)).contrasted
    base = find_traits(f"{file}#flux.2-klein-base-9b")
    assert base == MODELS["flux.2-klein-base-9b"].traits
    assert find_traits(f"{made.folder}#flux.2-klein-base-9b") == base
    assert find_model(f"{file}#flux.2-klein-base-9b") == file
    named = file.rename(file.with_name("flux-2-klein-base-4b.safetensors"))
    assert find_traits(str(named)) == MODELS["flux.2-klein-base-4b"].traits
    with pytest.raises(KoshiError, match="no model's name"):
        find_traits(f"{named}#klein")
    with pytest.raises(KoshiError, match=r"embeds no guidance, unlike FLUX\.2 dev"):
        find_traits(f"{named}#flux.2-dev")
    odd = Path(shutil.copytree(made.folder, tmp_path / "a#flux.2-dev"))
    assert not find_traits(str(odd)).embeds
    assert find_traits(f"{odd}#flux.2-klein-9b-kv").cached
    usual, cached = (model_identity(model_files(name)) for name in (str(odd), f"{odd}#flux.2-klein-9b-kv"))
    assert usual != cached
    assert load_family(model_files(f"{odd}#flux.2-klein-9b-kv"), CPU, torch.float32, "test").cached


def test_diffusers_folders_go_before_a_file_at_the_root_where_they_are_whole(made: Made, tmp_path: Path) -> None:
    place = diffusers_folder(made, tmp_path / "model")
    save_file(made.transformer, place / "flux.safetensors")
    save_file(made.autoencoder, place / "ae.safetensors")
    assert find_model(str(place)) == place
    shutil.rmtree(place / "transformer")
    assert find_model(str(place)) == place / "flux.safetensors"
    assert torch.equal(draw(place), made.picture)
    save_file(made.transformer, place / "other.safetensors")
    with pytest.raises(KoshiError, match=r"flux\.safetensors, other\.safetensors"):
        find_model(str(place))


def test_a_single_file_in_the_hub_s_cache_is_enough(made: Made, tmp_path: Path) -> None:
    info = MODELS[HUB_NAME[made.family]]
    folder = hub_snapshot(tmp_path, info.repository)
    assert installed_folder(info.name) is None
    native(made, folder / "new").rename(folder / info.file)
    for part in (folder / "new").iterdir():
        part.rename(folder / part.name)
    assert installed_folder(info.name) == folder
    assert torch.equal(draw(info.name), made.picture)


def test_parts_come_from_an_installed_model_of_the_same_text_width(made: Made, tmp_path: Path) -> None:
    hub_cache(made, tmp_path / "model")
    file = tmp_path / "mine" / "tuned.safetensors"
    file.parent.mkdir()
    save_file(made.transformer, file)
    assert torch.equal(draw(file), made.picture)
    text = "txt_in.weight"
    wide = torch.cat([made.transformer[text]] * 2, dim=1).contiguous()
    save_file({**made.transformer, text: wide}, file)
    with pytest.raises(KoshiError, match=rf"txt_in\.weight takes {wide.shape[1]} channels"):
        draw(file)


def test_all_lacking_parts_are_listed(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "alone.safetensors"
    save_file(made.transformer, file)
    with pytest.raises(KoshiError) as caught:
        draw(file)
    assert {fault["field"] for fault in caught.value.problems} == {"tokenizer", "vae"}
    settings_only(made, tmp_path)
    (tmp_path / "ae.safetensors").write_bytes(b"1")
    with pytest.raises(KoshiError) as caught:
        draw(file)
    lacking = {fault["field"] for fault in caught.value.problems}
    assert lacking == {"vae", *TEXTS[made.family], "files that cannot be read"}
    assert "ae.safetensors" in caught.value.message


def test_a_file_draws_through_every_door(tiny: Path, tmp_path: Path) -> None:
    """koshi-tiny as one file: its other parts are those of the embedded one, whose text is as wide."""
    file = tmp_path / "tuned.safetensors"
    net = load_transformer(tiny / "transformer", CPU, torch.bfloat16)
    save_file(net.state_dict(), file)
    ours, theirs = (
        create_pipeline(name).generate_image("a sea", None, width=64, height=64, seed=1)
        for name in (str(file), "koshi-tiny")
    )
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    shot = load_shot({"model": str(file), "width": 64, "height": 64, "frames": 2, "prompts": [{"text": "a sea"}]})
    assert len({frame.png for frame in render_shot(shot, store=FrameStore(tmp_path / "store"))}) == 2


def test_a_shot_with_a_file_is_checked_without_torch(made: Made, tmp_path: Path) -> None:
    file = native(made, tmp_path / "model")
    code = f"import sys; from koshi_backend.models.registry import find_traits; print(find_traits({str(file)!r}).steps)"
    code += "; assert not {'torch', 'safetensors', 'transformers'} & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "4", ran.stderr


# --- the small decoder ------------------------------------------------------------------------------------------


def test_a_decoder_beside_the_model_takes_the_place_of_its_own(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = randomise(
        AutoencoderKLFlux2(
            block_out_channels=(32, 32, 64, 64), decoder_block_out_channels=(32, 32, 32, 64), layers_per_block=1,
            norm_num_groups=32,
        ),
        8,
    )  # fmt: skip
    small.save_pretrained(tmp_path / "small")
    theirs = load_autoencoder(tmp_path / "small", CPU, torch.float32).state_dict()
    bare = {n.removeprefix("decoder."): t.contiguous() for n, t in theirs.items() if n.startswith("decoder.")}
    for layout in (diffusers_folder, native, all_in_one):
        name = layout(made, tmp_path / layout.__name__)
        before = model_identity(model_files(str(name)))
        place = name if name.is_dir() else name.parent
        save_file(bare, place / "small_decoder.safetensors")
        if made.family == "flux1":  # whose latents it does not know
            assert torch.equal(draw(name), made.picture)
            continue
        with caplog.at_level("INFO"):
            model = load_family(model_files(str(name)), CPU, torch.float32, "test")
        assert "small_decoder.safetensors takes the place" in caplog.text
        assert model_identity(model_files(str(name))) != before
        ours = model.autoencoder.state_dict()
        for tensor in ours:
            expected = theirs if tensor.startswith("decoder.") else made.autoencoder
            assert torch.equal(ours[tensor], expected[tensor]), tensor
        save_file({**bare, "up.9.odd": torch.zeros(1)}, place / "small_decoder.safetensors")
        with pytest.raises(KoshiError, match=r"decoder\.up\.9\.odd"):
            draw(name)
        save_file(made.autoencoder, place / "small_decoder.safetensors")
        with pytest.raises(KoshiError, match="not a decoder alone"):
            draw(name)


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
from koshi_backend.models.registry import TINY_FOLDER
def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
def load():
    return load_family(TINY_FOLDER, torch.device("cpu"), torch.bfloat16, "test")
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
    ran = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    weights = sum(file.stat().st_size for file in tiny.rglob("*.safetensors"))
    assert int(ran.stdout) <= 1.2 * weights  # observed: 0.99

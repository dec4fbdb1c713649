# SPDX-License-Identifier: GPL-3.0-or-later
"""What the headers of a model's files say, what names add to it, and which other files go with one."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from conftest import ROOT
from diffusers import AutoencoderKLFlux2
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import (
    CPU,
    HUB_NAME,
    TEXTS,
    Made,
    all_in_one,
    diffusers_folder,
    draw,
    hub_cache,
    hub_snapshot,
    make,
    native,
    settings_only,
)
from safetensors import safe_open
from safetensors.torch import save_file
from test_flux1 import randomise

from koshi_backend import create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.checkpoint import read_header
from koshi_backend.models.checkpoint_check import check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer
from koshi_backend.models.identity import model_identity
from koshi_backend.models.loader import load_autoencoder, load_transformer, open_transformer
from koshi_backend.models.pool import installed_folder, model_files
from koshi_backend.models.registry import MODELS, find_model, find_traits
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

KINDS = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.float8_e4m3fn, torch.bool]
TENSORS = st.dictionaries(
    st.text("abcö.", min_size=1, max_size=6),
    st.tuples(st.lists(st.integers(0, 3), max_size=3), st.sampled_from(KINDS)),
    max_size=5,
)


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp(request.param), tiny)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, for each test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


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

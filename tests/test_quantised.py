# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantised files by their formats' own libraries: they draw their source's picture, and damage is named."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import bitsandbytes
import gguf
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from flux3_models import make_model
from gguf.quants import dequantize
from layouts import Made, make
from layouts import draw as draw_word
from quantised_files import FORMATS, State, as_bytes, ggml, is_layer
from safetensors.torch import save_file
from test_families import psnr
from torch import nn

from koshi_backend.models.family import load_family
from koshi_backend.models.ggml_blocks import NUMBERS, SCALES
from koshi_backend.models.loader import load_transformer, open_transformer
from koshi_backend.models.model import FluxModel
from koshi_backend.models.packed import Blocks, Four, eight_as_float
from koshi_backend.models.parts import single_files
from koshi_backend.models.pool import model_files
from koshi_backend.models.quantise import NF4, Quantise, quantised
from koshi_backend.models.quantised import QuantisedLinear, quantised_layers
from koshi_backend.models.registry import MODELS, published
from koshi_backend.models.tensor_files import TensorFiles
from koshi_backend.models.tensor_kinds import PACKED

CPU = torch.device("cpu")
# PSNR in dB of koshi-tiny's pictures against those of its bfloat16 source, seen and asked for.
LEAST = {
    "comfy": (42.6, 38), "noted": (42.6, 38), "scaled_fp8": (42.6, 38), "cast": (38.6, 34), "int8": (52.7, 48),
    "nf4": (31.0, 27), "nf4_plain": (31.1, 27), "BF16": (160, 159), "F16": (135.7, 110), "Q8_0": (55.6, 50),
    "Q5_1": (38.4, 34), "Q5_0": (37.7, 34), "Q4_1": (32.2, 28), "Q4_0": (29.1, 25),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tiny: Path) -> State:
    """koshi-tiny's transformer by native names, in bfloat16."""
    net = load_transformer(tiny / "transformer", CPU, torch.bfloat16)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.fixture(scope="module")
def around(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of koshi-tiny but its transformer."""
    keep = shutil.ignore_patterns("transformer", "model_index.json")
    return Path(shutil.copytree(tiny, tmp_path_factory.mktemp("around") / "model", ignore=keep))


@pytest.fixture(scope="module")
def files(source: State, around: Path) -> dict[str, Path]:
    """koshi-tiny in every format."""
    found = {}
    for name, (ending, write) in FORMATS.items():
        found[name] = around / f"{name}{ending}"
        write(source, found[name])
    return found


def load(file: Path, dtype: torch.dtype = torch.float32) -> FluxModel:
    return load_family(single_files(file), CPU, dtype, "test")


def draw(model: FluxModel, side: int = 128) -> torch.Tensor:
    prompts = ("a modern city at night, photo", "a calm sea at dawn, watercolor")
    return torch.cat([
        model.decode(model.denoise(prompt, model.noise(seed, side, side), steps=4))
        for seed, prompt in enumerate(prompts)
    ])  # fmt: skip


@pytest.fixture(scope="module")
def expected(tiny: Path) -> torch.Tensor:
    return draw(load_family(tiny, CPU, torch.float32, "test"))


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_koshi_tiny_draws_its_picture_in_every_format(
    files: dict[str, Path], expected: torch.Tensor, name: str
) -> None:
    model = load(files[name])
    assert psnr(draw(model), expected) > LEAST[name][1]
    layers = quantised_layers(model.transformer)
    assert layers == {"BF16": 0, "F16": 0, "cast": 35}.get(name, 26)  # cast: also what is outside of the blocks
    held = sum(part.nbytes for part in model.transformer.parameters())
    assert held < files[name].stat().st_size * 1.1


@pytest.mark.parametrize("quantise", ["fp8", "int8", "nf4"])
def test_weights_quantised_on_load_draw_the_picture(tiny: Path, expected: torch.Tensor, quantise: Quantise) -> None:
    model = load_family(tiny, CPU, torch.float32, "test", quantise=quantise)
    assert quantised_layers(model.transformer) == 26
    assert psnr(draw(model), expected) > {"fp8": 38, "int8": 48, "nf4": 27}[quantise]  # seen: 42.8, 52.7, 31.1


def test_quantised_layers_compute_in_bfloat16_too(files: dict[str, Path], tiny: Path) -> None:
    expected = draw(load_family(tiny, CPU, torch.bfloat16, "test"), 64)
    for name in ("comfy", "Q8_0"):
        assert psnr(draw(load(files[name], torch.bfloat16), 64), expected) > 30  # seen: 34 and 35; bfloat16's own noise


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp(request.param) / "model", tiny)


# Seen with FLUX.1: 36.9, 47.9, 25.8, 48.4 and 30.1 dB. Random weights are as large everywhere, hard on few bits.
@pytest.mark.parametrize(("name", "least"), [("noted", 32), ("int8", 43), ("nf4", 21), ("Q8_0", 43), ("Q4_0", 24)])
def test_random_models_of_both_families_draw_their_picture(made: Made, tmp_path: Path, name: str, least: float) -> None:
    ending, write = FORMATS[name]
    away = shutil.ignore_patterns("transformer", "model_index.json")
    file = Path(shutil.copytree(made.folder, tmp_path / "model", ignore=away)) / f"mine{ending}"
    write({key: tensor.to(torch.bfloat16) for key, tensor in made.transformer.items()}, file)
    model = load_family(model_files(str(file)), CPU, torch.float32, "test")
    assert quantised_layers(model.transformer) > 10
    assert psnr(model.decode(model.denoise("a word", model.noise(3, 64, 48), steps=2)), made.picture) > least


def test_bitsandbytes_layers_of_a_diffusers_folder_are_joined(made: Made, tmp_path: Path) -> None:
    """Queries, keys and values are matrices of their own there, and the last layer's halves have changed places."""
    folder = Path(shutil.copytree(made.folder, tmp_path / "model"))
    kind = FluxTransformer2DModel if made.family == "flux1" else Flux2Transformer2DModel
    net = kind.from_pretrained(folder / "transformer")
    for name, layer in list(net.named_modules()):
        if type(layer) is nn.Linear:
            four = bitsandbytes.nn.Linear4bit(
                layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4"
            )
            four.load_state_dict(layer.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, four.to("cpu"))  # quantised here
    (file,) = (folder / "transformer").glob("*.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, file)
    assert psnr(draw_word(folder), made.picture) > {"flux1": 18, "flux2": 22}[made.family]  # seen: 22.6 and 27.2


def test_flux3_is_read_from_gguf(tmp_path: Path) -> None:
    """No such file is known to be published; its names would be those of its native files."""
    make_model(tmp_path / "model", "distilled")
    net = open_transformer(tmp_path / "model" / "transformer").load(CPU, torch.float32)
    state = {name: tensor.float() for name, tensor in net.state_dict().items()}
    ggml("Q8_0")(state, tmp_path / "mine.gguf")
    found = open_transformer(tmp_path / "mine.gguf").load(CPU, torch.float32)
    for name, layer in found.named_modules():
        if isinstance(layer, QuantisedLinear):
            error = (layer.weight - state[f"{name}.weight"]).abs().max() / state[f"{name}.weight"].abs().max()
            assert error < 1 / 200  # of the largest number: half a step of 127, and the rounding of the step


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKED)
def test_blocks_are_decoded_as_the_gguf_package_decodes_them(kind: str) -> None:
    """To the bit, for all bytes: also K kinds, which the package cannot write."""
    bits = np.random.default_rng(sum(map(ord, kind)))
    blocks = bits.integers(0, 256, (2000, PACKED[kind].bits // 8), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = (bits.standard_normal((2000, 1)) * 10 ** bits.uniform(-7, 3, (2000, 1))).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    theirs = dequantize(blocks, gguf.GGMLQuantizationType[kind])
    ours = NUMBERS[kind](torch.from_numpy(blocks)).numpy()
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (PACKED[kind].numbers, PACKED[kind].bits // 8)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K"])
def test_k_kinds_are_read_from_a_file(kind: str, tmp_path: Path) -> None:
    """Rows of several blocks, in a matrix that is decoded in several pieces."""
    numbers, rows, columns = PACKED[kind], 700, 512
    bits = np.random.default_rng(3)
    data = bits.integers(0, 256, (rows, columns // numbers.numbers * numbers.bits // 8), dtype=np.uint8)
    blocks = data.reshape(-1, numbers.bits // 8)
    for at in SCALES[kind]:
        blocks[:, at : at + 2] = bits.uniform(0.001, 1, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    writer = gguf.GGUFWriter(str(tmp_path / "one.gguf"), arch="flux")
    writer.add_array("some.words", ["one", "two"])
    writer.add_tensor("img_in.weight", data, raw_dtype=gguf.GGMLQuantizationType[kind])
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    files = TensorFiles(tmp_path / "one.gguf", "transformer")
    assert files.shapes == {"img_in.weight": (rows, columns)}
    theirs = dequantize(data, gguf.GGMLQuantizationType[kind])
    packed = files.packed("img_in.weight")
    assert isinstance(packed.form, Blocks)
    assert torch.equal(packed.dense(torch.float32), torch.from_numpy(theirs))
    assert torch.equal(files.read("img_in.weight"), torch.from_numpy(theirs))


@pytest.mark.parametrize(("kind", "dtype"), [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)])
def test_every_float8_number_keeps_its_value(kind: str, dtype: torch.dtype) -> None:
    codes = torch.arange(256).to(torch.uint8)
    theirs = codes.view(dtype).float()
    there = torch.isfinite(theirs)
    assert torch.equal(eight_as_float(codes, kind).float()[there], theirs[there])


@pytest.mark.parametrize("nested", [True, False])
def test_four_bits_are_decoded_as_bitsandbytes_decodes_them(nested: bool, tmp_path: Path) -> None:
    """To the bit."""
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
    codes, facts = quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    parts = {f"x.weight.{key}": tensor for key, tensor in facts.as_dict(packed=True).items()}
    save_file({"x.weight": codes, **parts}, tmp_path / "one.safetensors")
    packed = TensorFiles(tmp_path / "one.safetensors").packed("x.weight")
    assert torch.equal(packed.dense(torch.float32), dequantize_4bit(codes, facts))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8_tensorwise", "int8 by rows"])
def test_eight_bits_are_decoded_as_comfyuis_library_decodes_them(kind: str, tmp_path: Path) -> None:
    """To the bit, where that library is there: it is 190 MB large, and not asked for by `make test`. The writers of
    quantised_files.py, which are always tried, round some numbers to their other neighbour."""
    kitchen = pytest.importorskip("comfy_kitchen")
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    if kind == "float8_e4m3fn":
        scale = weight.float().abs().amax() / 448
        codes = kitchen.quantize_per_tensor_fp8(weight, scale, torch.float8_e4m3fn)
        theirs = kitchen.dequantize_per_tensor_fp8(codes, scale, torch.float32)
    else:
        write = kitchen.quantize_int8_rowwise if "rows" in kind else kitchen.quantize_int8_tensorwise
        codes, scale = write(weight)
        theirs = kitchen.dequantize_int8_simple(codes, scale)
    note = as_bytes({"format": kind.replace("8 by rows", "8_tensorwise")})
    file = tmp_path / "x.safetensors"
    save_file({"x.weight": codes.contiguous(), "x.weight_scale": scale, "x.comfy_quant": note}, file)
    dense = TensorFiles(file).packed("x.weight").dense(torch.float32)
    assert torch.equal(dense, theirs.float()) and (dense - weight).abs().max() < 0.2


@pytest.mark.parametrize(("kind", "least"), [("float8_e4m3fn", 36), ("int8_tensorwise", 47)])
def test_a_model_that_comfyuis_library_has_quantised_draws_its_picture(
    kind: str, least: float, source: State, around: Path, expected: torch.Tensor
) -> None:
    """Where that library is there. Seen: 40.3 and 51.4 dB."""
    kitchen = pytest.importorskip("comfy_kitchen")
    whole = dict(source)
    for name in [name for name, tensor in source.items() if is_layer(name, tensor)]:
        layer, weight = name.removesuffix(".weight"), source[name]
        if kind == "float8_e4m3fn":
            scale = weight.float().abs().amax() / 448
            codes = kitchen.quantize_per_tensor_fp8(weight, scale, torch.float8_e4m3fn)
        else:
            codes, scale = kitchen.quantize_int8_rowwise(weight)
        whole[name], whole[f"{layer}.weight_scale"] = codes.contiguous(), scale
        whole[f"{layer}.comfy_quant"] = as_bytes({"format": kind})
    file = around / f"kitchen_{kind}.safetensors"
    save_file(whole, file)
    model = load(file)
    assert quantised_layers(model.transformer) == 26
    assert psnr(draw(model), expected) > least


def test_a_block_may_be_longer_than_what_is_left() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    whole = torch.cat([weight.flatten(), torch.zeros(29)]).view(1, 64)
    expected = quantised(whole, "nf4").dense(torch.float32).flatten()[:35].view(5, 7)
    assert torch.equal(quantised(weight, "nf4").dense(torch.float32), expected)


def test_nf4_made_on_load_is_what_bitsandbytes_makes() -> None:
    weight = torch.randn(64, 192, generator=torch.Generator().manual_seed(2))
    codes, facts = quantize_4bit(weight, quant_type="nf4", compress_statistics=False)
    ours = quantised(weight, "nf4")
    assert isinstance(ours.form, Four)
    assert ours.form.table == NF4 == tuple(facts.code.tolist())
    assert torch.equal(ours.parts["codes"].flatten(), codes.flatten())
    assert torch.equal(ours.parts["scale"].flatten(), facts.absmax)


@pytest.mark.parametrize(("quantise", "half_step"), [("int8", 1 / 254), ("fp8", 1 / 16), ("nf4", 0.152)])
def test_no_number_is_off_by_more_than_half_a_step(quantise: Quantise, half_step: float) -> None:
    """int8: of a row's largest; fp8: of the number itself, or of the least one; nf4: of a block's largest."""
    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(3))
    weight[3] = 0.0
    weight[4] *= 1e-20
    dense = quantised(weight, quantise).dense(torch.float32)
    if quantise == "fp8":
        room = torch.maximum(weight.abs() * half_step, weight.abs().amax(1, keepdim=True) / 448 * 2**-10)
    else:
        room = weight.unflatten(1, (2 if quantise == "nf4" else 1, -1)).abs().amax(2) * half_step
        room = room.repeat_interleave(64 if quantise == "nf4" else 128, 1)
    assert bool(((dense - weight).abs() <= room * 1.001).all())
    assert bool((dense[3] == 0).all())


def test_blocks_of_scales_are_spread_over_rows_and_columns(tmp_path: Path) -> None:
    """ComfyUI's int8_blockwise: a scale for each block of 128 x 128, here of 4 x 8."""
    codes = torch.randint(-127, 128, (8, 24), dtype=torch.int8)
    scale = torch.rand(2, 3) + 0.1
    note = {"format": "int8_blockwise", "group_size": 4}
    save_file({"x.weight": codes, "x.weight_scale": scale, "x.comfy_quant": as_bytes(note)}, tmp_path / "x.safetensors")
    dense = TensorFiles(tmp_path / "x.safetensors").packed("x.weight").dense(torch.float32)
    assert torch.equal(dense, codes.float() * scale.repeat_interleave(4, 0).repeat_interleave(8, 1))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("flux-2-klein-base-4b-fp8.safetensors", "flux.2-klein-base-4b"),
        ("flux-2-klein-9b-kv-fp8.safetensors", "flux.2-klein-9b-kv"),
        ("flux-2-klein-base-4b-Q4_K_M.gguf", "flux.2-klein-base-4b"),
        ("flux-2-klein-4b_fp8_scaled.safetensors", "flux.2-klein-4b"),
        ("flux-2-klein-4b-mine.safetensors", None),
        ("my-klein-Q8_0.gguf", None),
    ],
)
def test_names_of_quantised_files_tell_the_model(source: State, tmp_path: Path, name: str, wanted: str) -> None:
    if name.endswith(".gguf"):
        ggml("Q8_0")(source, tmp_path / name)
    else:
        save_file(source, tmp_path / name)
    info = published(tmp_path / name)
    assert (info.name if info else None) == wanted


PUBLISHED_FP8 = 4_070_624_520  # bytes of flux-2-klein-4b-fp8.safetensors on the hub


def test_kleins_own_fp8_file_has_the_size_and_is_taken_apart(tmp_path: Path) -> None:
    """At full size, without memory or disk: all layers of the blocks in float8, each with a scale, and the rest in
    bfloat16 come to the published size, but for the header's wording."""
    shapes = json.loads((Path(__file__).parent / "data" / "names_bfl_klein-4b.json").read_text())
    table, at = {}, 0
    for name, shape in shapes.items():
        narrow = "blocks." in name and len(shape) == 2
        entries = [(name, "F8_E4M3" if narrow else "BF16", shape, math.prod(shape) * (1 if narrow else 2))]
        if narrow:
            layer = name.removesuffix(".weight")
            entries += [(f"{layer}.weight_scale", "F32", [], 4), (f"{layer}.input_scale", "F32", [], 4)]
        for key, kind, sides, size in entries:
            table[key] = {"dtype": kind, "shape": sides, "data_offsets": [at, at + size]}
            at += size
    header = json.dumps(table).encode()
    file = tmp_path / "flux-2-klein-4b-fp8.safetensors"
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + at)
    assert abs(at - PUBLISHED_FP8) < 40_000  # seen: 36,488 for the header
    opened = open_transformer(file)
    assert sum(map(opened.files.is_packed, shapes)) == 80
    assert sum(math.prod(tensor.shape) for tensor in opened.net.state_dict().values()) == 3_875_544_576
    assert published(file) is MODELS["flux.2-klein-4b"]

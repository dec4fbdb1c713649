# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantised models in use: worn LoRAs, offloading, frame keys, and damage that is refused with the tensor's name."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_files import State, as_bytes, comfy, ggml, int8, nf4, noted, scaled_fp8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_quantised import CPU, around, draw, load, source  # noqa: F401

from koshi_backend import create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.cli import main
from koshi_backend.errors import KoshiError
from koshi_backend.lora.fit import fit_loras
from koshi_backend.models.family import load_family
from koshi_backend.models.gguf_header import Entry, read_gguf
from koshi_backend.models.identity import model_identity
from koshi_backend.models.loader import open_transformer
from koshi_backend.models.parts import single_files
from koshi_backend.models.placement import place
from koshi_backend.models.quantise import pick_quantise
from koshi_backend.models.quantised import QuantisedLinear
from koshi_backend.models.text_states import PromptStore
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

LAYER = "double_blocks.0.img_mlp.0"
Change = Callable[[State], None]


# --- damage -----------------------------------------------------------------------------------------------------


def without(name: str) -> Change:
    return lambda state: state.__delitem__(name)


def put(name: str, made: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda state: state.update({name: made(state[name])})


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def cut(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:-1].clone()


NAN, QUANTISED = float("nan"), f"{LAYER}.weight"
NF4_STATE = f"{QUANTISED}.quant_state.bitsandbytes__nf4"
DAMAGE: dict[str, tuple[Callable[[State, Path], None], dict[str, Change]]] = {
    "comfy": (comfy, {
        "wrong shape": put(QUANTISED, cut),
        "missing scale": without(f"{LAYER}.weight_scale"),
        "NaN scale": put(f"{LAYER}.weight_scale", filled(NAN)),
        "scale of a wrong shape": put(f"{LAYER}.weight_scale", lambda scale: torch.ones(7, 1)),
        "unknown kind": put(f"{LAYER}.comfy_quant", lambda note: as_bytes({"format": "nvfp4"})),
        "rotated": put(f"{LAYER}.comfy_quant", lambda note: as_bytes({"format": "int8_tensorwise", "convrot": True})),
        "note in no JSON": put(f"{LAYER}.comfy_quant", filled(7)),
        "NaN code": put(QUANTISED, lambda codes: torch.full_like(codes.view(torch.uint8), 0x7F).view(codes.dtype)),
        "scale of nothing": put("img_in.weight_scale", lambda scale: scale),
    }),
    "scaled_fp8": (scaled_fp8, {
        "wrong shape": put(QUANTISED, cut),
        "missing scale": without(f"{LAYER}.scale_weight"),
        "NaN scale": put(f"{LAYER}.scale_weight", filled(NAN)),
        "infinite scale": put(f"{LAYER}.scale_weight", filled(float("inf"))),
        "unknown kind": put(QUANTISED, lambda codes: codes.view(torch.uint8)),
    }),
    "int8": (int8, {
        "wrong shape": put(QUANTISED, cut),
        "missing scale": without(f"{LAYER}.weight_scale"),
        "NaN scale": put(f"{LAYER}.weight_scale", filled(NAN)),
        "scale of a wrong shape": put(f"{LAYER}.weight_scale", cut),
        "unknown kind": put(f"{LAYER}.comfy_quant", lambda note: as_bytes({"format": "int3"})),
    }),
    "nf4": (nf4, {
        "wrong shape": put(QUANTISED, cut),
        "missing scale": without(f"{QUANTISED}.absmax"),
        "missing table": without(f"{QUANTISED}.quant_map"),
        "missing outer scale": without(f"{QUANTISED}.nested_absmax"),
        "NaN scale": put(f"{QUANTISED}.nested_absmax", filled(NAN)),
        "NaN table": put(f"{QUANTISED}.quant_map", filled(NAN)),
        "scale of a wrong shape": put(f"{QUANTISED}.absmax", cut),
        "unknown kind": lambda state: state.update({NF4_STATE[:-3] + "fp5": state.pop(NF4_STATE)}),
        "state in no JSON": put(NF4_STATE, filled(7)),
        "state missing": without(NF4_STATE),
        "another shape in the state": put(NF4_STATE, lambda note: as_bytes({"shape": [4, 4], "blocksize": 64})),
    }),
}  # fmt: skip


@pytest.fixture(scope="module")
def small(source: State) -> State:  # noqa: F811
    """koshi-tiny with one block of each kind."""
    return {name: tensor for name, tensor in source.items() if not re.search(r"blocks\.[1-9]", name)}


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, (_, all) in DAMAGE.items() for damage in all])
def test_damage_is_refused_with_the_tensors_name(small: State, tmp_path: Path, name: str, damage: str) -> None:
    write, changes = DAMAGE[name]
    file = tmp_path / "damaged.safetensors"
    write(small, file)
    open_transformer(file)
    state = load_file(file)
    if damage == "scale of nothing":
        state["img_in.weight_scale"] = torch.ones(7)
    changes[damage](state)
    save_file(state, file)
    with pytest.raises(KoshiError) as caught:
        open_transformer(file).load(CPU, torch.float32)
    assert caught.value.code == "bad_model"
    assert ("img_in" if damage == "scale of nothing" else LAYER) in caught.value.message


PREFIX = "model.diffusion_model."
SCALE = f"{PREFIX}{LAYER}.weight_scale"


@pytest.mark.parametrize(
    "change",
    [
        put(PREFIX + QUANTISED, cut), without(SCALE), put(SCALE, filled(NAN)),
        put(SCALE, lambda scale: torch.ones(7, 1)), put(SCALE, lambda scale: torch.ones(1, dtype=torch.int32)), None,
    ],
    ids=["wrong shape", "no scale", "NaN scale", "scale of a wrong shape", "scale in whole numbers", "unknown kind"],
)  # fmt: skip
def test_damage_of_black_forest_labs_own_fp8_is_refused_too(
    small: State, tmp_path: Path, change: Change | None
) -> None:
    """Their layers are noted in the header, not beside the tensors."""
    file = tmp_path / "damaged.safetensors"
    noted(small, file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    state = load_file(file)
    if change is None:
        notes = json.loads(metadata["_quantization_metadata"])
        notes["layers"][PREFIX + LAYER]["format"] = "mxfp8"
        metadata["_quantization_metadata"] = json.dumps(notes)
    else:
        change(state)
    save_file(state, file, metadata)
    with pytest.raises(KoshiError) as caught:
        open_transformer(file).load(CPU, torch.float32)
    assert caught.value.code == "bad_model" and LAYER in caught.value.message


@pytest.mark.parametrize("name", DAMAGE)
def test_a_quantised_file_cut_short_names_the_tensor(small: State, tmp_path: Path, name: str) -> None:
    file = tmp_path / "cut.safetensors"
    DAMAGE[name][0](small, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(KoshiError, match=r"the tensor \S+ ends at byte") as caught:
        open_transformer(file)
    assert caught.value.code == "bad_model_file"


def entry_of(data: bytes, name: str) -> int:
    """Where a tensor's entry goes on after its name, in a GGUF header: its number of dimensions."""
    return data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


def number(at: int, value: int, size: str = "<I") -> Callable[[bytearray], None]:
    """Write over what is `at` bytes after the name."""
    return lambda data: struct.pack_into(size, data, entry_of(bytes(data), QUANTISED) + at, value)


def nan_scale(data: bytearray) -> None:
    at = entry_of(bytes(data), QUANTISED)
    (offset,) = struct.unpack_from("<Q", data, at + 4 + 16 + 4)
    (last,) = [tensor.begin for tensor in _stored(bytes(data)) if tensor.name == QUANTISED]
    assert offset < last
    data[last : last + 2] = b"\x00\x7e"


def _stored(data: bytes) -> list[Entry]:
    return read_gguf(io.BytesIO(data), len(data))


GGUF_DAMAGE: dict[str, Callable[[bytearray], None]] = {
    "cut short": lambda data: data.__delitem__(slice(len(data) * 2 // 3, None)),
    "wrong shape": number(4, 512, "<Q"),
    "row that is no whole number of blocks": number(4, 8, "<Q"),
    "unknown kind": number(4 + 16, 23),
    "kind that nobody knows": number(4 + 16, 77),
    "NaN scale": nan_scale,
    "another place": number(4 + 16 + 4, 32, "<Q"),
    "no place": number(4 + 16 + 4, 7, "<Q"),
    "too many dimensions": number(0, 9),
    "another name": lambda data: data.__setitem__(slice(0, None), data.replace(b"img_mlp.0.w", b"img_mlq.0.w", 1)),
}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("damage", GGUF_DAMAGE)
def test_damaged_gguf_files_are_refused_with_the_tensors_name(
    small: State, tmp_path: Path, damage: str, kind: str
) -> None:
    file = tmp_path / "damaged.gguf"
    ggml(kind)(small, file)
    data = bytearray(file.read_bytes())
    GGUF_DAMAGE[damage](data)
    file.write_bytes(data)
    with pytest.raises(KoshiError) as caught:
        open_transformer(file).load(CPU, torch.float32)
    assert caught.value.code in ("bad_model", "bad_model_file")
    assert (".weight" if damage in ("cut short", "another place") else QUANTISED) in caught.value.message


def test_every_cut_and_many_changed_bytes_of_a_gguf_header_are_refused_in_words(tmp_path: Path) -> None:
    """Or the file still makes sense: a name or a value may be any other."""
    file = tmp_path / "one.gguf"
    ggml("Q8_0")({"img_in.weight": torch.ones(4, 32), "double_blocks.0.x.weight": torch.ones(4, 32)}, file)
    whole = file.read_bytes()
    for at in range(0, 260, 2):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            file.write_bytes(data)
            try:
                open_transformer(file)
            except KoshiError as error:
                assert error.code in ("bad_model", "bad_model_file")


# --- use --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two fused layers and a plain one."""
    file = tmp_path_factory.mktemp("lora") / "look.safetensors"
    bits, state = torch.Generator().manual_seed(9), {}
    for name, rows, columns in (
        ("double_blocks.0.img_attn.qkv", 768, 256), (LAYER, 1536, 256), ("single_blocks.1.linear2", 256, 1024),
    ):  # fmt: skip
        state[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, columns, generator=bits) / columns**0.5
        state[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(rows, 4, generator=bits) / 4
    save_file(state, file)
    return file


@pytest.mark.parametrize(
    ("name", "write"), [("a.safetensors", comfy), ("b.safetensors", nf4), ("c.gguf", ggml("Q4_0"))]
)
def test_a_lora_on_a_quantised_model_is_that_on_its_decoded_weights_and_comes_off_to_the_bit(
    source: State, around: Path, lora: Path, name: str, write: Callable[[State, Path], None]  # noqa: F811
) -> None:
    write(source, around / name)
    model = load(around / name)
    before = {key: tensor.clone() for key, tensor in model.transformer.state_dict().items()}
    (fitted,) = fit_loras(model, "koshi-tiny", [lora])

    def picture(loras: Any) -> torch.Tensor:
        return model.decode(model.denoise("a calm sea", model.noise(1, 64, 64), steps=2, loras=loras))

    bare = picture(())
    worn = picture([(fitted, 0.8)])
    assert (worn - bare).abs().max() > 0.01
    assert torch.equal(picture(()), bare)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.transformer.state_dict().items())
    # The same on the matrices that the codes stand for, as plain layers.
    net = model.transformer
    for change in fitted.changes:
        layer = change.layer
        if isinstance(layer, QuantisedLinear):
            place_of = next(key for key, one in net.named_modules() if one is layer)
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False).requires_grad_(False)
            plain.weight.copy_(layer.weight)
            for row, branch in ((change.rows, change.branch),):
                eye = torch.eye(layer.in_features)
                added = torch.zeros(layer.in_features, layer.out_features)
                branch.add_to(added[:, row], eye, 0.8)
                plain.weight.add_(added.T)
            parent, _, last = place_of.rpartition(".")
            setattr(net.get_submodule(parent), last, plain)
    assert (picture(()) - worn).abs().max() < 1e-4  # seen: 3e-6


@pytest.mark.parametrize("policy", ["model", "block"])
def test_offloaded_quantised_weights_draw_the_same_to_the_bit(source: State, around: Path, policy: Any) -> None:  # noqa: F811
    ggml("Q4_1")(source, around / "d.gguf")
    expected = draw(load(around / "d.gguf"), 64)
    placed = load(around / "d.gguf")
    place(placed, CPU, policy)
    assert torch.equal(draw(placed, 64), expected)


def test_frame_keys_tell_quantised_models_apart(tiny: Path, source: State, around: Path) -> None:  # noqa: F811
    plain = model_identity(tiny)
    loaded = {model_identity(tiny, quantise) for quantise in ("fp8", "int8", "nf4")}
    comfy(source, around / "e.safetensors")
    ggml("Q8_0")(source, around / "f.gguf")
    stored = {model_identity(single_files(around / name)) for name in ("e.safetensors", "f.gguf")}
    assert len({plain, *loaded, *stored}) == 6
    assert model_identity(tiny, "none") == plain


def test_a_quantised_shot_is_kept_apart_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = load_shot({
        "model": "koshi-tiny", "frames": 2, "width": 64, "height": 64, "steps": 1,
        "prompts": [{"frame": 0, "text": "a calm sea"}],
    })  # fmt: skip
    store = FrameStore(tmp_path)
    plain = list(render_shot(shot, store=store))
    narrow = list(render_shot(shot, store=store, quantize="nf4"))
    assert not {frame.key for frame in plain} & {frame.key for frame in narrow}
    assert [frame.stored for frame in narrow] == [False, False]
    monkeypatch.setenv("KOSHI_QUANTIZE", "nf4")
    assert [(f.key, f.png, f.stored) for f in render_shot(shot, store=store)] == [(f.key, f.png, True) for f in narrow]


def test_quantize_is_said_in_python_on_the_command_line_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_pipeline("koshi-tiny", quantize="int8").load()
    assert isinstance(model.transformer.get_submodule(LAYER), QuantisedLinear)
    assert model.transformer.img_in.weight.dtype is torch.float32
    assert not isinstance(model.transformer.img_in, QuantisedLinear)
    assert main(["generate", "a calm sea", "--out", str(tmp_path / "a.png"), "--width", "64", "--height", "64",
                 "--seed", "1", "--quantize", "int8"]) == 0  # fmt: skip
    assert main(["generate", "a calm sea", "--out", str(tmp_path / "b.png"), "--width", "64", "--height", "64",
                 "--seed", "1", "--quantize", "none"]) == 0  # fmt: skip
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    monkeypatch.setenv("KOSHI_QUANTIZE", "int4")
    with pytest.raises(KoshiError, match="quantize is 'int4'"):
        pick_quantise()


def test_a_text_encoder_in_scaled_float8_is_kept_so(tiny: Path, tmp_path: Path) -> None:
    """As ComfyUI's text encoders are published."""
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    state = load_file(file)
    for name in [name for name in state if "_proj.weight" in name]:
        scale = state[name].float().abs().amax() / 448
        state[name] = (state[name].float() / scale).to(torch.float8_e4m3fn)
        state[name.replace(".weight", ".scale_weight")] = scale
    state["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    save_file(state, file, {"format": "pt"})
    model, plain = (load_family(one, CPU, torch.float32, "test") for one in (folder, tiny))
    found, expected = (one.text.encode("a calm sea") for one in (model, plain))
    (net,) = model.text.networks
    assert any(isinstance(layer, QuantisedLinear) for layer in net.modules())
    assert 0 < (found.states - expected.states).norm() / expected.states.norm() < 0.1
    # What it will take is known before it is read.
    unread = load_family(folder, CPU, torch.float32, "test", PromptStore(tmp_path / "store"))
    told = sum(unread.text.sizes(CPU))
    assert told == pytest.approx(sum(part.nbytes for part in net.parameters()), rel=0.02)
    assert told < 0.9 * sum(part.nbytes for part in plain.text.networks[0].parameters())

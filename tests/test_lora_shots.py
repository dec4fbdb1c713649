# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs in shots, calls and commands: their weights per frame, the frames' keys, and what is refused in which words."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2Transformer2DModel
from lora_files import CPU, adapted, factors, fitted, low_rank, save
from lora_files import Nets as Both
from safetensors.torch import load_file
from test_families import make_flux2_model
from torch import Tensor, nn

from koshi_backend import create_pipeline
from koshi_backend.animation import AnimationCall
from koshi_backend.chain import render_shot
from koshi_backend.cli import main
from koshi_backend.errors import KoshiError
from koshi_backend.frame import Maker
from koshi_backend.keys import Painter, frame_key
from koshi_backend.lora.uses import lora_uses, parse_lora
from koshi_backend.models.family import load_family
from koshi_backend.models.flux1 import Flux1Config, Flux1Transformer
from koshi_backend.models.flux3 import Flux3Config, Flux3Transformer
from koshi_backend.models.layout import transformer_source
from koshi_backend.models.loader import load_transformer
from koshi_backend.models.model import FluxModel, Reference
from koshi_backend.models.placement import place
from koshi_backend.models.pool import model_files
from koshi_backend.shot import Shot, load_shot, read_shot
from koshi_backend.store import FrameStore

A = ("lora_A", "lora_B")
NAME = "diffusion_model.{dotted}"
PAINTER = Painter("a model", "float32", "cpu", False)


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Klein."""
    folder = tmp_path_factory.mktemp("klein")
    make_flux2_model(folder, "klein", tiny)
    return folder


@pytest.fixture(scope="module")
def layers(small: Path) -> dict[str, nn.Linear]:
    net = load_transformer(small / "transformer", CPU, torch.float32)
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear)}


@pytest.fixture(scope="module")
def lora(layers: dict[str, nn.Linear], tmp_path_factory: pytest.TempPathFactory) -> Path:
    blocks = {name: layer for name, layer in layers.items() if "_blocks" in name}
    return low_rank(tmp_path_factory.mktemp("lora") / "look.safetensors", factors(blocks), NAME, A)


def a_shot(model: Path, frames: int = 3, **more: Any) -> Shot:
    document = {"model": str(model), "width": 64, "height": 64, "frames": frames, "steps": 1, "seed": 4}
    return load_shot({**document, "prompts": [{"text": "a word"}], **more})


def pictures(shot: Shot, folder: Path) -> list[np.ndarray]:
    store = FrameStore(folder)
    return [store.get(frame.key).picture for frame in render_shot(shot, store=store, device="cpu")]  # type: ignore[union-attr]


# --- weights per frame -----------------------------------------------------------------------------------------


def test_a_weight_keyed_over_48_frames_is_48_merged_models(small: Path, lora: Path, tmp_path: Path) -> None:
    """Each model is merged by diffusers and peft; the keyed shot has one model, loaded once."""
    frames, feedback = 48, {"feedback": {"carry": "none"}}
    schedule = "0:(0), 12:(1), 30:(-0.5), 47:(0.8)"
    keyed = a_shot(small, frames, loras=[{"file": str(lora), "weight": schedule}], **feedback)
    found = pictures(keyed, tmp_path / "store")
    plain, model = a_shot(small, frames, **feedback), load_family(model_files(str(small)), CPU, torch.float32, "merged")
    theirs = adapted(Both("klein", Flux2Transformer2DModel.from_pretrained(small / "transformer").eval(), None), lora)
    steps, weights = [], [dict(keyed.loras_at(k)).get(str(lora), 0.0) for k in range(frames)]
    assert len(set(weights)) > 40
    for k, value in enumerate(weights):
        net = copy.deepcopy(theirs)
        net.fuse_lora(lora_scale=value)
        state = {name.replace(".base_layer", ""): tensor for name, tensor in net.state_dict().items()}
        for name, own in model.transformer.named_parameters():
            source = transformer_source(name)
            own.data = source.join([state[part] for part in source.names])
        expected = Maker(plain, model).make(k, None).picture
        steps.append(int(np.abs(found[k].astype(int) - expected.astype(int)).max()))
    assert max(steps) <= 8  # of 65535; observed: 1
    base = pictures(plain, tmp_path / "base")
    assert np.array_equal(found[0], base[0])  # weight 0
    assert np.abs(found[12].astype(int) - base[12].astype(int)).max() > 3000


def test_without_loras_the_model_draws_what_it_drew_before(small: Path, lora: Path, tmp_path: Path) -> None:
    """The same loaded model, to the bit; and weight 0 is the same as none."""
    before = pictures(a_shot(small), tmp_path / "1")
    worn = pictures(a_shot(small, loras=[{"file": str(lora)}]), tmp_path / "2")
    after = pictures(a_shot(small), tmp_path / "3")
    resting = pictures(a_shot(small, loras=[{"file": str(lora), "weight": 0}]), tmp_path / "4")
    for k in range(3):
        assert np.array_equal(before[k], after[k]) and np.array_equal(before[k], resting[k])
        assert not np.array_equal(before[k], worn[k])


def test_kept_references_are_not_those_of_another_weight(small: Path, lora: Path) -> None:
    """Klein 9B-KV computes what it keeps of references once: for each weight of the LoRAs anew."""

    def drawn(model: FluxModel, weight: float) -> Tensor:
        reference = Reference(torch.full((1, 128, 4, 4), 0.3))
        worn = [(fitted(lora, model.transformer), weight)]
        return model.denoise("a word", model.noise(1, 64, 64), steps=2, references=[reference], loras=worn)

    model, fresh = (load_family(model_files(str(small)), CPU, torch.float32, "kv") for _ in range(2))
    model.cached = fresh.cached = True  # type: ignore[attr-defined]
    base = drawn(model, 0.0)
    assert torch.equal(drawn(model, 0.6), drawn(fresh, 0.6))
    assert torch.equal(drawn(model, 0.0), base)


@pytest.mark.parametrize("policy", ["model", "block"])
def test_offloaded_layers_wear_them_too(small: Path, lora: Path, policy: Any) -> None:
    """To the bit, wherever the model's own weights lie."""

    def drawn(model: FluxModel) -> Tensor:
        worn = [(fitted(lora, model.transformer), 0.8)]
        return model.denoise("a word", model.noise(1, 64, 64), steps=1, loras=worn)

    model, away = (load_family(model_files(str(small)), CPU, torch.float32, "placed") for _ in range(2))
    assert torch.equal(drawn(place(away, CPU, policy)), drawn(model))


# --- keys ------------------------------------------------------------------------------------------------------


def keys(shot: Shot) -> list[str]:
    found: list[str] = []
    for index in range(shot.frames):
        found.append(frame_key(shot, index, found[-1] if found else "", PAINTER, found[0] if found else ""))
    return found


def test_keys_hold_what_a_frame_wears(small: Path, lora: Path, layers: dict[str, nn.Linear], tmp_path: Path) -> None:
    def of(*loras: dict[str, Any]) -> list[str]:
        return keys(a_shot(small, loras=list(loras)))

    plain = of()
    assert of({"file": str(lora), "weight": 0}) == plain
    late = of({"file": str(lora), "weight": [0, 0, 1]})
    assert late[:2] == plain[:2] and late[2] != plain[2]
    assert of({"file": str(lora), "weight": 0.5})[0] != of({"file": str(lora), "weight": 0.6})[0]
    renamed = tmp_path / "other name.safetensors"
    renamed.write_bytes(lora.read_bytes())
    assert of({"file": str(renamed)}) == of({"file": str(lora)})
    other = low_rank(tmp_path / "other.safetensors", factors(layers, seed=8), NAME, A)
    assert of({"file": str(other)}) != of({"file": str(lora)})
    assert of({"file": str(lora)}, {"file": str(other), "weight": 0}) == of({"file": str(lora)})
    retrained = low_rank(renamed, factors(layers, seed=9), NAME, A)  # a file that is replaced
    assert of({"file": str(retrained)}) != of({"file": str(lora)})


# --- refusals --------------------------------------------------------------------------------------------------

Harm = Callable[[dict[str, Tensor]], object]
FIRST = "diffusion_model.double_blocks.0.img_attn.qkv"


def put(name: str, *shape: int) -> Harm:
    return lambda state: state.update({name: torch.zeros(shape)})


def lose(name: str) -> Harm:
    return lambda state: state.pop(name)


def put_nan(state: dict[str, Tensor]) -> None:
    state[f"{FIRST}.lora_A.weight"][0, 0] = torch.nan


def make_whole(state: dict[str, Tensor]) -> None:
    state[f"{FIRST}.lora_A.weight"] = torch.ones(4, 64, dtype=torch.int32)


HARMS: dict[str, tuple[Harm, str, str]] = {
    "an unknown tensor": (put("nobody.knows", 2, 2), "nobody.knows", "does not know"),
    "an unknown layer": (put("diffusion_model.double_blocks.0.img_attn.gate.diff", 2, 2), "img_attn.gate", "no layer"),
    "a block too many": (put("double_blocks.5.img_attn.qkv.diff_b", 192), "double_blocks.5", "no layer"),
    "DoRA": (put(f"{FIRST}.dora_scale", 192, 1), f"{FIRST}.dora_scale", "DoRA"),
    "peft's DoRA": (put(f"{FIRST}.lora_magnitude_vector", 192), "lora_magnitude_vector", "DoRA"),
    "LoHa": (put("diffusion_model.img_in.hada_w1_a", 2, 2), "hada_w1_a", "this kind"),
    "a convolution's LoKr": (put("diffusion_model.img_in.lokr_t2", 2, 2), "lokr_t2", "this kind"),
    "half of a LoRA": (lose(f"{FIRST}.lora_B.weight"), f"{FIRST}.lora_A.weight", "missing"),
    "half of a LoKr": (put("diffusion_model.img_in.lokr_w1", 2, 2), "lokr_w1", "missing"),
    "a twin": (put("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 4, 64), "lora_unet", "does not know"),
    "a rank that differs": (put(f"{FIRST}.lora_B.weight", 192, 5), f"{FIRST}.lora_B.weight", "does not go with"),
    "rows that differ": (put(f"{FIRST}.lora_B.weight", 64, 4), FIRST, "192 x 64"),
    "a long alpha": (put(f"{FIRST}.alpha", 3), f"{FIRST}.alpha", "one number"),
    "a norm": (put("diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff", 32), "query_norm", "no layer"),
    "not finite": (put_nan, f"{FIRST}.lora_A.weight", "not finite"),
    "whole numbers": (make_whole, f"{FIRST}.lora_A.weight", "whole numbers"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_cannot_be_applied_is_refused_by_its_name(
    layers: dict[str, nn.Linear], small: Path, lora: Path, tmp_path: Path, harm: str
) -> None:
    change, named, said = HARMS[harm]
    state = load_file(lora)
    change(state)
    file, net = save(tmp_path / "lora.safetensors", state), load_transformer(small / "transformer", CPU, torch.float32)
    with pytest.raises(KoshiError) as caught:
        fitted(file, net)
    assert caught.value.code == "bad_lora"
    told = [p for p in caught.value.problems if named in p["field"]]
    assert told and said in told[0]["message"], caught.value.problems


def test_all_faults_are_listed(small: Path, lora: Path, tmp_path: Path) -> None:
    state = load_file(lora)
    for change in (put("nobody.knows", 1), put("img_in.hada_w1_a", 2), put(f"{FIRST}.dora_scale", 192)):
        change(state)
    with pytest.raises(KoshiError) as caught:
        fitted(save(tmp_path / "lora.safetensors", state), load_transformer(small / "transformer", CPU, torch.float32))
    assert {p["field"] for p in caught.value.problems} == {"nobody.knows", "img_in.hada_w1_a", f"{FIRST}.dora_scale"}


def of_a(*shapes: tuple[str, int, int], names: tuple[str, str] = A, metadata: dict[str, str] | None = None) -> Any:
    """A LoRA of these layers, by name, rows and columns."""

    def write(file: Path) -> Path:
        state = {}
        for name, rows, columns in shapes:
            state[f"{name}.{names[0]}.weight"] = torch.zeros(4, columns)
            state[f"{name}.{names[1]}.weight"] = torch.zeros(rows, 4)
        return save(file, state, metadata)

    return write


_B = ("lora_down", "lora_up")
FAMILIES = {
    "FLUX.1, by diffusers": ("FLUX.1", of_a(("transformer.single_transformer_blocks.0.proj_mlp", 12288, 3072))),
    "FLUX.1, by kohya": ("FLUX.1", of_a(("lora_unet_double_blocks_18_img_attn_qkv", 9216, 3072), names=_B)),
    "FLUX.1, by XLabs": ("FLUX.1", of_a(("single_blocks.1.processor.qkv_lora", 9216, 3072), names=("down", "up"))),
    "FLUX.1, by its shape": ("FLUX.1", of_a(("lora_unet_single_blocks_3_linear1", 21504, 3072), names=_B)),
    "FLUX.1, by its metadata": (
        "FLUX.1",
        of_a(("double_blocks.0.img_attn.qkv", 9216, 3072), metadata={"modelspec.architecture": "flux-1-dev/lora"}),
    ),
    "FLUX.3": ("FLUX.3", of_a(("diffusion_model.single_blocks.0.q_proj", 3072, 3072))),
    "Stable Diffusion": (
        "Stable Diffusion",
        of_a(("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 320, 320), names=_B),
    ),
    "Wan": ("Wan", of_a(("diffusion_model.blocks.0.self_attn.q", 1536, 1536))),
    "Qwen-Image": ("Qwen-Image", of_a(("transformer.transformer_blocks.0.img_mod.1", 18432, 3072))),
    "Z-Image": ("Z-Image", of_a(("diffusion_model.layers.0.attention.to_q", 3840, 3840))),
    "a large model": ("more than 19", of_a(("transformer.transformer_blocks.59.attn.to_q", 3072, 3072))),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_another_family_is_refused_by_name_before_anything_is_loaded(tmp_path: Path, kind: str) -> None:
    family, write = FAMILIES[kind]
    file = write(tmp_path / "lora.safetensors")
    with pytest.raises(KoshiError) as caught:
        load_shot({"frames": 2, "prompts": [{"text": "a word"}], "loras": [{"file": str(file)}]})
    assert caught.value.problems[0]["field"] == "loras[0].file"
    assert f"is a LoRA for {family}" in caught.value.message.replace("a family with ", "")
    assert "koshi-tiny is a FLUX.2 model" in caught.value.message


@pytest.mark.parametrize(("width", "named"), [(3072, "FLUX.2 Klein 4B, of width 3072"), (4096, "FLUX.2 Klein 9B")])
def test_another_size_is_refused_by_name(small: Path, tmp_path: Path, width: int, named: str) -> None:
    file = of_a(("single_blocks.0.linear1", 9 * width, width), ("double_blocks.0.img_attn.proj", width, width))
    net = load_transformer(small / "transformer", CPU, torch.float32)
    with pytest.raises(KoshiError, match=rf"is a LoRA for {named}.*my model is FLUX\.2, of width 64") as caught:
        fitted(file(tmp_path / "lora.safetensors"), net, "my model")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("model", ["FLUX.1", "FLUX.3"])
@pytest.mark.parametrize("hidden", [3072, 4096])
def test_one_of_flux2_is_refused_by_name_on_the_other_families(hidden: int, model: str, tmp_path: Path) -> None:
    """Also Klein 9B's alone of a layer that FLUX.1 has too: no other family is so wide. On FLUX.3 it has no place."""
    layer = "single_blocks.0.linear1" if hidden == 3072 else "double_blocks.0.img_attn.qkv"
    rows = (9 if hidden == 3072 else 3) * hidden
    file = of_a((f"diffusion_model.{layer}", rows, hidden))(tmp_path / "lora.safetensors")
    with torch.device("meta"):
        net = Flux1Transformer(Flux1Config(double_blocks=1, single_blocks=1)) if model == "FLUX.1" else (
            Flux3Transformer(Flux3Config(flow_map=True)))  # fmt: skip
    with pytest.raises(KoshiError) as caught:
        fitted(file, net, f"my {model}")
    text = str(caught.value)
    if (hidden, model) == (4096, "FLUX.3"):
        assert "my FLUX.3 has no layer that goes with this tensor" in text
    else:
        assert "is a LoRA for FLUX.2" in text and f"my {model} is " in text and ("Klein 9B" in text) == (hidden == 4096)


def test_text_encoders_are_left_out_with_a_warning(
    layers: dict[str, nn.Linear], small: Path, lora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8)}
    net = load_transformer(small / "transformer", CPU, torch.float32)
    with caplog.at_level(logging.WARNING):
        found = fitted(save(tmp_path / "both.safetensors", load_file(lora) | words), net)
    assert len(found.changes) == len(fitted(lora, net).changes)
    assert "also changes text encoders (1 tensors, such as lora_te1_text_model" in caplog.text
    with pytest.raises(KoshiError, match="text encoders alone"):
        fitted(save(tmp_path / "words.safetensors", words), net)


@pytest.mark.parametrize(
    ("use", "field", "said"),
    [
        ({"file": "nowhere.safetensors"}, "loras[0].file", "no such file"),
        ({"file": __file__}, "loras[0].file", "not a safetensors file"),
        ({"file": ..., "weight": 1}, "loras[0].file", "missing"),
        ({"file": "", "weight": 1}, "loras[0].file", "at least 1 character"),
        ({"file": 3}, "loras[0].file", "string"),
        ({"wieght": 1}, "loras[0].wieght", "does not know this key. Did you mean 'weight'?"),
        ({"weight": 11}, "loras[0].weight", "at frame 0 is 11. Keep it between -10 and 10."),
        ({"weight": "0:(0), 2:(40)"}, "loras[0].weight", "Keep it between"),
        ({"weight": [1, 2]}, "loras[0].weight", "2"),
        ({"weight": "0:(oops)"}, "loras[0].weight", "oops"),
        ({"weight": None}, "loras[0].weight", "no schedule"),
        ({"weight": True}, "loras[0].weight", "no schedule"),
        (7, "loras[0]", "dict"),
    ],
)
def test_a_faulty_lora_of_a_shot_is_named(small: Path, lora: Path, use: Any, field: str, said: str) -> None:
    if isinstance(use, dict):
        use = {name: value for name, value in {"file": str(lora), **use}.items() if value is not ...}
    with pytest.raises(KoshiError) as caught:
        a_shot(small, loras=[use])
    assert [p["field"] for p in caught.value.problems] == [field], caught.value.problems
    assert said in str(caught.value)


# --- the ways in -----------------------------------------------------------------------------------------------


def test_a_shot_file_names_them_relative_to_itself(small: Path, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "looks").mkdir()
    (tmp_path / "looks" / "look.safetensors").write_bytes(lora.read_bytes())
    document = {"model": str(small), "frames": 2, "prompts": [{"text": "a word"}]}
    document["loras"] = [{"file": "looks/look.safetensors", "weight": "0:(0), 1:(1)"}]
    (tmp_path / "a.koshi.json").write_text(json.dumps(document))
    shot = read_shot(tmp_path / "a.koshi.json")
    assert shot.loras[0].file == str(tmp_path / "looks" / "look.safetensors")
    assert [len(shot.loras_at(k)) for k in range(2)] == [0, 1]
    assert load_shot(shot.as_dict()).as_dict() == shot.as_dict()


def test_the_forms_in_which_python_brings_them() -> None:
    one = {"file": "a.safetensors", "weight": 0.5}
    assert lora_uses(None) == []
    assert lora_uses("a.safetensors") == lora_uses([Path("a.safetensors")]) == [{"file": "a.safetensors"}]
    assert lora_uses(("a.safetensors", 0.5)) == lora_uses([("a.safetensors", np.float64(0.5))]) == [one]
    assert lora_uses(one) == lora_uses([one]) == [one]
    assert len(lora_uses(("a.safetensors", "b.safetensors"))) == 2
    assert lora_uses(("a.safetensors", "0:(1)")) == [{"file": "a.safetensors", "weight": "0:(1)"}]
    for wrong in (3, [3], [("a", 1, 2)], [None]):
        with pytest.raises(KoshiError, match="loras holds a"):
            lora_uses(wrong)


def test_the_forms_in_which_the_command_line_brings_them(lora: Path, tmp_path: Path) -> None:
    assert parse_lora(str(lora)) == {"file": str(lora)}
    assert parse_lora(f"{lora}:-0.5") == {"file": str(lora), "weight": -0.5}
    assert parse_lora(f"{lora}:0:(0), 12:(1)") == {"file": str(lora), "weight": "0:(0), 12:(1)"}
    assert parse_lora("C:\\loras\\gone.safetensors") == {"file": "C:\\loras\\gone.safetensors"}
    assert parse_lora("gone.safetensors:.5") == {"file": "gone.safetensors", "weight": 0.5}


def test_commands_and_calls_draw_the_same(small: Path, lora: Path, tmp_path: Path) -> None:
    pipeline = create_pipeline(small, "cpu")
    common: dict[str, Any] = {"width": 64, "height": 64, "num_steps": 1, "seed": 5}
    worn = pipeline.generate_image("a word", None, loras=(lora, 0.5), **common)
    assert worn.tobytes() != pipeline.generate_image("a word", None, **common).tobytes()
    out = tmp_path / "one.png"
    size = ["--width", "64", "--height", "64", "--steps", "1", "--seed", "5", "--device", "cpu"]
    argv = ["generate", "a word", "--model", str(small), "--lora", f"{lora}:0.5", "--out", str(out), *size]
    assert main(argv) == 0
    assert np.array_equal(np.asarray(worn), _read(out))
    document = a_shot(small, 2).as_dict()
    keyed = {**document, "loras": [{"file": str(lora), "weight": "0:(0), 1:(1)"}]}
    for name, held, more in (("in", keyed, []), ("given", document, ["--lora", f"{lora}:0:(0), 1:(1)"])):
        (tmp_path / f"{name}.koshi.json").write_text(json.dumps(held))
        argv = ["animate", str(tmp_path / f"{name}.koshi.json"), "--out", str(tmp_path / name), "--device", "cpu"]
        assert main([*argv, *more]) == 0
    for frame in ("0000.png", "0001.png"):
        assert (tmp_path / "in" / frame).read_bytes() == (tmp_path / "given" / frame).read_bytes()
    film: dict[str, Any] = {"num_frames": 2, "width": 64, "height": 64, "num_inference_steps": 1, "seed": 5}
    shot = pipeline.shot(AnimationCall("a word", loras=[(lora, "0:(0), 1:(1)")], **film))
    assert [shot.loras_at(k) for k in range(2)] == [[], [(str(lora), 1.0)]]
    with pytest.raises(KoshiError, match="no such file"):
        pipeline.generate_image("a word", None, loras="gone.safetensors", **common)


def _read(file: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(file))

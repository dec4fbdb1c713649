# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs of every layout against diffusers and peft, which merge them into the weights of the same network."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from lora_files import (
    KINDS,
    RANK,
    Factors,
    Nets,
    factors,
    fitted,
    low_rank,
    make_nets,
    merged,
    run_ours,
    run_theirs,
    save,
    worn,
)
from peft import LoKrConfig, LoraConfig, get_peft_model
from test_flux1 import relative
from torch import Tensor, nn

from koshi_backend.lora.targets import SOURCES
from koshi_backend.lora.wear import wearing
from koshi_backend.models.flux1 import Flux1Config, Flux1Transformer

A, B, NAMED = ("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")
# Layers that diffusers' converters lose or put where they do not belong; those of one layout are compared with those of
# another below.
NOT_FIRST = ("time_in", "guidance_in", "vector_in", "img_in", "txt_in", "modulation", "final_layer")
XLABS = {
    "img_attn.qkv": "qkv_lora1", "img_attn.proj": "proj_lora1", "txt_attn.qkv": "qkv_lora2",
    "txt_attn.proj": "proj_lora2", "linear1": "qkv_lora", "linear2": "proj_lora",
}  # fmt: skip
CLOSE = 1e-4  # asked for


@pytest.fixture(scope="module", params=KINDS)
def nets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Nets:
    return make_nets(request.param, tmp_path_factory.mktemp(request.param))


def only(*kinds: str) -> pytest.MarkDecorator:
    """The families that a layout is of."""
    return pytest.mark.parametrize("nets", kinds, indirect=True)


def agrees(nets: Nets, file: Path, weight: float = 0.7) -> None:
    ours, theirs, base = worn(nets, (file, weight)), run_theirs(merged(nets, file, weight)), run_ours(nets.ours)
    assert relative(ours, theirs) < CLOSE
    assert relative(ours, base) > 0.02  # it has an effect


# --- each layout -----------------------------------------------------------------------------------------------


def test_diffusers_layout(nets: Nets, tmp_path: Path) -> None:
    given = factors(nets.linear_of_diffusers())
    agrees(nets, low_rank(tmp_path / "lora.safetensors", given, "transformer.{dotted}", A))


def test_diffusers_settings_in_the_header(nets: Nets, tmp_path: Path) -> None:
    """Alpha, alphas of single layers and rank-stabilised scaling stand in the header."""
    given = factors(nets.linear_of_diffusers())
    state = {f"transformer.{n}.{k}.weight": t for n, pair in given.items() for k, t in zip(A, pair, strict=True)}
    first = next(iter(given))
    config = LoraConfig(r=RANK, lora_alpha=10, alpha_pattern={first: 3}, use_rslora=True, target_modules=list(given))
    told = {f"transformer.{k}": v for k, v in config.to_dict().items() if not isinstance(v, set)}
    told["transformer.target_modules"] = sorted(given)
    agrees(nets, save(tmp_path / "lora.safetensors", state, {"lora_adapter_metadata": json.dumps(told)}))


@only("flux2-dev", "klein")
@pytest.mark.parametrize("name", ["diffusion_model.{dotted}", "base_model.model.{dotted}"])
def test_native_names_of_flux2(nets: Nets, tmp_path: Path, name: str) -> None:
    """Black Forest Labs' names, as ai-toolkit has them. diffusers forgets to swap the last layer's halves."""
    given = {n: f for n, f in factors(nets.linear()).items() if "adaLN" not in n}
    agrees(nets, low_rank(tmp_path / "lora.safetensors", given, name, A))


@only("flux3")
def test_native_names_of_flux3(nets: Nets, tmp_path: Path) -> None:
    given = {n: f for n, f in factors(nets.linear()).items() if "_blocks" in n}
    agrees(nets, low_rank(tmp_path / "lora.safetensors", given, "diffusion_model.{dotted}", A))


@only("flux1", "flux2-dev", "klein")
@pytest.mark.parametrize("alpha", [None, 1.0, 16.0])
def test_kohya_and_musubi(nets: Nets, tmp_path: Path, alpha: float | None) -> None:
    # Of FLUX.1's linear1 diffusers knows the published size only; that is compared below.
    given = {n: f for n, f in factors(nets.linear()).items() if not any(part in n for part in NOT_FIRST)}
    given = {n: f for n, f in given.items() if not (nets.kind == "flux1" and n.endswith("linear1"))}
    agrees(nets, low_rank(tmp_path / "lora.safetensors", given, "lora_unet_{flat}", B, alpha))


def test_kohya_s_linear1_of_flux1_at_full_size(tmp_path: Path) -> None:
    given = {"single_blocks.0.linear1": (torch.randn(RANK, 3072), torch.randn(21504, RANK))}
    state = {f"lora_unet_single_blocks_0_linear1.{k}.weight": t for k, t in zip(B, given.popitem()[1], strict=True)}
    state["lora_unet_single_blocks_0_linear1.alpha"] = torch.tensor(2.0)
    x = torch.randn(3, 3072)
    parts = _convert_kohya_flux_lora_to_diffusers(dict(state))
    block = "transformer.single_transformer_blocks.0."
    expected = [
        x @ parts[f"{block}{name}.lora_A.weight"].T @ parts[f"{block}{name}.lora_B.weight"].T
        for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ]
    with torch.device("meta"):
        net = Flux1Transformer(Flux1Config(double_blocks=1, single_blocks=1))
    ours = torch.zeros(3, 21504)
    for parted in (state, parts):
        ours.zero_()
        for change in fitted(save(tmp_path / "lora.safetensors", parted), net).changes:
            change.branch.add_to(ours[:, change.rows], x, 1.0)
        assert relative(ours, torch.cat(expected, 1)) < 1e-5


@only("flux1")
def test_onetrainer(nets: Nets, tmp_path: Path) -> None:
    given = {n: f for n, f in factors(nets.linear_of_diffusers()).items() if ".attn." in n}
    agrees(nets, low_rank(tmp_path / "lora.safetensors", given, "lora_transformer_{flat}", B, 2.0))


@only("flux1")
def test_xlabs(nets: Nets, tmp_path: Path) -> None:
    """In a single block qkv are the first rows of linear1."""
    state: dict[str, Tensor] = {}
    for name, (down, up) in factors(nets.linear()).items():
        for ending, theirs in XLABS.items():
            if name.endswith(f".{ending}"):
                rows = up[: 3 * nets.ours.config.hidden] if ending == "linear1" else up
                module = f"{name.removesuffix(ending)}processor.{theirs}"
                state |= {f"{module}.down.weight": down, f"{module}.up.weight": rows}
    assert len(state) == 2 * (2 * 4 + 2 * 2)
    agrees(nets, save(tmp_path / "lora.safetensors", state))


# --- peft's own files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "rank-stabilised", "bias", "patterns"])
def test_peft_s_own_folder(nets: Nets, tmp_path: Path, form: str) -> None:
    layers = list(nets.linear_of_diffusers())
    options: dict[str, Any] = {
        "plain": {},
        "rank-stabilised": {"use_rslora": True},
        "bias": {"lora_bias": True},
        "patterns": {"rank_pattern": {"attn.to_q": 2}, "alpha_pattern": {"to_k": 1, layers[0]: 9}},
    }[form]
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=layers, init_lora_weights=False, **options)
    net = get_peft_model(copy.deepcopy(nets.theirs), config)
    generator = torch.Generator().manual_seed(3)
    for name, p in net.named_parameters():
        if "lora_" in name:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    net.save_pretrained(tmp_path)
    # peft merges no bias into a layer that has none, but adds it all the same.
    theirs = run_theirs(net.base_model.model if form == "bias" else net.merge_and_unload())
    ours = worn(nets, (tmp_path / "adapter_model.safetensors", 1.0))
    assert relative(ours, theirs) < CLOSE
    assert relative(ours, run_ours(nets.ours)) > 0.02


@pytest.mark.parametrize("both", [False, True])
def test_peft_s_own_lokr(nets: Nets, tmp_path: Path, both: bool) -> None:
    """peft scales by alpha / rank even where both factors are whole, as here in the smaller layers."""
    layers = list(nets.linear_of_diffusers())
    config = LoKrConfig(r=3, alpha=2, target_modules=layers, decompose_both=both, init_weights=False)
    net = get_peft_model(copy.deepcopy(nets.theirs), config)
    net.save_pretrained(tmp_path)
    theirs = run_theirs(net.merge_and_unload())
    assert relative(worn(nets, (tmp_path / "adapter_model.safetensors", 1.0)), theirs) < CLOSE


# --- LoKr ------------------------------------------------------------------------------------------------------


def lokr_rank(form: str) -> int:
    return 1 if "w1" in form else 2  # diffusers knows w1 as two only where that is smaller


def kronecker(layers: Mapping[str, nn.Linear], form: str) -> dict[str, dict[str, Tensor]]:
    """By the layer's name and LoKr's own ends. form: which factors are stored as two."""
    rank = lokr_rank(form)
    generator = torch.Generator().manual_seed(5)
    found: dict[str, dict[str, Tensor]] = {}
    for name, layer in layers.items():
        parts = found[name] = {}
        for factor, rows, columns in (("w1", 4, 4), ("w2", layer.out_features // 4, layer.in_features // 4)):
            if factor in form:
                parts[f"lokr_{factor}_a"] = torch.randn(rows, rank, generator=generator) * 0.5
                parts[f"lokr_{factor}_b"] = torch.randn(rank, columns, generator=generator) * 0.3
            else:
                parts[f"lokr_{factor}"] = torch.randn(rows, columns, generator=generator) * 0.2
    return found


@only("klein")
@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("form", ["", "w2", "w1 w2"])
@pytest.mark.parametrize("layout", ["native", "lycoris"])
def test_lokr_of_flux2(nets: Nets, tmp_path: Path, form: str, alpha: float | None, layout: str) -> None:
    """Against kron of the factors, as LyCORIS defines it, and against diffusers' own reader."""
    layers = nets.linear() if layout == "native" else nets.linear_of_diffusers()
    net = copy.deepcopy(nets.ours if layout == "native" else nets.theirs)
    state: dict[str, Tensor] = {}
    for name, parts in kronecker({n: layer for n, layer in layers.items() if "_blocks" in n}, form).items():
        module = f"diffusion_model.{name}" if layout == "native" else f"lycoris_{name.replace('.', '_')}"
        state |= {f"{module}.{end}": tensor for end, tensor in parts.items()}
        if alpha is not None:
            state[f"{module}.alpha"] = torch.tensor(alpha)
        w1, w2 = (
            parts[f"lokr_{w}_a"] @ parts[f"lokr_{w}_b"] if w in form else parts[f"lokr_{w}"] for w in ("w1", "w2")
        )
        scale = alpha / lokr_rank(form) if alpha is not None and form else 1.0
        with torch.no_grad():
            net.get_submodule(name).weight += 0.7 * scale * torch.kron(w1, w2)
    file = save(tmp_path / "lora.safetensors", state)
    ours, expected = worn(nets, (file, 0.7)), (run_ours if layout == "native" else run_theirs)(net)
    assert relative(ours, expected) < CLOSE
    assert relative(run_theirs(merged(nets, file, 0.7)), expected) < CLOSE


# --- one change in several layouts -----------------------------------------------------------------------------


def split(nets: Nets, given: Factors) -> Factors:
    """Factors of native layers for diffusers' layers: rows of up, and its halves swapped where they are there."""
    source, layers = SOURCES[type(nets.ours)], nets.linear_of_diffusers()
    found: Factors = {}
    for name, (down, up) in given.items():
        origin = source(f"{name}.weight")
        if origin.change == "halves":
            up = torch.cat(up.chunk(2)[::-1])
        theirs = [part.removesuffix(".weight") for part in origin.names]
        rows = [layers[part].out_features for part in theirs]
        found |= {part: (down, block) for part, block in zip(theirs, up.split(rows), strict=True)}
    return found


def test_one_lora_is_the_same_in_every_layout(nets: Nets, tmp_path: Path) -> None:
    """All layers, the last one's scale and shift among them: only diffusers' layout has its halves the other way."""
    given = factors(nets.linear())
    theirs = split(nets, given)
    files = {
        "diffusers": low_rank(tmp_path / "1.safetensors", theirs, "transformer.{dotted}", A),
        "old diffusers": low_rank(tmp_path / "2.safetensors", theirs, "transformer.{dotted}", ("lora.down", "lora.up")),
        "kohya on diffusers": low_rank(tmp_path / "3.safetensors", theirs, "lora_unet_{flat}", B, RANK),
        "native": low_rank(tmp_path / "4.safetensors", given, "{dotted}", A),
        "ai-toolkit": low_rank(tmp_path / "5.safetensors", given, "diffusion_model.{dotted}", A),
        "ComfyUI": low_rank(tmp_path / "6.safetensors", given, "model.diffusion_model.{dotted}", B, RANK),
        "kohya": low_rank(tmp_path / "7.safetensors", given, "lora_unet_{flat}", B, RANK),
        "fal": low_rank(tmp_path / "8.safetensors", given, "base_model.model.{dotted}", A),
        "peft, named": low_rank(tmp_path / "9.safetensors", given, "base_model.model.{dotted}", NAMED),
    }
    judged = run_theirs(merged(nets, files["diffusers"]))
    for layout, file in files.items():
        assert relative(worn(nets, (file, 1.0)), judged) < CLOSE, layout


def test_changes_of_weights_and_biases_as_such(nets: Nets, tmp_path: Path) -> None:
    """kohya's `diff` and `diff_b`; a bias changes also where the layer has none."""
    generator = torch.Generator().manual_seed(4)
    state, net = {}, copy.deepcopy(nets.ours)
    for name, layer in nets.linear().items():
        whole = torch.randn(layer.weight.shape, generator=generator) * 0.1
        shift = torch.randn(layer.out_features, generator=generator) * 0.1
        state |= {f"diffusion_model.{name}.diff": whole, f"diffusion_model.{name}.diff_b": shift}
        changed = net.get_submodule(name)
        changed.weight = torch.nn.Parameter(layer.weight + 0.6 * whole)
        changed.bias = torch.nn.Parameter((0 if layer.bias is None else layer.bias) + 0.6 * shift)
    file = save(tmp_path / "lora.safetensors", state)
    assert relative(worn(nets, (file, 0.6)), run_ours(net)) < CLOSE


# --- worn and taken off ----------------------------------------------------------------------------------------


def test_several_at_once_are_the_sum_of_their_merges(nets: Nets, tmp_path: Path) -> None:
    net = copy.deepcopy(nets.theirs)
    files = []
    for k, weight in enumerate((0.7, -0.4, 1.3)):
        given = factors(nets.linear_of_diffusers(), seed=k, rank=2 + k)
        files.append((low_rank(tmp_path / f"{k}.safetensors", given, "transformer.{dotted}", A), weight))
        with torch.no_grad():
            for name, (down, up) in given.items():
                net.get_submodule(name).weight += weight * up @ down
    assert relative(worn(nets, *files), run_theirs(net)) < CLOSE


def test_afterwards_the_network_is_what_it_was_to_the_bit(nets: Nets, tmp_path: Path) -> None:
    file = low_rank(tmp_path / "lora.safetensors", factors(nets.linear()), "{dotted}", A)
    before, state = run_ours(nets.ours), copy.deepcopy(nets.ours.state_dict())
    lora = fitted(file, nets.ours)
    for weight in (1.0, -3.0, 0.01):
        with wearing([(lora, weight)]):
            assert not torch.equal(run_ours(nets.ours), before)
    with pytest.raises(RuntimeError), wearing([(lora, 1.0)]):
        raise RuntimeError
    with wearing([(lora, 0.0)]):
        assert torch.equal(run_ours(nets.ours), before)  # none is worn
    assert torch.equal(run_ours(nets.ours), before)
    assert all(torch.equal(t, state[name]) for name, t in nets.ours.state_dict().items())


def test_only_the_thread_that_wears_it_sees_it(nets: Nets, tmp_path: Path) -> None:
    file = low_rank(tmp_path / "lora.safetensors", factors(nets.linear()), "{dotted}", A)
    before, other = run_ours(nets.ours), []
    with wearing([(fitted(file, nets.ours), 1.0)]):
        thread = threading.Thread(target=lambda: other.append(run_ours(nets.ours)))
        thread.start()
        thread.join()
        assert not torch.equal(run_ours(nets.ours), before)
    assert torch.equal(other[0], before)


def test_weights_that_are_held_narrow_are_merged_no_worse(tmp_path: Path) -> None:
    """A model in bfloat16, held so: what is added is not rounded to its steps, as merging there would do."""
    nets = make_nets("klein", tmp_path / "net", torch.bfloat16)
    assert nets.ours.single_blocks[0].linear1._parameters["weight"].dtype is torch.bfloat16
    given = {name: (down * 1e-3, up) for name, (down, up) in factors(nets.linear_of_diffusers()).items()}
    file = low_rank(tmp_path / "lora.safetensors", given, "transformer.{dotted}", A)
    exact = Nets("klein", nets.theirs.float(), nets.ours)
    assert relative(worn(exact, (file, 1.0)), run_theirs(merged(exact, file))) < CLOSE


@only("klein")
def test_every_type_that_lora_files_have(nets: Nets, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        given = {name: (down.to(dtype), up.to(dtype)) for name, (down, up) in factors(nets.linear()).items()}
        file = low_rank(tmp_path / f"{dtype}.safetensors", given, "{dotted}", A)
        wide = {name: (down.float(), up.float()) for name, (down, up) in given.items()}
        expected = worn(nets, (low_rank(tmp_path / "wide.safetensors", wide, "{dotted}", A), 1.0))
        assert torch.equal(worn(nets, (file, 1.0)), expected)

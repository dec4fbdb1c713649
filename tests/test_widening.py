# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights that are widened where a layer reads them: the same numbers as weights held in float32, to the last bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flux3_models import make_model
from safetensors.torch import load_file, save_file
from test_families import CPU, HEIGHT, PROMPT, WIDTH, make_flux1_model, make_flux2_model
from torch import nn

from koshi_backend.models.family import load_family
from koshi_backend.models.flux3 import Flux3Transformer
from koshi_backend.models.loader import load_transformer
from koshi_backend.models.model import FluxModel, Reference
from koshi_backend.models.placement import Offload, place
from koshi_backend.models.widening import held_as, widen_at_use

MAKERS: dict[str, Callable[[Path, Path], object]] = {
    "schnell": lambda folder, tiny: make_flux1_model(folder, "schnell"),
    "flux.2-dev": lambda folder, tiny: make_flux2_model(folder, "flux.2-dev", tiny),
    "klein": lambda folder, tiny: make_flux2_model(folder, "klein", tiny),
    "flux.3": lambda folder, tiny: make_model(folder, "distilled"),
}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of every family, with every kind of text encoder, stored in bfloat16."""
    folder = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](folder, tiny)
    store_as(folder, torch.bfloat16)
    return folder


def store_as(folder: Path, dtype: torch.dtype) -> None:
    for file in folder.rglob("*.safetensors"):
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in load_file(file).items()}
        save_file(state, file, {"format": "pt"})


def networks(model: FluxModel) -> list[nn.Module]:
    texts = [part for part in vars(model.text).values() if isinstance(part, nn.Module)]
    return [model.transformer, model.autoencoder, *texts]


def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FluxModel:
    """The same model with all its weights in float32, as they once were."""
    with monkeypatch.context() as patch:
        for module in ("tensor_files", "text_networks"):
            patch.setattr(f"koshi_backend.models.{module}.held_as", lambda stored, device, dtype: dtype)
        model = load_family(folder, CPU, torch.float32, "test")
    assert all(p.dtype is torch.float32 for net in networks(model) for p in net.parameters())
    return model


def draw(model: FluxModel, width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    """A picture from a prompt, then one from that, shown again where the model can be shown any."""
    first = model.decode(model.denoise(PROMPT, model.noise(3, width, height), steps=2))
    latent = model.encode_picture(first)
    shown = [Reference(latent)] if model.references else []
    noise = model.noise(4, width, height)
    return model.decode(
        model.denoise("another word", noise, steps=2, picture=latent, strength=0.5, references=shown, guidance=3.0)
    )


def test_the_picture_is_that_of_weights_held_in_float32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_family(folder, CPU, torch.float32, "test")
    for net in networks(model):
        wide = [name for name, p in net.named_parameters() if p.dtype is not torch.bfloat16]
        assert all(name.endswith((".query_norm.scale", ".key_norm.scale")) for name in wide), wide
    assert model.dtype is torch.float32
    expected = draw(held(folder, monkeypatch))
    assert expected.std() > 0
    assert torch.equal(draw(model), expected)


def test_koshi_tiny_draws_what_it_drew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its true weights, at a size where the largest layers run on several threads."""
    model = load_family(tiny, CPU, torch.float32, "test")
    assert {p.dtype for net in networks(model) for p in net.parameters()} == {torch.bfloat16}
    assert torch.equal(draw(model, 128, 128), draw(held(tiny, monkeypatch), 128, 128))


@pytest.mark.parametrize("offload", ["model", "block"])
def test_offloaded_weights_stay_narrow_and_draw_the_same(
    folder: Path, offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = place(load_family(folder, CPU, torch.float32, "test"), CPU, offload)
    assert torch.equal(draw(placed), draw(held(folder, monkeypatch)))
    assert placed.transformer.img_in._parameters["weight"].dtype is torch.bfloat16  # type: ignore[union-attr]


def test_several_threads_may_draw_with_one_model(tiny: Path) -> None:
    """The place for a widened weight is each thread's own."""
    model = load_family(tiny, CPU, torch.float32, "test")
    expected = draw(model, 64, 64)
    found: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: draw(model, 64, 64)})) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(picture, expected) for picture in found.values())


def layers(*kinds: torch.dtype) -> nn.Sequential:
    net = nn.Sequential(*(nn.Linear(5, 5).to(kind) for kind in kinds)).requires_grad_(False)
    widen_at_use(net)
    return net


@torch.no_grad()
def test_a_widened_weight_that_is_held_is_not_written_over() -> None:
    """One that is not, is: the place is used again and again."""
    net = layers(torch.bfloat16, torch.float16)
    first, second = net[0].weight, net[1].weight
    for wide, layer in ((first, net[0]), (second, net[1])):
        assert wide.dtype is torch.float32
        assert torch.equal(wide, layer._parameters["weight"].float())
    del first, second, wide
    places = [layer.weight.data_ptr() for layer in net]
    assert places[0] == places[1]


def test_gradients_pass_through_several_widened_layers() -> None:
    """What autograd keeps for the way back is in nobody's way."""
    net = layers(torch.bfloat16, torch.bfloat16, torch.float32)
    plain = nn.Sequential(*(nn.Linear(5, 5) for _ in range(3)))
    plain.load_state_dict({name: tensor.float() for name, tensor in net.state_dict().items()})
    x, y = (torch.ones(2, 5, requires_grad=True) for _ in range(2))
    for module, given in ((net, x), (plain, y)):
        module(given).square().sum().backward()
    assert torch.equal(x.grad, y.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_of_a_narrow_type_keeps_its_value(stored: torch.dtype) -> None:
    bits = torch.arange(256**stored.itemsize).to(torch.int16 if stored.itemsize == 2 else torch.uint8).view(stored)
    kept = held_as(stored, CPU, torch.float32)
    assert kept.itemsize == 2
    assert torch.equal(bits.to(kept).float().nan_to_num(7.0), bits.float().nan_to_num(7.0))
    assert held_as(stored, CPU, torch.bfloat16) is torch.bfloat16
    assert held_as(stored, torch.device("cuda"), torch.float32) is torch.float32


def test_flux3_s_norms_of_queries_and_keys_are_exact_in_bfloat16(tmp_path: Path) -> None:
    """As in diffusers, which loads the same file for the comparison of whole networks."""
    make_model(tmp_path, "distilled")
    net = load_transformer(tmp_path / "transformer", CPU, torch.bfloat16, Flux3Transformer)
    theirs = load_file(next((tmp_path / "transformer").glob("*.safetensors")))
    for block in (0, 2):
        scale = net.state_dict()[f"single_blocks.{block}.norm.key_norm.scale"]
        assert scale.dtype is torch.float32
        assert torch.equal(scale, theirs[f"single_transformer_blocks.{block}.attn.norm_k.weight"])
    assert {t.dtype for name, t in net.state_dict().items() if "_norm." not in name} == {torch.bfloat16}

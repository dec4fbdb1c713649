# SPDX-License-Identifier: GPL-3.0-or-later
"""Offloading: the same pictures, with little on the device at a time.

Here device and memory are the same processor; what visits is a copy, so that who is there can be counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_families import CPU, HEIGHT, PROMPT, WIDTH, make_flux1_model, make_flux2_model
from torch import Tensor, nn

from koshi_backend.errors import KoshiError
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.model import FluxModel, Reference
from koshi_backend.models.placement import Visitor, pick_offload, place


@pytest.fixture(scope="module", params=["schnell", "klein", "flux.2-dev"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "schnell":
        return make_flux1_model(folder, request.param).folder
    return make_flux2_model(folder, request.param, tiny).folder


def networks(model: FluxModel) -> list[nn.Module]:
    return [model.transformer, *(part for part in vars(model.text).values() if isinstance(part, nn.Module))]


def draw(model: FluxModel, prompt: str = PROMPT) -> Tensor:
    noise = model.noise(3, WIDTH, HEIGHT)
    shown = [Reference(model.noise(4, WIDTH, HEIGHT))] if model.references else []
    return model.decode(model.denoise(prompt, noise, steps=2, references=shown))


class Census:
    """Watches who is on the device: the most bytes at any time, and whether two networks ever met there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: dict[Visitor, int] = {}
        self.most, self.visits = 0, 0
        come, leave = Visitor.come, Visitor.leave

        def counted(visitor: Visitor) -> None:
            come(visitor)
            self.visits += 1
            self.there[visitor] = sum(home.nbytes for _, home in visitor._homes)
            self.most = max(self.most, sum(self.there.values()))
            assert all(t.data_ptr() != home.data_ptr() for t, home in visitor._homes if home.numel())

        def gone(visitor: Visitor) -> None:
            leave(visitor)
            self.there.pop(visitor, None)
            assert all(t.data_ptr() == home.data_ptr() for t, home in visitor._homes)

        monkeypatch.setattr(Visitor, "come", counted)
        monkeypatch.setattr(Visitor, "leave", gone)


def size(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("offload", ["model", "block"])
def test_the_picture_is_the_same_with_little_on_the_device(
    folder: Path, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = draw(load_family(folder, CPU, torch.float32, "test"))
    census = Census(monkeypatch)
    model = place(load_family(folder, CPU, torch.float32, "test"), CPU, pick_offload(offload))
    for _ in range(2):
        assert torch.equal(draw(model), expected)
    draw(model, "another prompt")
    assert census.visits > 3
    if offload == "model":
        assert census.most == max(map(size, networks(model)))
    else:
        layers = [layer for net in networks(model) for layer in net.modules()]
        assert census.most == max(sum(p.nbytes for p in layer.parameters(recurse=False)) for layer in layers)
        assert not census.there


def test_a_network_stays_until_another_one_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of one prompt do not send the weights to and fro."""
    census = Census(monkeypatch)
    model = place(load_family(folder, CPU, torch.float32, "test"), CPU, "model")
    for _ in range(3):
        draw(model)
    assert census.visits == len(networks(model))


@pytest.mark.parametrize("offload", ["model", "block"])
def test_references_kept_as_keys_and_values_are_no_exception(
    tiny: Path, tmp_path: Path, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run the layers one by one, past the network's own call."""
    folder = make_flux2_model(tmp_path, "klein", tiny).folder
    models = [load_family(folder, CPU, torch.float32, "test") for _ in range(2)]
    place(models[1], CPU, pick_offload(offload))
    home = models[1].transformer.img_in.weight.data_ptr()
    seen = []

    def watched(layer: nn.Module, given: object, output: Tensor) -> None:
        seen.append(layer.weight.data_ptr() != home)

    models[1].transformer.img_in.register_forward_hook(watched, prepend=True)
    for model in models:
        assert isinstance(model, Flux2Model)
        model.cached = True
    assert torch.equal(draw(models[0]), draw(models[1]))
    assert len(seen) == 3 and all(seen)  # the references, then two steps: never with the weights in memory


def test_a_failed_layer_leaves_the_device(folder: Path) -> None:
    model = place(load_family(folder, CPU, torch.float32, "test"), CPU, "block")
    layer = model.transformer.img_in
    home = layer.weight.data_ptr()
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 1, 3))
    assert layer.weight.data_ptr() == home


def test_the_policy_comes_from_the_call_else_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_offload() == "none"
    monkeypatch.setenv("KOSHI_OFFLOAD", "block")
    assert (pick_offload(), pick_offload("model")) == ("block", "model")
    monkeypatch.setenv("KOSHI_OFFLOAD", "some")
    with pytest.raises(KoshiError, match="'some'"):
        pick_offload()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Small random networks, and LoRAs for them in every layout, written as trainers write them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, Flux3LoraLoaderMixin, FluxLoraLoaderMixin
from flux3_models import small_transformer
from safetensors.torch import save_file
from test_flux1 import randomise
from torch import Tensor, nn

from koshi_backend.lora.file import lora_identity, open_lora
from koshi_backend.lora.fit import fit
from koshi_backend.lora.wear import Lora, wearing
from koshi_backend.models import flux1, flux2, flux3
from koshi_backend.models.flux1 import Flux1Transformer
from koshi_backend.models.flux2 import Flux2Transformer
from koshi_backend.models.flux3 import Flux3Transformer, Still
from koshi_backend.models.loader import find_family, load_transformer

CPU = torch.device("cpu")
RANK, CONTEXT, TEXT, ROWS, COLUMNS = 4, 32, 5, 3, 2
KINDS = ("flux1", "flux2-dev", "klein", "flux3")
_MIXINS: dict[str, Any] = {"flux1": FluxLoraLoaderMixin, "flux3": Flux3LoraLoaderMixin}


@dataclass(frozen=True)
class Nets:
    """One network twice: diffusers' and Koshi's."""

    kind: str
    theirs: Any
    ours: Any

    def linear(self) -> dict[str, nn.Linear]:
        """Koshi's layers, by native names."""
        return {name: layer for name, layer in self.ours.named_modules() if isinstance(layer, nn.Linear)}

    def linear_of_diffusers(self) -> dict[str, nn.Linear]:
        return {name: layer for name, layer in self.theirs.named_modules() if isinstance(layer, nn.Linear)}


def make_nets(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> Nets:
    small: dict[str, Any] = {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16,
                             "num_attention_heads": 2, "joint_attention_dim": CONTEXT}  # fmt: skip
    net: Any
    if kind == "flux1":
        net = FluxTransformer2DModel(**small, pooled_projection_dim=24, axes_dims_rope=(4, 6, 6), guidance_embeds=True)
    elif kind == "flux3":
        net = small_transformer("distilled", CONTEXT)
    else:
        net = Flux2Transformer2DModel(**small, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=kind == "flux2-dev")
    theirs = randomise(net, 1).to(dtype)
    theirs.save_pretrained(folder)
    return Nets(kind, theirs, load_transformer(folder, CPU, torch.float32, find_family(folder)))


def run_ours(net: Any) -> Tensor:
    x, text, pooled, t, after = _inputs(net.config.channels)
    with torch.inference_mode():
        if isinstance(net, Flux1Transformer):
            ids = flux1.grid_ids(ROWS, COLUMNS), flux1.text_ids(TEXT)
            return net(x, text, pooled, t, *ids, torch.tensor([3.5]))
        ids = flux2.grid_ids(ROWS, COLUMNS), flux2.text_ids(TEXT)
        if isinstance(net, Flux2Transformer):
            return net(x, text, t, *ids, torch.tensor([4.0]) if net.config.guidance else None)
        assert isinstance(net, Flux3Transformer)
        return net(x, t, flux3.grid_ids(ROWS, COLUMNS), Still(text, ids[1]), None, after)


def run_theirs(net: Any) -> Tensor:
    x, text, pooled, t, after = _inputs(net.config.in_channels)
    with torch.inference_mode():
        if isinstance(net, FluxTransformer2DModel):
            out = net(
                x, text, pooled, t, flux1.grid_ids(ROWS, COLUMNS), flux1.text_ids(TEXT), torch.tensor([3.5]),
                return_dict=False,
            )  # fmt: skip
        elif isinstance(net, Flux2Transformer2DModel):
            guidance = torch.tensor([4.0]) if net.config.guidance_embeds else None
            out = net(
                x, text, t, flux2.grid_ids(ROWS, COLUMNS), flux2.text_ids(TEXT), guidance, return_dict=False
            )
        else:
            ids = flux3.grid_ids(ROWS, COLUMNS), flux2.text_ids(TEXT)
            out = net(x, text, t, *ids, return_dict=False, target_timestep=after)
    return out[0]


def _inputs(channels: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, ROWS * COLUMNS, channels, generator=generator)
    text, pooled = torch.randn(1, TEXT, CONTEXT, generator=generator), torch.randn(1, 24, generator=generator)
    return x, text, pooled, torch.tensor([0.72]), torch.tensor([0.4])


def merged(nets: Nets, file: Path, weight: float = 1.0) -> Any:
    """diffusers' network with the LoRA merged into its weights, by diffusers and peft."""
    net = adapted(nets, file)
    net.fuse_lora(lora_scale=weight)
    return net


def adapted(nets: Nets, file: Path) -> Any:
    """diffusers' network with the LoRA beside its weights."""
    net = copy.deepcopy(nets.theirs)
    mixin = _MIXINS.get(nets.kind, Flux2LoraLoaderMixin)
    options = {"weight_name": file.name, "return_lora_metadata": True, "local_files_only": True}
    if nets.kind == "flux1":
        state, alphas, metadata = mixin.lora_state_dict(str(file.parent), return_alphas=True, **options)
    else:
        (state, metadata), alphas = mixin.lora_state_dict(str(file.parent), **options), None
    net.load_lora_adapter(state, network_alphas=alphas or None, metadata=metadata or None, prefix="transformer")
    return net


def fitted(file: Path, net: Any, name: str = "the model") -> Lora:
    return Lora(lora_identity(file), fit(open_lora(file), net, name, CPU, torch.float32))


def worn(nets: Nets, *files: tuple[Path, float]) -> Tensor:
    """What Koshi's network makes with these LoRAs on."""
    with wearing([(fitted(file, nets.ours), weight) for file, weight in files]):
        return run_ours(nets.ours)


Factors = dict[str, tuple[Tensor, Tensor]]


def factors(layers: Mapping[str, nn.Linear], seed: int = 7, rank: int = RANK) -> Factors:
    """down and up for each layer, such that they count as much as the layer does."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, layer in layers.items():
        down = torch.randn(rank, layer.in_features, generator=generator) * layer.in_features**-0.5
        found[name] = (down, torch.randn(layer.out_features, rank, generator=generator) * 0.3)
    return found


def low_rank(file: Path, given: Factors, name: str, ends: tuple[str, str], alpha: float | None = None) -> Path:
    """A file with names like `name`, a format of the layer's dotted and underscored names."""
    state: dict[str, Tensor] = {}
    for layer, (down, up) in given.items():
        module = name.format(dotted=layer, flat=layer.replace(".", "_"))
        state[f"{module}.{ends[0]}.weight"], state[f"{module}.{ends[1]}.weight"] = down, up
        if alpha is not None:
            state[f"{module}.alpha"] = torch.tensor(alpha)
    return save(file, state)


def save(file: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file, metadata)
    return file

# SPDX-License-Identifier: GPL-3.0-or-later
"""One small model in every layout that people have on their disks.

The files are written by safetensors, diffusers and transformers themselves; the settings are those that a file without
config.json is taken to have.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from test_families import make_flux1_model, make_flux2_model
from test_flux1 import FULL_AUTOENCODER, randomise

from koshi_backend.models.family import load_family
from koshi_backend.models.pool import model_files
from koshi_backend.models.registry import MODELS

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


def make(family: str, folder: Path, tiny: Path) -> Made:
    """A small random model of a family, by diffusers and transformers themselves."""
    widths: dict[str, Any] = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 32}
    if family == "flux1":
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
    return Made(family, folder, *states, draw(folder))


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

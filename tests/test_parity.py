# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi's networks against diffusers and transformers, the references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from PIL import Image
from safetensors.torch import save_file

from koshi_backend import create_pipeline, generate_image
from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer, grid_ids, text_ids
from koshi_backend.models.layout import autoencoder_source, transformer_source
from koshi_backend.models.loader import load_autoencoder, load_transformer
from koshi_backend.models.pool import load_model

CPU = torch.device("cpu")
DATA = Path(__file__).parent / "data"
PROMPT = "a calm sea at dawn, photo"


def names(file: str) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v) for k, v in json.loads((DATA / file).read_text()).items()}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def randomise(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights and statistics such that nothing is near zero or one, where mistakes hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            scale = p.shape[1:].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (1.0 if name.endswith("norm.weight") else 0.0))
        for name, b in net.named_buffers():
            if "running" in name:
                b.copy_(torch.rand(b.shape, generator=generator) + 0.5)
    return net.eval()


# --- full size, on the meta device -----------------------------------------------------------------------------


def klein_4b() -> Flux2Transformer:
    with torch.device("meta"):
        return Flux2Transformer(Flux2Config())


def test_klein_4b_has_exactly_the_native_names_and_shapes() -> None:
    ours = {k: tuple(v.shape) for k, v in klein_4b().state_dict().items()}
    assert ours == names("names_bfl_klein-4b.json")
    assert sum(np.prod(s) for s in ours.values()) == 3_875_544_576


def test_klein_4b_reads_exactly_the_tensors_of_the_diffusers_folder() -> None:
    theirs, used = names("names_diffusers_klein-4b.json"), set()
    for name, tensor in klein_4b().state_dict().items():
        source = transformer_source(name)
        used.update(source.names)
        whole = source.join([torch.empty(theirs[part], device="meta") for part in source.names])
        assert whole.shape == tensor.shape, name
    assert used == set(theirs)


def test_the_autoencoder_has_exactly_the_native_names_and_shapes() -> None:
    with torch.device("meta"):
        net = Autoencoder(AutoencoderConfig())
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == names("names_bfl_flux2_ae.json")


def test_the_autoencoder_reads_exactly_the_tensors_of_the_diffusers_folder() -> None:
    theirs, used = names("names_diffusers_flux2_vae.json"), set()
    with torch.device("meta"):
        net = Autoencoder(AutoencoderConfig())
    for name, tensor in net.state_dict().items():
        source = autoencoder_source(name, 4)
        used.update(source.names)
        whole = source.join([torch.empty(theirs[part], device="meta") for part in source.names])
        assert whole.shape == tensor.shape, name
    assert used == set(theirs)


# --- small, with random weights --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_transformer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    net = randomise(
        Flux2Transformer2DModel(
            num_layers=2, num_single_layers=3, attention_head_dim=32, num_attention_heads=3, joint_attention_dim=40,
            axes_dims_rope=(8, 8, 8, 8), guidance_embeds=False,
        ),
        1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("transformer")
    net.save_pretrained(folder)
    return folder, net


def run_both(ours: Flux2Transformer, theirs: Any, references: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 6 * 4 * (1 + references), 128, generator=generator)
    text = torch.randn(1, 7, 40, generator=generator)
    ids = torch.cat([grid_ids(6, 4, 10.0 * k) for k in range(1 + references)])
    t = torch.tensor([0.7175])
    with torch.no_grad():
        a = ours(x, text, t, ids, text_ids(7))
        b = theirs(
            hidden_states=x,
            encoder_hidden_states=text,
            timestep=t,
            img_ids=ids,
            txt_ids=text_ids(7),
            return_dict=False,
        )[0]
    return a, b


@pytest.mark.parametrize("references", [0, 2])
def test_the_transformer_agrees_on_random_weights(random_transformer: tuple[Path, Any], references: int) -> None:
    folder, theirs = random_transformer
    ours = load_transformer(folder, CPU, torch.float32)
    assert relative(*run_both(ours, theirs, references)) < 1e-4  # observed: 3e-7


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_native_single_file_is_the_same_network(
    random_transformer: tuple[Path, Any], tmp_path: Path, prefix: str
) -> None:
    folder, theirs = random_transformer
    state = load_transformer(folder, CPU, torch.float32).state_dict()
    file = tmp_path / "native.safetensors"
    save_file({prefix + k: v.contiguous() for k, v in state.items()}, file)
    ours = load_transformer(file, CPU, torch.float32)
    assert relative(*run_both(ours, theirs, 1)) < 1e-4


@pytest.mark.parametrize("small_decoder", [False, True])
def test_the_autoencoder_agrees_both_ways_on_random_weights(tmp_path: Path, small_decoder: bool) -> None:
    theirs = randomise(
        AutoencoderKLFlux2(
            block_out_channels=(16, 24, 32, 32), decoder_block_out_channels=(16, 16, 24, 24) if small_decoder else None,
            layers_per_block=2, norm_num_groups=8,
        ),
        3,
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    ours = load_autoencoder(tmp_path, CPU, torch.float32)
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        z = theirs.encode(picture * 2 - 1).latent_dist.mode()
        packed = Flux2KleinPipeline._patchify_latents(z)
        mean, var = theirs.bn.running_mean.view(1, -1, 1, 1), theirs.bn.running_var.view(1, -1, 1, 1)
        expected = (packed - mean) / torch.sqrt(var + theirs.config.batch_norm_eps)
        latent = ours.encode(picture)
        assert relative(latent, expected) < 1e-4  # observed: 4e-7
        back = theirs.decode(Flux2KleinPipeline._unpatchify_latents(packed)).sample
        assert relative(ours.decode(latent), (back / 2 + 0.5).clamp(0, 1)) < 1e-4  # observed: 5e-7


# --- koshi-tiny, whole pictures --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_pipeline(tiny: Path) -> Iterator[Any]:
    pipe = Flux2KleinPipeline.from_pretrained(tiny, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    yield pipe


def reference_picture(pipe: Any, latents: torch.Tensor, width: int, height: int, image: Any = None) -> np.ndarray:
    return np.asarray(
        pipe(
            prompt=PROMPT, image=image, latents=latents.clone(), width=width, height=height, num_inference_steps=4,
            guidance_scale=1.0, max_sequence_length=24, text_encoder_out_layers=(1, 2, 3),
        ).images[0]
    )  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(256, 256), (192, 128), (128, 320)])
def test_generate_image_draws_diffusers_picture(reference_pipeline: Any, width: int, height: int) -> None:
    latents = torch.randn(1, 128, height // 16, width // 16, generator=torch.Generator().manual_seed(6))
    ours = np.asarray(generate_image(PROMPT, None, width=width, height=height, latents=latents, model="koshi-tiny"))
    theirs = reference_picture(reference_pipeline, latents, width, height)
    assert ours.std() > 10
    assert psnr(ours, theirs) >= 45  # observed: 99 (equal to the byte), 77 at the least


def test_generate_image_draws_diffusers_picture_with_a_reference(reference_pipeline: Any, tmp_path: Path) -> None:
    pipe = create_pipeline("koshi-tiny", device="cpu", dtype=torch.float32)
    reference = pipe.generate_image("a modern city at night, photo", tmp_path / "r.png", width=256, height=256, seed=1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "r.png")), np.asarray(reference))
    latents = torch.randn(1, 128, 16, 16, generator=torch.Generator().manual_seed(7))
    ours = np.asarray(pipe.generate_image(PROMPT, None, reference, 256, 256, latents=latents))
    theirs = reference_picture(reference_pipeline, latents, 256, 256, reference)
    assert psnr(ours, theirs) >= 45  # observed: 99
    plain = np.asarray(pipe.generate_image(PROMPT, None, None, 256, 256, latents=latents))
    assert psnr(ours, plain) < 30  # the reference has an effect at all


def test_noise_is_the_seed_s_on_every_call() -> None:
    model = load_model("koshi-tiny", CPU, torch.float32)
    assert torch.equal(model.noise(5, 128, 64), model.noise(5, 128, 64))
    assert model.noise(5, 128, 64).shape == (1, 128, 4, 8)

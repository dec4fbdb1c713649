# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3 Image Klein as a whole, on small random models: files, pictures and shots; diffusers' are the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    Flux3AutoBlocks,
    Flux3DistilledAutoBlocks,
)
from diffusers.guiders import ClassifierFreeGuidance
from flux3_models import KINDS, LONG, is_base, make_model, small_transformer, their_embeds
from PIL import Image
from safetensors.torch import load_file, save_file
from test_families import CPU, HEIGHT, NEGATIVE, PROMPT, WIDTH, psnr
from test_flux1 import add, lose, quantise, shapes_of, widen
from transformers import Qwen3VLForConditionalGeneration

from koshi_backend import FluxVersion, create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.checkpoint_check import check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.flux3 import Flux3Transformer
from koshi_backend.models.flux3_model import Flux3Model
from koshi_backend.models.loader import find_family, load_transformer
from koshi_backend.models.model import Reference
from koshi_backend.models.parts import single_files
from koshi_backend.models.placement import Offload, place
from koshi_backend.models.registry import MODELS, find_traits, folder_traits
from koshi_backend.models.sampling import constant_mu, flow_times
from koshi_backend.pictures import to_pil
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp(request.param), request.param)


def test_its_files_are_told_and_checked(folder: Path) -> None:
    report = check_files(str(folder))
    assert report["ok"], report["problems"]
    assert {part["part"] for part in report["parts"]} == {"transformer", "vae", "text_encoder", "tokenizer"}
    assert all(part["tensors"] for part in report["parts"] if part["part"] != "tokenizer")


# --- whole models -----------------------------------------------------------------------------------------------


def test_folder_and_names_say_what_it_is(folder: Path) -> None:
    traits, base = folder_traits(folder), "base" in folder.name
    assert (traits.family, traits.references, traits.contrasted, traits.guided) == ("flux3", True, base, base)
    assert traits.steps == (50 if base else 16)
    name = "flux.3-image-klein-base" if base else "flux.3-image-klein"
    assert find_traits(f"{folder}#{name}") == MODELS[name].traits
    assert create_pipeline(FluxVersion(name), device="cpu").model == name
    for wrong in ("flux.3-image-klein" if base else "flux.3-image-klein-base", "flux.2-klein-4b"):
        with pytest.raises(KoshiError, match=r"unlike|another family"):
            find_traits(f"{folder}#{wrong}")


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_the_whole_pipeline_draws_diffusers_picture(folder: Path, shown: int) -> None:
    model = load_family(folder, CPU, torch.float32, "test")
    noise = model.noise(3, WIDTH, HEIGHT)
    draw = np.random.default_rng(6)
    images = [Image.fromarray(draw.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(shown)]
    tensors = [torch.from_numpy(np.asarray(i).astype(np.float32) / 255).permute(2, 0, 1)[None] for i in images]
    latent = model.denoise(
        PROMPT, noise, steps=3, references=[Reference(model.encode_picture(t)) for t in tensors], guidance=2.5,
        negative=NEGATIVE,
    )  # fmt: skip
    theirs = diffusers_picture(folder, noise, images)
    assert psnr(model.decode(latent), theirs) > 45  # observed: 113 to 116 dB


def diffusers_picture(folder: Path, noise: torch.Tensor, images: list[Image.Image]) -> torch.Tensor:
    """The modular pipeline less its prompt upsampler, a language model of its own, and the processor's loader."""
    base = is_base(folder)
    blocks = (Flux3AutoBlocks if base else Flux3DistilledAutoBlocks)()
    for name in ("prompt_upsampler", "text_encoder"):
        blocks.sub_blocks.pop(name)
    pipeline = blocks.init_pipeline()
    parts = {
        "transformer": small_transformer("base" if base else "distilled"),  # reading it again takes `accelerate`
        "vae": AutoencoderKLFlux2.from_pretrained(folder / "vae"),
    }
    pipeline.update_components(**parts, **({"guider": ClassifierFreeGuidance(guidance_scale=2.5)} if base else {}))
    pipeline.set_progress_bar_config(disable=True)
    text = Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder").eval()
    call: dict[str, Any] = {"prompt_embeds": their_embeds(text, folder, PROMPT)}
    if base:
        call["negative_prompt_embeds"] = their_embeds(text, folder, NEGATIVE)
    if images:
        call["image"] = images
    return pipeline(
        latents=noise, width=WIDTH, height=HEIGHT, num_inference_steps=3, output_type="pt", output="images", **call
    )


def test_the_network_is_told_where_each_step_leads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_family(folder, CPU, torch.float32, "test")
    assert isinstance(model, Flux3Model)
    told: list[tuple[float, float]] = []
    forward = model.transformer.forward

    def spy(*given: Any) -> torch.Tensor:
        told.append((float(given[1]), float(given[5])))
        return forward(*given)

    monkeypatch.setattr(model.transformer, "forward", spy)
    noise = model.noise(3, WIDTH, HEIGHT)
    picture = torch.zeros_like(noise)
    for strength in (1.0, 0.6):
        told.clear()
        model.denoise(PROMPT, noise, steps=4, picture=picture, strength=strength)
        assert told == [pytest.approx(pair) for pair in itertools.pairwise(flow_times(24, 4, strength, constant_mu))]
    # diffusers casts t / 1000, and multiplies again in bfloat16
    for t in (0.958085, 0.7175, 0.7672):
        theirs = float((torch.tensor(t * 1000) / 1000).bfloat16() * 1000)
        for rounding in ("bfl", "diffusers"):
            assert model._told(t, rounding) * 1000 == pytest.approx(theirs, abs=1e-3)
        assert model._told(t, "exact") == t


@pytest.mark.parametrize(("carry", "condition"), [("pixels", "start"), ("pixels", "both"), ("latent", "reference")])
def test_a_shot_renders(folder: Path, carry: str, condition: str, tmp_path: Path) -> None:
    shot = load_shot({
        "model": str(folder), "width": WIDTH, "height": HEIGHT, "frames": 12, "steps": 1, "seed": 4,
        "prompts": [{"frame": 0, "text": PROMPT}, {"frame": 6, "text": LONG, "negative": NEGATIVE}],
        "schedules": {"zoom": 0.97, "translation_x": 2, "strength": 0.5},
        "feedback": {"carry": carry, "condition": condition},
    })  # fmt: skip
    frames = list(render_shot(shot, store=FrameStore(tmp_path)))
    assert len({frame.png for frame in frames}) == 12
    sizes = {cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR).shape for frame in frames}
    assert sizes == {(HEIGHT, WIDTH, 3)}
    assert all(frame.stored for frame in render_shot(shot, store=FrameStore(tmp_path)))


@pytest.mark.parametrize("offload", ["model", "block"])
def test_offloaded_it_draws_the_same(folder: Path, offload: Offload) -> None:
    plain, placed = (load_family(folder, CPU, torch.float32, "test") for _ in range(2))
    noise = plain.noise(1, WIDTH, HEIGHT)
    call: dict[str, Any] = {"steps": 2, "references": [Reference(plain.noise(2, WIDTH, HEIGHT))], "guidance": 2.5}
    expected = plain.denoise(PROMPT, noise, **call)
    assert torch.equal(place(placed, CPU, offload).denoise(PROMPT, noise, **call), expected)


def test_the_usual_call_draws(folder: Path, tmp_path: Path) -> None:
    pipe = create_pipeline(str(folder), device="cpu", dtype=torch.float32)
    image = pipe.generate_image(PROMPT, tmp_path / "a.png", width=96, height=64, num_steps=1, template="ink", seed=1)
    assert image.size == (96, 64)
    shown = pipe.generate_image(
        PROMPT, None, to_pil(torch.rand(1, 3, 64, 96)), width=96, height=64, num_steps=1, seed=1
    )
    assert np.asarray(shown).std() > 0


# --- layouts of files -------------------------------------------------------------------------------------------


def native_file(folder: Path, file: Path, prefix: str = "") -> Path:
    state = load_transformer(folder / "transformer", CPU, torch.float32, Flux3Transformer).state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, file)
    return file


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_native_files_hold_the_same_model(folder: Path, prefix: str, tmp_path: Path) -> None:
    file = native_file(folder, tmp_path / "some.safetensors", prefix)
    state = load_file(file)
    save_file({**state, f"{prefix}repa_projectors.0.weight": torch.zeros(3)}, file)  # left over from training
    assert find_family(file) is Flux3Transformer
    assert find_traits(str(file)).contrasted == is_base(folder)
    ours, expected = (
        load_transformer(path, CPU, torch.float32, Flux3Transformer) for path in (file, folder / "transformer")
    )
    assert ours.config == expected.config
    assert shapes_of(ours) == shapes_of(expected)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), expected.parameters(), strict=True))


def test_a_single_file_takes_the_encoder_that_has_eyes(folder: Path, tmp_path: Path) -> None:
    """Klein's Qwen3-4B is exactly as wide and deep as the language model of Qwen3-VL-4B."""
    models = tmp_path / "models"
    file = native_file(folder, models / "diffusion_models" / "some.safetensors", "model.diffusion_model.")
    for name in ("vae", "tokenizer", "koshi.json"):
        (file.parent / name).symlink_to(folder / name)
    (file.parent / "text_encoder").mkdir()
    (file.parent / "text_encoder" / "config.json").symlink_to(folder / "text_encoder" / "config.json")
    state = load_file(next((folder / "text_encoder").glob("*.safetensors")))
    words = {k.replace("language_model.", ""): v for k, v in state.items() if "visual" not in k}
    texts = models / "text_encoders"
    texts.mkdir()
    save_file({**words, "padding.bias": torch.zeros(10**6)}, texts / "qwen_3_4b.safetensors")  # the larger: asked first
    with pytest.raises(KoshiError, match="no text encoder of width 32 is found"):
        single_files(file)
    save_file(state, texts / "qwen_3_vl_4b.safetensors")
    found = single_files(file)
    assert found.texts == {"text_encoder": texts / "qwen_3_vl_4b.safetensors"}
    a, b = (load_family(files, CPU, torch.float32, "test") for files in (found, folder))
    noise = a.noise(1, WIDTH, HEIGHT)
    assert torch.equal(a.denoise(PROMPT, noise, steps=2), b.denoise(PROMPT, noise, steps=2))


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("harm", [lose, widen, quantise, add])
def test_a_corrupted_tensor_is_refused_by_its_name(
    folder: Path, native: bool, harm: Callable[[dict[str, torch.Tensor], str], None], tmp_path: Path
) -> None:
    whole = native_file(folder, tmp_path / "whole.safetensors") if native else next(
        (folder / "transformer").glob("*.safetensors")
    )  # fmt: skip
    state = load_file(whole)
    for name in (
        ("txt_in.weight", "content_mode_blocks.image.1.norm.key_norm.scale", "single_blocks.2.mlp_in.weight")
        if native
        else ("x_embedders.image.weight", "txt_mode_blocks.0.attn.to_q.weight", "norm_out.linear.weight")
    ):
        harmed = dict(state)
        harm(harmed, name)
        file = tmp_path / "harmed.safetensors"
        save_file(harmed, file)
        with pytest.raises(KoshiError) as caught:
            load_transformer(file, CPU, torch.float32, Flux3Transformer)
        assert caught.value.code == "bad_model"
        assert name in str(caught.value)


def test_a_damaged_file_and_a_mixed_folder_are_refused(folder: Path, tiny: Path, tmp_path: Path) -> None:
    file = native_file(folder, tmp_path / "cut.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(KoshiError, match=r"cut\.safetensors cannot be read"):
        find_family(file)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for part in ("vae", "text_encoder", "tokenizer"):
        (mixed / part).symlink_to(folder / part)
    (mixed / "transformer").symlink_to(folder / "transformer")
    (mixed / "koshi.json").write_text("{}")  # then eight layers are read, of six
    with pytest.raises(KoshiError, match=r"has 6 layers; 32 are needed"):
        load_family(mixed, CPU, torch.float32, "test")
    with pytest.raises(KoshiError, match=r"FLUX\.3 transformer, where one of FLUX\.2 is needed"):
        load_transformer(folder / "transformer", CPU, torch.float32)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole models of every family, small and random, in diffusers' layout: found, drawn with, animated.

diffusers' own pipelines are the reference, from the same latents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from einops import rearrange
from test_flux1 import FULL_AUTOENCODER, randomise
from text_models import LENGTH, make_flux1, make_mistral, make_qwen
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, Qwen3ForCausalLM, T5EncoderModel, T5TokenizerFast

from koshi_backend import FluxVersion, create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.family import load_family
from koshi_backend.models.model import Reference, tokens_of
from koshi_backend.models.registry import MODELS, find_traits, folder_traits
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
PROMPT, NEGATIVE = "a word", "b word"


@dataclass(frozen=True)
class Family:
    """A folder, what it has to be found as, and the pipeline over the same weights."""

    folder: Path
    references: bool
    guided: bool
    pipeline: Any


def schedule(shifted: bool) -> FlowMatchEulerDiscreteScheduler:
    """The published settings: schnell's, or those of all others."""
    if not shifted:
        return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    return FlowMatchEulerDiscreteScheduler(
        base_shift=0.5, max_shift=1.15, shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256,
        max_image_seq_len=4096,
    )  # fmt: skip


def make_flux1_model(folder: Path, kind: str) -> Family:
    make_flux1(folder)
    guided, kontext = kind != "schnell", kind == "kontext"
    parts = {
        "scheduler": schedule(guided),
        "vae": randomise(
            AutoencoderKL(
                block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=8, **FULL_AUTOENCODER
            ),
            5,
        ),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder_2": T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        "tokenizer_2": T5TokenizerFast.from_pretrained(folder / "tokenizer_2"),
        "transformer": randomise(
            FluxTransformer2DModel(
                num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
                joint_attention_dim=32, pooled_projection_dim=24, axes_dims_rope=(8, 12, 12), guidance_embeds=guided,
            ),
            1,
        ),
    }  # fmt: skip
    pipeline = (FluxKontextPipeline if kontext else FluxPipeline)(**parts)
    pipeline.save_pretrained(folder)
    return Family(folder, kontext, guided, pipeline)


def make_flux2_model(folder: Path, kind: str, tiny: Path) -> Family:
    dev = kind == "flux.2-dev"
    text: Any = make_mistral(folder) if dev else make_qwen(folder, tiny)
    vae = AutoencoderKLFlux2(block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=8)
    net = Flux2Transformer2DModel(
        num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=96,
        axes_dims_rope=(8, 8, 8, 8), guidance_embeds=dev,
    )  # fmt: skip
    parts = {"scheduler": schedule(True), "vae": randomise(vae, 3), "transformer": randomise(net, 2)}
    with torch.no_grad():
        vae.bn.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(4))
        vae.bn.running_var.uniform_(0.7, 1.4, generator=torch.Generator().manual_seed(5))
    if dev:  # its tokenizer is an image processor, a package of its own: the pipeline is given states of the text
        for name, part in parts.items():
            part.save_pretrained(folder / name)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2Pipeline"}))
        return Family(folder, True, True, Flux2Pipeline(text_encoder=None, tokenizer=None, **parts))
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    words = Qwen3ForCausalLM.from_pretrained(folder / "text_encoder")
    del text
    pipeline = Flux2KleinPipeline(text_encoder=words, tokenizer=tokenizer, is_distilled=kind != "base", **parts)
    pipeline.save_pretrained(folder)
    return Family(folder, True, kind == "base", pipeline)


KINDS = ("schnell", "dev", "kontext", "flux.2-dev", "klein", "base")


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in KINDS[:3]:
        return make_flux1_model(folder, request.param)
    return make_flux2_model(folder, request.param, tiny)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().clamp_min(1e-16).log10())


def test_the_folder_says_what_it_is(family: Family) -> None:
    traits = folder_traits(family.folder)
    assert (traits.references, traits.guided) == (family.references, family.guided)
    assert traits.contrasted == (family.guided and "base" in family.folder.name)
    assert traits.steps == (4 if not traits.guided else 50 if traits.contrasted else 28)


@pytest.mark.parametrize("shown", [0, 1])
def test_the_whole_pipeline_draws_diffusers_picture(family: Family, shown: int) -> None:
    if shown and not family.references:
        return  # refused, below
    model = load_family(family.folder, CPU, torch.float32, "test")
    noise = model.noise(3, WIDTH, HEIGHT)
    picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    traits = folder_traits(family.folder)
    latent = model.denoise(
        PROMPT, noise, steps=3, references=[Reference(model.encode_picture(picture))] * shown,
        guidance=2.5, negative=NEGATIVE,
    )  # fmt: skip
    ours = model.decode(latent)
    latents = tokens_of(noise)
    call: dict[str, Any] = {
        "prompt": PROMPT, "width": WIDTH, "height": HEIGHT, "num_inference_steps": 3, "guidance_scale": 2.5,
        "output_type": "pt", "max_sequence_length": LENGTH,
    }  # fmt: skip
    if traits.family == "flux1":
        call["max_sequence_length"] = 512 if family.guided else 256
        if family.references:  # Kontext, which would go to about a megapixel, and the reference to a favourite size
            call |= {"_auto_resize": False, "max_area": WIDTH * HEIGHT}
        if shown:
            call["image"] = pixels_as_latents(family.pipeline, picture)  # these are taken as they are
    else:
        latents = rearrange(noise, "b c h w -> b c h w")
        call |= {"text_encoder_out_layers": (1, 2, 4)}
        if family.pipeline.text_encoder is None:
            with torch.no_grad():
                call |= {"prompt": None, "prompt_embeds": model.text.encode([PROMPT]).states}
        if traits.contrasted:
            # The negative prompt of this pipeline is the empty one.
            with torch.no_grad():
                call["negative_prompt_embeds"] = model.text.encode([NEGATIVE]).states
        if shown:
            from koshi_backend.pictures import to_pil

            eight = to_pil(picture)
            call["image"] = eight
            again = torch.from_numpy(np.asarray(eight).astype(np.float32) / 255).permute(2, 0, 1)[None]
            reference = Reference(model.encode_picture(again))
            ours = model.decode(
                model.denoise(PROMPT, noise, steps=3, references=[reference], guidance=2.5, negative=NEGATIVE)
            )
    family.pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        theirs = family.pipeline(latents=latents, **call).images
    # 118 to 134 dB: floats, before they are rounded to bytes
    assert psnr(ours, theirs) > 45


def pixels_as_latents(pipeline: Any, picture: torch.Tensor) -> torch.Tensor:
    """A picture as the pipeline's own latents, as it takes them for `image`."""
    vae = pipeline.vae
    with torch.no_grad():
        mean = vae.encode(picture * 2 - 1).latent_dist.mode()
    return (mean - vae.config.shift_factor) * vae.config.scaling_factor


def shot(family: Family, **changes: Any) -> Any:
    whole = {
        "model": str(family.folder), "width": WIDTH, "height": HEIGHT, "frames": 12, "steps": 1, "seed": 4,
        "prompts": [{"frame": 0, "text": PROMPT}, {"frame": 6, "text": "a zword", "negative": NEGATIVE}],
        "schedules": {"zoom": 0.97, "translation_x": 2, "strength": 0.5},
    }  # fmt: skip
    return load_shot(whole | changes)


def test_a_shot_that_says_nothing_of_strength_gets_the_family_s(family: Family) -> None:
    assert shot(family, schedules={}).values["strength"][0] == (0.5 if family.references else 0.3)
    turned = shot(family, schedules={}, strength_convention="deforum")
    assert turned.values["strength"][0] == pytest.approx(0.35)  # Deforum's own .65, turned round


@pytest.mark.parametrize("carry", ["pixels", "latent"])
@pytest.mark.parametrize("condition", [None, "start", "reference"])
def test_a_shot_renders_on_every_family(family: Family, carry: str, condition: str | None, tmp_path: Path) -> None:
    if condition == "reference" and not family.references:
        return  # refused, below
    one = shot(family, feedback={"carry": carry} | ({"condition": condition} if condition else {}))
    assert one.feedback.condition == (condition or ("both" if family.references else "start"))
    frames = list(render_shot(one, store=FrameStore(tmp_path)))
    assert len({frame.png for frame in frames}) == 12
    sizes = {cv2.imdecode(np.frombuffer(frame.png, np.uint8), cv2.IMREAD_COLOR).shape for frame in frames}
    assert sizes == {(HEIGHT, WIDTH, 3)}
    again = list(render_shot(one, store=FrameStore(tmp_path)))
    assert all(frame.stored for frame in again)


def test_guidance_and_the_negative_prompt_are_edits_where_they_count(family: Family, tmp_path: Path) -> None:
    def keys(**changes: Any) -> list[str]:
        return [frame.key for frame in render_shot(shot(family, frames=2, **changes), store=FrameStore(tmp_path))]

    curves = {"zoom": 0.97, "translation_x": 2, "strength": 0.5}
    stronger = keys(schedules={**curves, "guidance": 7.0})
    assert (stronger != keys()) == family.guided
    against = keys(prompts=[{"text": PROMPT, "negative": NEGATIVE}])
    assert (against != keys(prompts=[{"text": PROMPT}])) == folder_traits(family.folder).contrasted


def test_references_are_refused_where_there_are_none(family: Family) -> None:
    if family.references:
        assert shot(family, feedback={"condition": "reference"}).feedback.condition == "reference"
        return
    with pytest.raises(KoshiError) as caught:
        shot(family, feedback={"condition": "both"})
    assert caught.value.problems[0]["field"] == "feedback.condition"
    model = load_family(family.folder, CPU, torch.float32, "test")
    noise = model.noise(1, 64, 64)
    with pytest.raises(KoshiError, match="reference pictures"):
        model.denoise(PROMPT, noise, steps=1, references=[Reference(noise)])


def test_the_same_call_draws_on_every_family(family: Family, tmp_path: Path) -> None:
    pipe = create_pipeline(str(family.folder), device="cpu", dtype=torch.float32)
    latents = torch.randn(1, 64 if find_traits(pipe.model).family == "flux1" else 128, 4, 6)
    image = pipe.generate_image(PROMPT, tmp_path / "a.png", width=96, height=64, num_steps=1, latents=latents)
    assert image.size == (96, 64)
    with pytest.raises(KoshiError, match="latents"):
        pipe.generate_image(PROMPT, None, width=96, height=64, num_steps=1, latents=latents[:, :32])


def test_parts_of_two_families_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = make_flux1_model(tmp_path / "schnell", "schnell").folder
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for part in ("transformer", "text_encoder", "tokenizer", "koshi.json", "model_index.json"):
        (mixed / part).symlink_to(tiny / part)
    (mixed / "vae").symlink_to(folder / "vae")
    with pytest.raises(KoshiError, match="two families"):
        load_family(mixed, CPU, torch.float32, "test")


def test_every_version_is_in_the_registry() -> None:
    assert {version.value for version in FluxVersion} == set(MODELS)
    for info in MODELS.values():
        assert create_pipeline(info.name, device="cpu").model == info.name
        assert info.traits.steps >= 4
        assert info.licence

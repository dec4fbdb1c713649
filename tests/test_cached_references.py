# SPDX-License-Identifier: GPL-3.0-or-later
"""References as keys and values (FLUX.2 Klein 9B-KV): diffusers' result, computed once for all steps and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinKVPipeline, Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor, Flux2KVParallelSelfAttnProcessor
from PIL import Image
from test_families import CPU, HEIGHT, PROMPT, WIDTH, make_flux2_model, psnr
from test_flux1 import randomise
from torch import Tensor

from koshi_backend.models import flux2_model
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import Flux2Transformer, grid_ids, text_ids
from koshi_backend.models.flux2_cached import cache_references
from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.loader import load_transformer
from koshi_backend.models.model import Reference

ROWS, COLUMNS, LENGTH = 4, 6, 7


def networks(folder: Path) -> tuple[Flux2Transformer, Flux2Transformer2DModel]:
    theirs = Flux2Transformer2DModel(
        num_layers=3, num_single_layers=5, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=96,
        axes_dims_rope=(8, 8, 8, 8), guidance_embeds=False,
    )  # fmt: skip
    randomise(theirs, 1).save_pretrained(folder)
    for double in theirs.transformer_blocks:
        double.attn.set_processor(Flux2KVAttnProcessor())
    for single in theirs.single_transformer_blocks:
        single.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    return load_transformer(folder, CPU, torch.float32), theirs.float()


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Picture, text and two references, with the references' positions."""
    draw = torch.Generator().manual_seed(seed)
    picture, text = torch.randn(1, ROWS * COLUMNS, 128, generator=draw), torch.randn(1, LENGTH, 96, generator=draw)
    ids = torch.cat([grid_ids(ROWS, COLUMNS, 10.0), grid_ids(2, 3, 20.0)])
    return picture, text, torch.randn(1, len(ids), 128, generator=draw), ids


def test_the_first_and_the_later_steps_are_diffusers_own(tmp_path: Path) -> None:
    ours, theirs = networks(tmp_path)
    picture, text, references, ids = inputs(2)
    here, words = grid_ids(ROWS, COLUMNS), text_ids(LENGTH)
    with torch.inference_mode():
        first, cache = theirs(
            torch.cat([references, picture], 1), text, torch.tensor([0.7]), torch.cat([ids, here]), words,
            kv_cache_mode="extract", num_ref_tokens=len(ids), return_dict=False,
        )  # fmt: skip
        later = theirs(
            picture, text, torch.tensor([0.3]), here, words, kv_cache=cache, kv_cache_mode="cached", return_dict=False
        )[0]
        kept = cache_references(ours, references, ids)
        for t, expected in ((0.7, first), (0.3, later)):
            found = ours(picture, text, torch.tensor([t]), here, words, kept=kept)
            worst = float((found - expected).abs().max() / expected.abs().max())
            assert worst < 1e-5, worst  # 4e-7


def test_a_picture_with_cached_references_is_diffusers_own(tiny: Path, tmp_path: Path) -> None:
    """The whole loop, with the keys and values computed apart in ours and in the first step there."""
    family = make_flux2_model(tmp_path, "klein", tiny)
    model = load_family(family.folder, CPU, torch.float32, "test")
    assert isinstance(model, Flux2Model)
    model.cached = True
    parts = family.pipeline.components
    parts.pop("is_distilled", None)
    theirs = Flux2KleinKVPipeline(**parts)
    theirs.set_progress_bar_config(disable=True)
    noise = model.noise(3, WIDTH, HEIGHT)
    image = Image.fromarray(np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    latent = model.denoise(PROMPT, noise, steps=3, references=[Reference(model.encode_picture(picture))])
    with torch.no_grad():
        expected = theirs(
            prompt_embeds=model.text.encode([PROMPT]).states.clone(), image=[image], height=HEIGHT,
            width=WIDTH, num_inference_steps=3, latents=noise.clone(), output_type="pt",
        ).images  # fmt: skip
    assert psnr(model.decode(latent), expected) > 45


def test_the_same_references_are_computed_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_family(make_flux2_model(tmp_path, "klein", tiny).folder, CPU, torch.float32, "test")
    assert isinstance(model, Flux2Model)
    model.cached = True
    runs = []

    def counted(net: Flux2Transformer, tokens: Tensor, ids: Tensor) -> object:
        runs.append(len(ids))
        return cache_references(net, tokens, ids)

    monkeypatch.setattr(flux2_model, "cache_references", counted)
    noise = model.noise(1, WIDTH, HEIGHT)
    style = model.noise(2, WIDTH, HEIGHT)
    first = model.denoise(PROMPT, noise, steps=3, references=[Reference(style)])
    again = model.denoise(PROMPT, noise, steps=3, references=[Reference(style.clone())])
    model.denoise("another", noise, steps=2, references=[Reference(style)])  # another prompt, other steps
    assert runs == [24]
    assert torch.equal(first, again)
    shown = torch.ones(style.shape[-2:], dtype=torch.bool)
    shown[0] = False
    model.denoise(PROMPT, noise, steps=1, references=[Reference(style, shown)])
    model.denoise(PROMPT, noise, steps=1, references=[Reference(noise)])
    assert runs == [24, 18, 24]


def test_recomputed_keys_and_values_are_the_same(tmp_path: Path) -> None:
    """They depend on nothing but the references, so that keeping them is exact."""
    ours, _ = networks(tmp_path)
    picture, text, references, ids = inputs(5)
    here, words = grid_ids(ROWS, COLUMNS), text_ids(LENGTH)
    with torch.inference_mode():
        kept = cache_references(ours, references, ids)
        outs = [
            ours(picture, text, torch.tensor([0.5]), here, words, kept=which)
            for which in (kept, cache_references(ours, references, ids))
        ]
    assert float((outs[0] - outs[1]).abs().max()) <= 1e-6

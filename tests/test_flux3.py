# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3 Image Klein's network, schedule, positions and text against diffusers and transformers, random weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux3Transformer2DModel,
)
from diffusers.loaders.single_file_utils import convert_flux3_transformer_checkpoint_to_diffusers
from diffusers.modular_pipelines.flux3 import before_denoise, denoise
from flux3_models import COLUMNS, CONTEXT, KINDS, LONG, ROWS, TEXT, make_qwen_vl, small_transformer, their_embeds
from safetensors.torch import load_file, save_file
from test_families import CPU, PROMPT
from test_flux1 import parts_of, relative
from text_models import LAYERS

from koshi_backend.errors import KoshiError
from koshi_backend.models.flux2 import text_ids
from koshi_backend.models.flux3 import Flux3Config, Flux3Transformer, Still, grid_ids
from koshi_backend.models.layout3 import flux3_transformer_source
from koshi_backend.models.loader import load_transformer
from koshi_backend.models.registry import MODELS
from koshi_backend.models.sampling import constant_mu, flow_times
from koshi_backend.models.text_qwen_vl import QwenVLTextEncoder

# --- the transformer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("base", 5_538_458_368), ("distilled", 5_548_681_984)])
def test_at_full_size_it_is_diffusers_network_under_native_names(kind: str, count: int) -> None:
    with torch.device("meta"):
        ours = Flux3Transformer(Flux3Config(flow_map=kind == "distilled")).state_dict()
        theirs = Flux3Transformer2DModel(flow_map=kind == "distilled").state_dict()
    assert sum(tensor.numel() for tensor in ours.values()) == count
    assert {part for name in ours for part in flux3_transformer_source(name).names} == set(theirs)
    converted = convert_flux3_transformer_checkpoint_to_diffusers(dict(ours))  # diffusers' own from native files
    assert {name: tensor.shape for name, tensor in converted.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_is_exact_to_the_bit_both_ways(kind: str, tmp_path: Path) -> None:
    net = small_transformer(kind)
    net.save_pretrained(tmp_path)
    theirs = net.state_dict()
    ours = load_transformer(tmp_path, CPU, torch.float32, Flux3Transformer).state_dict()
    back: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        back |= parts_of(tensor, flux3_transformer_source(name), theirs)
    converted = convert_flux3_transformer_checkpoint_to_diffusers(dict(ours))
    assert back.keys() == converted.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    assert all(torch.equal(converted[name], theirs[name]) for name in theirs)


def inputs(references: int) -> tuple[torch.Tensor, Still, Still | None]:
    draw = torch.Generator().manual_seed(2)
    text = Still(torch.randn(1, TEXT, CONTEXT, generator=draw), text_ids(TEXT))
    ids = [grid_ids(ROWS, COLUMNS, 1), grid_ids(2, 3, 2)][:references]
    shown = Still(torch.randn(1, sum(map(len, ids)), 128, generator=draw), torch.cat(ids)) if references else None
    return torch.randn(1, ROWS * COLUMNS, 128, generator=draw), text, shown


@pytest.mark.parametrize("references", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_transformer_agrees_on_random_weights(kind: str, references: int, tmp_path: Path) -> None:
    theirs = small_transformer(kind)
    theirs.save_pretrained(tmp_path)
    ours = load_transformer(tmp_path, CPU, torch.float32, Flux3Transformer)
    assert ours.config.flow_map == (kind == "distilled")
    x, text, shown = inputs(references)
    t, after, ids = torch.tensor([0.93]), torch.tensor([0.71]), grid_ids(ROWS, COLUMNS)
    with torch.no_grad():
        expected = theirs(
            x, text.tokens, t, ids, text.ids, return_dict=False,
            target_timestep=after if ours.config.flow_map else None,
            image_cond_hidden_states=shown.tokens if shown else None, image_cond_ids=shown.ids if shown else None,
        )[0]  # fmt: skip
        assert relative(ours(x, t, ids, text, shown, after), expected) < 1e-4  # observed: 3e-7


def test_everything_it_is_told_has_an_effect(tmp_path: Path) -> None:
    small_transformer("distilled").save_pretrained(tmp_path)
    net = load_transformer(tmp_path, CPU, torch.float32, Flux3Transformer)
    x, text, shown = inputs(2)
    assert shown is not None
    t, after, ids = torch.tensor([0.93]), torch.tensor([0.71]), grid_ids(ROWS, COLUMNS)
    with torch.no_grad():
        plain = net(x, t, ids, text, shown, after)
        elsewhere = Still(shown.tokens, torch.cat([grid_ids(ROWS, COLUMNS, 2), grid_ids(2, 3, 1)]))
        for changed in (
            net(x, t, ids, text, shown, after / 2),
            net(x, t / 2, ids, text, shown, after),
            net(x, t, ids, Still(text.tokens.flip(1), text.ids), shown, after),
            net(x, t, ids, text, Still(shown.tokens + 1, shown.ids), after),
            net(x, t, ids, text, elsewhere, after),
            net(x, t, ids, text, None, after),
        ):
            assert relative(changed, plain) > 1e-3
        with pytest.raises(ValueError, match="time that the step leads to"):
            net(x, t, ids, text, shown)


@pytest.mark.parametrize("kind", KINDS)
def test_own_blocks_of_text_and_references_run_once_where_that_is_exact(kind: str, tmp_path: Path) -> None:
    small_transformer(kind).save_pretrained(tmp_path)
    net = load_transformer(tmp_path, CPU, torch.float32, Flux3Transformer)
    runs: list[str] = []
    for name, block in (("txt", "txt_mode_blocks.0"), ("image_cond", "content_mode_blocks.image_cond.0")):
        net.get_submodule(block).register_forward_hook(lambda *_, name=name: runs.append(name))
    x, text, shown = inputs(1)
    assert shown is not None
    ids, steps = grid_ids(ROWS, COLUMNS), [(1.0, 0.9), (0.9, 0.6), (0.6, 0.0)]
    with torch.inference_mode():
        for t, after in steps:
            kept = net(x, torch.tensor([t]), ids, text, shown, torch.tensor([after]))
            fresh = Still(text.tokens, text.ids), Still(shown.tokens, shown.ids)
            assert torch.equal(kept, net(x, torch.tensor([t]), ids, *fresh, torch.tensor([after])))
    once = len(steps) + 1  # the fresh ones each time, and one
    assert {name: runs.count(name) for name in set(runs)} == dict.fromkeys(
        ("txt", "image_cond"), once if kind == "base" else 2 * len(steps)
    )


def test_bfloat16_agrees_as_far_as_bfloat16_goes(tmp_path: Path) -> None:
    theirs = small_transformer("distilled").bfloat16()
    theirs.save_pretrained(tmp_path)
    ours = load_transformer(tmp_path, CPU, torch.bfloat16, Flux3Transformer)
    x, text, shown = inputs(1)
    assert shown is not None
    times = {"timestep": torch.tensor([0.5]), "target_timestep": torch.tensor([0.25])}  # exact, as 500 too
    ids = grid_ids(ROWS, COLUMNS)
    for still in (text, shown):
        still.tokens = still.tokens.bfloat16()
    with torch.no_grad():
        expected = theirs(
            x.bfloat16(), text.tokens, img_ids=ids, txt_ids=text.ids, image_cond_hidden_states=shown.tokens,
            image_cond_ids=shown.ids, return_dict=False, **{k: t.bfloat16() for k, t in times.items()},
        )[0]  # fmt: skip
        found = ours(x.bfloat16(), times["timestep"], ids, text, shown, times["target_timestep"])
    assert found.dtype is torch.bfloat16
    assert relative(found.float(), expected.float()) < 1e-2  # observed: 0, where one rounding is up to 4e-3


# --- schedule, positions and text -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 16, 50])
def test_the_schedule_is_the_modular_pipeline_s(steps: int) -> None:
    theirs = before_denoise.Flux3SetTimestepsStep()
    (scheduler,) = [FlowMatchEulerDiscreteScheduler(**spec.config) for spec in theirs.expected_components]
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    for tokens in (64, 4096, 9216):  # whatever the size
        assert flow_times(tokens, steps, mu=constant_mu) == pytest.approx(scheduler.sigmas.tolist(), abs=2e-7)
    assert MODELS["flux.3-image-klein-base"].traits.steps == theirs.num_inference_steps
    assert MODELS["flux.3-image-klein-base"].traits.guidance == denoise.Flux3LoopDenoiser().guidance_scale


def test_positions_are_the_modular_pipeline_s() -> None:
    scale = before_denoise.Flux3PrepareLatentsStep().image_rope_scale
    for reference in range(3):
        theirs = before_denoise._prepare_image_ids(5, 3, scale, l_coord=-reference)
        assert torch.equal(grid_ids(5, 3, reference), theirs)
    words = before_denoise.Flux3TextRoPEInputsStep._prepare_text_ids(torch.zeros(1, 9, 2))
    assert torch.equal(text_ids(9), words)


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_states_are_those_of_diffusers(side: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = make_qwen_vl(tmp_path, side)
    ours = QwenVLTextEncoder(tmp_path, CPU, torch.float32)
    assert QwenVLTextEncoder.default.layers == (4, 8, 12, 16, 20, 24, 28, 32)
    lengths = {"": 80, PROMPT: 80, "Zwölf Boxkämpfer, ganz nah": 80, LONG: 240, LONG * 2: 240}
    for prompt, length in lengths.items():
        states, pooled = ours.encode([prompt])
        assert states.shape == (1, length, CONTEXT)
        assert pooled is None
        assert relative(states, their_embeds(whole, tmp_path, prompt)) < 1e-5  # observed: 0
    assert len(ours.model.layers) == max(LAYERS)  # of 6, and nothing of the eyes
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1  # the one that does not fit


def test_an_encoder_of_another_kind_or_with_damage_is_refused(tmp_path: Path) -> None:
    make_qwen_vl(tmp_path)
    (file,) = (tmp_path / "text_encoder").glob("*.safetensors")
    state = load_file(file)
    name = "model.language_model.layers.2.mlp.up_proj.weight"
    save_file({k: v for k, v in state.items() if k != name}, file)
    with pytest.raises(KoshiError, match=r"layers\.2\.mlp\.up_proj\.weight: this tensor is missing"):
        QwenVLTextEncoder(tmp_path, CPU, torch.float32)
    config = tmp_path / "text_encoder" / "config.json"
    config.write_text(json.dumps({"model_type": "qwen3"}))
    with pytest.raises(KoshiError, match="'qwen3', not 'qwen3_vl'"):
        QwenVLTextEncoder(tmp_path, CPU, torch.float32)

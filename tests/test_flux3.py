# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3 Image Klein against diffusers and transformers, on small random models: parts, files, pictures and shots."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux3AutoBlocks,
    Flux3DistilledAutoBlocks,
    Flux3Transformer2DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.loaders.single_file_utils import convert_flux3_transformer_checkpoint_to_diffusers
from diffusers.modular_pipelines.flux3 import before_denoise, denoise, encoders
from PIL import Image
from safetensors.torch import load_file, save_file
from test_families import CPU, HEIGHT, NEGATIVE, PROMPT, WIDTH, psnr
from test_flux1 import add, lose, parts_of, quantise, randomise, relative, shapes_of, widen
from test_text import LAYERS, SIZES, byte_tokenizer, written
from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from koshi_backend import FluxVersion, create_pipeline
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.models.checkpoint_check import check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import text_ids
from koshi_backend.models.flux3 import Flux3Config, Flux3Transformer, Still, grid_ids
from koshi_backend.models.flux3_model import Flux3Model
from koshi_backend.models.layout3 import flux3_transformer_source
from koshi_backend.models.loader import find_family, load_transformer
from koshi_backend.models.model import Reference
from koshi_backend.models.parts import single_files
from koshi_backend.models.placement import Offload, place
from koshi_backend.models.registry import MODELS, find_traits, folder_traits
from koshi_backend.models.sampling import constant_mu, flow_times
from koshi_backend.models.text_qwen_vl import DEFAULT, QwenVLTextEncoder
from koshi_backend.pictures import to_pil
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

KINDS = ("distilled", "base")
ROWS, COLUMNS, TEXT = 6, 4, 7
CONTEXT = len(LAYERS) * SIZES["hidden_size"]
LONG = "a long word " * 12
# As published with Qwen3-VL, less its branches for tools and pictures.
TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def small_transformer(kind: str, context: int = CONTEXT) -> Flux3Transformer2DModel:
    return randomise(
        Flux3Transformer2DModel(
            num_layers=2, num_single_layers=3, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=context, axes_dims_rope=(8, 8, 8, 8), flow_map=kind == "distilled",
        ),
        1,
    )  # fmt: skip


def make_qwen_vl(folder: Path, side: str = "left") -> Any:
    marks = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    tokenizer = byte_tokenizer(marks, pad_token=marks[0], eos_token=marks[1], chat_template=TEMPLATE, padding_side=side)
    tokenizer.save_pretrained(folder / "tokenizer")
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "out_hidden_size": 32,
    }
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    words: dict[str, Any] = {"num_hidden_layers": 6, "num_key_value_heads": 2, "vocab_size": 300, **SIZES}
    words |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [2, 1, 1]}}
    config = Qwen3VLConfig(text_config=words, vision_config=vision, tie_word_embeddings=True)
    (folder / "koshi.json").write_text(json.dumps({"text_encoder_out_layers": LAYERS, "max_sequence_length": 240}))
    return written(Qwen3VLForConditionalGeneration(config), folder / "text_encoder")


def make_model(folder: Path, kind: str) -> Path:
    make_qwen_vl(folder)
    vae = randomise(AutoencoderKLFlux2(block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=8), 3)
    with torch.no_grad():
        vae.bn.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(4))
        vae.bn.running_var.uniform_(0.7, 1.4, generator=torch.Generator().manual_seed(5))
    vae.save_pretrained(folder / "vae")
    small_transformer(kind).save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp(request.param), request.param)


def is_base(folder: Path) -> bool:
    return folder_traits(folder).contrasted


def test_its_files_are_told_and_checked(folder: Path) -> None:
    report = check_files(str(folder))
    assert report["ok"], report["problems"]
    assert {part["part"] for part in report["parts"]} == {"transformer", "vae", "text_encoder", "tokenizer"}
    assert all(part["tensors"] for part in report["parts"] if part["part"] != "tokenizer")


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


def their_embeds(whole: Any, folder: Path, prompt: str, length: int = 240) -> torch.Tensor:
    """diffusers' own. It reads a processor there, which passes text on to this tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    processor = SimpleNamespace(apply_chat_template=tokenizer.apply_chat_template, tokenizer=tokenizer)
    with torch.no_grad():
        return encoders.Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds(
            whole, processor, prompt, max_sequence_length=length, hidden_states_layers=LAYERS
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_states_are_those_of_diffusers(side: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = make_qwen_vl(tmp_path, side)
    ours = QwenVLTextEncoder(tmp_path, CPU, torch.float32)
    assert DEFAULT.layers == (4, 8, 12, 16, 20, 24, 28, 32)
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

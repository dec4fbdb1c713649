# SPDX-License-Identifier: GPL-3.0-or-later
"""The text side of every family against diffusers' own pipelines, on small random encoders in their own layouts.

The folders are written by transformers and tokenizers themselves. Observed everywhere: equal to the last bit.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline, FluxPipeline
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE as THEIR_SYSTEM_MESSAGE
from text_models import (
    CPU,
    LAYERS,
    LENGTH,
    LONG,
    MISTRAL_TEMPLATE,
    PROMPTS,
    SYSTEM_LENGTH,
    encoder,
    make_flux1,
    make_mistral,
    make_qwen,
)
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    CLIPTokenizer,
    MistralModel,
    PretrainedConfig,
    Qwen3Model,
    T5EncoderModel,
    T5TokenizerFast,
)

from koshi_backend.models.text import TextEncoder
from koshi_backend.models.text_flux1 import Flux1TextEncoder
from koshi_backend.models.text_language import keep_layers
from koshi_backend.models.text_mistral import SYSTEM_MESSAGE, MistralTextEncoder
from koshi_backend.models.text_networks import build, read_config


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def qwen(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("qwen")
    return folder, make_qwen(folder, tiny)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    return folder, make_mistral(folder)


@pytest.fixture(scope="module")
def flux1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("flux1")
    return folder, make_flux1(folder)


def mistral_embeds(whole: Any, folder: Path, prompts: list[str], length: int) -> torch.Tensor:
    """diffusers' own. It reads a processor there, whose text goes through this tokenizer unchanged."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    with torch.no_grad():
        return Flux2Pipeline._get_mistral_3_small_prompt_embeds(
            whole, tokenizer, prompts, max_sequence_length=length, hidden_states_layers=LAYERS
        )


# --- the same numbers as diffusers ------------------------------------------------------------------------------


def test_klein_s_states_are_those_of_diffusers(qwen: tuple[Path, Any]) -> None:
    folder, whole = qwen
    ours = TextEncoder(folder, CPU, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    prompts = [*PROMPTS, LONG]
    with torch.no_grad():
        theirs = Flux2KleinPipeline._get_qwen3_prompt_embeds(
            whole, tokenizer, prompts, max_sequence_length=LENGTH, hidden_states_layers=LAYERS
        )
    states, pooled = ours.encode(prompts)
    assert states.shape == (4, LENGTH, 3 * 32)
    assert pooled is None
    assert relative(states, theirs) < 1e-5  # observed: 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_flux2_dev_s_states_are_those_of_diffusers(tmp_path: Path, side: str) -> None:
    whole = make_mistral(tmp_path, side)
    ours = MistralTextEncoder(tmp_path, CPU, torch.float32)
    prompts = [*PROMPTS, "[IMG]a cat[IMG]", LONG]
    theirs = mistral_embeds(whole, tmp_path, prompts, SYSTEM_LENGTH + LENGTH)
    states, pooled = ours.encode(prompts)
    assert states.shape == (5, SYSTEM_LENGTH + LENGTH, 3 * 32)
    assert pooled is None
    assert relative(states, theirs) < 1e-5  # observed: 0


@pytest.mark.parametrize("length", [24, 40])
def test_flux1_s_states_are_those_of_diffusers(flux1: tuple[Path, Any], length: int) -> None:
    folder, (clip, t5) = flux1
    pipe = FluxPipeline(
        FlowMatchEulerDiscreteScheduler(), None, clip, CLIPTokenizer.from_pretrained(folder / "tokenizer"), t5,
        T5TokenizerFast.from_pretrained(folder / "tokenizer_2"), None,
    )  # fmt: skip
    ours = Flux1TextEncoder(folder, CPU, torch.float32, length)
    prompts = [*PROMPTS, LONG]
    with torch.no_grad():
        theirs, their_pooled, _ = pipe.encode_prompt(prompts, None, device=CPU, max_sequence_length=length)
    states, pooled = ours.encode(prompts)
    assert states.shape == (4, length, 32)
    assert pooled is not None
    assert pooled.shape == (4, 24)
    assert relative(states, theirs) < 1e-5  # observed: 0
    assert relative(pooled, their_pooled) < 1e-5  # observed: 0


def test_the_rotary_and_position_tables_are_not_left_empty_in_half_precision(
    qwen: tuple[Path, Any], mistral: tuple[Path, Any], flux1: tuple[Path, Any]
) -> None:
    """They are in no file, and stay exact when the weights are not."""
    both = Flux1TextEncoder(flux1[0], CPU, torch.bfloat16)
    languages = [TextEncoder(qwen[0], CPU, torch.bfloat16), MistralTextEncoder(mistral[0], CPU, torch.bfloat16)]
    for reader in (*languages, both):
        reader.read()
    whole = [reader.model for reader in languages]
    for model in whole:
        assert model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
        assert model.rotary_emb.inv_freq.dtype == torch.float32
    for model in (*whole, both.clip, both.t5):
        assert not [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert {state.dtype for state in both.encode(["a"]) if state is not None} == {torch.bfloat16}


def test_t5_keeps_its_widest_numbers_in_float32_when_the_rest_is_float16(flux1: tuple[Path, Any]) -> None:
    theirs = T5EncoderModel.from_pretrained(flux1[0] / "text_encoder_2", dtype=torch.float16)
    reader = Flux1TextEncoder(flux1[0], CPU, torch.float16)
    reader.read()
    ours = reader.t5
    assert {n: p.dtype for n, p in ours.named_parameters()} == {n: p.dtype for n, p in theirs.named_parameters()}
    assert ours.encoder.embed_tokens.weight is ours.shared.weight


# --- full size, without memory -----------------------------------------------------------------------------------

# config.json as the older transformers that published the models wrote them.
PUBLISHED = {
    "Qwen3-4B": (Qwen3Model, 27, 1e6, {
        "model_type": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36, "intermediate_size": 9728, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936, "rope_theta": 1000000,
        "rope_scaling": None, "rms_norm_eps": 1e-06, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    }),
    "Mistral-Small-3.2": (MistralModel, 30, 1e9, {
        "model_type": "mistral3", "vision_config": {"model_type": "pixtral"}, "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "mistral", "hidden_size": 5120, "num_hidden_layers": 40, "intermediate_size": 32768,
            "head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 131072,
            "rope_theta": 1000000000.0, "sliding_window": None, "rms_norm_eps": 1e-05,
        },
    }),
    "T5-XXL": (T5EncoderModel, 24, None, {
        "model_type": "t5", "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24,
        "num_decoder_layers": 24, "feed_forward_proj": "gated-gelu", "vocab_size": 32128, "tie_word_embeddings": False,
    }),
    "CLIP-L": (CLIPTextModel, 12, None, {
        "model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "vocab_size": 49408, "max_position_embeddings": 77, "projection_dim": 768,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_act": "quick_gelu",
    }),
}  # fmt: skip
# Embedding + layers, counted by hand; those of T5's encoder and CLIP's text half are well known.
PARAMETERS = {
    "Qwen3-4B": 151936 * 2560 + 27 * (2560 * 128 * (32 + 8 + 8 + 32) + 3 * 2560 * 9728 + 2 * 2560 + 2 * 128),
    "Mistral-Small-3.2": 131072 * 5120 + 30 * (5120 * 128 * (32 + 8 + 8 + 32) + 3 * 5120 * 32768 + 2 * 5120),
    "T5-XXL": 4_762_310_656,
    "CLIP-L": 123_060_480,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_are_built_as_published(name: str, tmp_path: Path) -> None:
    kind, layers, theta, written_config = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(written_config))
    config = read_config(tmp_path, PretrainedConfig)
    config = getattr(config, "text_config", config)
    keep_layers(config, layers, tmp_path)
    net = build(kind, config, tmp_path)
    if theta is not None:
        net.norm = torch.nn.Identity()
        assert config.rope_parameters["rope_theta"] == theta
    assert all(p.is_meta for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


# --- templates and tokens ---------------------------------------------------------------------------------------


def test_klein_s_prompt_is_a_turn_with_empty_thinking(qwen: tuple[Path, Any]) -> None:
    tokenizer = TextEncoder(qwen[0], CPU, torch.float32).tokenizer
    expected = "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert TextEncoder.chat(tokenizer, "a cat") == expected


@pytest.mark.parametrize("template", [MISTRAL_TEMPLATE, None])
def test_dev_s_prompt_follows_the_system_message_with_or_without_a_template(
    tmp_path: Path, template: str | None
) -> None:
    whole = make_mistral(tmp_path, template=template)
    ours = MistralTextEncoder(tmp_path, CPU, torch.float32)
    assert MistralTextEncoder.chat(ours.tokenizer, "a cat") == (
        "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses "
        "focusing on object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT]"
        "[INST]a cat[/INST]"
    )
    assert SYSTEM_MESSAGE == THEIR_SYSTEM_MESSAGE
    seen = spy_on_ids(ours.model)
    ours.encode(["a cat"])
    ids = seen[0][0].tolist()
    assert len(ids) == SYSTEM_LENGTH + LENGTH
    body = ids[ids.index(0) :]  # <s>; the pads are before it
    assert set(ids[: ids.index(0)]) == {7}
    assert body.count(0) == 1
    assert (body[1], body[-1]) == (4, 3)
    if template is None:
        make_mistral(tmp_path)  # the same weights, with a template again
        assert torch.equal(ours.encode(["a"]).states, mistral_embeds(whole, tmp_path, ["a"], len(ids)))


def test_a_mistral_tokenizer_that_says_it_is_llama_s_gives_its_own_ids(mistral: tuple[Path, Any]) -> None:
    """As published: transformers must not put Llama's rules in place of the ones in the file."""
    file = mistral[0] / "tokenizer" / "tokenizer_config.json"
    before = file.read_text(encoding="utf-8")
    file.write_text(json.dumps({**json.loads(before), "tokenizer_class": "LlamaTokenizerFast"}))
    try:
        tokenizer = MistralTextEncoder(mistral[0], CPU, torch.float32).tokenizer
        raw = Tokenizer.from_file(str(mistral[0] / "tokenizer" / "tokenizer.json"))
        text = MistralTextEncoder.chat(tokenizer, "Zwölf cats  run")
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == raw.encode(text, add_special_tokens=False).ids
    finally:
        file.write_text(before, encoding="utf-8")


def test_flux1_s_prompts_are_raw_and_their_pads_are_attended(flux1: tuple[Path, Any]) -> None:
    ours = Flux1TextEncoder(flux1[0], CPU, torch.float32, 12)
    t5, clip = spy_on_ids(ours.t5), spy_on_ids(ours.clip)
    ours.encode(["word cab"])
    assert t5[0][0].tolist()[-7:] == [1, 0, 0, 0, 0, 0, 0]  # </s>, then pads
    assert clip[0].shape == (1, 77)
    start = ours.clip_tokenizer.bos_token_id
    assert clip[0][0, 0] == start
    assert set(clip[0][0, 8:].tolist()) == {start + 1}  # 7 letters, then the end mark as the pad


def spy_on_ids(model: Any) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    return seen


@pytest.mark.parametrize("family", ["qwen", "mistral", "flux1"])
def test_a_prompt_that_is_too_long_is_named_with_the_words_that_are_lost(
    family: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    ours, length = encoder(family, request.getfixturevalue(family)[0])
    words = ["word"] * 300
    with caplog.at_level(logging.INFO):
        ours.encode(["a cat"])
        assert not caplog.records
        ours.encode([" ".join(words), "a cat", " ".join(words)])
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == 1  # once for a prompt, not each time it is used
    # Letters are tokens, but T5 knows "word" as one; it keeps a place for its end mark.
    marks = {"qwen": len("_user\n"), "mistral": 4 + len(THEIR_SYSTEM_MESSAGE)}.get(family, 1)
    kept = length - 1 if family == "flux1" else (length - marks + 1) // len("word ")
    lost = len(words) - kept
    assert f"{length} tokens: its last {lost} words are not used" in warned[0]
    if family == "flux1":  # CLIP: start, 75 letters, end
        assert f"the last {300 - 75 // 4} words reach the model through T5 alone" in caplog.text


def test_a_prompt_that_only_just_fits_loses_its_marks_not_its_words(
    qwen: tuple[Path, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ours = TextEncoder(qwen[0], CPU, torch.float32)
    ours.encode(["a" * (LENGTH - 10)])
    assert "the marks after it are cut off" in caplog.text


@pytest.mark.parametrize("family", ["qwen", "mistral", "flux1"])
def test_several_prompts_are_each_what_they_are_alone_and_are_remembered(
    family: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)[0]
    ours, _ = encoder(family, folder)
    together = ours.encode(PROMPTS)
    alone = [encoder(family, folder)[0].encode([prompt]) for prompt in PROMPTS]
    for k in range(2):
        if together[k] is not None:
            assert torch.equal(together[k], torch.cat([state[k] for state in alone]))
    runs = spy_on_ids(ours.t5 if isinstance(ours, Flux1TextEncoder) else ours.model)  # type: ignore[attr-defined]
    assert torch.equal(ours.encode(PROMPTS[::-1]).states, together.states.flip(0))
    assert not runs

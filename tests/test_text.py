# SPDX-License-Identifier: GPL-3.0-or-later
"""The text side of every family against diffusers' own pipelines, on small random encoders in their own layouts.

The folders are written by transformers and tokenizers themselves. Observed everywhere: equal to the last bit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline, FluxPipeline
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE as THEIR_SYSTEM_MESSAGE
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from koshi_backend.errors import KoshiError
from koshi_backend.models import text_mistral
from koshi_backend.models.tensor_files import TensorFiles
from koshi_backend.models.text import TextEncoder, _chat
from koshi_backend.models.text_base import PromptEncoder, build, keep_layers, read_config
from koshi_backend.models.text_flux1 import Flux1TextEncoder
from koshi_backend.models.text_mistral import MistralTextEncoder

CPU = torch.device("cpu")
PROMPTS = ["a calm sea at dawn, photo", "", "Zwölf Boxkämpfer, ganz nah"]
LONG = "word " * 200
LAYERS, LENGTH = [1, 2, 4], 60  # of 6 layers
SYSTEM_LENGTH = 190  # the system message alone takes about 170 tokens where a letter is a token

# As published with Mistral-Small-3.2, less its branches for tools and pictures.
MISTRAL_TEMPLATE = (
    "{{- bos_token }}{%- for m in messages %}{%- if m['role'] == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + m['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}{%- else %}{{- '[INST]' }}"
    "{%- for block in m['content'] %}{{- block['text'] }}{%- endfor %}{{- '[/INST]' }}{%- endif %}{%- endfor %}"
)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


def written(net: Any, folder: Path, seed: int = 1) -> Any:
    """Weights in which nothing is near zero or one, saved by transformers itself."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            scale = p.shape[1:].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + ("norm" in name and p.ndim == 1))
    net.eval().save_pretrained(folder)
    return net


def byte_vocabulary(first: list[str], last: list[str] | None = None) -> dict[str, int]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: k for k, token in enumerate([*first, *letters, *(last or [])])}


def byte_tokenizer(specials: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A letter is a token, and a few marks are tokens of their own."""
    inner = Tokenizer(BPE(byte_vocabulary(specials), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=specials[2:], **settings)


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8}


def write_settings(folder: Path, length: int = LENGTH) -> None:
    (folder / "koshi.json").write_text(json.dumps({"text_encoder_out_layers": LAYERS, "max_sequence_length": length}))


# --- the folders ------------------------------------------------------------------------------------------------


def make_qwen(folder: Path, tiny: Path) -> Any:
    template = (tiny / "tokenizer" / "chat_template.jinja").read_text(encoding="utf-8")
    marks = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    tokenizer = byte_tokenizer(marks, pad_token=marks[0], eos_token=marks[1], chat_template=template)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = Qwen3Config(**SIZES, num_hidden_layers=6, num_key_value_heads=2, vocab_size=300)
    write_settings(folder)
    return written(Qwen3ForCausalLM(config), folder / "text_encoder")


def make_mistral(folder: Path, side: str = "left", template: str | None = MISTRAL_TEMPLATE) -> Any:
    marks = ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "<pad>"]
    tokenizer = byte_tokenizer(
        marks, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side=side, chat_template=template
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    vision = {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"head_dim": 8, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
    words = {"model_type": "mistral", "num_hidden_layers": 6, "num_key_value_heads": 2, "vocab_size": 300}
    words |= {"sliding_window": None, **SIZES}
    config = Mistral3Config(vision_config=vision, text_config=words, image_token_index=6)
    write_settings(folder, SYSTEM_LENGTH + LENGTH)
    return written(Mistral3ForConditionalGeneration(config), folder / "text_encoder")


def make_flux1(folder: Path) -> tuple[Any, Any]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = byte_vocabulary(letters_with_ends := [c + "</w>" for c in letters], marks)
    assert len(vocabulary) == 2 * len(letters) + 2 and letters_with_ends
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁word", -3.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzABZ,ö"]
    T5TokenizerFast(vocab=pieces, extra_ids=5, model_max_length=512).save_pretrained(folder / "tokenizer_2")
    end = vocabulary["<|endoftext|>"]
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=24, intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=3, hidden_act="quick_gelu", bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=64, d_model=32, d_kv=8, num_heads=4, d_ff=48, num_layers=3, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    return written(clip, folder / "text_encoder"), written(t5, folder / "text_encoder_2", 2)


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
    whole = [
        TextEncoder(qwen[0], CPU, torch.bfloat16).model,
        MistralTextEncoder(mistral[0], CPU, torch.bfloat16).model,
    ]
    for model in whole:
        assert model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
        assert model.rotary_emb.inv_freq.dtype == torch.float32
    both = Flux1TextEncoder(flux1[0], CPU, torch.bfloat16)
    for model in (*whole, both.clip, both.t5):
        assert not [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert {state.dtype for state in both.encode(["a"]) if state is not None} == {torch.bfloat16}


def test_t5_keeps_its_widest_numbers_in_float32_when_the_rest_is_float16(flux1: tuple[Path, Any]) -> None:
    theirs = T5EncoderModel.from_pretrained(flux1[0] / "text_encoder_2", dtype=torch.float16)
    ours = Flux1TextEncoder(flux1[0], CPU, torch.float16).t5
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
    assert _chat(tokenizer, "a cat") == expected


@pytest.mark.parametrize("template", [MISTRAL_TEMPLATE, None])
def test_dev_s_prompt_follows_the_system_message_with_or_without_a_template(
    tmp_path: Path, template: str | None
) -> None:
    whole = make_mistral(tmp_path, template=template)
    ours = MistralTextEncoder(tmp_path, CPU, torch.float32)
    assert text_mistral._chat(ours.tokenizer, "a cat") == (
        "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses "
        "focusing on object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT]"
        "[INST]a cat[/INST]"
    )
    assert text_mistral.SYSTEM_MESSAGE == THEIR_SYSTEM_MESSAGE
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
        text = text_mistral._chat(tokenizer, "Zwölf cats  run")
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


def encoder(family: str, folder: Path) -> tuple[PromptEncoder, int]:
    if family == "flux1":
        return Flux1TextEncoder(folder, CPU, torch.float32, LENGTH), LENGTH
    made = (TextEncoder if family == "qwen" else MistralTextEncoder)(folder, CPU, torch.float32)
    return made, made.settings.length


# --- files ------------------------------------------------------------------------------------------------------


def parts(tmp_path: Path, source: Path) -> Path:
    """A copy of a model folder."""
    for file in source.rglob("*"):
        if file.is_file():
            place = tmp_path / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return tmp_path


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(file)
    edit(state)
    save_file({name: tensor.clone() for name, tensor in state.items()}, file, {"format": "pt"})


@pytest.mark.parametrize("family", ["qwen", "mistral"])
def test_what_lies_above_the_used_layers_is_never_read(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the vision tower: such tensors may be missing, or be of any shape."""
    source = request.getfixturevalue(family)[0]
    expected = encoder(family, source)[0].encode(PROMPTS).states
    folder = parts(tmp_path, source)

    def spoil(state: dict[str, torch.Tensor]) -> None:
        above = [n for n in state if any(mark in n for mark in ("layers.4.", "layers.5.", "vision", "multi_modal"))]
        assert len(above) >= 22
        for k, name in enumerate(above):
            if k % 2:
                state[name] = torch.full((3,), float("nan"))
            else:
                del state[name]
        state["language_model.lm_head.weight" if family == "mistral" else "lm_head.weight"] = torch.zeros(1)
        del state[next(n for n in state if n.endswith("model.norm.weight"))]

    change(folder / "text_encoder" / "model.safetensors", spoil)
    read: list[str] = []
    original = TensorFiles.read
    monkeypatch.setattr(TensorFiles, "read", lambda self, name: read.append(name) or original(self, name))  # type: ignore[func-returns-value]
    ours, _ = encoder(family, folder)
    assert torch.equal(ours.encode(PROMPTS).states, expected)
    assert len(read) == 1 + 4 * (11 if family == "qwen" else 9)  # the embedding and four layers
    assert len(ours.model.layers) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.", "model.", ""])
def test_the_language_model_is_found_under_every_name_it_has_had(
    mistral: tuple[Path, Any], tmp_path: Path, prefix: str
) -> None:
    folder = parts(tmp_path, mistral[0])

    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            if name.startswith("language_model.model."):
                state[prefix + name.removeprefix("language_model.model.")] = state.pop(name)
            elif prefix == "model.language_model.":
                state["model." + name] = state.pop(name)

    change(folder / "text_encoder" / "model.safetensors", rename)
    expected = MistralTextEncoder(mistral[0], CPU, torch.float32).encode(PROMPTS).states
    assert torch.equal(MistralTextEncoder(folder, CPU, torch.float32).encode(PROMPTS).states, expected)


def test_a_whole_t5_s_and_a_whole_clip_s_other_parts_are_left_alone(flux1: tuple[Path, Any], tmp_path: Path) -> None:
    """Other tools' files name the embedding twice, keep counted positions, or hold the halves that FLUX.1 lacks."""
    folder = parts(tmp_path, flux1[0])

    def more_t5(state: dict[str, torch.Tensor]) -> None:
        state["encoder.embed_tokens.weight"] = state.pop("shared.weight")
        state["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch.zeros(1)

    def more_clip(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state["text_model." + name] = state.pop(name)  # as published
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        state["text_projection.weight"] = torch.zeros(2)

    change(folder / "text_encoder_2" / "model.safetensors", more_t5)
    change(folder / "text_encoder" / "model.safetensors", more_clip)
    expected = Flux1TextEncoder(flux1[0], CPU, torch.float32).encode(PROMPTS)
    ours = Flux1TextEncoder(folder, CPU, torch.float32).encode(PROMPTS)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_shards_are_read(flux1: tuple[Path, Any], tmp_path: Path) -> None:
    folder = parts(tmp_path, flux1[0])
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    flux1[1][1].save_pretrained(folder / "text_encoder_2", max_shard_size="20KB")
    assert len(list((folder / "text_encoder_2").glob("model-*.safetensors"))) > 1
    expected = Flux1TextEncoder(flux1[0], CPU, torch.float32).encode(PROMPTS)
    assert torch.equal(Flux1TextEncoder(folder, CPU, torch.float32).encode(PROMPTS).states, expected.states)


WEIGHTS = {
    "qwen": ("text_encoder", "model.layers.3.mlp.up_proj.weight"),
    "mistral": ("text_encoder", "language_model.model.layers.0.self_attn.k_proj.weight"),
    "flux1": ("text_encoder_2", "encoder.block.1.layer.0.SelfAttention.q.weight"),
    "clip": ("text_encoder", "encoder.layers.2.mlp.fc1.bias"),
}


@pytest.mark.parametrize("family", WEIGHTS)
def test_spoilt_files_are_refused_with_the_name(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kind = "flux1" if family == "clip" else family
    folder = parts(tmp_path, request.getfixturevalue(kind)[0])
    part, name = WEIGHTS[family]
    file = folder / part / "model.safetensors"
    whole = file.read_bytes()
    config = (folder / part / "config.json").read_text()

    def refused(code: str, *words: str) -> KoshiError:
        with pytest.raises(KoshiError) as caught:
            encoder(kind, folder)
        assert caught.value.code == code
        assert all(word in caught.value.message for word in words), caught.value.message
        file.write_bytes(whole)
        (folder / part / "config.json").write_text(config)
        return caught.value

    short = name.removeprefix("language_model.").removeprefix("model.")
    change(file, lambda state: state.pop(name))
    refused("bad_model", short, "missing")
    change(file, lambda state: state.update({name: torch.zeros(5, 7)}))
    refused("bad_model", name, "shape (5, 7)")
    change(file, lambda state: state.update({name: state[name].to(torch.int8)}))
    refused("bad_model", name, "whole numbers")
    change(file, lambda state: state.update({"layers.odd.weight": torch.zeros(1)}))
    refused("bad_model", "layers.odd.weight", "does not know")

    def several(state: dict[str, torch.Tensor]) -> None:
        del state[name]
        state["one.more"] = state["another"] = torch.zeros(1)

    change(file, several)
    assert len(refused("bad_model", part, "3 faults").problems) == 3
    file.write_bytes(whole[:-100])
    refused("bad_model_file", part)
    file.write_bytes(b"\x80\x02}q\x00." * 40)  # a pickle
    refused("bad_model_file", part)
    file.unlink()
    refused("bad_model_file", part)
    (folder / part / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused("bad_model", part, "bert")
    (folder / part / "config.json").write_text(config[: len(config) // 2])
    refused("bad_model_file", part)
    size = "d_model" if family == "flux1" else "hidden_size"
    for bad in ('"many"', "-3", "31"):
        inner = json.loads(config)
        (inner["text_config"] if family == "mistral" else inner)[size] = json.loads(bad)
        (folder / part / "config.json").write_text(json.dumps(inner))
        with pytest.raises(KoshiError):
            encoder(kind, folder)


@pytest.mark.parametrize("family", ["qwen", "mistral", "flux1"])
def test_the_tokenizer_of_another_model_is_refused(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """On a GPU a token without an embedding would stop the whole process, in the middle of a shot."""
    folder = parts(tmp_path, request.getfixturevalue(family)[0])
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens([f"<new{k}>" for k in range(400)])
    tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(KoshiError, match="different models"):
        encoder(family, folder)


def test_too_few_layers_are_refused(mistral: tuple[Path, Any], tmp_path: Path) -> None:
    folder = parts(tmp_path, mistral[0])
    (folder / "koshi.json").unlink()  # FLUX.2 dev's own layers, 10, 20 and 30
    with pytest.raises(KoshiError, match="has 6 layers; 30 are needed"):
        MistralTextEncoder(folder, CPU, torch.float32)

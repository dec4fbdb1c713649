# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny network: word tokenizer, Qwen3 text encoder and FLUX.2 transformer, trained together."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer, grid_ids, text_ids

from .captions import vocabulary
from .optim import cast

TEXT_LENGTH = 24  # tokens given to the transformer, padded on the right
TEXT_LAYERS = (1, 2, 3)  # hidden states that are stacked; the fourth layer is never used
TEXT_WIDTH = 128
HIDDEN, HEAD, DOUBLE, SINGLE = 256, 64, 2, 5
REFERENCE_TIME = 10.0  # position on the time axis of the first reference, then 20, 30, ...
UNUSED = ("text.model.layers.3.", "text.model.norm", "text.lm_head")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<unk>"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{'<think>\n\n</think>\n\n'}}{% endif %}"
    "{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, with Klein's chat template."""
    words = {word: k for k, word in enumerate([*SPECIAL, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<|endoftext|>", eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[1:5], padding_side="right", model_max_length=512,
    )  # fmt: skip
    whole.chat_template = TEMPLATE
    return whole


def make_text_encoder(words: int) -> Qwen3ForCausalLM:
    """A Qwen3 of four layers. The fourth is there so that no final norm touches the third's state."""
    config = Qwen3Config(
        vocab_size=words, hidden_size=TEXT_WIDTH, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    net = Qwen3ForCausalLM(config)
    nn.init.normal_(net.model.embed_tokens.weight, std=0.5)
    return net


def make_transformer() -> Flux2Transformer:
    """Klein's transformer at small width."""
    config = Flux2Config(HIDDEN, HIDDEN // HEAD, TEXT_WIDTH * len(TEXT_LAYERS), DOUBLE, SINGLE)
    net = Flux2Transformer(config)
    for name, p in net.named_parameters():
        if "modulation" in name.lower():
            nn.init.normal_(p, std=0.02)
        elif name == "final_layer.linear.weight":
            nn.init.zeros_(p)
        elif p.ndim == 2:
            out = name.endswith(("proj.weight", "mlp.2.weight", "linear2.weight"))
            nn.init.normal_(p, std=p.shape[1] ** -0.5 * (0.5 if out else 1))
    return net


class Net(nn.Module):
    """Captions and noisy packed latents to velocities."""

    def __init__(self, compile_transformer: bool = False) -> None:
        super().__init__()
        self.tokenizer = make_tokenizer()
        self.text = make_text_encoder(len(self.tokenizer))
        self.transformer = make_transformer()
        self._run = torch.compile(self.transformer) if compile_transformer else self.transformer
        self._memo: dict[str, tuple[list[int], list[int]]] = {}

    def _tokens(self, caption: str) -> tuple[list[int], list[int]]:
        if caption not in self._memo:
            chat = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": caption}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            found = self.tokenizer(chat, padding="max_length", truncation=True, max_length=TEXT_LENGTH)
            self._memo[caption] = (found["input_ids"], found["attention_mask"])
        return self._memo[caption]

    def embed(self, captions: list[str]) -> Tensor:
        """[B, 24, 384]"""
        device = self.transformer.img_in.weight.device
        ids, mask = (torch.tensor(v, device=device) for v in zip(*map(self._tokens, captions), strict=True))
        states = self.text.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return torch.cat([states[k] for k in TEXT_LAYERS], -1)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, references: tuple[Tensor, ...] = ()) -> Tensor:
        """x and each reference [B, 128, h, w], t [B] of 0..1 -> velocity like x, float32."""
        dtype, rows = self.transformer.img_in.weight.dtype, x.shape[2]
        shown = torch.cat([rearrange(v, "b c h w -> b (h w) c") for v in (x, *references)], 1)
        ids = [grid_ids(*v.shape[2:], k * REFERENCE_TIME, x.device) for k, v in enumerate((x, *references))]
        out = self._run(shown.to(dtype), text.to(dtype), t, torch.cat(ids), text_ids(text.shape[1], x.device))
        return rearrange(out[:, : x.shape[2] * x.shape[3]].float(), "b (h w) c -> b c h w", h=rows)


def trainable(name: str) -> bool:
    """Whether a parameter of Net is used at all."""
    return not name.startswith(UNUSED)


def load_net(
    folder: Path, name: str, device: torch.device, dtype: torch.dtype, compile_transformer: bool = False
) -> Net:
    """The averaged net of a checkpoint, for use."""
    saved = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    torch.manual_seed(0)  # what is never trained is the same in every export
    net = Net(compile_transformer)
    net.load_state_dict(saved["state"]["net"]["average"], strict=False)
    cast(net, dtype)
    return net.to(device).requires_grad_(False).eval()


_fused_attention = F.scaled_dot_product_attention


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: object
) -> Tensor:
    if attn_mask is not None or options or query.shape[1] != key.shape[1]:
        return _fused_attention(query, key, value, attn_mask=attn_mask, **options)
    return torch.softmax(query * query.shape[-1] ** -0.5 @ key.mT, -1) @ value


def plain_attention_on_cpu() -> None:
    """Attention in three operations: on a CPU its backward pass takes half the time of the fused kernel's or less."""
    F.scaled_dot_product_attention = _plain_attention

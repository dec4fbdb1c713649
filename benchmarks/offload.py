# SPDX-License-Identifier: GPL-3.0-or-later
"""What offloading costs and saves: milliseconds a step and the most memory, of models that a card is too small for.

    python benchmarks/offload.py                       FLUX.2 Klein 4B under 8 GB, FLUX.2 dev under 24 GB
    python benchmarks/offload.py --only klein --vram 12 --offload model
    python benchmarks/offload.py --small --device cpu  networks of the same make, to try the script

Not yet run on a card. Networks have their published shapes and random weights, which changes neither figure; the text
encoders are there, too, and encode a prompt in their turn. This process is held to --vram GB (10^9 bytes): a model that
does not fit ends in an error, and the exit code says so. Memory needed beside the card: 14 GB for Klein 4B, 100 GB for
FLUX.2 dev. Prints a table in Markdown; "most" is torch's own count and, after the slash, what it holds from the card.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# ruff: noqa: E402 - the path and the allocator are set up first
from koshi_backend.environment import prepare

prepare()

import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralModel, Qwen3Config, Qwen3Model

from koshi_backend.errors import KoshiError
from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig
from koshi_backend.models.budget import Job, Need, budget, choose, work_of
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer
from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.model import Reference
from koshi_backend.models.placement import place
from koshi_backend.models.pool import pick_device, pick_dtype
from koshi_backend.models.shortage import size_text
from koshi_backend.models.text_base import TextSettings
from koshi_backend.models.text_language import LanguageEncoder

STEPS = 4


class Case(NamedTuple):
    """A model. words: its language model's class and configuration. vram: GB that it shall do with."""

    name: str
    config: Flux2Config
    words: tuple[type[nn.Module], Any]
    layers: tuple[int, ...]
    vram: float


def language(kind: type[Any], hidden: int, inner: int, layers: int, words: int) -> Any:
    return kind(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=words,
    )  # fmt: skip


CASES = (
    Case("FLUX.2 Klein 4B", Flux2Config(), (Qwen3Model, language(Qwen3Config, 2560, 9728, 27, 151936)), (9, 18, 27), 8),
    Case(
        "FLUX.2 dev",
        Flux2Config(hidden=6144, heads=48, context=15360, double_blocks=8, single_blocks=48, guidance=True),
        (MistralModel, language(MistralConfig, 5120, 32768, 30, 131072)),
        (10, 20, 30),
        24,
    ),
)


class RandomLanguage(LanguageEncoder):
    """A language model of random weights; a prompt is any 512 of its words."""

    def __init__(self, case: Case, device: torch.device, dtype: torch.dtype) -> None:
        super(LanguageEncoder, self).__init__(device, dtype)
        kind, config = case.words
        self.settings = TextSettings(case.layers, 512)
        self._words = config.vocab_size
        with torch.device("meta"):
            model: Any = kind(config)
        model.norm = nn.Identity()
        self.model: Any = filled(model, dtype)
        self.model.rotary_emb = type(model.rotary_emb)(config=config)

    @staticmethod
    def chat(tokenizer: Any, prompt: str) -> str:
        return prompt

    def _tokens(self, prompt: str) -> list[Tensor]:
        ids = torch.randint(self._words, (1, 512), generator=torch.Generator().manual_seed(len(prompt)))
        return [ids, torch.ones_like(ids)]


def filled(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A network on the meta device, with small random weights in memory: one run of numbers, over and over."""
    net = net.to(dtype).to_empty(device="cpu")
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(1)).mul_(0.02).to(dtype)
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.ndim < 2 or not tensor.is_floating_point():
            tensor.data.fill_(1)
            continue
        flat = tensor.data.view(-1)
        for begin in range(0, len(flat), len(noise)):
            part = flat[begin : begin + len(noise)]
            part.copy_(noise[: len(part)])
    return net.eval().requires_grad_(False)


def weights(net: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in net.parameters())


def shrunk(case: Case) -> Case:
    """The same make, small enough for a processor."""
    kind, words = case.words
    small = language(type(words), 256, 512, words.num_hidden_layers, 1000)
    config = replace(case.config, hidden=256, heads=8, context=256 * len(case.layers))
    return case._replace(config=config, words=(kind, small))


def build(case: Case, device: torch.device, dtype: torch.dtype, small: bool) -> tuple[Flux2Model, Need]:
    """In memory, and what it needs for pictures of 1024 x 1024."""
    pictures = AutoencoderConfig()
    if small:
        pictures = replace(pictures, widths=(32, 32, 64, 64), decoder_widths=(32, 32, 64, 64))
    with torch.device("meta"):
        net, both = Flux2Transformer(case.config), Autoencoder(pictures)
    text = RandomLanguage(case, device, dtype)
    model = Flux2Model(filled(net, dtype), filled(both, dtype), text, case.name)
    side = 256 if small else 1024
    texts = weights(text.model) - weights(text.model.embed_tokens)
    work = work_of(case.config.hidden, pictures, Job(side, side), dtype.itemsize)
    return model, Need(weights(net), texts, weights(both), work)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def row(case: Case, model: Flux2Model, side: int, vram: float | None) -> tuple[str, int]:
    """A line of the table, and the most bytes that were held."""
    device = model.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    model.text.forget()
    noise, shown = model.noise(1, side, side), [Reference(model.noise(2, side, side))]
    begin = clock(device)
    model.text.encode([f"prompt of {side}"])
    encoded = clock(device) - begin
    begin = clock(device)
    model.denoise(f"prompt of {side}", noise, steps=1)  # the network comes
    first = clock(device) - begin
    cells = [case.name, "all" if vram is None else f"{vram:g}", model.policy, str(side)]
    cells += [f"{1000 * encoded:.0f}", f"{1000 * first:.0f}"]
    for references in ([], shown):
        begin = clock(device)
        latent = model.denoise(f"prompt of {side}", noise, steps=STEPS, references=references)
        cells.append(f"{1000 * (clock(device) - begin) / STEPS:.0f}")
    begin = clock(device)
    picture = model.decode(latent)
    cells.append(f"{1000 * (clock(device) - begin):.0f}")
    begin = clock(device)
    model.encode_picture(picture)
    cells.append(f"{1000 * (clock(device) - begin):.0f}")
    if device.type == "cuda":
        most, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    else:
        assert model.placement is not None
        most = held = model.placement.ledger.most  # weights only
    cells.append(f"{size_text(most)} / {size_text(held)}")
    return f"| {' | '.join(cells)} |", held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--vram", type=float, help="GB; default: 8 for Klein 4B, 24 for dev; 0: all that is free")
    parser.add_argument("--offload", default="auto", choices=("auto", "none", "model", "block"))
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--device")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    device = pick_device(given.device)
    dtype = pick_dtype(device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    print(f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}, {dtype}\n")
    head = ("model", "vram, GB", "offload", "side", "prompt, ms", "first step, ms", "ms a step", "with one reference",
            "decode, ms", "encode, ms", "most")  # fmt: skip
    print(f"| {' | '.join(head)} |\n|" + "---|" * len(head))
    fits = True
    for case in CASES:
        if given.only.lower() not in case.name.lower():
            continue
        vram = case.vram if given.vram is None else given.vram or None
        case = shrunk(case) if given.small else case
        model, need = build(case, device, dtype, given.small)
        try:
            place(model, device, choose(given.offload, need, budget(device, vram)))
            for side in given.sides:
                line, held = row(case, model, side, vram)
                fits &= vram is None or held < vram * 1e9
                print(line, flush=True)
        except KoshiError as error:
            fits = False
            print(f"{case.name}: {error}", file=sys.stderr)
        del model
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())

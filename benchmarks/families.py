# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step, a picture's encoding and its decoding cost in every family, at full size with random weights.

    python benchmarks/families.py [--sides 512 1024] [--only klein] [--dtype bfloat16] [--small]

Prints a table in Markdown: milliseconds (the median of five) and the most memory in use. The weights are random, which
changes neither; prompts are random states of the right size, so no text encoder is loaded. Without a graphics card only
--small is sensible: networks of the same make, two blocks of each kind and 256 wide.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# ruff: noqa: E402 - the path and the allocator are set up first
from koshi_backend.environment import prepare

prepare()

import torch
from torch import nn

from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig
from koshi_backend.models.flux1 import Flux1Config, Flux1Transformer
from koshi_backend.models.flux1_model import Flux1Model
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer
from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.flux3 import Flux3Config, Flux3Transformer
from koshi_backend.models.flux3_model import Flux3Model
from koshi_backend.models.model import FluxModel, Reference
from koshi_backend.models.pool import pick_device
from koshi_backend.models.text_base import PromptEncoder, TextState

STEPS, ROUNDS = 4, 5


class Case(NamedTuple):
    """A model. words: tokens of its text."""

    name: str
    config: Flux1Config | Flux2Config | Flux3Config
    words: int = 512
    references: bool = True
    cached: bool = False


KLEIN_9B = Flux2Config(hidden=4096, heads=32, context=12288, double_blocks=8, single_blocks=24)
CASES = (
    Case("FLUX.2 Klein 4B", Flux2Config()),
    Case("FLUX.2 Klein 9B", KLEIN_9B),
    Case("FLUX.2 Klein 9B-KV", KLEIN_9B, cached=True),
    Case("FLUX.1 schnell", Flux1Config(guidance=False), words=256, references=False),
    Case("FLUX.1 dev, Krea-dev", Flux1Config(), references=False),
    Case("FLUX.1 Kontext-dev", Flux1Config()),
    Case(
        "FLUX.2 dev",
        Flux2Config(hidden=6144, heads=48, context=15360, double_blocks=8, single_blocks=48, guidance=True),
    ),
    Case("FLUX.3 Image Klein", Flux3Config(), words=80),
    Case("FLUX.3 Image Klein Base", Flux3Config(flow_map=False), words=80),
)


class RandomText(PromptEncoder):
    def __init__(self, case: Case, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(device, dtype)
        self._shape, self._place = (1, case.words, case.config.context), {"device": device, "dtype": dtype}
        self._pooled = case.config.pooled if isinstance(case.config, Flux1Config) else None

    def _tokens(self, prompt: str) -> list[torch.Tensor]:
        return []

    def _run(self, given: list[torch.Tensor]) -> TextState:
        pooled = None if self._pooled is None else torch.randn(1, self._pooled, **self._place)
        return TextState(torch.randn(self._shape, **self._place), pooled)


def filled(net: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network on the meta device, with small random weights."""
    net = net.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0.0, 0.02) if tensor.ndim > 1 else tensor.fill_(1.0)
    return net.eval().requires_grad_(False)


def build(case: Case, device: torch.device, dtype: torch.dtype, small: bool) -> FluxModel:
    first = isinstance(case.config, Flux1Config)
    autoencoder = AutoencoderConfig.flux1() if first else AutoencoderConfig()
    if small:
        autoencoder = replace(autoencoder, widths=(32, 32, 64, 64), decoder_widths=(32, 32, 64, 64))
    with torch.device("meta"):
        net = network(case.config)
        pictures = Autoencoder(autoencoder)
    parts = filled(net, device, dtype), filled(pictures, device, dtype), RandomText(case, device, dtype), case.name
    if isinstance(case.config, Flux2Config):
        return Flux2Model(*parts, references=case.references, cached=case.cached)
    return (Flux1Model if first else Flux3Model)(*parts, references=case.references)


def network(config: Flux1Config | Flux2Config | Flux3Config) -> nn.Module:
    if isinstance(config, Flux1Config):
        return Flux1Transformer(config)
    return Flux2Transformer(config) if isinstance(config, Flux2Config) else Flux3Transformer(config)


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """The median of some runs after one to warm up."""
    times = []
    for _ in range(ROUNDS + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def shrunk(case: Case) -> Case:
    """The same make, small enough for a processor."""
    changes = {"hidden": 256, "heads": 8, "context": 96, "double_blocks": 2, "single_blocks": 2}
    if isinstance(case.config, Flux1Config):
        return case._replace(config=replace(case.config, **changes, axes=(4, 14, 14)), words=32)
    if isinstance(case.config, Flux3Config):
        changes["own_blocks"] = changes.pop("double_blocks")
    return case._replace(config=replace(case.config, **changes), words=32)


def row(case: Case, side: int, model: FluxModel) -> str:
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    noise, other = model.noise(1, side, side), model.noise(2, side, side)
    shown = [Reference(other)]

    def draw(references: list[Reference]) -> float:
        return milliseconds(lambda: model.denoise("a", noise, steps=STEPS, references=references), device) / STEPS

    picture = model.decode(noise)
    cells = [case.name, str(side), f"{draw([]):.1f}", f"{draw(shown):.1f}" if case.references else ""]
    cells += [f"{milliseconds(lambda: model.encode_picture(picture), device):.1f}"]
    cells += [f"{milliseconds(lambda: model.decode(noise), device):.1f}"]
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    return f"| {' | '.join([*cells, f'{peak:.1f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    device, dtype = pick_device(), getattr(torch, given.dtype)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    print(f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}, {given.dtype}\n")
    print("| model | side | ms a step | with one reference | encode, ms | decode, ms | most memory, GB |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        if given.only.lower() not in case.name.lower():
            continue
        case = shrunk(case) if given.small else case
        model = build(case, device, dtype, given.small)
        for side in given.sides:
            print(row(case, side, model), flush=True)
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

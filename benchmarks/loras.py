# SPDX-License-Identifier: GPL-3.0-or-later
"""What LoRAs cost: added at the layers, as Koshi does it, or merged into a copy of the weights at each new weight.

    python benchmarks/loras.py [--rank 16] [--side 512] [--dtype bfloat16] [--only klein] [--rounds 5] [--small|--layer]

Prints a table in Markdown: milliseconds (the median of the rounds; on a processor its own time, over all threads, so
that other programs do not count) and megabytes. One evaluation of the network without and with a LoRA on every layer of
its blocks; what merging that LoRA costs each time its weight has changed, which a schedule does in every frame; and
what each way holds besides the model. Weights are random, which changes none of it. Without a graphics card
--only "klein 4b" --rounds 1 takes 16 GB and some minutes. --small takes networks of the same make, two blocks of each
kind and 256 wide; --layer measures one single block's first layer of Klein 4B, in float32, reading 192 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# ruff: noqa: E402 - the path and the allocator are set up first
from koshi_backend.environment import prepare

prepare()

import torch
from torch import nn

from koshi_backend.lora.branches import LowRank
from koshi_backend.lora.wear import Change, Lora, wearing
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer, grid_ids, text_ids
from koshi_backend.models.pool import pick_device

ROUNDS, WORDS = 5, 512
CASES = {
    "FLUX.2 Klein 4B": Flux2Config(),
    "FLUX.2 Klein 9B": Flux2Config(hidden=4096, heads=32, context=12288, double_blocks=8, single_blocks=24),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--layer", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.layer:
        return measure_layer(options.rank)
    device, dtype = pick_device(), getattr(torch, options.dtype)
    print(f"rank {options.rank}, {options.side} x {options.side}, {options.dtype}, {device}\n")
    print("| model | without | at the layers | merging anew | held: at the layers | held: merged |")
    print("|---|---|---|---|---|---|")
    for name, config in CASES.items():
        if options.only.lower() in name.lower():
            if options.small:
                config = replace(config, hidden=256, heads=2, context=96, double_blocks=2, single_blocks=2)
            print(f"| {name} | " + " | ".join(measured(config, options, device, dtype)) + " |")


@torch.inference_mode()
def measured(
    config: Flux2Config, options: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> list[str]:
    rank, cells = options.rank, options.side // 16
    with torch.device("meta"):
        net = Flux2Transformer(config)
    net = net.to(dtype).to_empty(device=device).eval()
    for weight in net.parameters():
        weight.copy_(torch.randn(weight.shape, device=device, dtype=dtype) * weight.shape[-1] ** -0.5)
    layers = [layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear) and "_blocks" in name]
    changes, branches = [], []
    for layer in layers:
        down = torch.randn(rank, layer.in_features, device=device, dtype=dtype) * 0.01
        up = torch.randn(layer.out_features, rank, device=device, dtype=dtype) * 0.01
        branches.append(LowRank(down, up))
        changes.append(Change(layer, slice(0, layer.out_features), branches[-1]))
    lora = Lora("benchmark", changes)
    x = torch.randn(1, cells * cells, config.channels, device=device, dtype=dtype)
    text, t = torch.randn(1, WORDS, config.context, device=device, dtype=dtype), torch.full((1,), 0.7, device=device)
    given = x, text, t, grid_ids(cells, cells, device=device), text_ids(WORDS, device=device)

    def with_lora() -> None:
        with wearing([(lora, 0.7)]):
            net(*given)

    merged = [torch.empty_like(layer.weight) for layer in layers]

    def merge() -> None:
        for layer, place, branch in zip(layers, merged, branches, strict=True):
            place.copy_(layer.weight)
            place.addmm_(branch.up, branch.down, alpha=0.7)

    times = [median(work, device, options.rounds) for work in (lambda: net(*given), with_lora, merge)]
    sizes = lora.bytes(), sum(weight.nbytes for weight in merged)
    return [f"{ms:.1f} ms" for ms in times] + [f"{size / 1e6:.0f} MB" for size in sizes]


@torch.inference_mode()
def measure_layer(rank: int) -> None:
    hidden, rows = 3072, 27648
    weight, x, out = torch.full((rows, hidden), 0.01), torch.randn(192, hidden), torch.empty(192, rows)
    merged, branch = torch.empty_like(weight), LowRank(torch.randn(rank, hidden), torch.randn(rows, rank))

    def merge() -> None:
        merged.copy_(weight)
        merged.addmm_(branch.up, branch.down, alpha=0.7)

    torch.set_num_threads(1)
    for name, work in (
        ("without", lambda: torch.mm(x, weight.T, out=out)),
        ("at the layer", lambda: branch.add_to(out, x, 0.7)),
        ("merging anew", merge),
    ):
        found = []
        for _ in range(ROUNDS + 1):
            begin = time.process_time()
            work()
            found.append(1e3 * (time.process_time() - begin))
        print(f"{name}: {statistics.median(found[1:]):.1f} ms")


def median(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    clock, found = time.perf_counter if device.type == "cuda" else time.process_time, []
    for _ in range(rounds + 1):
        begin = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(1e3 * (clock() - begin))
    return statistics.median(found[1:])


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs that weights stay quantised: how long Klein 4B's widest layer takes to be decoded, and computes.

    python benchmarks/quantised.py [--device cuda] [--tokens 1536]

Weights are random. The layer is single_blocks.linear1, 27648 x 3072; a step decodes 45 such matrices' worth of numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from koshi_backend.models.layout import Source
from koshi_backend.models.packed import Blocks, Packed
from koshi_backend.models.pool import pick_device, pick_dtype
from koshi_backend.models.quantise import quantised
from koshi_backend.models.quantised import QuantisedLinear
from koshi_backend.models.tensor_kinds import PACKED

ROWS, COLUMNS = 27648, 3072
REPEATS = 5


def blocks(kind: str, device: torch.device) -> Packed:
    """Random blocks with scales that are finite."""
    units = ROWS * COLUMNS // PACKED[kind].numbers
    codes = torch.randint(0, 60, (units, PACKED[kind].bits // 8), dtype=torch.uint8, device=device)
    return Packed(Blocks(kind), {"codes": codes}, (ROWS, COLUMNS))


def best(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of the fastest of some runs."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def show(name: str, layer: torch.nn.Module, x: torch.Tensor, device: torch.device) -> None:
    size = sum(part.nbytes for part in layer.parameters()) / 1e6
    decoded, whole = best(lambda: layer.weight, device), best(lambda: layer(x), device)
    print(f"{name:10} {size:7.1f} MB   decoded in {decoded:7.1f} ms   computes in {whole:7.1f} ms")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device")
    parser.add_argument("--tokens", type=int, default=1536, help="512 of text and 1024 of a picture of 512 x 512")
    options = parser.parse_args()
    device = pick_device(options.device)
    dtype = pick_dtype(device)
    x = torch.randn(1, options.tokens, COLUMNS, device=device, dtype=dtype)
    weight = torch.randn(ROWS, COLUMNS, device=device, dtype=torch.bfloat16)
    layer = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    print(f"{device} {dtype}, {torch.get_num_threads()} threads, {options.tokens} tokens")
    show("plain", layer, x, device)
    for name in ("fp8", "int8", "nf4", *PACKED):
        packed = blocks(name, device) if name in PACKED else quantised(weight, name)  # type: ignore[arg-type]
        show(name, QuantisedLinear([packed], Source(("x",)), None, dtype), x, device)


if __name__ == "__main__":
    main()

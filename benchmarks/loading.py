# SPDX-License-Identifier: GPL-3.0-or-later
"""What loading takes: memory at its peak, and the time to verify a header.

    python benchmarks/loading.py

Each row is a process of its own. Peak: resident memory above what it was before, after one load that was freed again,
so that the libraries are there (on this count the embedded model's first load takes some 13 MiB more). Linux only.
Run from the project's folder, in the backend's environment.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402 - the path is set up first
import torch
from safetensors.torch import save_file

from koshi_backend.models.checkpoint_check import check_files
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import Flux2Config, Flux2Transformer
from koshi_backend.models.identity import model_identity
from koshi_backend.models.loader import load_transformer
from koshi_backend.models.registry import TINY_FOLDER

CPU, MIB = torch.device("cpu"), 2**20
# Of a Klein transformer that is small enough to be written twice: some 420 MB in bfloat16, 840 MB in float32.
MIDDLE = Flux2Config(hidden=1024, heads=8, context=768, double_blocks=2, single_blocks=10)


def resident(name: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def peak(load: Callable[[], Any]) -> tuple[int, int]:
    """Bytes above what was resident before: at the peak, and when the model is there."""
    load()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    model = load()
    found = resident("VmHWM") - before, resident("VmRSS") - before
    del model
    return found


def measure(path: Path, dtype: torch.dtype) -> None:
    """One row of the table, in this process."""
    if path == TINY_FOLDER:
        size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
        most, after = peak(lambda: load_family(path, CPU, dtype, "benchmark"))
    else:
        size = path.stat().st_size
        most, after = peak(lambda: load_transformer(path, CPU, dtype))
    row = f"{path.name:28} {str(dtype)[6:]:9} {size / MIB:8.1f} {most / MIB:8.1f} {after / MIB:8.1f} {most / size:7.2f}"
    print(row, flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [(TINY_FOLDER, "bfloat16"), (TINY_FOLDER, "float32")]
        for stored in ("bfloat16", "float32"):
            file = Path(folder) / f"middle_{stored}.safetensors"
            save_file(Flux2Transformer(MIDDLE).to(getattr(torch, stored)).state_dict(), file)
            rows += [(file, "bfloat16"), (file, "float32")]
        print(f"{'file':28} {'loaded as':9} {'MiB':>8} {'peak':>8} {'after':>8} {'peak/file':>7}")
        for path, dtype in rows:
            subprocess.run([sys.executable, __file__, str(path), dtype], check=True)

        klein = Path(folder) / "flux-2-klein-4b.safetensors"
        write_sparse(klein)
        for what in ("first", "second"):
            begin = time.perf_counter()
            report = check_files(str(klein))
            tensors = report["parts"][0]["tensors"]
            seconds = time.perf_counter() - begin
            print(f"Klein 4B, {klein.stat().st_size / 1e9:.2f} GB, {what} check of {tensors} tensors: {seconds:.2f} s")
        os.environ["KOSHI_CACHE"] = folder
        for what in ("first", "known"):
            begin = time.perf_counter()
            model_identity(TINY_FOLDER)
            print(f"identity of koshi-tiny, {what}: {time.perf_counter() - begin:.3f} s")


def write_sparse(file: Path) -> None:
    """Klein 4B's header, and holes where its weights are."""
    with torch.device("meta"):
        shapes = {name: list(t.shape) for name, t in Flux2Transformer(Flux2Config()).state_dict().items()}
    table, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(table).encode()
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + at)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), getattr(torch, sys.argv[2]))
    else:
        main()

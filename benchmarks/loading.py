# SPDX-License-Identifier: GPL-3.0-or-later
"""What loading takes: memory at its peak, and the time to verify a header. What widening weights at use costs.

    python benchmarks/loading.py
    python benchmarks/loading.py widening

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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

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
from koshi_backend.models.model import FluxModel, Reference
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


def widening(seconds: float = 50.0) -> None:
    """A frame of koshi-tiny in float32, its weights widened where they are read and held wide, turn by turn.

    A frame: a reference is encoded, four steps, a picture is decoded. Each part's lower quartile of many runs counts,
    since what else the machine does only adds. Two threads.
    """
    torch.set_num_threads(2)
    kept = load_family(TINY_FOLDER, CPU, torch.float32, "benchmark")
    modules = (f"koshi_backend.models.{name}.held_as" for name in ("tensor_files", "text_networks"))
    with mock.patch(next(modules), _held_wide), mock.patch(next(modules), _held_wide):
        held = load_family(TINY_FOLDER, CPU, torch.float32, "benchmark")
    for side in (256, 128):
        parts = [_parts(model, side) for model in (held, kept)]
        taken: list[list[list[float]]] = [[[] for _ in range(3)] for _ in parts]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for k in range(3):
                for model, runs in zip(parts, taken, strict=True):
                    runs[k].append(_seconds(model[k]))
        step, encoding, decoding = range(3)
        quarter = [[1000 * statistics.quantiles(times[1:])[0] for times in runs] for runs in taken]
        held_ms, kept_ms = (4 * ms[step] + ms[encoding] + ms[decoding] for ms in quarter)
        told = ", ".join(
            f"{name} {after / before:.3f}"
            for name, before, after in zip(("step", "encoding", "decoding"), *quarter, strict=True)
        )
        print(f"{side}: held {held_ms:.0f} ms, widened {kept_ms:.0f} ms a frame: {kept_ms / held_ms:.3f} ({told})")


def _held_wide(stored: torch.dtype, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    return dtype


def _parts(model: FluxModel, side: int) -> list[Callable[[], Any]]:
    """One step with a reference, encoding, decoding."""
    noise, grey = model.noise(3, side, side), torch.full((1, 3, side, side), 0.5)
    shown = [Reference(model.encode_picture(grey))]
    return [
        lambda: model.denoise("a calm sea at dawn", noise, steps=1, references=shown),
        lambda: model.encode_picture(grey),
        lambda: model.decode(noise),
    ]


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


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
    elif sys.argv[1:] == ["widening"]:
        widening()
    else:
        main()

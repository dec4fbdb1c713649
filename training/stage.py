# SPDX-License-Identifier: GPL-3.0-or-later
"""What all steps share: the device, atomic files, and a training loop that a kill does not harm.

A checkpoint is written aside, forced to the disk and renamed, so that there is always a whole one. Every random
number of a training step comes from (seed, step): a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .plot import plot_log

TELL_SECONDS = 15.0


@dataclass(frozen=True)
class Room:
    """Where and how a run happens. minutes: of this step; steps: instead of minutes, repeats exactly."""

    folder: Path
    device: torch.device
    dtype: torch.dtype
    minutes: float = 1.0
    steps: int = 0
    seed: int = 0
    compile: bool = False
    save_seconds: float = 90.0  # between checkpoints
    batch: float = 1.0  # times the batch sizes that suit a CPU


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file aside, force it to the disk, and rename it to `path`."""
    aside = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(aside)
    with aside.open("rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(aside, path)


def commit() -> str:
    """The git commit of the code, with a plus when files differ from it; "unknown" outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        asked = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
        head, dirty = (subprocess.run(a, cwd=root, capture_output=True, text=True, check=True).stdout for a in asked)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty.strip() else "")


def pick_device(name: str = "auto") -> torch.device:
    """The named device; "auto" takes CUDA where it is there."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The named type; "auto" takes bfloat16 on CUDA, and on a CPU whichever is faster there."""
    if name != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]
    if device.type != "cpu":
        return torch.bfloat16
    spent = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
        rounds = []
        for _ in range(6):
            begin = time.perf_counter()
            for _ in range(4):
                a @ b
            rounds.append(time.perf_counter() - begin)
        spent[dtype] = min(rounds)
    return min(spent, key=lambda dtype: spent[dtype])


class Stage:
    """The loop of one training step.

    for step, part in stage: ... stage.note(loss=...)    part: how much of the budget is used, 0..1

    state and load: what a checkpoint holds and how it is put back.
    """

    def __init__(
        self, room: Room, name: str, state: Callable[[], dict], load: Callable[[dict], None], **settings: Any
    ) -> None:
        self.room, self.name, self._state = room, name, state
        self.checkpoint, self.log = room.folder / f"{name}.pt", room.folder / f"{name}.jsonl"
        self.step, self.seconds = 0, 0.0
        if self.checkpoint.is_file():
            saved = torch.load(self.checkpoint, map_location=room.device, weights_only=True)
            load(saved["state"])
            self.step, self.seconds = saved["step"], saved["seconds"]
        self._noted: dict[str, list[float]] = {}
        self._drop_unsaved_lines()
        self._write({
            "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": commit(), "step": self.step, "seed": room.seed,
            "minutes": room.minutes, "steps": room.steps, "device": str(room.device), "dtype": str(room.dtype),
            "torch": torch.__version__, **settings,
        })  # fmt: skip

    def __iter__(self) -> Iterator[tuple[int, float]]:
        begin = time.monotonic() - self.seconds
        saved = told = time.monotonic()
        resumed_at, first = self.step, self.seconds
        while (part := self.part()) < 1:
            torch.manual_seed(self.room.seed * 1_000_003 + self.step)
            yield self.step, part
            self.step += 1
            self.seconds, now = time.monotonic() - begin, time.monotonic()
            if now - told > TELL_SECONDS:
                told = now
                rate = (self.step - resumed_at) / max(self.seconds - first, 1e-6)
                losses = self._flush()
                shown = "  ".join(f"{key} {value:.4g}" for key, value in losses.items())
                print(f"{self.name} {100 * self.part():5.1f} %  step {self.step} ({rate:.2f}/s)  {shown}", flush=True)
            if now - saved > self.room.save_seconds:
                saved = now
                self.save()
        if self.step > resumed_at or not self.checkpoint.is_file():
            self.save()

    def part(self) -> float:
        """How much of the budget is used; 1 or more when the step is finished."""
        if self.room.steps:
            return self.step / self.room.steps
        return self.seconds / (60 * self.room.minutes)

    def rng(self) -> np.random.Generator:
        """This step's own random numbers."""
        return np.random.default_rng([self.room.seed, self.step])

    def note(self, **losses: torch.Tensor | float) -> None:
        """Keep this step's figures for the log; tensors are only read when a line is written."""
        for key, value in losses.items():
            self._noted.setdefault(key, []).append(value.detach() if torch.is_tensor(value) else value)

    def result(self, **figures: Any) -> None:
        """Write a line of results, such as held-out figures, and show it."""
        self._write({"step": self.step, "seconds": round(self.seconds, 1), "result": figures})
        print(
            f"{self.name}: "
            + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()),
            flush=True,
        )

    def save(self) -> None:
        """Write the checkpoint, then the plot."""
        self._flush()
        whole = {"state": self._state(), "step": self.step, "seconds": self.seconds}
        write_atomically(self.checkpoint, lambda aside: torch.save(whole, aside))
        plot_log(self.log, self.log.with_suffix(".png"))

    def _flush(self) -> dict[str, float]:
        means = {k: float(sum(map(float, v)) / len(v)) for k, v in self._noted.items()}
        if means:
            self._write({"step": self.step, "seconds": round(self.seconds, 1), **means})
        self._noted = {}
        return means

    def _write(self, line: dict[str, Any]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def _drop_unsaved_lines(self) -> None:
        """Remove what was logged after the checkpoint: those steps will be made again."""
        if not self.log.is_file():
            return
        kept = []
        for text in self.log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(text)["step"] <= self.step:
                    kept.append(text + "\n")
            except ValueError:
                continue  # a line that the kill cut short
        write_atomically(self.log, lambda aside: aside.write_text("".join(kept), encoding="utf-8"))


def warm_up(step: int, part: float, rise: int, fall: float) -> float:
    """The learning rate's course: up over `rise` steps, down to 3 % over the last `fall` of the budget."""
    return min(1.0, (step + 1) / rise) * min(1.0, (1 - part) / fall + 0.03)

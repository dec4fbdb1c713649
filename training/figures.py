# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge's figures: what was measured, the limit it is held against, and judge.json, in which they are kept.

judge.json is written again after every section. A section that is there already, of the same model, measured in the
same way, is not measured again, so that a judge who is stopped goes on where he was.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .stage import commit, write_atomically


@dataclass(frozen=True)
class Row:
    """One figure. least, most: its limits, where it has any. unit: "%" for shares of 0..1."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether it keeps its limits; None when it has none."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def shown(self) -> tuple[str, str, str]:
        """The value, its limit and whether it holds, as words."""

        def text(value: float) -> str:
            if self.unit == "%":
                return f"{100 * value:.1f} %"
            return f"{value:.3g}{' ' + self.unit if self.unit else ''}"

        limits = [f"{sign} {text(at)}" for sign, at in (("≥", self.least), ("≤", self.most)) if at is not None]
        return text(self.value), ", ".join(limits), {None: "", True: "yes", False: "NO"}[self.holds]


def processor() -> str:
    """The processor's own name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """What it was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} processors"


class Figures:
    """The sections of judge.json. model: the identity of the weights; sections of another model are dropped."""

    def __init__(self, path: Path, model: str, folder: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        self.whole: dict[str, Any] = {"model": model, "folder": folder.name, "sections": {}}
        self._read()

    def _read(self) -> None:
        """Take over what the file says of this model: another judge may measure other sections at the same time."""
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # none yet, or cut short
        if known.get("model") == self.whole["model"]:
            self.whole["sections"] |= known.get("sections", {})

    def measure(self, name: str, settings: dict[str, Any], make: Callable[[], list[Row]], again: bool = False) -> None:
        """Have a section measured, unless it is there, and write everything down."""
        kept = self.whole["sections"].get(name)
        if kept and kept["settings"] == settings and not again:
            print(f"{name}: known since {kept['date']}", flush=True)
            return
        print(f"{name} ...", flush=True)
        begin = time.monotonic()
        rows = make()
        self._read()
        self.whole["sections"][name] = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "commit": commit(),
            "torch": torch.__version__,
            "machine": machine(self.device),
            "seconds": round(time.monotonic() - begin, 1),
            "settings": settings,
            "rows": [{**asdict(row), "value": round(row.value, 5), "holds": row.holds} for row in rows],
        }
        text = json.dumps(self.whole, indent=2) + "\n"
        write_atomically(self.path, lambda aside: aside.write_text(text, encoding="utf-8"))
        print(table({name: rows}), flush=True)

    def rows(self) -> dict[str, list[Row]]:
        """All rows by section."""
        return read_rows(self.whole)


def read_rows(whole: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of a judge.json by section."""
    return {
        name: [Row(**{k: v for k, v in row.items() if k != "holds"}) for row in section["rows"]]
        for name, section in whole["sections"].items()
    }


def table(sections: dict[str, list[Row]]) -> str:
    """Rows as text in columns."""
    lines = []
    for name, rows in sections.items():
        lines.append(name)
        for row in rows:
            value, limit, holds = row.shown()
            note = f"  ({row.note})" if row.note else ""
            lines.append(f"  {row.name:38} {value:>12}  {limit:>16}  {holds:3}{note}".rstrip())
    return "\n".join(lines)


def summary(sections: dict[str, list[Row]]) -> str:
    """How many limits are kept, and which are not."""
    limited = [(name, row) for name, rows in sections.items() for row in rows if row.holds is not None]
    missed = [
        f"  {name}: {row.name} is {row.shown()[0]}, not {row.shown()[1]}" for name, row in limited if not row.holds
    ]
    return "\n".join([f"{len(limited) - len(missed)} of {len(limited)} limits hold.", *missed])

# SPDX-License-Identifier: GPL-3.0-or-later
"""Apple's cards have no float64: whatever asks one for it fails there, for every picture, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from koshi_backend.doubles import doubled

ROOT = Path(__file__).parents[1] / "koshi_backend"


def test_numbers_keep_their_device_where_it_has_double_precision() -> None:
    values = torch.tensor([1.0, 1 / 3])
    assert doubled(values).dtype is torch.float64 and torch.equal(doubled(values).float(), values)
    assert doubled(values.to("meta")).device.type == "meta"


def test_no_device_but_the_processor_is_asked_for_double_precision_but_by_way_of_doubled() -> None:
    on_a_device = r"dtype=torch\.float64[^)]*device=|device=[^)]*torch\.float64"
    asked = re.compile(rf"(?<!\.cpu\(\))\.double\(\)(?!\.numpy)|\.to\(torch\.float64|{on_a_device}")
    found = {
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in ROOT.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if asked.search(line) and file.name != "doubles.py"
    }
    assert not found

# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements as a Markdown table and as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .measure import EACH, GROUPS, KINDS, MEASURES, PARTITIONS, Groups
from .moves import PUSH, Moves
from .verdict import EXPECTED, NAMES, Verdict

PERCENT = ("share", *KINDS)
LEGEND = f"""Exchanged with another picture's: `share` of all change, %; what changes, % of it: `light` (luma, waves
over 32 px), `structure` (8 to 32 px), `detail` (under 8 px), `tint` (colour, over 32 px), `colour` (finer); `edges`,
1 - the correlation of gradients. Read from the group alone, R^2: `luma`, `chroma`, `contrast`, `slope` of a cell of a
scene not seen before, and which `scene` a cell is of. `along`: how much of the picture follows a group moved by one
cell. `spread`: deviation between eight groups; `p`: chance of it in {PARTITIONS} random divisions of the channels."""


def table(groups: Groups, moves: Moves, verdict: Verdict) -> str:
    """What `koshi groups` prints."""
    lines = ["| group | " + " | ".join(MEASURES) + " | along |", "|---|" + "---|" * (len(MEASURES) + 1)]
    for k, name in enumerate(NAMES):
        lines.append(_row(f"{k} {name}", groups.named.values[k], f"{moves.along[k]:.2f}"))
    lines.append(_row("standard error", np.sqrt((groups.named.errors**2).mean(axis=0)), ""))
    spreads = np.array([verdict.spreads.get(name, (math.nan,) * 4) for name in MEASURES])
    lines.append(_row("spread", spreads[:, 0], f"{moves.along.std():.2f}"))
    lines.append(_row("spread, random sets", spreads[:, 1], ""))
    lines.append("| p | " + " | ".join("" if math.isnan(p) else f"{p:.3f}" for p in spreads[:, 3]) + " | |")
    for k in range(GROUPS):
        lines.append(_row(f"PCA {k * EACH + 1}-{(k + 1) * EACH}", groups.pca.values[k], ""))
    lines.append(_row("spread, PCA", spreads[:, 2], ""))
    depth = [f"| translation_z {PUSH:g} | magnification | between places | no motion, % |", "|---|---|---|---|"]
    for name, (size, differs, left) in moves.depth.items():
        error = moves.errors[name]
        depth.append(f"| {name} | {size:.3f} ± {error[0]:.3f} | {differs:.3f} ± {error[1]:.3f} | {100 * left:.0f} |")
    return "\n".join([*lines, "", LEGEND, "", *depth, "", *verdict.sentences])


def as_json(groups: Groups, moves: Moves, verdict: Verdict) -> dict[str, Any]:
    """The same, and the standard errors one by one; NaN becomes None."""
    return {
        "verdict": verdict.verdict,
        "sentences": verdict.sentences,
        "p_differ": verdict.p_differ,
        "p_pca": verdict.p_pca,
        "p_names": verdict.p_names,
        "names": {n: {"measure": EXPECTED[n], "place": rank} for n, rank in verdict.ranks.items()},
        "superposition": groups.superposition,
        "groups": [
            {
                "name": name,
                "channels": list(range(k * EACH, (k + 1) * EACH)),
                "packed_channels": list(range(4 * k * EACH, 4 * (k + 1) * EACH)),
                **_named(groups.named.values[k]),
                "along": float(moves.along[k]),
                "errors": _named(groups.named.errors[k]),
            }
            for k, name in enumerate(NAMES)
        ],
        "channels": [_named(row) for row in groups.channels],
        "pca": [_named(row) for row in groups.pca.values],
        "spread": {
            name: dict(zip(("named", "random", "pca", "p"), values, strict=True))
            for name, values in verdict.spreads.items()
        },
        "depth": {
            name: dict(zip(("magnification", "between_places", "no_motion"), map(float, row), strict=True))
            for name, row in moves.depth.items()
        },
    }


def _row(name: str, values: np.ndarray, last: str) -> str:
    cells = [_shown(m, float(v)) for m, v in zip(MEASURES, values, strict=True)]
    return f"| {name} | " + " | ".join(cells) + f" | {last} |"


def _shown(measure: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{100 * value:.1f}" if measure in PERCENT else f"{value:.2f}"


def _named(values: np.ndarray) -> dict[str, float | None]:
    return {m: None if math.isnan(v) else float(v) for m, v in zip(MEASURES, values.tolist(), strict=True)}

# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the measurements: do the named groups differ more than random sets of channels, and as their names say?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from ..motion.engines import Flux2MotionEngine
from .measure import GROUPS, MEASURES, Groups
from .moves import Moves

NAMES = Flux2MotionEngine.GROUPS
# What each name would have a group lead in. Nothing that is measured on still pictures speaks for transitions.
EXPECTED = {
    "structure": "structure",
    "layout": "edges",
    "palette": "tint",
    "light": "light",
    "texture": "detail",
    "detail": "detail",
    "semantic": "scene",
}
LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """spreads: for each measure the standard deviation between groups: named, random sets (mean), PCA, and p of named.
    p_differ: chance that random sets spread as much as the named groups in some measure; p_pca: that they do as PCA's.
    ranks: {name: place among the eight in what it is named for}. p_names: chance of such a mean place.
    verdict: "confirmed" where the groups differ and the names fit; "refuted" where they do not, though the test sees
    PCA's groups; else "undecided". sentences: the same in words."""

    spreads: dict[str, tuple[float, float, float, float]]
    p_differ: float
    p_pca: float
    ranks: dict[str, float]
    p_names: float
    verdict: Literal["confirmed", "refuted", "undecided"]
    sentences: list[str]


def judge(groups: Groups, moves: Moves) -> Verdict:
    """Permutation tests, exact for channels (random partitions) and names (all orders of eight)."""
    known = [k for k in range(len(MEASURES)) if not np.isnan(groups.random[..., k]).any()]
    named, pca = (v[:, known].std(axis=0) for v in (groups.superposed, groups.pca.values))
    random = groups.random[..., known].std(axis=1)
    p_each = [_chance(random[:, k], named[k]) for k in range(len(known))]
    p_differ, p_pca = (_largest(random, v) for v in (named, pca))
    ranks, p_names = _names(groups.named.values)
    if p_differ < LEVEL and p_names < LEVEL:
        verdict: Literal["confirmed", "refuted", "undecided"] = "confirmed"
    else:
        verdict = "refuted" if p_pca < LEVEL else "undecided"
    rows = zip((MEASURES[k] for k in known), named, random.mean(axis=0), pca, p_each, strict=True)
    return Verdict(
        {name: (float(a), float(b), float(c), p) for name, a, b, c, p in rows},
        p_differ,
        p_pca,
        ranks,
        p_names,
        verdict,
        _sentences(groups, moves, float(np.median(named / pca)), p_differ, p_pca, ranks, p_names, verdict),
    )


def _chance(random: np.ndarray, value: float) -> float:
    return float((1 + (random >= value).sum()) / (1 + len(random)))


def _largest(random: np.ndarray, values: np.ndarray) -> float:
    """One p for all measures: the largest excess over random sets, against the largest of each random partition."""
    mean, deviation = random.mean(axis=0), np.maximum(random.std(axis=0), 1e-12)
    return _chance(((random - mean) / deviation).max(axis=1), float(((values - mean) / deviation).max()))


def _names(values: np.ndarray) -> tuple[dict[str, float], float]:
    """Each name's place in its measure, and the share of all orders of the names with as good a mean place."""
    pairs = {n: MEASURES.index(m) for n, m in EXPECTED.items() if not np.isnan(values[:, MEASURES.index(m)]).any()}
    places = np.stack([_places(values[:, k]) for k in pairs.values()])  # [names, groups]
    own = [NAMES.index(name) for name in pairs]
    orders = np.array(list(permutations(range(GROUPS))))[:, own]
    sums = sum(places[k][orders[:, k]] for k in range(len(own)))
    ranks = {name: float(places[k][own[k]]) for k, name in enumerate(pairs)}
    mine = sum(ranks.values())
    return ranks, float(np.mean(sums <= mine))


def _places(values: np.ndarray) -> np.ndarray:
    """1 for the largest; equal values share the mean of their places."""
    above, level = values[None, :] > values[:, None], values[None, :] == values[:, None]
    return above.sum(axis=1) + (level.sum(axis=1) + 1) / 2


def _sentences(
    groups: Groups,
    moves: Moves,
    size: float,
    p_differ: float,
    p_pca: float,
    ranks: dict[str, float],
    p_names: float,
    verdict: str,
) -> list[str]:
    first = sum(rank == 1 for rank in ranks.values())
    more = "more" if p_differ < LEVEL else "less" if p_differ > 1.0 - LEVEL else "no more"
    seen = "is seen" if p_pca < LEVEL else "is not seen"
    gain, layers, push = (moves.depth[way] for way in ("gain", "layers", "push"))
    found = [
        f"The named groups differ from one another {more} than random sets of four channels do (p = {p_differ:.3f}).",
        f"As a check, the same test on the fours of a PCA: their difference {seen} (p = {p_pca:.3f}). "
        f"The named groups differ by {size:.0%} of that (median over the measures).",
        f"Of {len(ranks)} names {first} lead in what they are named for; the mean place is "
        f"{np.mean(list(ranks.values())):.1f} of {GROUPS}, by chance {(GROUPS + 1) / 2} (p = {p_names:.3f}).",
        f"The hypothesis that the groups mean what they are called is {verdict} for this model.",
        f"Depth by groups: a true push magnifies {push[0]:.3f} times; gains {gain[0]:.3f}, groups pushed by their "
        f"weights {layers[0]:.3f}, differing between places by {layers[1]:.3f} (a flat push: {push[1]:.3f}). "
        f"{gain[2]:.0%} and {layers[2]:.0%} of what they change is no motion of the picture.",
    ]
    if groups.superposition < 0.9:
        found.append(
            f"Channels add up to only {groups.superposition:.0%} of their group's change: "
            "p values of exchanged channels are rough."
        )
    return found

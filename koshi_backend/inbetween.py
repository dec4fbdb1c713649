# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture between two pictures: both brought to its moment, and mixed by how near it is to each.

Along the commanded motion where that is known, and along the optical flow of what it leaves over, or what RIFE makes
of that where its weights are given. It paints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import MotionField, resample
from .motion.field import grid, inside
from .motion.flow import both_flows, consistent
from .motion.rife import Rife

_EDGE = 12  # part of the shorter side, from where a picture ends to where it counts in full
_LEAST = 1e-3  # of a picture that does not count, so that there is something where none does


class Ways(NamedTuple):
    """The motion from the first picture, and from the second, to the one between them."""

    first: MotionField
    second: MotionField


def between(first: Tensor, second: Tensor, shares: list[float], rife: Rife | None = None) -> Iterator[Tensor]:
    """Pictures at `shares` (above 0, below 1) of the way from first to second, [1, 3, H, W] in 0..1, by flow alone, or
    by RIFE alone."""
    if torch.equal(first, second):
        yield from (first.clone() for _ in shares)
        return
    if rife is not None:
        yield from (rife.between(first, second, share) for share in shares)
        return
    flows = _Flows(first, second)
    for share in shares:
        yield flows.mixed(first, second, share)


def on_the_way(
    first: Tensor,
    second: Tensor,
    share: float,
    ways: Ways,
    border: str = "replicate",
    *,
    flow: bool = True,
    rife: Rife | None = None,
) -> Tensor:
    """The picture at `share` of the way from first to second, [1, 3, H, W] in 0..1, along `ways`.

    Where one of them shows nothing the other counts alone. flow: follow what the ways leave over as well, between the
    two as they lie there; else they are faded into one another. rife: follow what that finds instead of flow.
    """
    old = resample(first, ways.first, border, kernel="spline")
    new = resample(second, ways.second, border, kernel="spline")
    was, will = soft(ways.first.valid), soft(ways.second.valid)
    if not flow or share in (0.0, 1.0):
        return _mixed((old, (1 - share) * was), (new, share * will))
    # What only one of them shows stands still: there is nothing to follow it to.
    seen_old = torch.where(ways.first.valid, old, new)
    seen_new = torch.where(ways.second.valid, new, old)
    if torch.equal(seen_old, seen_new):
        return seen_old
    if rife is None:
        return _Flows(seen_old, seen_new).mixed_on(ways, first, second, share, border)
    to_old, to_new, counts = rife.ways(seen_old, seen_new, share)
    (old, was), (new, will) = _along(ways, (first, second), (to_old, to_new), border)
    return _mixed((old, counts * was), (new, (1 - counts) * will))


class _Flows:
    """What moves between two pictures, and where that is sure."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.there, self.back, _ = both_flows(first, second)
        self.sure_first = consistent(self.there, self.back)
        self.sure_second = consistent(self.back, self.there)

    def mixed(self, first: Tensor, second: Tensor, t: float) -> Tensor:
        """Both looked up along the flow. Where it says that something is seen in one of them only, that one counts
        alone."""
        to_first, to_second = _split(self.there, self.back, t)
        old, gone, was = _looked_up(first, ~self.sure_first, to_first)
        new, come, will = _looked_up(second, ~self.sure_second, to_second)
        return _mixed((old, (1 - t) * (1 - come) * was), (new, t * (1 - gone) * will))

    def mixed_on(self, ways: Ways, first: Tensor, second: Tensor, t: float, border: str) -> Tensor:
        """Both looked up along the flow, and along the ways from there.

        What is hidden in one of them the ways know. Where the flow is not sure, as in a sky in which a cloud was
        painted, there is nothing to follow, and they are faded.
        """
        there = self.there * soft(self.sure_first)[0, 0, ..., None]
        back = self.back * soft(self.sure_second)[0, 0, ..., None]
        (old, was), (new, will) = _along(ways, (first, second), _split(there, back, t), border)
        return _mixed((old, (1 - t) * was), (new, t * will))


def _along(
    ways: Ways, pictures: tuple[Tensor, Tensor], flows: tuple[Tensor, Tensor], border: str
) -> list[tuple[Tensor, Tensor]]:
    """Both pictures looked up along their flows, and along the ways from there; and where each of them shows anything,
    0..1."""
    looked_up = []
    for picture, way, flow in zip(pictures, ways, flows, strict=True):
        height, width = flow.shape[:2]
        source = grid(width, height, flow.device).permute(1, 2, 0) + flow
        field = way.then(MotionField(source, torch.ones_like(way.valid)), border)
        looked_up.append((resample(picture, field, border, kernel="spline"), soft(field.valid)))
    return looked_up


def _split(there: Tensor, back: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The flow from a picture at t of the way to both ends, from the flows between these, as in Super SloMo (Jiang and
    others, 2018, equation 4)."""
    return t * t * back - (1 - t) * t * there, (1 - t) * (1 - t) * there - t * (1 - t) * back


def _looked_up(picture: Tensor, hidden: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The picture where the flow points, how surely that is hidden in the other one, 0..1 [1, 1, H, W], and whether
    the flow points into it at all, bool [H, W]."""
    height, width = flow.shape[:2]
    source = grid(width, height, flow.device).permute(1, 2, 0) + flow
    valid = inside(source, width, height)
    mark = F.avg_pool2d(F.pad(hidden.float()[None, None], [1] * 4, mode="replicate"), 3, stride=1)
    field = MotionField(source, valid)
    return resample(picture, field, kernel="spline"), resample(mark, field) * valid, valid


def _mixed(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Tensor:
    """Two pictures by their weights."""
    of_old, of_new = old[1] + _LEAST, new[1] + _LEAST
    return (of_old * old[0] + of_new * new[0]) / (of_old + of_new)


def soft(valid: Tensor) -> Tensor:
    """[1, 1, H, W]: 0 where nothing is seen, rising to 1 at some distance: a picture does not end in an edge."""
    if bool(valid.all()):
        return torch.ones_like(valid, dtype=torch.float32)[None, None]
    edge = max(min(valid.shape) // _EDGE, 1)
    share = F.pad(valid.float()[None, None], [edge] * 4, mode="replicate")
    share = F.avg_pool2d(share, 2 * edge + 1, stride=1)
    return (2.0 * share - 1.0).clamp(0.0, 1.0) * valid

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a LoRA adds to a layer's output, at the layer: the layer's own weights are never touched.

Merging into the weights gives the same sum, and is not what Koshi does: it takes a second copy of the model's weights
to go back to, which each new weight of a schedule writes anew; weights that are held narrow or quantised round what is
added; and weights that lie in memory while they are not needed would have to come. Here a step takes about a hundredth
longer (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Branch(Protocol):
    """A change of a linear layer."""

    def add_to(self, out: Tensor, x: Tensor, weight: float) -> None:
        """Add `weight` times the change. x: what the layer reads, [N, in]. out: what it made of it, [N, rows]."""

    def bytes(self) -> int:
        """Of memory that it takes."""


@dataclass(frozen=True)
class LowRank:
    """up @ down. down: [rank, in]. up: [rows, rank], alpha's scale in it."""

    down: Tensor
    up: Tensor

    def add_to(self, out: Tensor, x: Tensor, weight: float) -> None:
        out.addmm_(x @ self.down.T, self.up.T, alpha=weight)

    def bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes


@dataclass(frozen=True)
class Kronecker:
    """kron(first, second), scale included. first: [a, b]. second: [c, d]. Rows are a * c, columns b * d."""

    first: Tensor
    second: Tensor

    def add_to(self, out: Tensor, x: Tensor, weight: float) -> None:
        cells = x.unflatten(-1, (self.first.shape[1], self.second.shape[1]))
        out.add_((self.first @ (cells @ self.second.T)).flatten(-2), alpha=weight)

    def bytes(self) -> int:
        return self.first.nbytes + self.second.nbytes


@dataclass(frozen=True)
class Whole:
    """A matrix of the weight's own shape, [rows, in]."""

    change: Tensor

    def add_to(self, out: Tensor, x: Tensor, weight: float) -> None:
        out.addmm_(x, self.change.T, alpha=weight)

    def bytes(self) -> int:
        return self.change.nbytes


@dataclass(frozen=True)
class Shift:
    """A change of the bias, [rows], also where the layer has none."""

    change: Tensor

    def add_to(self, out: Tensor, x: Tensor, weight: float) -> None:
        out.add_(self.change, alpha=weight)

    def bytes(self) -> int:
        return self.change.nbytes

# SPDX-License-Identifier: GPL-3.0-or-later
"""Linear layers whose weights stay quantised in memory, and are decoded for the moment in which the layer computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layout import Source
from .packed import Form, Packed, decoded


class QuantisedLinear(nn.Module):
    """A linear layer of one or more quantised matrices.

    pieces: what the weight is made of. source: how they are joined (layout.py). bias: [rows], or None.
    dtype: that the layer computes in, and that `weight` has.
    Codes and scales are parameters of the layer itself, so that they move, and are counted, like any weight. Nothing
    writes to them: a LoRA is added beside the layer (lora/branches.py).
    """

    def __init__(self, pieces: Sequence[Packed], source: Source, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        shape = source.shape([piece.shape for piece in pieces])
        assert shape is not None
        self.out_features, self.in_features = shape
        self.dtype, self._source = dtype, source
        self._pieces: list[tuple[Form, tuple[str, ...], tuple[int, ...]]] = []
        for k, piece in enumerate(pieces):
            self._pieces.append((piece.form, tuple(piece.parts), piece.shape))
            for name, tensor in piece.parts.items():
                self.register_parameter(f"{name}_{k}", nn.Parameter(tensor, requires_grad=False))
        self.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The matrix [rows, columns] that the codes stand for, decoded each time it is asked for."""
        pieces = [
            decoded(form, {name: self._parameters[f"{name}_{k}"] for name in names}, shape, self.dtype, rented=True)  # type: ignore[misc]
            for k, (form, names, shape) in enumerate(self._pieces)
        ]
        return self._source.join(pieces)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        forms = ", ".join(dict.fromkeys(str(form) for form, _, _ in self._pieces))
        return f"in_features={self.in_features}, out_features={self.out_features}, {forms}"


def quantised_layers(net: nn.Module) -> int:
    """How many layers of a network hold quantised weights."""
    return sum(isinstance(layer, QuantisedLinear) for layer in net.modules())


def put_quantised(
    net: nn.Module, packed: Mapping[str, tuple[Sequence[Packed], Source]], state: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Let layers of a network be quantised ones. Their biases are taken from `state`, and all that they hold put there.

    packed: what the weights are made of, by their names in the network.
    """
    for name, (pieces, source) in packed.items():
        place = name.removesuffix(".weight")
        layer = QuantisedLinear(pieces, source, state.pop(f"{place}.bias", None), dtype)
        parent, _, last = place.rpartition(".")
        setattr(net.get_submodule(parent), last, layer)
        state |= {f"{place}.{part}": tensor for part, tensor in layer.state_dict().items()}

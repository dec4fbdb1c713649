# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantised matrices as they lie in memory, and as numbers.

Codes and scales are parted into units that stand for a run of numbers each (a row, or a block of a row), so that a
matrix is decoded piece by piece: what lies between codes and numbers is never as large as the matrix.
Every form is decoded in float32 and then rounded once to the type that is computed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .ggml_blocks import NUMBERS
from .tensor_kinds import PACKED
from .widening import room

# Numbers that are decoded at once: what is between stays in a processor's cache, and is small on a card.
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 23}
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


class Form(Protocol):
    """How codes are read. The tensors given all begin with the unit, and `codes` is one of them."""

    def decode(self, parts: Mapping[str, Tensor], out: Tensor) -> None:
        """Put the numbers of these units into out [units, numbers of a unit]."""

    def numbers(self, codes: Tensor) -> int:
        """Of a unit."""


@dataclass(frozen=True)
class Eight:
    """8 bits a number, bytes in memory, a row a unit. kind: as the file has it. scale: [rows, blocks of a row]."""

    kind: str

    def decode(self, parts: Mapping[str, Tensor], out: Tensor) -> None:
        codes = parts["codes"]
        wide = codes.view(torch.int8) if self.kind == "I8" else eight_as_float(codes, self.kind)
        if "scale" not in parts:
            out.copy_(wide)
            return
        scale = parts["scale"]
        blocks = scale.shape[1]
        torch.mul(wide.unflatten(1, (blocks, -1)), scale[..., None], out=out.unflatten(1, (blocks, -1)))

    def numbers(self, codes: Tensor) -> int:
        return codes.shape[1]


def eight_as_float(codes: Tensor, kind: str) -> Tensor:
    """Bytes as the float8 numbers that they are, in a type that holds each exactly.

    torch widens float8 itself 30 times more slowly on processors, and not at all on Apple's cards: there the bits are
    moved to where float16 has them. e4m3's exponent is 8 less than float16's, so that the numbers come out 256 times
    too small; multiplying is exact.
    """
    if codes.device.type == "cuda":
        return codes.view(FLOAT8[kind]).to(torch.bfloat16)
    signed = codes.view(torch.int8).to(torch.int16)
    if kind == "F8_E5M2":
        return (signed << 8).view(torch.float16)
    return ((signed << 7) & -0x4080).view(torch.float16).to(torch.float32).mul_(256.0)


@dataclass(frozen=True)
class Blocks:
    """ggml's blocks, of one kind."""

    kind: str

    def decode(self, parts: Mapping[str, Tensor], out: Tensor) -> None:
        out.copy_(NUMBERS[self.kind](parts["codes"]))

    def numbers(self, codes: Tensor) -> int:
        return PACKED[self.kind].numbers


@dataclass(frozen=True)
class Four:
    """bitsandbytes' 4 bits: places in a table of 16, the first number in the upper half of a byte, times a scale.

    table: whole, the same for all units.
    """

    table: tuple[float, ...]

    def decode(self, parts: Mapping[str, Tensor], out: Tensor) -> None:
        codes, scale = parts["codes"], parts["scale"]
        table = torch.tensor(self.table, dtype=torch.float32, device=codes.device)
        # Both numbers of a byte are looked up at once, as one of 8 bytes: 9 times as fast as pairs[codes].
        pairs = torch.stack([table.repeat_interleave(16), table.repeat(16)], -1).view(torch.int64).flatten()
        found = torch.index_select(pairs, 0, codes.flatten().int()).view(torch.float32)
        torch.mul(found.view(len(codes), -1), scale, out=out)

    def numbers(self, codes: Tensor) -> int:
        return 2 * codes.shape[1]


@dataclass(frozen=True)
class Plain:
    """Numbers as they are; beside quantised ones in a layer that a file keeps in pieces."""

    def decode(self, parts: Mapping[str, Tensor], out: Tensor) -> None:
        out.copy_(parts["codes"])

    def numbers(self, codes: Tensor) -> int:
        return codes.shape[1]


@dataclass(frozen=True)
class Packed:
    """A quantised matrix. parts: `codes` and what goes with them, as `form` has them. shape: of the matrix."""

    form: Form
    parts: Mapping[str, Tensor]
    shape: tuple[int, ...]

    def dense(self, dtype: torch.dtype, rented: bool = False) -> Tensor:
        """The matrix in `dtype`. rented: it may lie in the thread's room for a widened weight (widening.py)."""
        return decoded(self.form, self.parts, self.shape, dtype, rented)


def decoded(
    form: Form, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype, rented: bool = False
) -> Tensor:
    """What codes stand for; see Packed. The last unit may be longer than what is left of the matrix."""
    codes = parts["codes"]
    units, each, numbers = len(codes), form.numbers(codes), math.prod(shape)
    whole = units * each == numbers
    if rented and whole and dtype is torch.float32 and codes.device.type == "cpu":
        out = room(shape)
    else:
        out = torch.empty(shape if whole else (units * each,), dtype=dtype, device=codes.device)
    flat = out.view(units, each)
    step = max(1, _AT_ONCE.get(codes.device.type, _AT_ONCE["cuda"]) // max(each, 1))
    for begin in range(0, units, step):
        end = min(begin + step, units)
        some = {name: part if len(part) == 1 else part[begin:end] for name, part in parts.items()}
        form.decode(some, flat[begin:end])
    return out if whole else out[:numbers].view(shape)

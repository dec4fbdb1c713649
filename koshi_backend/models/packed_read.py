# SPDX-License-Identifier: GPL-3.0-or-later
"""From a quantised tensor's bytes in a file to what lies in memory, with its scales looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import problem, raise_problems
from .checkpoint import Stored
from .ggml_blocks import scales_are_finite
from .packed import FLOAT8, Blocks, Eight, Four, Packed, Plain
from .tensor_kinds import PACKED


class Bytes(Protocol):
    """Reads a stored tensor as numbers of its own type, or takes its bytes to be `kind`, in the shape that is said."""

    def __call__(self, stored: Stored, kind: torch.dtype | None = None) -> Tensor: ...


def read_packed(stored: Stored, path: Path, name: str, read: Bytes) -> Packed:
    """A tensor as its file has it. One that is not quantised comes in the same wrapping.

    path, name: for what is said of it. Raises KoshiError("bad_model") with the tensor's name for scales, and for
    float8 codes, that are no finite numbers.
    """

    def part(which: str, kind: torch.dtype | None = None) -> Tensor:
        """A companion, in float32 unless its bytes are wanted as `kind`."""
        whole = read(stored.parts[which], kind).flatten()
        return whole if kind else whole.float()

    made = _READERS.get(stored.packing, _plain)(stored, part, read)
    fault = _fault(made, stored)
    if fault:
        raise_problems("bad_model", f"The model in {path}", [problem(name, fault)])
    return made


def _codes(stored: Stored, shape: tuple[int, ...], read: Bytes) -> Tensor:
    """The bytes of a tensor, as they are."""
    return read(stored._replace(shape=(stored.end - stored.begin,)), torch.uint8).view(shape)


def _rows(stored: Stored) -> tuple[int, int]:
    return (math.prod(stored.shape[:-1]), stored.shape[-1]) if stored.shape else (1, 1)


_Part = Callable[..., Tensor]


def _ggml(stored: Stored, part: _Part, read: Bytes) -> Packed:
    block = PACKED[stored.kind]
    units = (math.prod(stored.shape) // block.numbers, block.bits // 8)
    return Packed(Blocks(stored.kind), {"codes": _codes(stored, units, read)}, stored.shape)


def _bits4(stored: Stored, part: _Part, read: Bytes) -> Packed:
    if "nested_absmax" in stored.parts:
        scale = unnested(part("absmax", torch.uint8), part("nested_absmax"), part("nested_quant_map"), stored.facts)
    else:
        scale = part("absmax")
    width = stored.facts["blocksize"] // 2
    codes = _codes(stored, (stored.end - stored.begin,), read)
    codes = pad(codes, (0, -len(codes) % width)).view(-1, width)
    table = tuple(part("quant_map").tolist())
    return Packed(Four(table), {"codes": codes, "scale": scale[:, None]}, stored.shape)


def unnested(codes: Tensor, largest: Tensor, table: Tensor, facts: Any) -> Tensor:
    """bitsandbytes' scales that are quantised themselves: a table's numbers times each block's largest, and an offset.

    Source: dequantize_4bit and dequantize_blockwise of bitsandbytes/functional.py.
    """
    block = facts["nested_blocksize"]
    return table[codes.int()] * largest.repeat_interleave(block)[: len(codes)] + facts["nested_offset"]


def _eight(stored: Stored, part: _Part, read: Bytes) -> Packed:
    rows = _rows(stored)
    if stored.kind not in FLOAT8 and stored.kind != "I8":  # some files of ComfyUI's scale wider numbers too
        wide = read(stored).view(rows).float()
        scale = scale_rows(part("scale"), stored.parts["scale"].shape, rows)
        codes = (wide.unflatten(1, (scale.shape[1], -1)) * scale[..., None]).flatten(1)
        return Packed(Plain(), {"codes": codes}, stored.shape)
    parts = {"codes": _codes(stored, rows, read)}
    if "scale" in stored.parts:
        parts["scale"] = scale_rows(part("scale"), stored.parts["scale"].shape, rows)
    return Packed(Eight(stored.kind), parts, stored.shape)


def scale_rows(scale: Tensor, shape: tuple[int, ...], rows: tuple[int, int]) -> Tensor:
    """Scales as [rows or 1, blocks of a row]. shape: as they are stored, one number or one for each block."""
    if scale.numel() == 1:
        return scale.view(1, 1)
    high, across = (*shape, 1)[:2]
    return scale.view(high, across).repeat_interleave(rows[0] // high, 0)


def _plain(stored: Stored, part: _Part, read: Bytes) -> Packed:
    return Packed(Plain(), {"codes": read(stored).view(_rows(stored))}, stored.shape)


_READERS = {"ggml": _ggml, "bits4": _bits4, "scaled": _eight, "float8": _eight}


def _fault(made: Packed, stored: Stored) -> str:
    """What is wrong with the numbers; "" if nothing."""
    codes, form = made.parts["codes"], made.form
    if "scale" in made.parts and not bool(torch.isfinite(made.parts["scale"]).all()):
        companion = stored.parts.get("scale") or stored.parts["absmax"]
        return f"its scale {companion.name} holds numbers that are not finite."
    if isinstance(form, Four) and not all(map(math.isfinite, form.table)):
        return f"its table {stored.parts['quant_map'].name} holds numbers that are not finite."
    if isinstance(form, Blocks) and not scales_are_finite(form.kind, codes):
        return f"its {form.kind} blocks hold scales that are not finite."
    if isinstance(form, Eight) and form.kind in FLOAT8:
        # e4m3fn has no infinity, and one bit pattern that is no number; e5m2 is like float16.
        limit = 0x7F if form.kind == "F8_E4M3" else 0x7C
        if bool(((codes & 0x7F) >= limit).any()):
            return "the tensor holds numbers that are not finite."
    return ""

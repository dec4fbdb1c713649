# SPDX-License-Identifier: GPL-3.0-or-later
"""ggml's blocks as numbers: what a GGUF file's quantised tensors stand for.

Each function takes blocks [N, bytes] of one kind and gives [N, numbers] in float32, in the order of operations of the
gguf package's own, so that the results are equal to the bit. Sources of the layouts: the structs in
https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h, and dequantize_blocks of
https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/quants.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 that begins at a byte of each block: [N, 1] in float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _shifted(codes: Tensor, width: int, bits: tuple[int, ...], mask: int) -> Tensor:
    """Bytes [N, B] as numbers of fewer bits [N, B * len(bits)]: of `width` bytes all the lowest, then the next."""
    runs = codes.view(len(codes), -1, 1, width)
    return torch.cat([(runs >> bit) & mask for bit in bits], 2).flatten(1)


def _nibbles(codes: Tensor, width: int) -> Tensor:
    return _shifted(codes, width, (0, 4), 0x0F)


def _bits(four: Tensor) -> Tensor:
    """Four bytes [N, 4] as 32 bits, the lowest of the first byte first."""
    return torch.stack([(four >> bit) & 1 for bit in range(8)], -1).flatten(1)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:], 16).to(torch.int8) - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:], 16) + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:], 16) | (_bits(blocks[:, 2:6]) << 4)
    return _half(blocks, 0) * (codes.to(torch.int8) - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:], 16) | (_bits(blocks[:, 4:8]) << 4)
    return _half(blocks, 0) * codes + _half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8)


def _q2_k(blocks: Tensor) -> Tensor:
    scales, codes = blocks[:, :16], _shifted(blocks[:, 16:80], 32, (0, 2, 4, 6), 3)
    d, least = _half(blocks, 80) * (scales & 0x0F), _half(blocks, 82) * (scales >> 4)
    return (d[..., None] * codes.view(-1, 16, 16) - least[..., None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    low, high = _nibbles(blocks[:, 96:104], 8), _shifted(blocks[:, 104:108], 4, (0, 2, 4, 6), 3)
    scales = (low | (high << 4)).to(torch.int8) - 32
    codes = _shifted(blocks[:, 32:96], 32, (0, 2, 4, 6), 3)
    # A bit that is not set takes 4 away.
    less = (_shifted(blocks[:, :32], 32, tuple(range(8)), 1) ^ 1) << 2
    d = _half(blocks, 108) * scales
    return (d[..., None] * (codes.to(torch.int8) - less.to(torch.int8)).view(-1, 16, 16)).flatten(1)


def _scales_and_least(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits each, from 12 bytes."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat([first & 0x3F, (rest & 0x0F) | ((first >> 2) & 0x30)], 1)
    least = torch.cat([second & 0x3F, (rest >> 4) | ((second >> 2) & 0x30)], 1)
    return scales, least


def _k_rows(blocks: Tensor, codes: Tensor) -> Tensor:
    """Of Q4_K and Q5_K: eight runs of 32, each with its scale and minimum."""
    scales, least = _scales_and_least(blocks[:, 4:16])
    d, minimum = _half(blocks, 0) * scales, _half(blocks, 2) * least
    return (d[..., None] * codes.view(-1, 8, 32) - minimum[..., None]).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_rows(blocks, _nibbles(blocks[:, 16:], 32))


def _q5_k(blocks: Tensor) -> Tensor:
    high = _shifted(blocks[:, 16:48], 32, tuple(range(8)), 1)
    return _k_rows(blocks, _nibbles(blocks[:, 48:], 32) | (high << 4))


def _q6_k(blocks: Tensor) -> Tensor:
    low, high = _nibbles(blocks[:, :128], 64), _shifted(blocks[:, 128:192], 32, (0, 2, 4, 6), 3)
    codes = (low | (high << 4)).to(torch.int8) - 32
    d = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return (d[..., None] * codes.view(-1, 16, 16)).flatten(1)


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
# Where each kind's float16 scales begin, to see that they are finite.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def scales_are_finite(kind: str, blocks: Tensor) -> bool:
    """Whether no scale of these blocks is infinite or no number."""
    return all(bool(torch.isfinite(_half(blocks, at)).all()) for at in SCALES[kind])

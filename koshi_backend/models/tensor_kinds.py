# SPDX-License-Identifier: GPL-3.0-or-later
"""The types that tensors are stored as: how many numbers a block of each has, and how many bytes.

Standard library only. Sources: https://github.com/huggingface/safetensors, and GGML_QUANT_SIZES of the gguf package
(https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Damaged(ValueError):
    """Why a file's table of tensors cannot be trusted."""


class Block(NamedTuple):
    """numbers: that are stored together, along a row. bits: that they take together."""

    numbers: int
    bits: int


SAFETENSORS = {
    name: Block(1, bits)
    for bits, names in {
        4: ("F4",), 8: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 16: ("U16", "I16", "F16", "BF16"),
        32: ("U32", "I32", "F32"), 64: ("U64", "I64", "F64", "C64"),
    }.items()
    for name in names
}  # fmt: skip

# ggml's kinds that are made of blocks, and are kept as they are until a layer computes.
PACKED = {
    "Q4_0": Block(32, 144), "Q4_1": Block(32, 160), "Q5_0": Block(32, 176), "Q5_1": Block(32, 192),
    "Q8_0": Block(32, 272), "Q2_K": Block(256, 672), "Q3_K": Block(256, 880), "Q4_K": Block(256, 1152),
    "Q5_K": Block(256, 1408), "Q6_K": Block(256, 1680),
}  # fmt: skip
# By their numbers in a GGUF file. Those that are in neither table are known by name only.
GGML = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip

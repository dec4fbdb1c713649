# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a GGUF file: names, types, shapes and places of its tensors, from its header alone.

Standard library only, because a shot is checked without the gguf package, which maps a whole file and trusts it.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from .tensor_kinds import GGML, PACKED, SAFETENSORS, Block, Damaged

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # where general.alignment says nothing
# Types of the values in the header, by their numbers; 8 is a text and 9 a list.
_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MOST_DIMENSIONS = 4


class Entry(NamedTuple):
    """A tensor. shape: slowest dimension first, as torch has it. begin, end: bytes of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_gguf(stream: BinaryIO, size: int) -> list[Entry]:
    """The tensors of a GGUF file, in the order in which they lie. stream: at its beginning. size: of the file, bytes.

    Raises Damaged for a header that makes no sense, a type that Koshi does not read, and tensors that overlap or are
    cut short; with the tensor's name where there is one.
    """
    header = _Header(stream, size)
    if header.take(4) != MAGIC:
        raise Damaged("it does not begin like a GGUF file")
    if (version := header.number("I")) not in _VERSIONS:
        raise Damaged(f"its GGUF version is {version}; Koshi reads {_VERSIONS[0]} and {_VERSIONS[1]}")
    tensors, values = header.number("Q"), header.number("Q")
    alignment = _ALIGNMENT
    for _ in range(values):
        name, value = header.text(), header.value(header.number("I"))
        if name == "general.alignment":
            alignment = value
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise Damaged(f"its general.alignment is {alignment!r}")
    listed = [header.tensor() for _ in range(tensors)]
    base = -(-header.at // alignment) * alignment
    return list(_placed(listed, base, alignment, size))


def _placed(
    listed: list[tuple[str, str, tuple[int, ...], int]], base: int, alignment: int, size: int
) -> Iterator[Entry]:
    at, seen, before = base, set[str](), "the header"
    for name, kind, shape, offset in sorted(listed, key=lambda one: one[3]):
        if name in seen:
            raise Damaged(f"the name {name} is there twice")
        seen.add(name)
        begin, end = base + offset, base + offset + _bytes(name, kind, shape)
        if begin < at:
            raise Damaged(f"the tensor {name} begins at byte {begin}, where {before} has not ended")
        if offset % alignment:
            raise Damaged(f"the tensor {name} begins at byte {begin}, which is no multiple of {alignment}")
        if end > size:
            raise Damaged(f"the tensor {name} ends at byte {end} of {size}")
        at, before = end, name
        yield Entry(name, kind, shape, begin, end)


def _bytes(name: str, kind: str, shape: tuple[int, ...]) -> int:
    block = PACKED.get(kind) or SAFETENSORS.get(kind)
    if block is None:
        known = ", ".join(PACKED)
        raise Damaged(f"the tensor {name} is of type {kind}, which Koshi does not read; it reads {known} and floats")
    if block.numbers > 1 and (not shape or shape[-1] % block.numbers):
        raise Damaged(f"the tensor {name} of shape {shape} does not part into {kind}'s blocks of {block.numbers}")
    return size_of(shape, block)


def size_of(shape: tuple[int, ...], block: Block) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) // block.numbers * block.bits // 8


class _Header:
    """Reads from front to back, never past the file's end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size, self.at = stream, size, 0

    def take(self, count: int) -> bytes:
        if count > self._size - self.at:
            raise Damaged(f"{self._size} bytes do not hold its header")
        self.at += count
        return self._stream.read(count)

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damaged("a text in its header is no UTF-8") from error

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value of the header; of a list nothing is kept."""
        if kind == _TEXT:
            return self.text()
        if kind in _VALUES:
            return self.number(_VALUES[kind])
        if kind != _LIST or depth > 4:
            raise Damaged(f"its header has a value of unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in _VALUES:
            self.take(count * struct.calcsize("<" + _VALUES[inner]))
        else:
            for _ in range(count):
                self.value(inner, depth + 1)
        return None

    def tensor(self) -> tuple[str, str, tuple[int, ...], int]:
        name, dimensions = self.text(), self.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise Damaged(f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(reversed([self.number("Q") for _ in range(dimensions)]))
        number, offset = self.number("I"), self.number("Q")
        return name, GGML.get(number, f"number {number}"), shape, offset

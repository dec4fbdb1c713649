# SPDX-License-Identifier: GPL-3.0-or-later
"""PIZ: a wavelet transform of 16-bit words, packed by a Huffman code.

The words of the uncompressed chunk are mapped to a dense range, transformed channel by channel, and coded together.
Source: OpenEXRCore's internal_piz.c and internal_huf.c. Malformed chunks raise ValueError or IndexError.
"""

from __future__ import annotations

import struct

import numpy as np

_WINDOW = 17  # bits looked at in one step, as many as noisy floats need; longer codes are searched for
_LONGEST = 58  # bits of a code
_SYMBOLS = 65537  # the 16-bit words and the mark of a repetition


def unpack_piz(data: bytes, words: list[int], width: int, lines: int) -> bytes:
    """The uncompressed chunk. words: 16-bit words in a value of each channel (1 half, 2 float and unsigned)."""
    lowest, highest = struct.unpack_from("<HH", data)
    bitmap = np.zeros(8192, np.uint8)
    place = 4
    if lowest <= highest:
        span = highest - lowest + 1
        bitmap[lowest : highest + 1] = np.frombuffer(data, np.uint8, span, place)
        place += span
    used = np.unpackbits(bitmap, bitorder="little")
    used[0] = 1  # zero is always there
    values = np.flatnonzero(used).astype(np.uint16)
    (length,) = struct.unpack_from("<I", data, place)
    place += 4
    coded = _decode(data[place : place + length], width * lines * sum(words))
    out, start = [], 0
    for count in words:
        block = coded[start : start + width * lines * count].reshape(lines, width, count)
        start += block.size
        for k in range(count):
            _unwave(block[:, :, k], 14 if len(values) - 1 < 1 << 14 else 16)
        out.append(values.take(block, mode="clip").reshape(lines, -1))
    return np.concatenate(out, axis=1).astype("<u2").tobytes()


def _decode(data: bytes, count: int) -> np.ndarray:
    """`count` 16-bit words from a Huffman block."""
    low, high, _, bits, _ = struct.unpack_from("<5I", data)
    if low >= _SYMBOLS or high >= _SYMBOLS or low > high:
        raise ValueError("a Huffman table is damaged")
    lengths, start = _code_lengths(data, 20, low, high)
    short, long = _tables(lengths)
    body = data[start:]
    if bits > 8 * len(body):
        raise ValueError("a Huffman block is cut short")
    padded = np.frombuffer(body + bytes(16), np.uint8).astype(np.uint32)
    # The 32 bits from every byte on, as Python integers: far faster to index than an array.
    ahead = ((padded[:-3] << 24) | (padded[1:-2] << 16) | (padded[2:-1] << 8) | padded[3:]).tolist()
    mask, down = (1 << _WINDOW) - 1, 32 - _WINDOW
    out: list[int] = []
    put, place = out.append, 0
    while place < bits:
        found = short[(ahead[place >> 3] >> (down - (place & 7))) & mask]
        if not found:
            found = _long_code(body, place, long)
        place += found & 63
        symbol = found >> 6
        if symbol != high:
            put(symbol)
            continue
        # The highest symbol stands for "the word before once more", as often as the next byte says.
        repeats = (ahead[place >> 3] >> (24 - (place & 7))) & 255
        place += 8
        out += out[-1:] * repeats
        if len(out) > count:
            break
    if len(out) != count:
        raise ValueError("a Huffman block has the wrong length")
    return np.array(out, np.uint16)


def _code_lengths(data: bytes, place: int, low: int, high: int) -> tuple[np.ndarray, int]:
    """The length of every symbol's code (0: unused), and where the codes begin."""
    lengths = np.zeros(_SYMBOLS, np.int64)
    stock = held = 0  # bits read but not used yet, and how many
    symbol = low

    def take(count: int) -> int:
        nonlocal place, stock, held
        while held < count:
            stock = (stock << 8) | data[place]
            place += 1
            held += 8
        held -= count
        value = stock >> held
        stock &= (1 << held) - 1
        return value

    while symbol <= high:
        length = take(6)
        if length == 63:  # a long run of unused symbols
            symbol += take(8) + 6
        elif length >= 59:  # a short run
            symbol += length - 57
        else:
            lengths[symbol] = length
            symbol += 1
    if symbol > high + 1:
        raise ValueError("a Huffman table is damaged")
    return lengths, place


def _tables(lengths: np.ndarray) -> tuple[list[int], dict[tuple[int, int], int]]:
    """Canonical codes: (symbol * 64 + length) by the next 17 bits, 0 where longer; and by (length, code)."""
    counts = np.bincount(lengths, minlength=_LONGEST + 1)
    first = [0] * (_LONGEST + 2)
    code = 0
    for length in range(_LONGEST, 0, -1):
        first[length] = code
        code = (code + int(counts[length])) >> 1
    short = np.zeros(1 << _WINDOW, np.int64)
    long: dict[tuple[int, int], int] = {}
    for symbol in np.flatnonzero(lengths).tolist():
        length = int(lengths[symbol])
        code = first[length]
        first[length] += 1
        if length <= _WINDOW:
            free = _WINDOW - length
            short[code << free : (code + 1) << free] = symbol << 6 | length
        else:
            long[length, code] = symbol << 6 | length
    return short.tolist(), long


def _long_code(body: bytes, place: int, long: dict[tuple[int, int], int]) -> int:
    window = int.from_bytes(body[place >> 3 : (place >> 3) + 9].ljust(9, b"\0"), "big")
    for length in range(_WINDOW + 1, _LONGEST + 1):
        code = (window >> (72 - (place & 7) - length)) & ((1 << length) - 1)
        if (length, code) in long:
            return long[length, code]
    raise ValueError("a Huffman code is unknown")


def _unwave(block: np.ndarray, bits: int) -> None:
    """The inverse 2D Haar transform of [lines, width] words, in place: coarse to fine."""
    merge = _merge14 if bits == 14 else _merge16
    height, width = block.shape
    step = 1
    while step * 2 <= min(height, width):
        step *= 2
    while step > 1:
        half = step // 2
        rows, columns = height // step * step, width // step * step
        # The four corners of every full cell; what is left at the right and at the bottom is paired one way only.
        corner = block[0:rows:step, 0:columns:step]
        right = block[0:rows:step, half:columns:step]
        below = block[half:rows:step, 0:columns:step]
        across = block[half:rows:step, half:columns:step]
        left_low, left_high = merge(corner, below)
        right_low, right_high = merge(right, across)
        corner[:], right[:] = merge(left_low, right_low)
        below[:], across[:] = merge(left_high, right_high)
        if width & half:
            top, bottom = block[0:rows:step, columns], block[half:rows:step, columns]
            top[:], bottom[:] = merge(top, bottom)
        if height & half:
            start, end = block[rows, 0:columns:step], block[rows, half:columns:step]
            start[:], end[:] = merge(start, end)
        step = half


def _merge14(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two words from their mean and difference, when all words lie below 2^14."""
    mean, difference = (part.astype(np.uint16).view(np.int16).astype(np.int32) for part in (low, high))
    first = mean + (difference & 1) + (difference >> 1)
    return first.astype(np.uint16), (first - difference).astype(np.uint16)


def _merge16(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in arithmetic modulo 2^16."""
    mean, difference = low.astype(np.int32), high.astype(np.int32)
    second = (mean - (difference >> 1)) & 0xFFFF
    return ((difference + second - 0x8000) & 0xFFFF).astype(np.uint16), second.astype(np.uint16)

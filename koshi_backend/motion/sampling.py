# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking planes of numbers up between their pixels: linear, cubic and spline, with three kinds of border.

All of it comes down to linear look-ups, because OpenCV has a fast one with exact float positions: a Catmull-Rom look-up
is the linear one of the picture minus f (1 - f) / 2 times the linear one of its second differences (Keys' cubic at
a = -0.5, reordered; no approximation). OpenCV's own cubic is of no use here: it has a = -0.75, which amplifies
mid frequencies by up to 2.5 % a round, and rounds positions to 1/32 px, so that slow moves stand still.

Where OpenCV cannot be used (another device, or a version before 5 that rounds the positions of linear look-ups too)
the same numbers come from plain torch, about 15 times more slowly on a processor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import KoshiError

# What lies outside: the edge pixel repeated, the picture again, or the picture mirrored (its edge pixels twice).
BORDERS = {"replicate": cv2.BORDER_REPLICATE, "wrap": cv2.BORDER_WRAP, "reflect": cv2.BORDER_REFLECT}
# Pixels that are worked on at a time, so that they stay in the cache: fewer cost calls, more cost memory.
BLOCK = 1 << 17
POLE = 3.0**0.5 - 2.0  # of the cubic spline's inverse filter
REACH = 10  # its taps on each side: POLE**11 is below 1e-6
SPLINE_PAD = REACH + 4

Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def check_border(border: str) -> None:
    """Raise KoshiError("bad_value") for a border that there is not."""
    if border not in BORDERS:
        raise KoshiError("bad_value", f"border is {border!r}.", f"It may be {', '.join(BORDERS)}.")


def fold(position: Tensor, size: int, border: str) -> Tensor:
    """Positions along one axis, brought to where the picture or the pixel beside its edge has the same value."""
    if border == "wrap":
        return torch.remainder(position, size)
    if border == "reflect":
        turned = torch.remainder(position + 0.5, 2 * size)
        return torch.minimum(turned, 2 * size - turned) - 0.5
    return position.clamp(-1.0, size)


def empty(*shape: int) -> Tensor:
    """A new float32 tensor on the processor, for a whole picture.

    Its memory is numpy's, which asks Linux for huge pages: where memory was not in use before, writing 1024 x 1024
    colours takes 1.3 ms in place of 4.5.
    """
    return torch.from_numpy(np.empty(shape, np.float32))


def pad(planes: Tensor, margin: int, border: str) -> Tensor:
    """[C, H, W] with `margin` more pixels on each side, also where the margin is wider than the picture."""
    if uses_opencv(planes):
        channels, height, width = planes.shape
        out = empty(channels, height + 2 * margin, width + 2 * margin)
        for plane, wide in zip(planes, out, strict=True):
            cv2.copyMakeBorder(_array(plane), margin, margin, margin, margin, BORDERS[border], dst=_array(wide))
        return out
    rows, columns = (
        _fold_index(torch.arange(-margin, size + margin, device=planes.device), size, border)
        for size in planes.shape[1:]
    )
    return planes[:, rows][:, :, columns]


def catmull_rom(f: Tensor) -> Weights:
    """Weights of the four neighbours at distances 1 + f, f, 1 - f, 2 - f (Keys' cubic, a = -0.5)."""
    f2, f3 = f * f, f * f * f
    return (
        -0.5 * f3 + f2 - 0.5 * f,
        1.5 * f3 - 2.5 * f2 + 1.0,
        -1.5 * f3 + 2.0 * f2 + 0.5 * f,
        0.5 * f3 - 0.5 * f2,
    )


def b_spline(f: Tensor) -> Weights:
    """Weights of the cubic B-spline's four coefficients."""
    e, f2 = 1.0 - f, f * f
    f3 = f2 * f
    return e * e * e / 6.0, 0.5 * f3 - f2 + 2.0 / 3.0, -0.5 * f3 + 0.5 * (f2 + f) + 1.0 / 6.0, f3 / 6.0


def spline_coefficients(planes: Tensor, border: str) -> Tensor:
    """The coefficients whose B-spline runs through the pixels, [C, H + 2 SPLINE_PAD, W + 2 SPLINE_PAD].

    The inverse of the filter 1/6 4/6 1/6 is two-sided and decays by POLE a pixel (Unser 1999); cut off here, and
    scaled so that a flat picture stays what it is.
    """
    taps = POLE ** torch.arange(-REACH, REACH + 1, device=planes.device).abs().to(planes.dtype)
    taps = taps / taps.sum()
    wide = pad(planes, SPLINE_PAD + REACH, border)
    if uses_opencv(planes):
        line = taps.numpy()
        out = empty(*wide.shape)
        for plane, filtered in zip(wide, out, strict=True):
            cv2.sepFilter2D(_array(plane), -1, line, line, dst=_array(filtered))
        return out[:, REACH:-REACH, REACH:-REACH]
    taps = taps.view(1, 1, 1, -1)
    return F.conv2d(F.conv2d(wide[:, None], taps), taps.transpose(2, 3))[:, 0]


def uses_opencv(planes: Tensor) -> bool:
    """Whether OpenCV can do it: on the processor, in float32, and with exact positions."""
    return planes.device.type == "cpu" and planes.dtype == torch.float32 and _linear_is_exact()


def linear(planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[C, H, W] looked up at x and y [h, w], edge values repeated: [C, h, w]."""
    if uses_opencv(planes):
        return torch.cat([Table(group).at(x, y) for group in planes.split(4)])
    height, width = planes.shape[1:]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    column, row = x.floor(), y.floor()
    fx, fy = x - column, y - row
    left, top = column.long(), row.long()
    right, under = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    upper = torch.lerp(planes[:, top, left], planes[:, top, right], fx)
    return torch.lerp(upper, torch.lerp(planes[:, under, left], planes[:, under, right], fx), fy)


def by_taps(planes: Tensor, x: Tensor, y: Tensor, weigh: Callable[[Tensor], Weights], border: str) -> Tensor:
    """[C, H, W] looked up with the 4 x 4 neighbours of each place, in plain torch: [C, h, w]."""
    channels, height, width = planes.shape
    flat = planes.reshape(channels, height * width)
    column, row = x.floor(), y.floor()
    left, top = column.long() - 1, row.long() - 1
    columns = [_fold_index(left + k, width, border) for k in range(4)]
    out = planes.new_zeros(channels, *x.shape)
    for k, wy in enumerate(weigh(y - row)):
        start = _fold_index(top + k, height, border) * width
        line = torch.zeros_like(out)
        for index, wx in zip(columns, weigh(x - column), strict=True):
            line += wx * flat[:, start + index]
        out += wy * line
    return out


def catmull_rom_at(planes: Tensor, x: Tensor, y: Tensor, border: str) -> Tensor:
    """[C, H, W] looked up by Catmull-Rom, in the quickest way that there is: [C, h, w]."""
    if uses_opencv(planes):
        return cubic(planes, x, y, border)
    return by_taps(planes, x, y, catmull_rom, border)


def cubic(planes: Tensor, x: Tensor, y: Tensor, border: str) -> Tensor:
    """[C, H, W] looked up by Catmull-Rom with OpenCV's linear look-up: [C, h, w], equal to by_taps to about 1e-5."""
    out = empty(len(planes), *x.shape)
    height, width = planes.shape[1:]
    for first, group in zip(range(0, len(planes), 4), planes.split(4), strict=True):
        tables = [Table(_with_differences(plane, border)) for plane in group]
        for rows in blocks(*x.shape):
            px, py = fold(x[rows], width, border), fold(y[rows], height, border)
            hx, hy = parabola(px), parabola(py)
            px, py = px.add_(1.0), py.add_(1.0)
            for channel, table in enumerate(tables, first):
                value, dx, dy, dxy = table.at(px, py)
                value.addcmul_(dx, hx, value=-0.5)
                torch.addcmul(value, dy.addcmul_(dxy, hx, value=-0.5), hy, value=-0.5, out=out[channel, rows])
    return out


def spline(planes: Tensor, x: Tensor, y: Tensor, border: str) -> Tensor:
    """[C, H, W] looked up on the spline through its pixels with OpenCV's linear look-up: [C, h, w].

    Two neighbours with weights a and b are one linear look-up at b / (a + b) between them (Sigg and Hadwiger 2005).
    """
    height, width = planes.shape[1:]
    wide = spline_coefficients(planes, border)
    out = empty(len(planes), *x.shape)
    for first, group in zip(range(0, len(planes), 4), wide.split(4), strict=True):
        table = Table(group)
        for rows in blocks(*x.shape):
            across = _pairs(fold(x[rows], width, border))
            total = torch.zeros(len(group), *across[0][0].shape)
            for place_y, weight_y in _pairs(fold(y[rows], height, border)):
                for place_x, weight_x in across:
                    total.addcmul_(table.at(place_x, place_y), weight_x * weight_y)
            out[first : first + len(group), rows] = total
    return out


def blocks(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, some at a time."""
    step = max(8, BLOCK // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


class Table:
    """Up to four planes, [C, H, W] or C of [H, W], made ready for OpenCV's linear look-up.

    Interleaved, because of more than one plane OpenCV is fastest with four. border: what lies outside.
    """

    def __init__(self, planes: Tensor | tuple[Tensor, ...], border: str = "replicate") -> None:
        arrays = [_array(plane) for plane in planes]
        self._packed = arrays[0] if len(arrays) == 1 else cv2.merge(arrays + [arrays[-1]] * (4 - len(arrays)))
        self._border = BORDERS[border]
        self._channels = len(planes)
        # Fresh memory for each block of rows would cost a quarter of the whole time.
        self._looked: np.ndarray | None = None
        self._planes = np.empty((self._channels, 0, 0), np.float32)

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """The planes at x and y [h, w]: [C, h, w], overwritten by the next call."""
        if self._planes.shape[1:] != x.shape:
            self._looked, self._planes = None, np.empty((4, *x.shape), np.float32)
        self._looked = cv2.remap(
            self._packed, _array(x), _array(y), cv2.INTER_LINEAR, dst=self._looked, borderMode=self._border
        )
        if self._looked.ndim == 2:
            return _from(self._looked)[None]
        cv2.split(self._looked, list(self._planes))
        return _from(self._planes)[: self._channels]


def _with_differences(plane: Tensor, border: str) -> tuple[Tensor, ...]:
    """A plane [H, W] with its second differences across, down and both: four of [H + 2, W + 2]."""
    wide = pad(plane[None], 2, border)[0]
    rows, columns = wide.shape
    across, down, both = empty(rows, columns - 2), empty(rows - 2, columns), empty(rows - 2, columns - 2)
    torch.add(wide[:, 2:], wide[:, :-2], out=across).sub_(wide[:, 1:-1], alpha=2.0)
    torch.add(wide[2:], wide[:-2], out=down).sub_(wide[1:-1], alpha=2.0)
    torch.add(across[2:], across[:-2], out=both).sub_(across[1:-1], alpha=2.0)
    return wide[1:-1, 1:-1], across[1:-1], down[:, 1:-1], both


def parabola(position: Tensor) -> Tensor:
    """f (1 - f) of the fraction f of a position: how much a linear look-up lacks there."""
    f = torch.sub(position, position.floor())
    return f.addcmul_(f, f, value=-1.0)


def _pairs(position: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(place in the padded coefficients, weight) of the two linear look-ups along one axis."""
    base = position.floor()
    w0, w1, w2, w3 = b_spline(position - base)
    base = base + SPLINE_PAD
    return [(base - 1.0 + w1 / (w0 + w1), w0 + w1), (base + 1.0 + w3 / (w2 + w3), w2 + w3)]


def _array(plane: Tensor) -> np.ndarray:
    # OpenCV takes rows that do not follow on one another.
    return (plane if plane.stride(-1) == 1 else plane.contiguous()).numpy()


def _from(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def _fold_index(index: Tensor, size: int, border: str) -> Tensor:
    if border == "wrap":
        return torch.remainder(index, size)
    if border == "reflect":
        turned = torch.remainder(index, 2 * size)
        return torch.minimum(turned, 2 * size - 1 - turned)
    return index.clamp(0, size - 1)


@functools.cache
def _linear_is_exact() -> bool:
    """Whether this OpenCV looks a ramp up to 1e-3 px: version 5 does, version 4 rounds to 1/32."""
    ramp = torch.arange(64.0).repeat(4, 16, 1)
    x, y = torch.meshgrid(torch.arange(2.0, 34.0), torch.arange(2.0, 10.0), indexing="xy")
    places = x + 0.013 * (y + 1.0)
    return all(float((Table(planes).at(places, y) - places).abs().max()) < 1e-3 for planes in (ramp, ramp[:1]))

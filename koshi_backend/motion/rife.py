# SPDX-License-Identifier: GPL-3.0-or-later
"""RIFE v4.6, a network that learnt to find pictures between pictures, where its weights are given. Koshi has none.

Huang and others: Real-Time Intermediate Flow Estimation for Video Frame Interpolation (2022). Four blocks, each twice
as fine as the one before, find from a moment between two pictures the ways to both, and how much each counts there.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import KoshiError
from .field import grid

_WIDTHS = (192, 128, 96, 64)  # channels within each block
_SCALES = (8, 4, 2, 1)  # how much smaller than the picture each one looks at it
_ENTERING = (7, 12, 12, 12)  # two pictures and the time; from the second on also how much they count, and both ways
_LEAVING = 24  # six channels of four places each: two ways, how much the first counts, and one that nothing uses
_LAYERS = 8
_SLOPE = 0.2
_CELL = 32  # pixels that the coarsest block sees as one
_ANOTHER = "Give the flownet.pkl of RIFE v4.6 (RIFE46.pkl in Deforum), or use the in-betweens flow, which need nothing."


class Rife:
    """RIFE v4.6 with the weights of one file."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """weights: by `layout`'s names and shapes, all on one device."""
        self._weights = weights

    def ways(self, first: Tensor, second: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is between two pictures, at `share` (above 0, below 1) of the way from first to second.

        first, second: [1, 3, H, W] in 0..1, of any size. Returned are the ways from there to the first and to the
        second, float32 [H, W, 2], x right and y down, pixels, and how much the first counts, [1, 1, H, W] in 0..1.
        """
        height, width = first.shape[2:]
        # To whole cells. Repeated edges are what a look outside finds anyway; black ones would come in with the motion.
        spare = (0, -width % _CELL, 0, -height % _CELL)
        pair = [F.pad(p.float().clamp(0.0, 1.0), spare, mode="replicate") for p in (first, second)]
        time = torch.full_like(pair[0][:, :1], share)
        with torch.inference_mode():
            counts = torch.zeros_like(time)
            both = time.new_zeros(1, 4, *time.shape[2:])
            seen = [*pair, time]
            for k, scale in enumerate(_SCALES):
                onward, more = self._block(k, seen, both if k else None, scale)
                both, counts = both + onward, counts + more
                seen = [warped(pair[0], both[:, :2]), warped(pair[1], both[:, 2:]), time, counts]
            both, counts = both[..., :height, :width], counts[..., :height, :width].sigmoid()
        to_first, to_second = both[0, :2].permute(1, 2, 0), both[0, 2:].permute(1, 2, 0)
        return to_first.clone(), to_second.clone(), counts.clone()

    def between(self, first: Tensor, second: Tensor, share: float) -> Tensor:
        """The picture at `share` of the way from first to second, [1, 3, H, W] in 0..1. As `ways` takes them."""
        to_first, to_second, counts = self.ways(first, second, share)
        pair = zip((first, second), (to_first, to_second), strict=True)
        old, new = (warped(p.float().clamp(0.0, 1.0), way.permute(2, 0, 1)[None]) for p, way in pair)
        return old * counts + new * (1.0 - counts)

    def _block(self, number: int, seen: list[Tensor], both: Tensor | None, scale: int) -> tuple[Tensor, Tensor]:
        """What block `number` adds to the ways so far, [1, 4, H, W], and to how much the first counts, [1, 1, H, W]."""

        def weight(name: str) -> Tensor:
            return self._weights[f"block{number}.{name}"]

        found = _sized(torch.cat(seen, 1), 1.0 / scale)
        if both is not None:
            found = torch.cat([found, _sized(both, 1.0 / scale) / scale], 1)
        for k in range(2):
            kernel, bias = weight(f"conv0.{k}.0.weight"), weight(f"conv0.{k}.0.bias")
            found = F.leaky_relu(F.conv2d(found, kernel, bias, stride=2, padding=1), _SLOPE)
        for k in range(_LAYERS):
            kernel, bias = weight(f"convblock.{k}.conv.weight"), weight(f"convblock.{k}.conv.bias")
            change = F.conv2d(found, kernel, bias, padding=1) * weight(f"convblock.{k}.beta")
            found = F.leaky_relu(found + change, _SLOPE)
        found = F.conv_transpose2d(found, weight("lastconv.0.weight"), weight("lastconv.0.bias"), stride=2, padding=1)
        found = _sized(F.pixel_shuffle(found, 2), float(scale))
        return found[:, :4] * scale, found[:, 4:5]


def warped(picture: Tensor, way: Tensor) -> Tensor:
    """The picture where `way` leads, [1, C, H, W], its edges going on outside. way: [1, 2, H, W], pixels."""
    height, width = picture.shape[2:]
    place = grid(width, height, picture.device)[None] + way
    where = (place.permute(0, 2, 3, 1) + 0.5) * place.new_tensor([2.0 / width, 2.0 / height]) - 1.0
    return F.grid_sample(picture, where, padding_mode="border", align_corners=False)


def _sized(picture: Tensor, factor: float) -> Tensor:
    """So many times as large; half-pixel centres, and no smoothing where it gets smaller, as the network learnt it."""
    return picture if factor == 1.0 else F.interpolate(picture, scale_factor=factor, mode="bilinear")


def layout() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of v4.6's tensors, without the "module." that the published file puts before each."""
    for block, (inner, entering) in enumerate(zip(_WIDTHS, _ENTERING, strict=True)):
        for k, (before, after) in enumerate(itertools.pairwise((entering, inner // 2, inner))):
            yield f"block{block}.conv0.{k}.0.weight", (after, before, 3, 3)
            yield f"block{block}.conv0.{k}.0.bias", (after,)
        for k in range(_LAYERS):
            yield f"block{block}.convblock.{k}.beta", (1, inner, 1, 1)
            yield f"block{block}.convblock.{k}.conv.weight", (inner, inner, 3, 3)
            yield f"block{block}.convblock.{k}.conv.bias", (inner,)
        yield f"block{block}.lastconv.0.weight", (inner, _LEAVING, 4, 4)
        yield f"block{block}.lastconv.0.bias", (_LEAVING,)


def load_rife(file: str | Path, device: torch.device) -> Rife:
    """RIFE v4.6 from a published flownet.pkl, kept for the next call while the file stays what it is.

    Further tensors, as of its training, do not matter. Nothing in the file is run.
    Raises KoshiError("rife_unavailable"): no such file, none of PyTorch's, or another version's, with what it lacks.
    """
    path = Path(file)
    try:
        stat = path.stat()
    except OSError as error:
        text = f"The weights of RIFE, {path}, cannot be read: {error.strerror}."
        raise KoshiError("rife_unavailable", text, _ANOTHER) from error
    return _loaded(path, stat.st_size, stat.st_mtime_ns, device)


def forget() -> None:
    """Let go of the weights that are loaded."""
    _loaded.cache_clear()


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, size: int, changed: int, device: torch.device) -> Rife:
    found = _tensors(path)
    wanted = dict(layout())
    missing = [name for name in wanted if name not in found]
    other = [
        f"{name} {list(found[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    faults = [f"{kind}: {_some(names)}" for kind, names in (("Missing", missing), ("Different", other)) if names]
    if faults:
        text = f"{path} does not hold RIFE v4.6: it is another version or another network. {'; '.join(faults)}."
        raise KoshiError("rife_unavailable", text, _ANOTHER)
    weights = {name: found[name].to(device, torch.float32) for name in wanted}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        text = f"{path} is damaged: it holds values that are not finite numbers."
        raise KoshiError("rife_unavailable", text, "Fetch it again.")
    return Rife(weights)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only admits tensors and nothing that could run.
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise nearly anything
        text = f"{path} is damaged, or no file of PyTorch's weights."
        raise KoshiError("rife_unavailable", text, "Fetch it again, or give another one.") from error
    if not isinstance(found, dict):
        raise KoshiError("rife_unavailable", f"{path} holds no named tensors.", _ANOTHER)
    return {str(name).removeprefix("module."): one for name, one in found.items() if isinstance(one, Tensor)}


def _some(names: list[str]) -> str:
    """The first few of them, and how many more."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{', '.join(names[:6])}{more}"

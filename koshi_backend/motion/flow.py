# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion of a guide video: optical flow between two of its pictures, as a MotionField."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import KoshiError
from .far_flow import far_flow
from .field import MotionField, grid, inside
from .raft import raft_flow

FlowMethod = Literal["dis_ultrafast", "dis_fast", "dis_medium", "dis_fine", "farneback", "raft"]
METHODS: tuple[str, ...] = get_args(FlowMethod)

_SMALLEST_SIDE = 16  # pixels; below it OpenCV's patches do not fit
# A flow and the flow back may miss each other by this share of their length, and by this much (pixels squared).
# Sundaram, Brox, Keutzer: Dense point trajectories by GPU-accelerated large displacement optical flow (2010), (5).
_SHARE, _SLACK = 0.01, 0.5
# Below this share of pixels that are sure, flow looks again, and takes what is surer by so much more. Of 243 pairs of
# pictures, 1 to 25 % of the width apart, also turned and enlarged, DIS had more than a tenth of the pixels wrong in
# 115; looking again leaves none (at .75 two). It takes five times as long there.
_FOUND, _BETTER = 0.8, 0.02
# Largest difference of any colour (of 0..1), within so many pixels, that nobody sees as another thing; and, in the mean
# of these, that the same thing may have.
_ALIKE, _AROUND, _NEAR = 0.03, 5, 0.1


def flow_field(
    previous: Tensor, new: Tensor, method: str = "dis_medium", *, factor: float = 1.0, check: bool = True
) -> MotionField:
    """Where each pixel of `new` was in `previous`: the motion of a guide video's two pictures.

    previous, new: [1, 3, H, W] in 0..1. factor: 0 stands still, 1 moves as the guide does, above 1 exaggerates,
    below 0 goes back (Deforum's hybrid_flow_factor). Flow is measured from the new picture to the previous one, the
    way the resampler asks; Deforum measures the other way and turns the sign, which is a different field wherever
    neighbours move differently.
    check: pixels whose flow is not confirmed by the flow the other way count as uncovered (not valid), unless they look
    alike: in a plain sky any flow is as good as another. It costs a second flow. DIS finds 80 to 99 % of an uncovered
    strip, farneback nothing: it draws neighbours along.
    Where DIS or Farneback lose their way, since the pictures are far apart, they look again from the one move that most
    of the picture makes (far_flow.py).
    Raises KoshiError("bad_value" | "bad_guide" | "flow_unavailable").
    """
    if method not in METHODS:
        raise KoshiError("bad_value", f"flow is {method!r}.", f"Choose one of {', '.join(METHODS)}.")
    if not np.isfinite(factor):
        raise KoshiError("bad_value", f"The flow factor is {factor}.", "Give a number; 1 moves as the guide does.")
    check_pair(previous, new)
    if torch.equal(previous, new):  # a repeated frame, as films at another rate are full of: nothing is resampled
        return MotionField.identity(new.shape[3], new.shape[2], new.device)
    back, _, sure = both_flows(new, previous, method)
    height, width = back.shape[:2]
    source = grid(width, height, back.device).permute(1, 2, 0) + factor * back
    valid = inside(source, width, height)
    # Both flows are at the full motion: a factor changes where things go, not what was hidden.
    return MotionField(source, valid & sure if check else valid)


def both_flows(first: Tensor, second: Tensor, method: str = "dis_medium") -> tuple[Tensor, Tensor, Tensor]:
    """The flows from `first` to `second` and back, [H, W, 2], and where the former is sure, bool [H, W].

    As `optical_flow`, but looking again where the pictures are far apart (far_flow.py).
    """

    def flow(one: Tensor, other: Tensor) -> Tensor:
        return optical_flow(one, other, method)

    def judged(there: Tensor, back: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        height, width = there.shape[:2]
        sure = consistent(there, back) | _alike(second, first, there)
        # Farneback agrees with itself where it stands still both ways, so that what it finds has to look like it, too.
        near = _difference(second, first, there).mean(1, keepdim=True)
        near = F.avg_pool2d(near, _AROUND, stride=1, padding=_AROUND // 2, count_include_pad=False)[0, 0] < _NEAR
        found = sure & near & inside(grid(width, height, there.device).permute(1, 2, 0) + there, width, height)
        return there, back, sure, float(found.float().mean())

    best = judged(flow(first, second), flow(second, first))
    if best[3] < _FOUND and method != "raft":  # which looks everywhere by itself
        for pair in far_flow(first, second, flow):
            other = judged(*pair)
            if other[3] > best[3] + _BETTER:
                best = other
    return best[:3]


def optical_flow(first: Tensor, second: Tensor, method: str = "dis_medium") -> Tensor:
    """For each pixel of `first`, how far away it lies in `second`: float32 [H, W, 2], x right and y down, pixels."""
    if method == "raft":
        return raft_flow(first, second)
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray] = _farneback if method == "farneback" else _dis(method)
    return torch.from_numpy(measure(grey(first), grey(second))).to(first.device)


def consistent(there: Tensor, back: Tensor) -> Tensor:
    """bool [H, W]: following the flow `there` and then `back` leads home. It does not where something was hidden."""
    height, width = there.shape[:2]
    place = grid(width, height, there.device).permute(1, 2, 0) + there
    where = (place + 0.5) * there.new_tensor([2.0 / width, 2.0 / height]) - 1.0
    found = F.grid_sample(back.permute(2, 0, 1)[None], where[None], padding_mode="border", align_corners=False)
    found = found[0].permute(1, 2, 0)
    miss = (there + found).square().sum(-1)
    return miss < _SHARE * (there.square().sum(-1) + found.square().sum(-1)) + _SLACK


def _alike(previous: Tensor, new: Tensor, back: Tensor) -> Tensor:
    """bool [H, W]: all of a pixel's neighbourhood looks as what the flow says it was."""
    difference = _difference(previous, new, back).amax(1, keepdim=True)
    return F.max_pool2d(difference, _AROUND, stride=1, padding=_AROUND // 2)[0, 0] < _ALIKE


def _difference(previous: Tensor, new: Tensor, back: Tensor) -> Tensor:
    """[1, 3, H, W] in 0..1: how far the colours of `new` are from those where the flow leads."""
    height, width = back.shape[:2]
    place = grid(width, height, back.device).permute(1, 2, 0) + back
    where = (place + 0.5) * back.new_tensor([2.0 / width, 2.0 / height]) - 1.0
    found = F.grid_sample(previous, where[None], padding_mode="border", align_corners=False)
    return (found - new).abs()


def _dis(method: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Dense inverse search (Kroeger and others, 2016): OpenCV's presets, and Deforum's "DIS Fine" at full size."""
    presets = {
        "dis_ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "dis_fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "dis_medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        "dis_fine": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }
    finder = cv2.DISOpticalFlow.create(presets[method])
    if method == "dis_fine":
        finder.setFinestScale(0)
        finder.setGradientDescentIterations(192)
        finder.setPatchSize(8)
        finder.setPatchStride(4)
    # No first guess: Deforum hands over the last pair's flow, which then shows through where a picture is flat.
    return lambda first, second: np.asarray(finder.calc(first, second, None), np.float32)


def _farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Polynomial expansion (Farneback, 2003), on pictures whose contrast is the same everywhere.

    On plain pictures it stands still where there is little contrast, or a slope of light behind it: a shift of 23
    pixels came out as none in up to half of the picture, with Deforum's settings and with 30 others. Evened out, the
    median error of that shift is 0.003 to 0.04 pixels.
    """
    flow = cv2.calcOpticalFlowFarneback(
        _evened(first),
        _evened(second),
        None,
        pyr_scale=0.5,
        levels=5,
        winsize=33,
        iterations=5,
        poly_n=5,
        poly_sigma=1.1,
        flags=0,
    )
    return np.asarray(flow, np.float32)


def _evened(grey: np.ndarray) -> np.ndarray:
    """Mean 127 and the same contrast around every pixel, over some 16 pixels (of 4, 8, 16, 32 the best)."""
    light = grey.astype(np.float32)
    detail = light - cv2.GaussianBlur(light, (0, 0), 16)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 16)) + 2.0  # 2 of 255 is noise, not contrast
    return np.clip(127.0 + 60.0 * detail / contrast, 0, 255).astype(np.uint8)


def grey(picture: Tensor) -> np.ndarray:
    """[1, 3, H, W] in 0..1 -> uint8 [H, W], the brightness."""
    pixels = (picture[0].detach().permute(1, 2, 0).float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)


def check_pair(previous: Tensor, new: Tensor) -> None:
    """Refuse what are not two pictures of one size, with KoshiError("bad_guide")."""
    for picture in (previous, new):
        if picture.ndim != 4 or picture.shape[:2] != (1, 3) or min(picture.shape[2:]) < _SMALLEST_SIDE:
            raise KoshiError(
                "bad_guide",
                f"A guide picture has the shape {list(picture.shape)}.",
                f"Give [1, 3, H, W] with sides of at least {_SMALLEST_SIDE}.",
            )
    if previous.shape != new.shape:
        raise KoshiError(
            "bad_guide",
            f"The guide pictures have different sizes, {list(previous.shape[2:])} and {list(new.shape[2:])}.",
            "Read both at the size of the shot.",
        )

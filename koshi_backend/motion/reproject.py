# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera-exact motion: from Blender's cameras and the scene's own depth, with what was hidden found by depth.

For a pixel of the new frame: unproject it with the new frame's depth, carry the point into the previous camera, look
up there. Both steps are one 4 x 4 matrix on (x, y, 1, d), with d = 1 / depth for a perspective camera and d = depth
for a parallel one (`camera.screen_motion`). d is affine over the picture on every flat surface: bilinear values of it
are exact there at any slope, and d = 0 is infinitely far.

Depth is Blender's Z (Cycles "Depth"): along the view axis, not along the ray, for both kinds of camera; what hits
nothing has 1e10 in Cycles and clip_end in EEVEE before 5.2. "Mist" is something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..doubles import doubled
from ..errors import KoshiError
from .camera import Camera, screen_motion
from .field import MotionField
from .hidden import field_from, grid, sample
from .vectors import (
    Seen,
    leads_elsewhere,
    next_displacement,
    next_displacement_by_a_still_camera,
    own_motion,
    own_motion_by_a_still_camera,
)

# A point that the previous frame shows at another depth than this fraction (of 1 / depth; of the width that a
# parallel camera sees) was hidden. 0.01 to 0.05 give the same masks within 0.5 % of the picture.
DEPTH_TOLERANCE = 0.02
# The same for a point that moves by itself, whose depth in the previous frame nothing tells: it may have come this much
# nearer or gone this much further in one frame.
OWN_DEPTH_TOLERANCE = 0.1
# Below this part of the mean, 1 / depth counts as equal: it keeps rounding from marking the sky beside a near thing.
_LEAST = 0.05
# What was behind the camera comes from here, in pixels: outside of any picture, and finite.
_OUTSIDE = 1e5


def reproject(
    previous: Camera,
    current: Camera,
    depth: Tensor,
    previous_depth: Tensor | None = None,
    *,
    vector: Tensor | None = None,
    previous_vector: Tensor | None = None,
    vectors_seen: Seen = "camera",
    margin: int = 1,
) -> MotionField:
    """Where each pixel of the new frame was in the previous one, by the cameras, the scene's depth and its vectors.

    depth, previous_depth: float [H, W], Blender's Z in scene units; the picture is W x H. Without previous_depth only
        what leaves the picture is invalid, and silhouettes.
    vector, previous_vector: Blender's Vector pass of both frames, float [H, W, 4]: what moves by itself follows it,
        everything else the cameras. With previous_vector hidden parts of moving things are found by whether the
        previous frame's own vectors lead back here; without it only roughly, by depth.
    vectors_seen: how the vectors see their neighbours (vectors.py).
    margin: pixels by which hidden parts and silhouettes that move against what lies behind them count as invalid on
        each side, because pixels there mix two surfaces. 0 keeps what is partly right.

    Background is infinitely far: it turns with a perspective camera and stays where it is for a parallel one.
    Agrees with Cycles' own vectors within 0.004 pixels. Everything stays on depth's device. Raises KoshiError
    "bad_guide" for sizes that differ.
    """
    _check_sizes(depth, previous_depth, vector, previous_vector)
    height, width = depth.shape
    matrix = screen_motion(previous, current, width, height)
    pair = _Pair(previous, current, matrix, _far((current, depth), (previous, previous_depth)))
    x, y = (torch.arange(size, device=depth.device) for size in (width, height))
    still = vectors_seen == "still"
    if vector is not None and not still and not _believable(pair, x, y, depth, vector):
        vector = None
    place, carried, hits = _carry(pair, x, y, depth)
    own = None
    if vector is not None:
        here = grid(x, y)
        if still:
            d = _screen_depth(current, depth, hits, pair.far)
            place, own = own_motion_by_a_still_camera(vector, place, hits, here, d, matrix)
        else:
            size = (width, height)
            place, own = own_motion(previous, current, vector, place, hits, here, size, vectors_seen)
        own = own if own.any() else None
    if previous_depth is None:
        return field_from(place, None, margin)
    previous_hits = _hits(previous, previous_depth)
    seen = _screen_depth(previous, previous_depth, previous_hits, pair.far)
    tolerance = _tolerance(previous, carried, float(seen.mean()) * _LEAST)
    difference = sample(seen[None], place)[0].sub_(carried).abs_()
    hidden = difference > tolerance
    if own is not None and previous_vector is not None:
        if still:
            onward = next_displacement_by_a_still_camera(previous_vector, previous_hits, here, seen, matrix)
        else:
            onward = next_displacement(previous, current, previous_vector, previous_hits, here, vectors_seen)
        lost = leads_elsewhere(onward, place, here)
        hidden = torch.where(own, lost, hidden | (lost & hits))
    elif own is not None:
        hidden &= ~own | (difference > tolerance * (OWN_DEPTH_TOLERANCE / DEPTH_TOLERANCE))
    return field_from(place, hidden, margin)


@dataclass(frozen=True)
class _Pair:
    """Two cameras, the matrix of `screen_motion` from the current to the previous one, and a depth behind everything
    that a parallel one of them sees."""

    previous: Camera
    current: Camera
    matrix: np.ndarray
    far: float


def _carry(pair: _Pair, x: Tensor, y: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For the pixels at columns x and rows y, as far as they stand still: their place [2, H, W] in the previous frame,
    the d [H, W] that the previous camera saw there, and bool [H, W], where there is a surface at all."""
    hits = _hits(pair.current, depth)
    d = _screen_depth(pair.current, depth, hits, pair.far)

    def row(i: int) -> Tensor:
        # What does not depend on d is worked out in double precision along the edges, where that costs nothing.
        a, b, c, k = (float(value) for value in pair.matrix[i])
        across, down = (a * doubled(x) + c).float().to(d.device), (b * doubled(y)).float().to(d.device)
        out = torch.add(across[None, :], down[:, None])
        return out.add_(d, alpha=k) if k else out

    # A point behind the previous camera has s < 0: it lands far outside, or at a depth that nothing has.
    inverse = row(2).clamp_(min=1e-9).reciprocal_()
    place = torch.empty(2, *d.shape, device=d.device)
    torch.mul(row(0), inverse, out=place[0])
    torch.mul(row(1), inverse, out=place[1])
    place.clamp_(-_OUTSIDE, _OUTSIDE)
    carried = row(3).mul_(inverse)
    if pair.current.kind == "ORTHO":
        # A parallel camera sees one direction everywhere: what is infinitely far does not move on its picture, and has
        # no place of its own on another's.
        sky = grid(x, y) if pair.previous.kind == "ORTHO" else place.new_tensor(-_OUTSIDE)
        place = torch.where(hits, place, sky)
        carried = torch.where(hits, carried, d)
    return place, carried, hits


def _believable(pair: _Pair, x: Tensor, y: Tensor, depth: Tensor, vector: Tensor) -> bool:
    """Whether the vectors can be right. Blender 4.5 to 5.1 project those of an orthographic camera that moves as if it
    were in perspective; then next to nothing agrees with the cameras, as every fourth row and column shows."""
    if pair.current.kind != "ORTHO" or pair.previous.matrix_world == pair.current.matrix_world:
        return True
    size = (len(x), len(y))
    x, y, depth, vector = x[::4], y[::4], depth[::4, ::4], vector[::4, ::4]
    place, _, hits = _carry(pair, x, y, depth)
    _, own = own_motion(pair.previous, pair.current, vector, place, hits, grid(x, y), size)
    return bool(own.sum() <= 0.9 * hits.sum())


def _hits(camera: Camera, depth: Tensor) -> Tensor:
    """Bool [H, W]: where the camera sees a surface. Not where depth is that of nothing, 0 or no number."""
    return (depth > 0) & (depth < camera.clip_end * 0.9999)


def _screen_depth(camera: Camera, depth: Tensor, hits: Tensor, far: float) -> Tensor:
    """d [H, W], float32; of what is infinitely far, 0 for a perspective camera and `far` for a parallel one."""
    if camera.kind == "ORTHO":
        return depth.float().masked_fill(~hits, far)
    return depth.float().reciprocal().masked_fill_(~hits, 0.0)


def _far(*seen: tuple[Camera, Tensor | None]) -> float:
    """A depth behind everything that the parallel ones among these cameras see."""
    out = 0.0
    for camera, depth in seen:
        if camera.kind == "ORTHO" and depth is not None:
            out = max(out, float(depth.masked_fill(~_hits(camera, depth), 0.0).max()) + camera.ortho_scale)
    return out


def _tolerance(previous: Camera, carried: Tensor, least: float) -> Tensor | float:
    """How far d may be off; `least` is the smallest 1 / depth that counts."""
    if previous.kind == "ORTHO":
        return DEPTH_TOLERANCE * previous.ortho_scale
    return carried.clamp(min=least).mul_(DEPTH_TOLERANCE)


def _check_sizes(
    depth: Tensor, previous_depth: Tensor | None, vector: Tensor | None, previous_vector: Tensor | None
) -> None:
    """Raises KoshiError "bad_guide" unless all are of one size."""
    if depth.ndim != 2:
        raise KoshiError(
            "bad_guide",
            f"The depth has the shape {tuple(depth.shape)}, not [height, width].",
            "Give one number per pixel: the channel Z of Blender's Depth pass.",
        )
    of_depth, of_vectors = tuple(depth.shape), (*depth.shape, 4)
    for name, given, wanted in (
        ("previous depth", previous_depth, of_depth),
        ("vector", vector, of_vectors),
        ("previous vector", previous_vector, of_vectors),
    ):
        if given is not None and tuple(given.shape) != wanted:
            raise KoshiError(
                "bad_guide",
                f"The {name} has the shape {tuple(given.shape)}, beside a depth of {tuple(depth.shape)}.",
                f"Render all passes of both frames at one size: here {wanted}.",
            )

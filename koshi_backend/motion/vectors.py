# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's Vector pass: how every pixel moves, things that move by themselves included.

Measured in Cycles of Blender 4.5 and 5.2, against cameras and depth: channels X, Y = previous - current and
Z, W = current - next, in pixels, y UP, within 0.004 px, motion blur off. What it does not know:
- shift and orthographic scale that change: it projects both neighbours with those of its own frame (`_mended`);
- the background: 0 in 4.5, wrong by pixels in 5.2 unless the camera stands still;
- orthographic cameras that move, in 4.5 to 5.1: projected as if in perspective, off by tens of pixels. 4.2 and 5.2
  are right;
- a lens that changes, in 4.2: it projects both neighbours with its own frame's.
Hence the three kinds of `Seen`. So it serves here for what differs from the cameras' own motion, and for all of a
picture only with `vector_field`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..doubles import doubled
from ..errors import KoshiError
from .camera import Camera
from .field import MotionField
from .hidden import apart, field_from, grid, sample

# How a frame's vectors see its neighbours: each by its own camera (Blender, but for the cases above); by its own camera
# with this frame's lens (4.2); or all by this frame's camera, which stood still while they were rendered: then they
# tell what moves by itself, and nothing else. The last is exact where things keep their depth, or the camera does not
# turn.
Seen = Literal["camera", "lens", "still"]

# What differs by more than this many pixels from a still point's motion moves by itself. Cycles: at most 0.004 px.
OWN_MOTION = 0.01
# The previous frame's own vectors must lead back to within so many pixels.
LEADS_BACK = 0.25
# Where the previous frame saw nothing, its vectors lead nowhere.
_NOWHERE = 1e4


def vector_field(vector: Tensor, previous_vector: Tensor | None = None, *, margin: int = 1) -> MotionField:
    """The Vector pass alone as a field, for when cameras and depth are not at hand.

    vector, previous_vector: float [H, W, 4] of the new and the previous frame. With the latter, a pixel is valid only
    if the previous frame's vector at its source leads back to it; without, everything inside the picture is. margin:
    as in `reproject`. Right under the conditions above: a camera whose shift and scale stay, and no background unless
    it stands still. Raises KoshiError "bad_guide" for a wrong shape.
    """
    for name, given in (("vector", vector), ("previous vector", previous_vector)):
        if given is not None and (given.ndim != 3 or given.shape != (*vector.shape[:2], 4)):
            raise KoshiError(
                "bad_guide",
                f"The {name} has the shape {tuple(given.shape)}, not [height, width, 4].",
                "Give all four channels of Blender's Vector pass, of both frames at one size.",
            )
    height, width = vector.shape[:2]
    here = grid(torch.arange(width, device=vector.device), torch.arange(height, device=vector.device))
    place = here + _y_down(vector[..., :2])
    lost = None
    if previous_vector is not None:
        lost = leads_elsewhere(-_y_down(previous_vector[..., 2:]), place, here)
    return field_from(place, lost, margin)


def own_motion(
    previous: Camera,
    current: Camera,
    vector: Tensor,
    still: Tensor,
    hits: Tensor,
    here: Tensor,
    size: tuple[int, int],
    seen: Seen = "camera",
) -> tuple[Tensor, Tensor]:
    """Where each pixel was, [2, H, W], by its vector where it moves by itself; and bool [H, W], where that is.

    still: [2, H, W], where points that stand still were, by the cameras; hits: bool [H, W], where there is a surface
    at all; here: [2, H, W], the pixels' own places; size: width and height of the whole picture, if these are not all.
    """
    told = _mended(_y_down(vector[..., :2]).add_(here), current, previous, *size, seen)
    own = apart(told, still, OWN_MOTION).logical_and_(hits)
    return torch.where(own, told, still), own


def own_motion_by_a_still_camera(
    vector: Tensor, still: Tensor, hits: Tensor, here: Tensor, d: Tensor, matrix: np.ndarray
) -> tuple[Tensor, Tensor]:
    """The same for vectors that are `still`: what they move is carried on to the previous camera.

    d: [H, W] of the new frame, and matrix: to the previous one, as of `camera.screen_motion`.
    """
    moved = _y_down(vector[..., :2])
    own = (moved.abs().amax(0) > OWN_MOTION) & hits
    return torch.where(own, _through(matrix, moved.add_(here), d), still), own


def next_displacement_by_a_still_camera(
    previous_vector: Tensor, hits: Tensor, here: Tensor, d: Tensor, matrix: np.ndarray
) -> Tensor:
    """`next_displacement` for vectors that are `still`. d: [H, W] of the previous frame; matrix: to it, as above."""
    there = torch.sub(here, _y_down(previous_vector[..., 2:]))
    return _through(np.linalg.inv(matrix), there, d).sub_(here).masked_fill_(~hits, _NOWHERE)


def _through(matrix: np.ndarray, place: Tensor, d: Tensor) -> Tensor:
    """Places [2, H, W] of points at d [H, W] on one camera's picture -> on another's."""
    point = doubled(torch.stack([place[0], place[1], torch.ones_like(d), d]))
    moved = torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix[:3]).to(point), point)
    return (moved[:2] / moved[2].clamp(min=1e-9)).float().to(d.device)


def next_displacement(
    previous: Camera,
    current: Camera,
    previous_vector: Tensor,
    hits: Tensor,
    here: Tensor,
    seen: Seen = "camera",
) -> Tensor:
    """[2, H, W]: how far, in pixels, each pixel of the previous frame goes until the current one.

    hits: bool [H, W], where the previous frame shows a surface; here: [2, H, W], the pixels' own places.
    """
    height, width = hits.shape
    there = torch.sub(here, _y_down(previous_vector[..., 2:]))
    return _mended(there, previous, current, width, height, seen).sub_(here).masked_fill_(~hits, _NOWHERE)


def leads_elsewhere(onward: Tensor, place: Tensor, here: Tensor) -> Tensor:
    """Bool [H, W]: what the previous frame shows at a place [2, H, W] goes somewhere else than here [2, H, W].

    onward: [2, H, W] of the previous frame, as `next_displacement` gives it.
    """
    return apart(sample(onward, place).add_(place), here, LEADS_BACK)


def _y_down(channels: Tensor) -> Tensor:
    """Two channels [H, W, 2] of the Vector pass as planes [2, H, W], float32."""
    out = torch.empty(2, *channels.shape[:2], device=channels.device)
    out[0], out[1] = channels[..., 0], channels[..., 1]
    out[1].neg_()
    return out


def _mended(place: Tensor, told_by: Camera, seen_by: Camera, width: int, height: int, seen: Seen) -> Tensor:
    """A neighbour's place [2, H, W] projected with the shift, the scale and, where it lacks that, the lens of its own
    frame, not of the one that tells."""
    wrong, right = told_by.intrinsics(width, height), seen_by.intrinsics(width, height)
    scale = told_by.ortho_scale / seen_by.ortho_scale if told_by.kind == seen_by.kind == "ORTHO" else 1.0
    if seen == "lens" and told_by.kind == seen_by.kind == "PERSP":
        scale = float(right[0, 0] / wrong[0, 0])
    offset = [float(right[i, 2] - scale * wrong[i, 2]) for i in (0, 1)]
    if scale == 1.0 and offset == [0.0, 0.0]:
        return place
    return place * scale + place.new_tensor(offset)[:, None, None]

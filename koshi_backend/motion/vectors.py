# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's Vector pass: how every pixel moves, things that move by themselves included.

Measured in Cycles of Blender 4.5 and 5.2, against cameras and depth: channels X, Y = previous - current and
Z, W = current - next, in pixels, y UP, within 0.004 px, motion blur off. Three things it does not know:
- shift and orthographic scale that change: it projects both neighbours with those of its own frame (`_mended`);
- the background: 0 in 4.5, wrong by pixels in 5.2 unless the camera stands still;
- orthographic cameras that move, in 4.5: projected as if in perspective, off by tens of pixels. 5.2 is right.
So it serves here for what differs from the cameras' own motion, and for all of a picture only with `vector_field`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import KoshiError
from .camera import Camera
from .field import MotionField
from .hidden import apart, field_from, grid, sample

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
    previous: Camera, current: Camera, vector: Tensor, still: Tensor, hits: Tensor, here: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where each pixel was, [2, H, W], by its vector where it moves by itself; and bool [H, W], where that is.

    still: [2, H, W], where points that stand still were, by the cameras; hits: bool [H, W], where there is a surface
    at all; here: [2, H, W], the pixels' own places; size: width and height of the whole picture, if these are not all.
    """
    told = _mended(_y_down(vector[..., :2]).add_(here), current, previous, *size)
    own = apart(told, still, OWN_MOTION).logical_and_(hits)
    return torch.where(own, told, still), own


def next_displacement(previous: Camera, current: Camera, previous_vector: Tensor, hits: Tensor, here: Tensor) -> Tensor:
    """[2, H, W]: how far, in pixels, each pixel of the previous frame goes until the current one.

    hits: bool [H, W], where the previous frame shows a surface; here: [2, H, W], the pixels' own places.
    """
    height, width = hits.shape
    there = torch.sub(here, _y_down(previous_vector[..., 2:]))
    return _mended(there, previous, current, width, height).sub_(here).masked_fill_(~hits, _NOWHERE)


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


def _mended(place: Tensor, told_by: Camera, seen_by: Camera, width: int, height: int) -> Tensor:
    """A neighbour's place [2, H, W] projected with the shift and scale of its own frame, not of the one that tells."""
    wrong, right = told_by.intrinsics(width, height), seen_by.intrinsics(width, height)
    scale = told_by.ortho_scale / seen_by.ortho_scale if told_by.kind == seen_by.kind == "ORTHO" else 1.0
    offset = [float(right[i, 2] - scale * wrong[i, 2]) for i in (0, 1)]
    if scale == 1.0 and offset == [0.0, 0.0]:
        return place
    return place * scale + place.new_tensor(offset)[:, None, None]

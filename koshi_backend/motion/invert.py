# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion fields backwards, and part of their way: for pictures between two known ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import sampling
from .field import TORN, MotionField, grid, inside

CLOSE = 0.1  # pixels; a place that comes back farther from home than this has not been found
_ROUNDS = 24  # of the iteration; smooth fields take 3 to 8
_DONE = 1e-3  # pixels
_FITTED = 24  # so many places each way say what the field is on the whole


def inverse(field: MotionField, border: str = "replicate") -> MotionField:
    """The motion back: for each pixel of the PREVIOUS frame, where in the new frame it is.

    Exact for a matrix. Else the place x that the field looks up at y, s(x) = y, by a fixed-point iteration on what the
    field is besides its best affine part A: x <- A^-1 (y - r(x)). Without that part it would run away from every zoom
    by more than 2. A pixel is valid where the place found lies in the new frame, is seen there, leads back to within .1
    pixels of y, and does not lie on a tear between two things.
    """
    if field.matrix is not None:
        height, width = field.valid.shape
        back = MotionField.homography(np.linalg.inv(field.matrix), width, height, field.source.device, border)
        return MotionField(back.source, back.valid & field.seen_at(back.source, border), back.matrix)
    place, found = _solve(field)
    height, width = field.valid.shape
    return MotionField(place, found & inside(place, width, height) & field.seen_at(place, border))


def part_way(field: MotionField, share: float, border: str = "replicate") -> tuple[MotionField, MotionField]:
    """For each pixel of a picture at `share` (0..1) of the way from the previous frame to the new one: where it is in
    the previous frame, and where in the new one.

    Things go straight and evenly: what the new frame shows at x was at x + (1 - share) d(x), d being the way back to
    the previous frame, and x is solved for. A turn of 10 degrees cuts half a pixel off its arc, 128 pixels from its
    centre.
    """
    height, width = field.valid.shape
    device = field.source.device
    if field.matrix is not None and field.matrix[2, 0] == field.matrix[2, 1] == 0.0:
        onward = share * np.eye(3) + (1.0 - share) * np.linalg.inv(field.matrix)  # of the new frame's pixels
        second = MotionField.homography(onward, width, height, device, border)
        first = MotionField.homography(onward @ field.matrix, width, height, device, border)
        seen = field.seen_at(second.source, border)
        return MotionField(first.source, first.valid & seen, first.matrix), second
    pixels = grid(width, height, device).permute(1, 2, 0)
    place, found = _solve(MotionField(pixels + (1.0 - share) * (field.source - pixels), field.valid))
    there = inside(place, width, height)
    # Beyond the new frame the field goes on straight: the previous one still shows what has just left the picture.
    source = field.then(MotionField(place, torch.ones_like(field.valid)), border).source
    before = found & (field.seen_at(place, border) | ~there)
    if border == "replicate":
        before &= inside(source, width, height)
    return MotionField(source, before), MotionField(place, found & there)


def _solve(field: MotionField) -> tuple[Tensor, Tensor]:
    """For every pixel y the place x with source(x) = y, [H, W, 2], and whether there is one, bool [H, W]."""
    height, width = field.valid.shape
    pixels = grid(width, height, field.source.device)
    linear, shift = _on_the_whole(field)
    back = torch.linalg.inv(linear)
    # What the field is besides that. Beyond the frame its edge goes on.
    rest = field.source.permute(2, 0, 1) - _applied(linear, pixels) - shift
    goal = pixels - shift
    place = _applied(back, goal - rest)
    for _ in range(_ROUNDS):
        step = _applied(back, goal - sampling.linear(rest, place[0], place[1])) - place
        place = place + step
        if float(step.abs().amax()) < _DONE:
            break
    x, y = place
    there = sampling.linear(rest, x, y)
    missed = _applied(linear, place) + there - goal
    nearest = sampling.linear(rest, x.round(), y.round())
    found = (missed.square().sum(0) < CLOSE * CLOSE) & ((there - nearest).abs().amax(0) < TORN)
    return place.permute(1, 2, 0).contiguous(), found


def _on_the_whole(field: MotionField) -> tuple[Tensor, Tensor]:
    """The affine map nearest to the field, [2, 2] and [2, 1, 1]; no map at all where it would flatten the picture."""
    height, width = field.valid.shape
    rows = np.linspace(0, height - 1, min(_FITTED, height)).round().astype(int)
    columns = np.linspace(0, width - 1, min(_FITTED, width)).round().astype(int)
    x, y = np.meshgrid(columns, rows)
    known = field.valid.cpu().numpy()[y, x]
    linear, shift = np.eye(2), np.zeros(2)
    if known.sum() >= 8:
        places = np.stack([x[known], y[known], np.ones(int(known.sum()))], 1)
        found = np.linalg.lstsq(places, field.source.cpu().numpy()[y, x][known].astype(np.float64), rcond=None)[0].T
        if abs(np.linalg.det(found[:, :2])) > 1e-3:
            linear, shift = found[:, :2], found[:, 2]
    as_tensor = torch.tensor(np.column_stack([linear, shift]), dtype=torch.float32, device=field.source.device)
    return as_tensor[:, :2], as_tensor[:, 2].view(2, 1, 1)


def _applied(matrix: Tensor, places: Tensor) -> Tensor:
    """A 2 x 2 matrix times every place of [2, H, W]."""
    return torch.einsum("ij,jhw->ihw", matrix, places)

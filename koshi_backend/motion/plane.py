# SPDX-License-Identifier: GPL-3.0-or-later
"""A camera's move over one flat thing (a floor, a wall, a painted backdrop): exact without any depth map.

Cameras are pairs of plain arrays: camera to world [4, 4] in Blender's sense (it looks along its -Z, Y is up) and the
lens [3, 3] in pixels, of which K (x, y, z) with y down and z forward is the pixel, with centres at whole numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..doubles import doubled
from ..errors import KoshiError
from .field import MotionField

Camera = tuple[np.ndarray, np.ndarray]
# Blender's camera axes -> those of pictures: y down, z forward.
_FLIP = np.diag([1.0, -1.0, -1.0])


def plane_homography(previous: Camera, following: Camera, point: ArrayLike, normal: ArrayLike) -> np.ndarray:
    """The forward 3 x 3 matrix (previous pixel -> new pixel) of what lies in a plane.

    point, normal: of the plane, in world space; the normal's length and side do not matter. Third row positive where
    both cameras have the point before them. H = K' (R + t n^T / d) K^-1 (Hartley and Zisserman, 13.1).
    Raises KoshiError("bad_motion") if one of the cameras lies in the plane, or if there is no plane.
    """
    turn_a, place_a = _pose(previous[0])
    turn_b, place_b = _pose(following[0])
    point, normal = np.asarray(point, dtype=np.float64), np.asarray(normal, dtype=np.float64)
    length = float(np.linalg.norm(normal))
    if not (np.isfinite(point).all() and 0.0 < length < np.inf):
        raise KoshiError(
            "bad_motion", "The plane's normal has no direction, or its point no place.", "Give both as three numbers."
        )
    normal = normal / length
    distances = [float(normal @ (point - place)) for place in (place_a, place_b)]
    span = max(1e-12, *(float(np.linalg.norm(point - place)) for place in (place_a, place_b)))
    for name, distance in zip(("previous", "next"), distances, strict=True):
        if not abs(distance) > 1e-9 * span:
            raise KoshiError("bad_motion", f"The {name} camera lies in the plane.", "Move the camera or the plane.")
    turn = turn_b.T @ turn_a
    shift = turn_b.T @ (place_a - place_b)
    inner = turn + np.outer(shift, normal @ turn_a) / distances[0]
    return np.asarray(following[1], dtype=np.float64) @ inner @ np.linalg.inv(previous[1])


def plane_field(
    previous: Camera,
    following: Camera,
    point: ArrayLike,
    normal: ArrayLike,
    width: int,
    height: int,
    device: torch.device | None = None,
) -> MotionField:
    """The field of that motion. Pixels that look past the plane, as those above a floor's horizon, are not valid."""
    matrix = plane_homography(previous, following, point, normal)
    field = MotionField.homography(matrix, width, height, device)
    turn, place = _pose(following[0])
    normal = np.asarray(normal, dtype=np.float64)
    # Along a pixel's ray the plane comes at distance / (ray . normal), which has to lie in front.
    towards = normal @ turn @ np.linalg.inv(following[1]) * np.sign(normal @ (np.asarray(point) - place))
    a, b, c = (float(part) for part in towards)
    x, y = doubled(torch.arange(width, device=device)), doubled(torch.arange(height, device=device))[:, None]
    ahead = (a * x + b * y + c > 0.0).to(field.valid.device)
    return MotionField(field.source, field.valid & ahead, field.matrix)


def _pose(world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (picture axes -> world) and place. A camera's scale has no effect in Blender, so it has none here."""
    world = np.asarray(world, dtype=np.float64)
    scale = np.linalg.norm(world[:3, :3], axis=0)
    if not np.isfinite(world).all() or not scale.min() > 0.0:
        raise KoshiError(
            "bad_motion", "A camera's matrix has an axis without length.", "Give its camera-to-world matrix."
        )
    return world[:3, :3] / scale @ _FLIP, world[:3, 3]

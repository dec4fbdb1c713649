# SPDX-License-Identifier: GPL-3.0-or-later
"""Deforum's 3D warp, number for number (sd-webui-deforum, animation.py, transform_image_3d_new).

It is not a camera. The picture's -1..1 is taken for world x and y as it stands, projected before and after the move,
and the difference is subtracted from each new pixel's own place, with the old picture's depth at the new pixel. So
roll and push grow with 1 / tan(fov / 2) (5 degrees of roll at 40 degrees show as 13), pan and tilt are nearly right,
and vertical moves count in halves of the height. Use it for projects made with Deforum; for a camera that Blender
would recognise there is the reprojection from the camera's own matrices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import KoshiError
from .deforum import FIELD_OF_VIEW, TRANSLATION_SCALE, rotation
from .field import FAR, MotionField, grid, inside

# What comes nearer to the eye than this would be seen from behind or fly apart.
NEAREST = 1e-3


def deforum_3d_field(
    width: int,
    height: int,
    depth: Tensor | None = None,
    *,
    translation_x: float = 0.0,
    translation_y: float = 0.0,
    translation_z: float = 0.0,
    rotation_3d_x: float = 0.0,
    rotation_3d_y: float = 0.0,
    rotation_3d_z: float = 0.0,
    fov: float = FIELD_OF_VIEW,
    aspect: float = 1.0,
    near: float = 200.0,
    far: float = 10000.0,
    border: str = "replicate",
    device: torch.device | None = None,
) -> MotionField:
    """The field of Deforum's 3D move.

    depth: float [H, W] of the previous picture, in Deforum's own range, 1 near to 2 far; None is 1 everywhere.
    Translations in 1/200 of half a frame: x positive takes content left, y down, z towards the viewer. Rotations in
    degrees: x positive takes content down, y left, z counter-clockwise. fov: degrees; the smaller the stronger.
    aspect divides the sideways part. near and far change nothing, there as here. border: see MotionField.homography.
    Raises KoshiError("bad_motion") for a lens that there is not, a depth of another size or one that is not finite.
    """
    _check(width, height, depth, fov, aspect)
    device = device if depth is None else depth.device
    turn = rotation(rotation_3d_x, rotation_3d_y, rotation_3d_z)
    shift = np.array([-translation_x, translation_y, -translation_z]) / TRANSLATION_SCALE
    gain = 1.0 / math.tan(math.radians(fov) / 2.0)
    reach = np.array([gain / aspect * width / 2, gain * height / 2])  # from a projection to pixels
    if depth is None and np.array_equal(turn, np.eye(3)) and shift[2] > NEAREST - 1.0:
        return MotionField.homography(_flat_matrix(width, height, shift, reach), width, height, device, border)
    pixel = grid(width, height, device)
    z = torch.ones_like(pixel[0]) if depth is None else depth.to(torch.float32)
    world = [2.0 * pixel[k] / (size - 1) - 1.0 for k, size in enumerate((width, height))] + [z]
    # Points are rows in the original: x' = x R + t.
    camera = [world[0] * turn[0, k] + world[1] * turn[1, k] + world[2] * turn[2, k] + shift[k] for k in range(3)]
    front = (camera[2] > NEAREST) & (z > NEAREST)
    after, before = camera[2].clamp_min(NEAREST), z.clamp_min(NEAREST)
    places = [pixel[k] - float(reach[k]) * (camera[k] / after - world[k] / before) for k in range(2)]
    source = torch.stack(places).clamp_(-FAR, FAR).permute(1, 2, 0)
    valid = front & inside(source, width, height) if border == "replicate" else front
    return MotionField(source, valid)


def _flat_matrix(width: int, height: int, shift: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """A move without rotation over a depth of 1 is a zoom and a shift: its forward matrix."""
    back = np.eye(3)
    for k, size in enumerate((width, height)):
        world = np.array([2.0 / (size - 1), -1.0])  # of a pixel: factor and summand
        after = (world + np.array([0.0, shift[k]])) / (1.0 + shift[2])
        step, start = reach[k] * (after - world)
        back[k, k] -= step
        back[k, 2] -= start
    return np.linalg.inv(back)


def _check(width: int, height: int, depth: Tensor | None, fov: float, aspect: float) -> None:
    if not 0.0 < fov < 180.0:
        raise KoshiError("bad_motion", f"fov is {fov:g} degrees.", "It may be above 0 and below 180.")
    if not aspect > 0.0:
        raise KoshiError("bad_motion", f"The aspect ratio is {aspect:g}.", "It has to be above 0; 1 is usual.")
    if depth is None:
        return
    if depth.shape != (height, width):
        size = " x ".join(str(n) for n in reversed(depth.shape))
        raise KoshiError("bad_motion", f"The depth is {size} and the picture {width} x {height}.", "Bring it to size.")
    if not bool(depth.isfinite().all()):
        raise KoshiError("bad_motion", "The depth holds values that are not numbers.", "Give every pixel a depth.")

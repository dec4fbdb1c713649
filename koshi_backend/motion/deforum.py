# SPDX-License-Identifier: GPL-3.0-or-later
"""Deforum's moves, sign for sign."""

from __future__ import annotations

import math

import numpy as np

# Deforum's 3D warp divides translations by this, and its default field of view is 70 degrees.
TRANSLATION_SCALE = 200.0
FIELD_OF_VIEW = 70.0


def deforum_matrix(
    width: int,
    height: int,
    *,
    zoom: float = 1.0,
    angle: float = 0.0,
    translation_x: float = 0.0,
    translation_y: float = 0.0,
    translation_z: float = 0.0,
    transform_center_x: float = 0.5,
    transform_center_y: float = 0.5,
) -> np.ndarray:
    """Deforum's 2D move as a forward 3 x 3 matrix, sign for sign (sd-webui-deforum animation.py, anim_frame_warp_2d).

    Translate first (pixels, content goes right and down), then turn (degrees, counter-clockwise on screen) and zoom
    (above 1 enlarges) about the centre (fractions of the size). translation_z pushes towards the picture as Deforum's
    3D warp does over a flat depth of 1 at 70 degrees: positive goes in.
    """
    cx, cy = width * transform_center_x, height * transform_center_y
    a = zoom * math.cos(math.radians(angle))
    b = zoom * math.sin(math.radians(angle))
    turn = np.array([[a, b, (1 - a) * cx - b * cy], [-b, a, b * cx + (1 - a) * cy], [0.0, 0.0, 1.0]])
    move = np.array([[1.0, 0.0, translation_x], [0.0, 1.0, translation_y], [0.0, 0.0, 1.0]])
    scale = flat_push(translation_z)
    mid_x, mid_y = (width - 1) / 2, (height - 1) / 2  # the 3D warp's centre, half a pixel from the 2D one
    push = np.array([[scale, 0.0, (1 - scale) * mid_x], [0.0, scale, (1 - scale) * mid_y], [0.0, 0.0, 1.0]])
    return push @ turn @ move


def flat_push(translation_z: float) -> float:
    """Magnification of Deforum's 3D warp over a plane at depth 1.

    Its sampling grid is x - (projection after - projection before) = x (1 - K (1 / (1 - z/200) - 1)), with
    K = 1 / tan(fov / 2). Positive below z = 82.
    """
    gain = 1.0 / math.tan(math.radians(FIELD_OF_VIEW) / 2.0)
    return 1.0 / (1.0 - gain * (1.0 / (1.0 - translation_z / TRANSLATION_SCALE) - 1.0))

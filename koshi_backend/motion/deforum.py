# SPDX-License-Identifier: GPL-3.0-or-later
"""Deforum's 2D moves, sign for sign and size for size (sd-webui-deforum, animation.py)."""

from __future__ import annotations

import math

import numpy as np

from ..errors import KoshiError

# Deforum's 3D warp divides translations by this, and its default field of view is 70 degrees.
TRANSLATION_SCALE = 200.0
FIELD_OF_VIEW = 70.0
FLIP_FIELD_OF_VIEW = 53.0


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
    perspective_flip_theta: float = 0.0,
    perspective_flip_phi: float = 0.0,
    perspective_flip_gamma: float = 0.0,
    perspective_flip_fv: float = FLIP_FIELD_OF_VIEW,
) -> np.ndarray:
    """Deforum's 2D move as a forward 3 x 3 matrix (anim_frame_warp_2d).

    Translate first (pixels, content goes right and down), then turn (degrees, counter-clockwise on screen) and zoom
    (above 1 enlarges) about the centre (fractions of the size), then flip (`flip_matrix`; there the original loses
    the translation, this does not). translation_z pushes towards the picture as Deforum's 3D warp does over a flat
    depth of 1 at 70 degrees: positive goes in.
    """
    cx, cy = width * transform_center_x, height * transform_center_y
    a = zoom * math.cos(math.radians(angle))
    b = zoom * math.sin(math.radians(angle))
    turn = np.array([[a, b, (1 - a) * cx - b * cy], [-b, a, b * cx + (1 - a) * cy], [0.0, 0.0, 1.0]])
    move = np.array([[1.0, 0.0, translation_x], [0.0, 1.0, translation_y], [0.0, 0.0, 1.0]])
    flip = flip_matrix(
        width,
        height,
        theta=perspective_flip_theta,
        phi=perspective_flip_phi,
        gamma=perspective_flip_gamma,
        field_of_view=perspective_flip_fv,
    )
    sx, sy = flat_push(translation_z, width), flat_push(translation_z, height)
    mid_x, mid_y = (width - 1) / 2, (height - 1) / 2  # the 3D warp's centre, half a pixel from the 2D one
    push = np.array([[sx, 0.0, (1 - sx) * mid_x], [0.0, sy, (1 - sy) * mid_y], [0.0, 0.0, 1.0]])
    return push @ flip @ turn @ move


def flat_push(translation_z: float, pixels: int | None = None) -> float:
    """Magnification of Deforum's 3D warp over a plane at depth 1.

    Its sampling grid is x - (projection after - projection before) = x (1 - K (1 / (1 - z/200) - 1)), with
    K = 1 / tan(fov / 2). Positive below z = 82. pixels: the size along the axis in question; what is projected
    reaches from -1 to 1 at the outermost pixels' centres, and the grid only at their edges. None: without that.
    """
    gain = 1.0 / math.tan(math.radians(FIELD_OF_VIEW) / 2.0)
    if pixels is not None:
        gain *= pixels / (pixels - 1)
    return 1.0 / (1.0 - gain * (1.0 / (1.0 - translation_z / TRANSLATION_SCALE) - 1.0))


def flip_matrix(
    width: int,
    height: int,
    *,
    theta: float = 0.0,
    phi: float = 0.0,
    gamma: float = 0.0,
    field_of_view: float = FLIP_FIELD_OF_VIEW,
) -> np.ndarray:
    """Deforum's perspective flip as a forward 3 x 3 matrix: P T Rx(phi) Ry(gamma) Rz(theta).

    Angles in degrees: theta rolls (positive clockwise on screen), phi tilts (positive brings the lower edge nearer) and
    gamma pans (positive takes the right edge away). An eye with the field of view stands over the picture so that
    its diagonal fills the view.

    Two peculiarities of the original are kept, since projects are tuned with them: the picture turns about the point
    (s, s) / 2 with s = diagonal / cos(fov / 2), right of and below its centre, and an eye one pixel too far away
    shrinks everything a little (0.06 % at 1024 x 1024). With all three angles 0 there is no flip: the identity.
    """
    if not 0.0 < field_of_view < 180.0:
        raise KoshiError(
            "bad_motion", f"perspective_flip_fv is {field_of_view:g} degrees.", "It may be above 0 and below 180."
        )
    if theta == phi == gamma == 0.0:
        return np.eye(3)
    half = math.radians(field_of_view) / 2.0
    diagonal = math.hypot(width, height)
    side, away = diagonal / math.cos(half), diagonal / (2.0 * math.sin(half))
    turn = rotation(phi, gamma, theta)
    # Seen from the eye at height `away`, a point (x, y, z) lies at (x, y) / tan(half) / (away + 1 - z).
    middle = np.array([[1.0, 0.0, -width / 2], [0.0, 1.0, -height / 2], [0.0, 0.0, 1.0]])
    seen = np.vstack([turn[:2, :2] / math.tan(half), -turn[2, :2]])
    project = np.column_stack([seen, (0.0, 0.0, away + 1.0)])
    screen = np.array([[side / 2, 0.0, side / 2], [0.0, side / 2, side / 2], [0.0, 0.0, 1.0]])
    first = np.array([[1.0, 0.0, (width - side) / 2], [0.0, 1.0, (height - side) / 2], [0.0, 0.0, 1.0]])
    return screen @ project @ middle @ first


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rx Ry Rz of angles in degrees, each turning by the right-hand rule where it multiplies a column from the left."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(a), math.sin(a)) for a in map(math.radians, (x, y, z)))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_z = np.array([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    return about_x @ about_y @ about_z

# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's camera as plain numbers, and its projection with pixel centres at whole numbers.

Agrees with `bpy_extras.object_utils.world_to_camera_view` in Blender 4.5 and 5.2 within 5e-5 pixels
(tests/test_camera_motion.py), which is Blender's own single precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import KoshiError, problem, raise_problems

KINDS = ("PERSP", "ORTHO")
FITS = ("AUTO", "HORIZONTAL", "VERTICAL")
Matrix = tuple[tuple[float, ...], ...]

_IDENTITY: Matrix = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
_DOWN_AND_FORWARD = np.diag([1.0, -1.0, -1.0, 1.0])
_POSITIVE = (
    "lens", "sensor_width", "sensor_height", "ortho_scale", "clip_start", "clip_end",
    "pixel_aspect_x", "pixel_aspect_y",
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """A camera at one frame, with the names, units and defaults that Blender gives them.

    matrix_world: 4 x 4, row by row, from the camera's own space (looks along -Z, Y up) to the world, in scene units.
        Its scale is dropped, as Blender's renderers drop it; shear (of a scaled parent) is kept, as they keep it.
    kind: "PERSP" or "ORTHO".
    lens, sensor_width, sensor_height: millimetres; sensor_fit: "AUTO", "HORIZONTAL" or "VERTICAL".
    shift_x, shift_y: fractions of the longer side (of the fitted side, unless the fit is AUTO).
    ortho_scale: scene units seen along the fitted side. clip_start, clip_end: scene units.
    pixel_aspect_x, pixel_aspect_y: the render settings' pixel aspect, part of the projection.
    """

    matrix_world: Matrix = _IDENTITY
    kind: str = "PERSP"
    lens: float = 50.0
    sensor_width: float = 36.0
    sensor_height: float = 24.0
    sensor_fit: str = "AUTO"
    shift_x: float = 0.0
    shift_y: float = 0.0
    ortho_scale: float = 6.0
    clip_start: float = 0.1
    clip_end: float = 1000.0
    pixel_aspect_x: float = 1.0
    pixel_aspect_y: float = 1.0

    def __post_init__(self) -> None:
        problems = list(_faults(self))
        raise_problems("bad_camera", "This camera", problems)

    @staticmethod
    def from_dict(given: Mapping[str, Any], frame: int | None = None) -> Camera:
        """A camera from what `as_dict` or Blender's side wrote; what is not given stays Blender's default.

        frame: named in errors. Raises KoshiError "bad_camera" with every fault at once.
        """
        where = "camera" if frame is None else f"camera at frame {frame}"
        if not isinstance(given, Mapping):
            raise KoshiError(
                "bad_camera",
                f"The {where} is {type(given).__name__}, not an object of names and values.",
                "Give matrix_world, kind, lens and the other values of Blender's camera.",
            )
        known = {field.name for field in fields(Camera)}
        unknown = sorted(str(name) for name in set(given) - known)
        if unknown:
            raise KoshiError(
                "bad_camera",
                f"The {where} has no value called {', '.join(unknown)}.",
                f"It knows {', '.join(field.name for field in fields(Camera))}.",
            )
        values = dict(given)
        if "matrix_world" in values:
            values["matrix_world"] = _rows(values["matrix_world"])
        try:
            return Camera(**values)
        except KoshiError as error:
            for fault in error.problems:
                fault["frame"] = frame
            raise KoshiError(error.code, f"The {where}: {error.message}", error.hint, error.problems) from error

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: `from_dict` of it is the same camera, bit for bit."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["matrix_world"] = [list(row) for row in self.matrix_world]
        return values

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """3 x 3, float64: from the camera's space (x right, y DOWN, z forward) to pixels of a width x height picture.

        Perspective: (x / z, y / z, 1) -> pixel. Parallel: (x, y, 1) -> pixel, at any depth. As in Blender's
        BKE_camera_params_compute_viewplane: AUTO fits the longer side (pixel aspect counted) and always takes
        sensor_width; the shift is measured in the fitted side; half a pixel goes off because the picture's edge,
        not the first pixel's centre, is Blender's 0.
        """
        aspect = self.pixel_aspect_x / self.pixel_aspect_y
        fit = self.sensor_fit
        sensor = self.sensor_height if fit == "VERTICAL" else self.sensor_width
        if fit == "AUTO":
            wide = width * self.pixel_aspect_x >= height * self.pixel_aspect_y
            fit = "HORIZONTAL" if wide else "VERTICAL"
        view = width if fit == "HORIZONTAL" else height / aspect  # the fitted side, in pixels of x
        focal = view / self.ortho_scale if self.kind == "ORTHO" else self.lens / sensor * view
        centre_x = width / 2 - self.shift_x * view - 0.5
        centre_y = height / 2 + self.shift_y * view * aspect - 0.5
        return np.array([[focal, 0.0, centre_x], [0.0, focal * aspect, centre_y], [0.0, 0.0, 1.0]])

    def projection(self, width: int, height: int) -> np.ndarray:
        """4 x 4, float64: camera space (x right, y DOWN, z forward, 1) -> s (x, y, 1, d) in pixels.

        d is what is affine over the picture on every flat surface: 1 / depth of a perspective camera, the depth
        itself of a parallel one. Depth is Blender's: measured along the view axis, not along the ray. Points
        behind a perspective camera come out with s < 0.
        """
        k = self.intrinsics(width, height)
        s, d = (3, 2) if self.kind == "ORTHO" else (2, 3)  # which of z and 1 divides, and which is left
        out = np.zeros((4, 4))
        out[:2, :2] = k[:2, :2]
        out[:2, s] = k[:2, 2]
        out[2, s] = 1.0
        out[3, d] = 1.0
        return out

    def from_world(self) -> np.ndarray:
        """4 x 4, float64: world -> camera space (x right, y DOWN, z forward)."""
        return np.linalg.inv(self._placed())

    def project(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """World points [N, 3] -> [N, 3]: pixel x, pixel y, depth; x and y are NaN behind a perspective camera."""
        local = np.c_[np.asarray(points, dtype=np.float64), np.ones(len(points))] @ self.from_world().T
        seen = local @ self.projection(width, height).T
        s = np.where(seen[:, 2] > 0, seen[:, 2], np.nan)
        return np.c_[seen[:, :2] / s[:, None], local[:, 2]]

    def _placed(self) -> np.ndarray:
        """4 x 4, float64: camera space (x right, y DOWN, z forward) -> world, without scale."""
        world = np.asarray(self.matrix_world, dtype=np.float64)
        world[:3, :3] /= np.linalg.norm(world[:3, :3], axis=0)
        return world @ _DOWN_AND_FORWARD


def screen_motion(previous: Camera, current: Camera, width: int, height: int) -> np.ndarray:
    """4 x 4, float64: s (x, y, 1, d) of a still point in the current picture -> the same in the previous one.

    d as in `Camera.projection`. Exactly the identity between equal cameras. The two places are taken from each other
    before anything else, so that a scene far from the origin loses no precision here.
    """
    if previous == current:
        return np.eye(4)
    now, before = current._placed(), previous._placed()
    back = np.linalg.inv(before[:3, :3])
    relative = np.eye(4)
    relative[:3, :3] = back @ now[:3, :3]
    relative[:3, 3] = back @ (now[:3, 3] - before[:3, 3])
    return previous.projection(width, height) @ relative @ np.linalg.inv(current.projection(width, height))


def _rows(matrix: Any) -> Matrix:
    """Nested tuples of numbers as they are; anything else becomes what `_faults` refuses."""
    if isinstance(matrix, np.ndarray):
        matrix = matrix.tolist()
    if not isinstance(matrix, Sequence) or isinstance(matrix, str):
        return ()
    return tuple(tuple(row) if isinstance(row, Sequence) and not isinstance(row, str) else () for row in matrix)


def _faults(camera: Camera) -> list[dict[str, Any]]:
    """Everything that is wrong with a camera."""
    found = []
    if camera.kind in ("PANO", "CUSTOM"):
        found.append(
            problem(
                "kind",
                f"A camera of type {camera.kind} has no flat picture whose motion could be followed.",
                "Make the camera perspective or orthographic, or let Koshi's curves move the picture.",
                value=camera.kind,
            )
        )
    elif camera.kind not in KINDS:
        found.append(problem("kind", f"{camera.kind!r} is no type of camera.", f"Use {' or '.join(KINDS)}."))
    if camera.sensor_fit not in FITS:
        found.append(problem("sensor_fit", f"{camera.sensor_fit!r} is no sensor fit.", f"Use {', '.join(FITS)}."))
    for name in (*_POSITIVE, "shift_x", "shift_y"):
        value = getattr(camera, name)
        if not _is_number(value):
            found.append(problem(name, f"{value!r} is not a finite number.", "Give a number.", value=value))
        elif name in _POSITIVE and value <= 0:
            found.append(problem(name, f"{value} is not above 0.", "Give a number above 0.", value=value))
    found.extend(_matrix_faults(camera.matrix_world))
    return found


def _matrix_faults(rows: Matrix) -> list[dict[str, Any]]:
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        return [problem("matrix_world", "The matrix is not 4 rows of 4 numbers.", "Give Blender's matrix_world.")]
    if not all(_is_number(value) for row in rows for value in row):
        return [problem("matrix_world", "The matrix holds something that is not a finite number.", "Mend it.")]
    matrix = np.asarray(rows, dtype=np.float64)
    if tuple(rows[3]) != (0.0, 0.0, 0.0, 1.0):
        hint = "Give it row by row, not column by column."
        return [problem("matrix_world", "The matrix's last row is not 0 0 0 1.", hint)]
    turn = matrix[:3, :3]
    sizes = np.linalg.norm(turn, axis=0)
    if sizes.min() < 1e-9 or abs(np.linalg.det(turn / sizes)) < 1e-6:
        hint = "Give the camera, and what it is parented to, a scale other than 0."
        return [problem("matrix_world", "The matrix flattens space: an axis has no length of its own.", hint)]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

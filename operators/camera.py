# SPDX-License-Identifier: GPL-3.0-or-later
"""The scene camera's motion as a motion of the flat picture.

Between two frames a plane at the focus distance, facing the camera, moves across the picture almost as a
similarity: scaled, turned and shifted. `similarity` finds the one that fits best around the centre:

    p' = zoom * R(angle) * (p + translation)

in Deforum's terms, with p and p' measured from the picture's centre in pixels (y down) and a positive angle
turning counter-clockwise on screen. In complex numbers: p' = w (p + t) with w = zoom * exp(-i angle).
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import bpy
from mathutils import Matrix, Vector

from ..bridge_server.protocol import BridgeError

FALLBACK_DISTANCE = 5.0
# The numbers of a camera that its picture's geometry depends on.
STATE = (
    "lens", "sensor_width", "sensor_height", "shift_x", "shift_y", "ortho_scale", "clip_start", "clip_end",
)  # fmt: skip
# Half of the picture counts: near the centre the fit must be exact, at the edges no plane moves as one.
_GRID = tuple((x / 8, y / 8) for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2))


class Similarity(NamedTuple):
    """Zoom factor, angle in degrees, translation in pixels: one frame's motion as Deforum means it."""

    zoom: float = 1.0
    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def rounded(self) -> Similarity:
        """Without the noise of Blender's single precision: 1e-6 in zoom, 1e-5 degrees, 1e-4 pixels."""
        values = round(self.zoom, 6), round(self.angle, 5), round(self.x, 4), round(self.y, 4)
        return Similarity(*(value + 0.0 for value in values))  # + 0.0 turns -0.0 into 0.0

    @property
    def factor(self) -> complex:
        """Zoom and turn as one complex factor."""
        return self.zoom * cmath.exp(-1j * math.radians(self.angle))

    def then(self, other: Similarity) -> Similarity:
        """This motion followed by `other`, as one."""
        shift = complex(self.x, self.y) + complex(other.x, other.y) / self.factor
        return _from_complex(self.factor * other.factor, shift)


@dataclass(frozen=True)
class View:
    """A camera at one frame: where it is, how it projects, and what it focuses on.

    intrinsics: (fx, fy, cx, cy) in pixels, y down; for a parallel camera fx and fy are pixels per scene unit.
    focus: perpendicular distance of the focus plane in scene units; source: in words, where it comes from.
    """

    name: str
    world: Matrix
    parallel: bool
    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]
    focus: float
    source: str

    def unproject(self, x: float, y: float) -> Vector:
        """The point of the focus plane that is seen at a pixel, in world space."""
        fx, fy, cx, cy = self.intrinsics
        depth = 1.0 if self.parallel else self.focus
        return self.world @ Vector(((x - cx) / fx * depth, -(y - cy) / fy * depth, -self.focus))

    def project(self, point: Vector) -> complex | None:
        """The pixel that shows a world point, as x + iy, or None if the point lies behind the camera."""
        local = self.world.inverted() @ point
        depth = 1.0 if self.parallel else -local.z
        if depth < 1e-6:
            return None
        fx, fy, cx, cy = self.intrinsics
        return complex(cx + fx * local.x / depth, cy - fy * local.y / depth)


def push_zoom(translation_z: float) -> float:
    """How much Deforum's push enlarges a flat picture: 1 / (1 - K (1 / (1 - z / 200) - 1)), K = 1 / tan 35 degrees."""
    away = 1.0 / (1.0 - translation_z / 200.0) - 1.0
    return 1.0 / (1.0 - away / math.tan(math.radians(35.0)))


@dataclass(frozen=True)
class Eye:
    """A scene's camera at one frame. data: a Camera, or what has its numbers; depsgraph: where its focus object is."""

    data: Any
    matrix_world: Matrix
    depsgraph: bpy.types.Depsgraph | None = None


def eye_of(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Eye:
    """The scene's camera as evaluated now. Raises BridgeError "no_camera"."""
    if scene.camera is None:
        raise BridgeError(
            "no_camera",
            "The scene has no camera, so there is no camera motion to follow.",
            "Add a camera, or set Koshi > Motion > Source to Curves.",
        )
    evaluated = scene.camera.evaluated_get(depsgraph)
    return Eye(evaluated.data, evaluated.matrix_world, depsgraph)


def numbers_of(scene: bpy.types.Scene, eye: Eye) -> dict[str, Any]:
    """The scene's camera in the numbers that a shot's `motion.cameras` holds. Raises BridgeError as `view_of` does."""
    view_of(scene, eye)  # refuses what has no exact projection
    data, render = eye.data, scene.render
    return {
        "matrix_world": [list(row) for row in eye.matrix_world.normalized()],
        "kind": data.type,
        **{name: getattr(data, name) for name in (*STATE, "sensor_fit")},
        "pixel_aspect_x": render.pixel_aspect_x,
        "pixel_aspect_y": render.pixel_aspect_y,
    }


def view_of(scene: bpy.types.Scene, eye: Eye) -> View:
    """What the scene's camera sees. Raises BridgeError "camera_type" or "camera_scale"."""
    data = eye.data
    if scene.camera.type != 'CAMERA' or data.type not in {'PERSP', 'ORTHO'}:
        raise BridgeError(
            "camera_type",
            f'The camera "{scene.camera.name}" is neither perspective nor orthographic.',
            "Change the camera's type, or set Koshi > Motion > Source to Curves.",
        )
    # Object scale is dropped, as the renderer does.
    world = eye.matrix_world.normalized()
    if not abs(world.determinant()) > 1e-6:  # asked so that it is also true of NaN
        raise BridgeError(
            "camera_scale",
            f'The camera "{scene.camera.name}" is scaled to 0 or is nowhere, so it shows nothing.',
            "Set its scale, and that of its parents, to 1.",
        )
    focus, source = focus_distance(data, world, eye.depsgraph)
    return View(
        scene.camera.name,
        world,
        data.type == 'ORTHO',
        intrinsics(scene, data),
        picture_size(scene),
        focus,
        source,
    )


def picture_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Width and height of the rendered picture in pixels, percentage applied as Blender does."""
    render = scene.render
    return (
        render.resolution_x * render.resolution_percentage // 100,
        render.resolution_y * render.resolution_percentage // 100,
    )


def intrinsics(scene: bpy.types.Scene, data: Any) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) in pixels, y down; sensor fit, shift and pixel aspect as Blender has them."""
    width, height = picture_size(scene)
    render = scene.render
    aspect = render.pixel_aspect_x / render.pixel_aspect_y
    fit = data.sensor_fit
    sensor = data.sensor_height if fit == 'VERTICAL' else data.sensor_width
    if fit == 'AUTO':
        wide = width * render.pixel_aspect_x >= height * render.pixel_aspect_y
        fit = 'HORIZONTAL' if wide else 'VERTICAL'
    view = width if fit == 'HORIZONTAL' else height / aspect
    fx = view / data.ortho_scale if data.type == 'ORTHO' else data.lens / sensor * view
    return fx, fx * aspect, width / 2 - data.shift_x * view, height / 2 + data.shift_y * view * aspect


def focus_distance(
    data: Any, world: Matrix, depsgraph: bpy.types.Depsgraph | None
) -> tuple[float, str]:
    """Distance of the plane whose motion counts, and where it comes from, in words."""
    dof = data.dof
    if dof.use_dof and dof.focus_object is not None:
        target = dof.focus_object.evaluated_get(depsgraph)
        place = target.matrix_world.translation
        bone = target.pose.bones.get(dof.focus_subtarget) if target.pose and dof.focus_subtarget else None
        if bone is not None:
            place = target.matrix_world @ bone.matrix.translation
        distance = -(world.inverted() @ place).z
        if distance > data.clip_start:
            return distance, f'distance of the focus object "{dof.focus_object.name}"'
    elif dof.use_dof and dof.focus_distance > 0.0:
        return dof.focus_distance, "focus distance of the camera"
    origin = -(world.inverted() @ Vector((0.0, 0.0, 0.0))).z
    if origin > data.clip_start:
        return origin, "distance of the world's origin along the view"
    return FALLBACK_DISTANCE, "a guess, since the world's origin lies behind the camera"


def similarity(before: View, after: View) -> Similarity:
    """How the focus plane of `before` moves across the picture from one view to the next.

    Raises BridgeError "camera_motion" when the plane leaves the view, so that no similarity describes it.
    """
    if before.world == after.world and before.intrinsics == after.intrinsics:
        return Similarity()  # exactly, without the rounding of single precision
    width, height = before.size
    centre = complex(width / 2, height / 2)
    old: list[complex] = []
    new: list[complex] = []
    for u, v in _GRID:
        pixel = centre + complex(u * width, v * height)
        moved = after.project(before.unproject(pixel.real, pixel.imag))
        if moved is None:
            raise BridgeError(
                "camera_motion",
                "The camera moves through what it focuses on.",
                "Set its focus distance further away, or move it less.",
            )
        old.append(pixel - centre)
        new.append(moved - centre)
    mean_old, mean_new = sum(old) / len(old), sum(new) / len(new)
    spread = sum(abs(p - mean_old) ** 2 for p in old)
    factor = sum((q - mean_new) * (p - mean_old).conjugate() for p, q in zip(old, new, strict=True)) / spread
    if abs(factor) < 1e-6:
        raise BridgeError(
            "camera_motion", "The camera turns away from what it showed.", "Move it less per frame."
        )
    return _from_complex(factor, (mean_new - factor * mean_old) / factor)


def _from_complex(factor: complex, shift: complex) -> Similarity:
    return Similarity(abs(factor), -math.degrees(cmath.phase(factor)), shift.real, shift.imag)

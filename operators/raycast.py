# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth without any render engine: a ray for each pixel, cast into the evaluated scene.

All geometry goes into one tree (`Scene.ray_cast` asks every object in turn: with 2,000 of them that takes 13 times as
long). On anything flat 1 / depth is affine over the picture, so a ray for every fourth pixel each way is enough there:
the rest is cast only where the corners of a cell do not lie on one flat thing.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector
from mathutils.bvhtree import BVHTree

from .camera import intrinsics, picture_size

FAR = 1e10  # as Cycles has it where a ray hits nothing
CELL = 4
MESHES = {'MESH', 'CURVE', 'SURFACE', 'FONT', 'META'}
_FLAT = 1e-4  # a cell is flat if its middle is that near to the plane through its corners, of 1 / depth


def write_depth(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, path: Path) -> None:
    """Write the depth at the scene's current frame as a NumPy file, float32 [H, W], along the view axis."""
    np.save(path, ray_depth(scene, depsgraph))


def ray_depth(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, cell: int = CELL) -> np.ndarray:
    """The depth of every pixel's centre, float32 [H, W], FAR where there is nothing.

    cell: 1 casts all rays; more may miss things that are thinner than so many pixels.
    """
    rays = _Rays(scene, depsgraph)
    width, height = picture_size(scene)
    nearness = np.full((height, width), np.nan)
    # A coarse grid that reaches the last row and column.
    columns = np.unique(np.r_[np.arange(0, width, cell), width - 1])
    rows = np.unique(np.r_[np.arange(0, height, cell), height - 1])
    faces = np.full((height, width), -1, np.int64)
    for y in rows:
        for x in columns:
            nearness[y, x], faces[y, x] = rays.cast(x, y)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            corners = np.ix_((top, bottom), (left, right))
            filled = None
            if len(set(faces[corners].flat)) == 1:
                filled = _bilinear(nearness[corners], bottom - top, right - left)
                middle = (top + bottom) // 2, (left + right) // 2
                found, face = rays.cast(middle[1], middle[0])
                guess = filled[middle[0] - top, middle[1] - left]
                if face != faces[top, left] or abs(found - guess) > _FLAT * max(abs(found), 1e-12):
                    filled = None
            block = nearness[top : bottom + 1, left : right + 1]
            if filled is not None:
                block[np.isnan(block)] = filled[np.isnan(block)]
                continue
            for y, x in zip(*np.nonzero(np.isnan(block)), strict=True):
                block[y, x] = rays.cast(left + x, top + y)[0]
    if rays.parallel:
        depth = np.where(np.isnan(nearness), FAR, nearness)
    else:
        with np.errstate(divide="ignore"):
            depth = np.where(nearness > 0.0, 1.0 / nearness, FAR)
    return depth.astype(np.float32)


class _Rays:
    """Casts the ray of a pixel: what is affine on flat things (1 / depth; of a parallel camera the depth) and which
    plane it hits, as a number."""

    def __init__(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
        camera = scene.camera.evaluated_get(depsgraph)
        data = camera.data
        self.parallel = data.type == 'ORTHO'
        self.fx, self.fy, self.cx, self.cy = intrinsics(scene, data)
        self.start, self.end = data.clip_start, data.clip_end
        # In the camera's space the depth of a hit is its Z, with all of single precision's digits.
        into_camera = np.linalg.inv(np.array(camera.matrix_world.normalized(), dtype=np.float64))
        vertices, triangles = _surfaces(depsgraph, into_camera)
        self._tree = BVHTree.FromPolygons(vertices.tolist(), triangles.tolist(), all_triangles=True)
        self._planes: dict[tuple[float, ...], int] = {}

    def cast(self, x: float, y: float) -> tuple[float, int]:
        """Of the centre of pixel (x, y); (0, -1), or FAR of a parallel camera, where it hits nothing."""
        across, down = (x + 0.5 - self.cx) / self.fx, -(y + 0.5 - self.cy) / self.fy
        if self.parallel:
            origin, toward = Vector((across, down, -self.start)), Vector((0.0, 0.0, -1.0))
            reach = self.end - self.start
        else:
            toward = Vector((across, down, -1.0))
            origin, reach = toward * self.start, (self.end - self.start) * toward.length
        place, normal, _, _ = self._tree.ray_cast(origin, toward, reach)
        if place is None:
            return (FAR if self.parallel else 0.0), -1
        # A plane, not a face: many faces make one wall.
        plane = (*(round(part, 4) for part in normal), round(normal.dot(place), 3))
        return (-place.z if self.parallel else -1.0 / place.z), self._planes.setdefault(plane, len(self._planes))


def _surfaces(depsgraph: bpy.types.Depsgraph, into_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 3] and triangles [M, 3] of all that is rendered, in the camera's space."""
    vertices, triangles, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int32)], 0
    known: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for instance in depsgraph.object_instances:
        item = instance.object
        if item.type not in MESHES or item.hide_render or not instance.show_self:
            continue
        key = (item.name_full, item.data.as_pointer())
        if key not in known:
            known[key] = _triangles(item)
        places, corners = known[key]
        matrix = into_camera @ np.array(instance.matrix_world, dtype=np.float64)
        vertices.append(places @ matrix[:3, :3].T + matrix[:3, 3])
        triangles.append(corners + count)
        count += len(places)
    return np.concatenate(vertices), np.concatenate(triangles)


def _triangles(item: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated geometry of an object, in its own space."""
    mesh = item.data if item.type == 'MESH' else item.to_mesh()
    mesh.calc_loop_triangles()
    places, corners = np.empty(len(mesh.vertices) * 3, np.float32), np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.vertices.foreach_get("co", places)
    mesh.loop_triangles.foreach_get("vertices", corners)
    if item.type != 'MESH':
        item.to_mesh_clear()
    return places.reshape(-1, 3), corners.reshape(-1, 3)


def _bilinear(corners: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[rows + 1, columns + 1] from the four corners."""
    down, across = np.linspace(0.0, 1.0, rows + 1)[:, None], np.linspace(0.0, 1.0, columns + 1)[None]
    (a, b), (c, d) = corners
    return (a * (1 - across) + b * across) * (1 - down) + (c * (1 - across) + d * across) * down

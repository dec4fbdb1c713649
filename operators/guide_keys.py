# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guide depends on, as a key: equal keys, equal pictures. Beside each file lies its key.

Seen at each frame, as Blender evaluates it: the camera; place, visibility and geometry of every object and instance,
with all attributes; materials, lights, worlds and node groups with all their values; image files by size and time;
view settings. Not seen: what simulations and hair particles show, volume files, add-ons that act while rendering.
Things that are hidden in the viewport and yet rendered are not evaluated here: with any of them nothing is kept. Bevels
come out with other last bits in every process: what they are on is rendered again in each.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

VERSION = 1  # raise it when guides come out differently
_DRAWN = {
    'MESH', 'CURVE', 'SURFACE', 'FONT', 'META', 'VOLUME', 'CURVES', 'POINTCLOUD', 'GREASEPENCIL', 'LIGHT',
    'LIGHT_PROBE', 'HAIR',
}  # fmt: skip
_AS_MESH = {'CURVE', 'SURFACE', 'FONT', 'META'}
# Of an attribute: the name of its value, how many numbers that is, and their type.
_ATTRIBUTES = {
    'FLOAT': ("value", 1, np.float32), 'INT': ("value", 1, np.int32), 'INT8': ("value", 1, np.int32),
    'BOOLEAN': ("value", 1, bool), 'FLOAT_VECTOR': ("vector", 3, np.float32), 'FLOAT2': ("vector", 2, np.float32),
    'FLOAT_COLOR': ("color", 4, np.float32), 'BYTE_COLOR': ("color", 4, np.float32),
    'QUATERNION': ("value", 4, np.float32), 'INT32_2D': ("value", 2, np.int32), 'INT16_2D': ("value", 2, np.int32),
    'FLOAT4X4': ("value", 16, np.float32),
}  # fmt: skip
# Of RNA: what only the editors show, and where recursion would go round in circles.
_SKIPPED = {
    "rna_type", "name", "name_full", "preview", "animation_data", "users", "session_uid", "location_absolute",
    "location", "width", "height", "dimensions", "select", "color_tag", "label", "hide", "parent", "is_runtime_data",
    "use_fake_user", "use_extra_user", "tag", "original", "asset_data", "library", "override_library", "active",
    "active_index", "diffuse_color", "grease_pencil", "internal_links", "interface", "filepath_raw",
}  # fmt: skip
_PREFIXES = ("show_", "is_", "bl_", "active_", "ui_", "use_custom_color", "warning_", "debug_", "preview")
_LISTS = {"nodes", "links", "inputs", "outputs", "elements", "curves", "points", "texture_slots", "modifiers"}


@dataclass(frozen=True)
class Look:
    """A scene at one frame. digest: of everything seen. camera: the one that looks."""

    digest: str
    camera: bpy.types.Object


class Looks:
    """Looks at a copy of the scene, frame by frame. What has not changed since the frame before is not read again."""

    def __init__(self, copy: bpy.types.Scene) -> None:
        self._copy = copy
        self._kept: dict[int, Look] = {}
        self._shapes: dict[tuple[str, int], bytes] = {}
        self._materials: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._other = False

    @classmethod
    @contextmanager
    def on(cls, copy: bpy.types.Scene) -> Iterator[Looks]:
        """Looks at `copy` as long as the block lasts."""
        looks = cls(copy)
        handler = looks._note_updates
        bpy.app.handlers.frame_change_post.append(handler)
        try:
            yield looks
        finally:
            bpy.app.handlers.frame_change_post.remove(handler)

    def at(self, frame: int) -> Look:
        """The scene at a frame. Raises BridgeError "no_camera"."""
        if frame not in self._kept:
            copy = self._copy
            with bpy.context.temp_override(scene=copy, view_layer=copy.view_layers[0]):
                depsgraph = bpy.context.evaluated_depsgraph_get()
                copy.frame_set(frame)
                self._forget_changed()
                self._kept[frame] = Look(self._digest(depsgraph, frame), copy.camera)
            while len(self._kept) > 64:
                del self._kept[next(iter(self._kept))]
        return self._kept[frame]

    def _note_updates(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
        if depsgraph is None or scene.name != self._copy.name:
            return
        for update in depsgraph.updates:
            if isinstance(update.id, (bpy.types.Object, *_DATA)):
                if update.is_updated_geometry or not isinstance(update.id, bpy.types.Object):
                    self._changed.add(update.id.name_full)
            elif not isinstance(update.id, (bpy.types.Scene, bpy.types.Collection, bpy.types.Action)):
                self._other = True

    def _forget_changed(self) -> None:
        if self._changed:
            self._shapes = {key: shape for key, shape in self._shapes.items() if not self._changed & set(key[:2])}
            self._changed.clear()
        if self._other:
            self._materials.clear()
            self._other = False

    def _digest(self, depsgraph: bpy.types.Depsgraph, frame: int) -> str:
        copy, layer = self._copy, self._copy.view_layers[0]
        found = hashlib.sha256()
        camera = copy.camera.evaluated_get(depsgraph)
        found.update(_matrix(camera.matrix_world))
        found.update(rna_text(camera.data).encode())
        found.update(
            repr((copy.render.pixel_aspect_x, copy.render.pixel_aspect_y, copy.render.engine)).encode()
        )
        for thing in (copy.view_settings, copy.world and copy.world.evaluated_get(depsgraph)):
            if thing is not None:
                found.update(self._shading(thing, frame))
        for item in layer.objects:
            if item.type in _DRAWN and not item.hide_render and not item.visible_get(view_layer=layer):
                found.update(uuid.uuid4().bytes)
        materials: dict[str, bpy.types.Material] = {}
        for instance in depsgraph.object_instances:
            item = instance.object
            if item.type not in _DRAWN:
                continue
            seen = (item.hide_render, item.visible_camera, item.is_holdout, instance.show_self, instance.random_id)
            found.update(_matrix(instance.matrix_world))
            found.update(repr(seen).encode())
            found.update(self._shape(item))
            slots = [slot.material for slot in item.material_slots]
            materials |= {material.name_full: material for material in slots if material is not None}
            found.update(repr([material and material.name_full for material in slots]).encode())
        for _, material in sorted(materials.items()):
            found.update(self._shading(material, frame))
        return found.hexdigest()

    def _shape(self, item: bpy.types.Object) -> bytes:
        data = item.data
        key = (item.name_full, data.name_full if data else "", data.as_pointer() if data else 0)
        if key not in self._shapes:
            found = hashlib.sha256()
            if item.type in _AS_MESH:
                _add_geometry(found, item.to_mesh())
                item.to_mesh_clear()
            else:
                if data is not None and hasattr(data, "attributes"):
                    _add_geometry(found, data)
                else:
                    found.update(rna_text(data).encode() if data is not None else b"")
            for modifier in item.original.modifiers:  # their values for rendering may not show in the viewport
                found.update(rna_text(modifier).encode())
            self._shapes[key] = found.digest()
        return self._shapes[key]

    def _shading(self, thing: Any, frame: int) -> bytes:
        name = f"{type(thing).__name__} {getattr(thing, 'name_full', '')}"
        if name not in self._materials:
            self._materials[name] = rna_text(thing).encode()
        known = self._materials[name]
        return known + str(frame).encode() if b"SEQUENCE" in known or b"MOVIE" in known else known


def key_of(*facts: Any) -> str:
    """The key of a file that depends on `facts`."""
    return hashlib.sha256(repr((VERSION, bpy.app.version[:2], facts)).encode()).hexdigest()


def is_current(path: Path, key: str) -> bool:
    """Whether a file is there and was made for this key."""
    try:
        return path.is_file() and path.with_suffix(".key").read_text(encoding="ascii") == key
    except OSError:
        return False


def remember(path: Path, key: str) -> None:
    """Note for which key a file was made."""
    path.with_suffix(".key").write_text(key, encoding="ascii")


def rna_text(root: Any) -> str:
    """All values of a thing, and of the node groups, images and textures it uses, as one text."""
    out: list[str] = []
    queue, known = [root], {_name(root)}
    while queue:
        thing = queue.pop(0)
        out.append(_name(thing))
        _walk(thing, out, queue, known)
        if isinstance(thing, bpy.types.Image):
            out.append(_image_state(thing))
    return "\n".join(out)


def _walk(thing: Any, out: list[str], queue: list[Any], known: set[str], depth: int = 0) -> None:
    for name, kind, fixed in _values_of(thing):
        if kind == 'COLLECTION':
            if name in _LISTS:
                for item in getattr(thing, name):
                    out.append(getattr(item, "name", ""))
                    if depth < 8:
                        _walk(item, out, queue, known, depth + 1)
            continue
        value = getattr(thing, name, None)  # an add-on may have gone meanwhile
        if kind != 'POINTER':
            if not fixed:
                if name == "filepath" and value:
                    # Relative ones are others in a copy of the file.
                    value = os.path.realpath(bpy.path.abspath(value, library=getattr(thing, "library", None)))
                if isinstance(value, set):
                    value = sorted(value)  # their order is another in every process
                listed = hasattr(value, "__len__") and not isinstance(value, str)
                out.append(f"{name} {tuple(value) if listed else value!r}")
            continue
        if value is None:
            continue
        if isinstance(value, bpy.types.ID):
            out.append(f"{name} {value.name_full}")
            followed = isinstance(value, (bpy.types.NodeTree, bpy.types.Image, bpy.types.Texture))
            if followed and _name(value) not in known:
                known.add(_name(value))
                queue.append(value)
        elif isinstance(value, (bpy.types.Node, bpy.types.NodeSocket)):
            out.append(f"{name} {getattr(value, 'identifier', value.name)}")
        elif depth < 8:
            _walk(value, out, queue, known, depth + 1)


_known_values: dict[str, list[tuple[str, str, bool]]] = {}


def _values_of(thing: Any) -> list[tuple[str, str, bool]]:
    """Name, kind and whether it is fixed, of the properties that count."""
    kind = thing.bl_rna.identifier
    if kind not in _known_values:
        _known_values[kind] = [
            (p.identifier, p.type, p.is_readonly)
            for p in thing.bl_rna.properties
            if p.identifier not in _SKIPPED and not p.identifier.startswith(_PREFIXES)
        ]
    return _known_values[kind]


def _name(thing: Any) -> str:
    owner = getattr(thing, "id_data", None)
    own = getattr(thing, "name_full", None) or getattr(thing, "name", "")
    return f"{type(thing).__name__} {own} {owner.name_full if owner is not None else ''}"


def _image_state(image: bpy.types.Image) -> str:
    if image.is_dirty:  # painted on since it was saved
        return uuid.uuid4().hex
    if image.packed_file is not None:
        return f"packed {image.packed_file.size}"
    try:
        file = Path(bpy.path.abspath(image.filepath, library=image.library)).stat()
    except (OSError, ValueError):
        return ""
    return f"{file.st_size} {file.st_mtime_ns}"


def _add_geometry(found: Any, data: Any) -> None:
    """Add all attributes of a mesh, of curves or of a point cloud; among a mesh's are its corners and positions."""
    for attribute in data.attributes:
        if attribute.name.startswith(".select") or attribute.data_type not in _ATTRIBUTES:
            continue
        name, size, dtype = _ATTRIBUTES[attribute.data_type]
        values = np.empty(len(attribute.data) * size, dtype)
        attribute.data.foreach_get(name, values)
        found.update(f"{attribute.name} {attribute.domain} {values.size}".encode())
        found.update(values.tobytes())
    if hasattr(data, "polygons"):
        counts = np.empty(len(data.polygons), np.int32)
        data.polygons.foreach_get("loop_total", counts)
        found.update(counts.tobytes())


def _matrix(matrix: Any) -> bytes:
    return struct.pack("16f", *(value for row in matrix for value in row))


_DATA = tuple(
    getattr(bpy.types, name)
    for name in ("Mesh", "Curve", "Curves", "PointCloud", "MetaBall", "Volume", "Lattice", "Armature", "Key")
    if hasattr(bpy.types, name)
)

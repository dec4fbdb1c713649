# SPDX-License-Identifier: GPL-3.0-or-later
"""Bake: the camera's flat motion into Koshi's curves, and Koshi's curves into a camera."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from typing import Any

import bpy
from bpy.props import BoolProperty
from mathutils import Matrix

from ..bridge_server.protocol import BridgeError
from . import camera, compat, scene_values
from .camera import Similarity, View
from .values import FLAT, MOTION, PUSH

NAME = "Koshi Camera"
_NEUTRAL = {"zoom": 1.0}  # of the others 0
_NO_BLUR = 128.0  # f-stop of a baked camera, whose depth of field only says what it looks at


class KOSHI_OT_bake_camera(bpy.types.Operator):
    """Key zoom, angle and translation in every frame of the range, so that the curves move the picture as the camera
    does at its focus distance; then let the curves be the source of motion"""

    bl_idname = "koshi.bake_camera"
    bl_label = "Bake Camera to Koshi Curves"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene = compat.edited_scene(context)
        reason = _not_editable(scene) or _no_flat_camera(scene) or _not_keyable(scene)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings = scene.koshi
        first, last = scene.frame_start, scene.frame_end
        try:
            own = _own_moves(scene, first, last, on_top=settings.motion_source != 'CURVES')
            table, cuts = _camera_table(scene, first, last, own)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        for name, column in table.items():
            write_keys(scene, settings, f"koshi.{name}", name, first, column)
        settings.motion_source, settings.curves = 'CURVES', 'PER_FRAME'
        _evaluate(scene)
        told = f"{last - first + 1} frames keyed"
        if cuts:
            frames = ", ".join(map(str, cuts))
            self.report({'WARNING'}, f"Koshi: {told}. Curves cannot begin anew at the camera cuts ({frames})")
        else:
            self.report({'INFO'}, f"Koshi: {told}")
        return {'FINISHED'}


class KOSHI_OT_bake_curves(bpy.types.Operator):
    """Make a camera that moves as Koshi's curves move the picture, seen at its focus distance"""

    bl_idname = "koshi.bake_curves"
    bl_label = "Bake Koshi Curves to Camera"
    bl_options = {'REGISTER', 'UNDO'}

    use: BoolProperty(
        name="Use It",
        description="Make it the scene's camera, let it be the source of motion, and take the curves away that it "
        "replaces",
        default=True,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene = compat.edited_scene(context)
        reason = _not_editable(scene)
        if not reason and not any(_moves(scene, name) for name in MOTION):
            reason = "Zoom, angle and translation move nothing yet: key or set one of them"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = compat.edited_scene(context)
        settings = scene.koshi
        try:
            moves = _own_moves(scene, scene.frame_start, scene.frame_end, on_top=True)
            made = _make_camera(scene, moves)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        if self.use and not (reason := _not_keyable(scene)):
            for name in MOTION:
                _remove_curve(scene, f"koshi.{name}")
                setattr(settings, name, _NEUTRAL.get(name, 0.0))
            scene.camera, settings.motion_source, settings.curves = made, 'CAMERA', 'PER_FRAME'
            _evaluate(scene)
        elif self.use:
            self.report({'WARNING'}, f'Koshi: "{made.name}" is there, but not in use. {reason}')
            return {'FINISHED'}
        self.report({'INFO'}, f'Koshi: "{made.name}" moves as the curves did')
        return {'FINISHED'}


def write_keys(
    scene: bpy.types.ID, owner: Any, path: str, name: str, first: int, column: list[float], index: int = -1
) -> None:
    """Key `column` from frame `first` on, one key a frame. Keys before and after stay; modifiers go, as they are in
    what was sampled.

    scene: the datablock that holds the animation. owner, name: where the property is; path: its path from `scene`.
    """
    owner.keyframe_insert(name, index=index, frame=first)  # makes action, slot and curve in every version
    curve = next(c for c in compat.fcurves(scene) if c.data_path == path and c.array_index == max(index, 0))
    points = curve.keyframe_points
    last = first + len(column) - 1
    kept = [
        (tuple(p.co), tuple(p.handle_left), tuple(p.handle_right), p.interpolation, p.handle_left_type,
         p.handle_right_type)
        for p in points
        if not first <= p.co.x <= last
    ]  # fmt: skip
    points.clear()
    for modifier in list(curve.modifiers):
        curve.modifiers.remove(modifier)
    points.add(len(column))
    points.foreach_set("co", [part for k, value in enumerate(column) for part in (first + k, value)])
    points.foreach_set("interpolation", [1] * len(column))  # LINEAR
    for co, left, right, interpolation, left_type, right_type in kept:
        point = points.insert(*co, options={'FAST'})
        point.interpolation = interpolation
        point.handle_left_type, point.handle_right_type = left_type, right_type
        point.handle_left, point.handle_right = left, right
    curve.mute = False
    curve.update()


def _own_moves(scene: bpy.types.Scene, first: int, last: int, on_top: bool) -> dict[str, list[float]]:
    """The curves' own move into every frame from `first` on. on_top: else nothing moves by itself."""
    samples = scene_values.Samples(first, last, 1)
    for _ in samples.take(scene.name, float("inf")):
        pass
    table = samples.motion_into_frames(absolute=scene.koshi.curves == 'ABSOLUTE')
    moves = {name: table[name] for name in MOTION}
    if not on_top:
        for name in FLAT:
            moves[name] = [_NEUTRAL.get(name, 0.0)] * len(moves[name])
    return moves


def _camera_table(
    scene: bpy.types.Scene, first: int, last: int, own: dict[str, list[float]]
) -> tuple[dict[str, list[float]], list[int]]:
    """What to key, and the frames of camera cuts."""
    table: dict[str, list[float]] = {name: [] for name in FLAT}
    cuts: list[int] = []
    before: View | None = None
    for frame, view in _views(scene, range(first, last + 1)):
        moved = Similarity()
        if before is not None and before.name != view.name:
            cuts.append(frame)
        elif before is not None:
            try:
                moved = camera.similarity(before, view)
            except BridgeError as error:
                raise BridgeError(error.code, f"Frame {frame}: {error.message}", error.hint) from error
        total = moved.then(Similarity(*(own[name][frame - first] for name in FLAT))).rounded()
        for name, value in zip(FLAT, total, strict=True):
            table[name].append(value)
        before = view
    if scene.koshi.curves == 'ABSOLUTE':
        table[PUSH] = own[PUSH]  # it held places, and is to hold moves now
    return table, cuts


def _views(scene: bpy.types.Scene, frames: range) -> Iterator[tuple[int, View]]:
    with scene_values.evaluated(scene) as depsgraph:
        for frame in frames:
            scene.frame_set(frame)
            yield frame, camera.view_of(scene, camera.eye_of(scene, depsgraph))


def _make_camera(scene: bpy.types.Scene, moves: dict[str, list[float]]) -> bpy.types.Object:
    """A camera that begins where the scene's stands at the first frame, and goes as `moves` say."""
    first = scene.frame_start
    if _no_flat_camera(scene):
        data = bpy.data.cameras.new(NAME)
        world, focus = Matrix.Translation((0.0, -5.0, 0.0)) @ Matrix.Rotation(math.pi / 2, 4, 'X'), 5.0
    else:
        ((_, view),) = _views(scene, range(first, first + 1))
        data = _frozen(scene, first)
        world, focus = view.world, view.focus
    parallel = data.type == 'ORTHO'
    fx, fy, cx, cy = camera.intrinsics(scene, data)
    width, height = camera.picture_size(scene)
    aside = complex(cx - width / 2, cy - height / 2)  # of the optical axis from the picture's middle
    if any(moves["angle"]) and abs(fx - fy) > 1e-6 * fx:
        bpy.data.cameras.remove(data)
        raise BridgeError(
            "camera_motion",
            "With pixels that are not square no camera turns the picture as the angle does.",
            "Set both Aspects to 1 in Output Properties, or Angle to 0.",
        )
    made = bpy.data.objects.new(NAME, data)
    scene.collection.objects.link(made)
    made.rotation_mode = 'QUATERNION'
    places, turns, distances, scales = [], [], [], []
    turned = world.to_quaternion()
    for k in range(len(moves["zoom"])):
        if k > 0:
            zoom, factor, shift = _total({name: moves[name][k] for name in MOTION})
            away = (1 - factor) / factor * aside - shift  # how far the camera goes, in pixels of before, y down
            depth = 1.0 if parallel else focus
            step = Matrix.Translation((away.real / fx * depth, -away.imag / fy * depth, 0.0))
            if parallel:
                data.ortho_scale /= zoom
                fx, fy = fx * zoom, fy * zoom
            else:
                step = step @ Matrix.Translation((0.0, 0.0, focus / zoom - focus))
                focus /= zoom
            world = world @ step @ Matrix.Rotation(cmath.phase(factor), 4, 'Z')
        turn = world.to_quaternion()
        turn.make_compatible(turned)
        turned = turn
        places.append(world.translation.copy())
        turns.append(turn.copy())
        distances.append(focus)
        scales.append(data.ortho_scale)
    made.location, made.rotation_quaternion = places[0], turns[0]
    for axis in range(3):
        write_keys(made, made, "location", "location", first, [place[axis] for place in places], axis)
    for axis in range(4):
        column = [turn[axis] for turn in turns]
        write_keys(made, made, "rotation_quaternion", "rotation_quaternion", first, column, axis)
    data.dof.use_dof, data.dof.focus_object, data.dof.aperture_fstop = True, None, _NO_BLUR
    write_keys(data, data.dof, "dof.focus_distance", "focus_distance", first, distances)
    if parallel:
        write_keys(data, data, "ortho_scale", "ortho_scale", first, scales)
    return made


def _total(move: dict[str, float]) -> tuple[float, complex, complex]:
    """A frame's whole move, the push included: its zoom, zoom and turn as one complex factor, and its shift."""
    total = Similarity(*(move[name] for name in FLAT)).then(Similarity(camera.push_zoom(move[PUSH])))
    return total.zoom, total.factor, complex(total.x, total.y)


def _frozen(scene: bpy.types.Scene, frame: int) -> bpy.types.Camera:
    """The scene camera's data as it is at a frame, without animation."""
    with scene_values.evaluated(scene) as depsgraph:
        scene.frame_set(frame)
        seen = scene.camera.evaluated_get(depsgraph).data
        data = scene.camera.data.copy()
        data.animation_data_clear()
        for name in ("lens", "sensor_width", "sensor_height", "shift_x", "shift_y", "ortho_scale"):
            setattr(data, name, getattr(seen, name))
    data.name = NAME
    return data


def _moves(scene: bpy.types.Scene, name: str) -> bool:
    """Whether a value moves anything, as far as that can be told without looking at frames."""
    if getattr(scene.koshi, name) != _NEUTRAL.get(name, 0.0):
        return True
    animation, path = scene.animation_data, f"koshi.{name}"
    if animation is None:
        return False
    curves = compat.fcurves(scene)
    return (
        curves is None
        or any(curve.data_path == path for curve in (*curves, *animation.drivers))
        or any(not track.mute for track in animation.nla_tracks)
    )


def _not_editable(scene: bpy.types.Scene | None) -> str:
    if scene is None:
        return "There is no scene"
    return "" if scene.is_editable else "The scene is linked from another file and cannot be changed here"


def _no_flat_camera(scene: bpy.types.Scene) -> str:
    if scene.camera is None:
        return "The scene has no camera"
    if scene.camera.type != 'CAMERA' or scene.camera.data.type not in {'PERSP', 'ORTHO'}:
        return f'The camera "{scene.camera.name}" is neither perspective nor orthographic'
    return ""


def _not_keyable(scene: bpy.types.Scene) -> str:
    """Why keys of the motion would not count."""
    animation = scene.animation_data
    if animation is None:
        return ""
    for driver in animation.drivers:
        name = driver.data_path.removeprefix("koshi.")
        if driver.data_path.startswith("koshi.") and name in MOTION and not driver.mute:
            return f"{scene.koshi.bl_rna.properties[name].name} has a driver, which keys cannot change: remove it first"
    if any(not track.mute for track in animation.nla_tracks):
        return "The scene's values lie in NLA tracks, which keys would mix with: mute them first"
    return "The scene's action has several layers" if compat.fcurves(scene) is None else ""


def _remove_curve(scene: bpy.types.Scene, path: str) -> None:
    curves = compat.fcurves(scene) or ()
    for curve in [curve for curve in curves if curve.data_path == path]:
        curves.remove(curve)


def _evaluate(scene: bpy.types.Scene) -> None:
    """Show at once what the new keys say at the playhead."""
    with scene_values.evaluated(scene):
        pass


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_bake_camera, KOSHI_OT_bake_curves))

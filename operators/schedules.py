# SPDX-License-Identifier: GPL-3.0-or-later
"""One curve at a time between Koshi and Deforum, through the clipboard: 0:(1.0), 24:(1.05)."""

from __future__ import annotations

import itertools
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from ..koshi_backend import schedules as text
from ..koshi_backend.errors import KoshiError
from ..panels.properties import MORE_SCHEDULES, SCHEDULES
from . import compat, course, formula, import_shot, lay_drivers, lay_keys, shot_fields, values
from .course import Knot
from .transfer import EXPRESSIONS

CURVES = tuple((name, name.replace("_", " ").title(), "") for name in (*SCHEDULES, *MORE_SCHEDULES, "seed"))
TURNED = ("strength", "keyframe_strength")  # Deforum's say how much is kept
# How far a line of the text may be from the curve: of its span; of its values, of which seven digits are known.
SMOOTH, KNOWN = 1e-5, 2e-6
MOVING = (*values.MOTION, *values.TURNS)


def schedule_of(scene: bpy.types.Scene, path: str) -> str:
    """A curve of `scene.koshi` as Deforum's text, counted from the scene's first frame; a strength turned round, and of
    a curve that says where the picture is, its moves. Keys stand where the curve's own do if it is straight between
    them, otherwise wherever a line would leave it."""
    column = _column(scene, path)
    if _is_place(scene, path):
        column = values.per_frame(path, column, scene.koshi.loop == "seamless")
    if path in TURNED:
        column = [values.rounded(1.0 - value) for value in column]
    tolerance = max(SMOOTH * (max(column) - min(column)), KNOWN * max(map(abs, column)))
    places = _own_keys(scene, path)
    if 1 < len(places) < len(column):  # with a key at every frame it was baked
        drawn = course.evaluate([Knot(k, column[k]) for k in places], len(column))
        if any(abs(a - b) > tolerance for a, b in zip(drawn, column, strict=True)):
            places = []
    if not 1 < len(places) < len(column):
        places = text.marks(column, tolerance)
    return ", ".join(f"{k}:({column[k]!r})" for k in places)


def lay_schedule(scene: bpy.types.Scene, path: str, schedule: str, expressions: str) -> list[str]:
    """Make a text of Deforum's a curve of `scene.koshi`, from the scene's first frame on; returns what to tell.

    expressions: as for `import_shot.apply_shot`. Raises ScheduleError.
    """
    settings, name = lay_keys.owner(scene, path)
    frames, seed = scene.frame_end - scene.frame_start + 1, scene.koshi.seed
    notes: list[str] = []
    column = text.evaluate(schedule, frames, seed=seed, warnings=notes)
    if path in TURNED:
        column = [1.0 - value for value in column]
    prop = settings.bl_rna.properties[name]
    whole, placed = prop.type == 'INT', _is_place(scene, path)
    held = [min(max(value, prop.hard_min), prop.hard_max) for value in column]
    if held != column:
        notes.append(f"Values are cut to what the curve holds, {prop.hard_min:g} to {prop.hard_max:g}.")
    if placed:
        held = list(itertools.accumulate(held[1:], _move_zoom if path == "zoom" else _move, initial=held[0]))
    if whole:
        held = [float(int(value)) for value in held]
    arithmetic = len(set(held)) > 1 and formula.has_expressions(schedule)
    written = None if placed or held != column else course.written(schedule, held, seed)
    lay_keys.lay(scene, path, held, written)
    if arithmetic and expressions == import_shot.DRIVERS and not (whole or placed):
        try:
            said = formula.formula(schedule, held, scene.frame_start, seed, path in TURNED)
        except formula.NoDriver as reason:
            return [*notes, f"It has keys instead of a driver: {reason}."]
        lay_drivers.drive(scene, path, said)
        if import_shot.off(scene, {path: held}):
            lay_keys.lay(scene, path, held)
            notes.append("It has keys instead of a driver: Blender works it out differently.")
    return notes


def _column(scene: bpy.types.Scene, path: str) -> list[Any]:
    """The value at every frame of the scene's range, in seven digits."""
    frames = range(scene.frame_start, scene.frame_end + 1)
    table = import_shot.read(scene, [path], frames)
    return [value if isinstance(value, int) else values.rounded(value) for value in table[path]]


def _own_keys(scene: bpy.types.Scene, path: str) -> list[int]:
    """Where the curve's keys stand, from the scene's first frame, if all of them stand at whole frames."""
    curves = [c for c in compat.fcurves(scene) or () if c.data_path == f"koshi.{path}"]
    if len(curves) != 1 or len(curves[0].modifiers):
        return []
    places = [point.co[0] for point in curves[0].keyframe_points]
    if any(place != int(place) or not scene.frame_start <= place <= scene.frame_end for place in places):
        return []
    return [int(place) - scene.frame_start for place in places]


def _is_place(scene: bpy.types.Scene, path: str) -> bool:
    return path in MOVING and scene.koshi.curves == 'ABSOLUTE'


def _move(place: float, move: float) -> float:
    return place + move


def _move_zoom(size: float, zoom: float) -> float:
    return size * zoom


class _OneCurve:
    """An operator for one curve: the one whose button was right-clicked, or one that is searched for."""

    path: StringProperty(options={'HIDDEN', 'SKIP_SAVE'})
    curve: EnumProperty(name="Curve", items=CURVES, options={'SKIP_SAVE'})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.path or self.properties.is_property_set("curve"):
            return self.execute(context)
        context.window_manager.invoke_search_popup(self)
        return {'INTERFACE'}  # nothing is done yet: no undo step

    def _path(self) -> str:
        return self.path or shot_fields.property_of(self.curve)


class KOSHI_OT_copy_schedule(_OneCurve, bpy.types.Operator):
    """Put a curve on the clipboard as Deforum writes it, such as 0:(1.0), 24:(1.05), from the scene's first frame on.
    A strength is turned round, as Deforum counts"""

    bl_idname = "koshi.copy_schedule"
    bl_label = "Copy as Deforum Schedule"
    bl_property = "curve"  # Blender looks for it in the class itself

    def execute(self, context: bpy.types.Context) -> set[str]:
        schedule = schedule_of(compat.edited_scene(context), self._path())
        context.window_manager.clipboard = schedule
        told = schedule if len(schedule) < 60 else f"{schedule.count(':')} keys"
        turned = ", turned round as Deforum counts" if self._path() in TURNED else ""
        self.report({'INFO'}, f"Copied {self._path()}{turned}: {told}")
        return {'FINISHED'}


class KOSHI_OT_paste_schedule(_OneCurve, bpy.types.Operator):
    """Make a curve of the Deforum schedule on the clipboard, from the scene's first frame on. A strength is turned
    round"""

    bl_idname = "koshi.paste_schedule"
    bl_label = "Paste Deforum Schedule"
    bl_property = "curve"
    bl_options = {'REGISTER', 'UNDO'}

    schedule: StringProperty(options={'HIDDEN', 'SKIP_SAVE'})  # for scripts; otherwise the clipboard's
    expressions: EnumProperty(
        name="Expressions",
        description="What becomes of arithmetic such as 1+0.1*sin(t)",
        items=EXPRESSIONS,
        default=import_shot.BAKE,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return compat.may_change(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        schedule = self.schedule or context.window_manager.clipboard
        if not schedule.strip():
            self.report({'WARNING'}, "The clipboard is empty")
            return {'CANCELLED'}
        try:
            notes = lay_schedule(compat.edited_scene(context), self._path(), schedule, self.expressions)
        except KoshiError as error:
            self.report({'ERROR'}, f"The clipboard holds no Deforum schedule: {error}")
            return {'CANCELLED'}
        for note in notes:
            self.report({'WARNING'}, note)
        self.report({'INFO'}, f"{self._path()} is what the clipboard says")
        return {'FINISHED'}


CLASSES = (KOSHI_OT_copy_schedule, KOSHI_OT_paste_schedule)


def _draw(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    """Two entries in the menu of a right click on one of Koshi's curves."""
    owner, prop = getattr(context, "button_pointer", None), getattr(context, "button_prop", None)
    path = _path_of(owner, prop)
    if path is None:
        return
    menu.layout.separator()
    menu.layout.operator("koshi.copy_schedule", icon='COPYDOWN').path = path
    menu.layout.operator("koshi.paste_schedule", icon='PASTEDOWN').path = path


def _path_of(owner: Any, prop: Any) -> str | None:
    """The path below `scene.koshi` of a number that takes keyframes; None for anything else."""
    if not isinstance(owner, bpy.types.PropertyGroup) or not isinstance(owner.id_data, bpy.types.Scene):
        return None
    if getattr(prop, "type", "") not in ('FLOAT', 'INT') or not prop.is_animatable:
        return None
    whole = owner.path_from_id(prop.identifier)
    return whole.removeprefix("koshi.") if whole.startswith("koshi.") else None


def register() -> None:
    """Add the operators, and the entries in the menu of a right click."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.UI_MT_button_context_menu.append(_draw)


def unregister() -> None:
    """Undo `register`."""
    bpy.types.UI_MT_button_context_menu.remove(_draw)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import and Export: shots, and projects of Deforum and Parseq."""

from __future__ import annotations

import json
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from ..bridge_server.protocol import BridgeError
from . import compat, convert, exchange, import_shot, sample, scene_values, state
from .stepped import BUDGET, SteppedOperator, Steps

REPORT = "Koshi Import"  # the text with all that was not taken over
SHOWN = 8  # lines of it in the window
OTHERS = (".blend", ".json", ".txt")  # endings that a written file's own takes the place of

EXPRESSIONS = (
    (import_shot.BAKE, "Keyframes", "A key at every frame, but where the values leave no straight line"),
    (
        import_shot.DRIVERS,
        "Drivers",
        "Go on as arithmetic: scripted drivers of the frame. What Blender's drivers cannot work out becomes keyframes",
    ),
)


class _OfAScene(SteppedOperator):
    """An operator for the scene that was edited where it was called: the file browser knows no sequencer's."""

    scene: StringProperty(options={'HIDDEN', 'SKIP_SAVE'})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.scene = compat.edited_scene(context).name
        return super().invoke(context, event)  # type: ignore[misc]

    def _of(self, context: bpy.types.Context) -> bpy.types.Scene:
        return scene_values.scene_named(self.scene) if self.scene else compat.edited_scene(context)


class KOSHI_OT_import_shot(_OfAScene, ImportHelper, bpy.types.Operator):
    """Take over a Koshi shot, Deforum settings or a Parseq document: curves as keyframes, prompts, size, range and all
    that a scene knows. Replaces the scene's own"""

    bl_idname = "koshi.import_shot"
    bl_label = "Import to Koshi"

    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json;*.txt", options={'HIDDEN'})
    expressions: EnumProperty(
        name="Expressions",
        description="What becomes of arithmetic such as 1+0.1*sin(t)",
        items=EXPRESSIONS,
        default=import_shot.BAKE,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls) and compat.may_change(cls, context)

    def steps(self, context: bpy.types.Context) -> Steps:
        _check_idle()  # the file browser was open for as long as it pleased
        path, name = Path(bpy.path.abspath(self.filepath)), self._of(context).name
        remarks: list[str] = []
        shot = _own_shot(path)
        if shot is None:
            answer = yield from convert.converted(path)
            shot, remarks = answer["document"], convert.remarks(answer)
            remarks.insert(0, f"Read as {answer['dialect']}: {answer['decided']}.")
        _check_idle()
        scene = scene_values.scene_named(name)
        told = import_shot.apply_shot(scene, shot, expressions=self.expressions, folder=path.parent)
        told = [*remarks[:1], *told, *remarks[1:]]
        if len(told) > len(remarks[:1]):
            _write_report(path, told)
            _show(told, path.name)
            return f"{path.name} is the scene's now; the text “{REPORT}” says what is not as it was there"
        return f"{path.name} is the scene's now, with all that it says"


class _Export(_OfAScene, ExportHelper):
    """Where to write to; `steps` writes."""

    check_extension = None  # .koshi.json is two of them

    def check(self, context: bpy.types.Context) -> bool:
        path = Path(self.filepath)
        if not path.name or path.name.endswith(self.filename_ext):
            return False
        kept = path.stem if path.suffix.lower() in OTHERS else path.name  # shot.v2 is a name, too
        self.filepath = str(path.with_name(kept.removesuffix(".koshi") + self.filename_ext))
        return True

    def _sampled(self, context: bpy.types.Context) -> Any:
        sampled = yield from sample.sampling(self._of(context), budget=BUDGET)
        for note in sampled.notes:
            self.report({'INFO'}, f"Koshi: {note}")  # type: ignore[attr-defined]
        return sampled


class KOSHI_OT_export_shot(_Export, bpy.types.Operator):
    """Write the scene's shot, as a render would send it, and beside it what it needs: for koshi animate and farms"""

    bl_idname = "koshi.export_shot"
    bl_label = "Export Koshi Shot"

    filename_ext = ".koshi.json"
    filter_glob: StringProperty(default="*.koshi.json", options={'HIDDEN'})

    def steps(self, context: bpy.types.Context) -> Steps:
        path = Path(bpy.path.abspath(self.filepath))
        sampled = yield from self._sampled(context)
        yield from exchange.write_shot(self._of(context), sampled, path)
        return f"Wrote {path.name}"


class _Converted(_Export):
    """Writes what `koshi convert` makes of the scene's shot."""

    target = ""

    def steps(self, context: bpy.types.Context) -> Steps:
        path = Path(bpy.path.abspath(self.filepath))
        sampled = yield from self._sampled(context)
        with tempfile.TemporaryDirectory(prefix="koshi_") as folder:
            file = Path(folder) / "scene.koshi.json"
            file.write_text(json.dumps(sampled.shot), encoding="utf-8")
            answer = yield from convert.converted(file, "--to", self.target, "-o", path)
        told = convert.remarks(answer)
        if told:
            _write_report(path, told)
            _show(told, path.name)
            return f"Wrote {path.name}; the text “{REPORT}” says what it cannot hold"
        return f"Wrote {path.name}"


class KOSHI_OT_export_deforum(_Converted, bpy.types.Operator):
    """Write the scene as settings of Deforum's web UI: curves as schedules, strengths turned round, prompts"""

    bl_idname = "koshi.export_deforum"
    bl_label = "Export Deforum Settings"

    target = "deforum"
    filename_ext = ".txt"
    filter_glob: StringProperty(default="*.txt", options={'HIDDEN'})


class KOSHI_OT_export_parseq(_Converted, bpy.types.Operator):
    """Write the scene as a Parseq document: every value and every move at every frame"""

    bl_idname = "koshi.export_parseq"
    bl_label = "Export Parseq Document"

    target = "parseq"
    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json", options={'HIDDEN'})


def _check_idle() -> None:
    """Raises BridgeError "busy" if a render has begun since the operator was called: it may still be reading the scene,
    and its take would get a strip beside settings that it was not made with."""
    if state.status.busy:
        raise BridgeError(
            "busy", "A Koshi render has begun meanwhile, so nothing was imported.", "Wait for it or cancel it first."
        )


def _own_shot(path: Path) -> dict[str, Any] | None:
    """A file's shot if it holds one; None for a file of another tool."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BridgeError("bad_shot", f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except ValueError:
        return None
    return data if isinstance(data, dict) and data.get("koshi") == 1 else None


def _write_report(path: Path, told: list[str]) -> None:
    """All that somebody should know, as a text in the .blend."""
    text = bpy.data.texts.get(REPORT) or bpy.data.texts.new(REPORT)
    lines = [str(path), ""]
    for line in told:
        lines += [*textwrap.wrap(line, 100, subsequent_indent="    "), ""]
    text.from_string("\n".join(lines))


def _show(told: list[str], title: str) -> None:
    """The first lines of it in the window."""
    if bpy.app.background or bpy.context.window is None:
        return

    def draw(menu: bpy.types.UIPopupMenu, context: bpy.types.Context) -> None:
        for line in told[:SHOWN]:
            menu.layout.label(text=textwrap.shorten(line, 110, placeholder=" …"))
        if len(told) > SHOWN:
            menu.layout.label(text=f"{len(told) - SHOWN} more: see the text “{REPORT}”")

    bpy.context.window_manager.popup_menu(draw, title=title, icon='INFO')


CLASSES = (KOSHI_OT_import_shot, KOSHI_OT_export_shot, KOSHI_OT_export_deforum, KOSHI_OT_export_parseq)


def _draw_import(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.operator("koshi.import_shot", text="Koshi Shot, Deforum, Parseq (.json/.txt)")


def _draw_export(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.operator("koshi.export_shot", text="Koshi Shot (.koshi.json)")
    menu.layout.operator("koshi.export_deforum", text="Deforum Settings (.txt)")
    menu.layout.operator("koshi.export_parseq", text="Parseq Document (.json)")


def register() -> None:
    """Add the operators, and their entries in File > Import and Export."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_draw_import)
    bpy.types.TOPBAR_MT_file_export.append(_draw_export)


def unregister() -> None:
    """Undo `register`."""
    bpy.types.TOPBAR_MT_file_export.remove(_draw_export)
    bpy.types.TOPBAR_MT_file_import.remove(_draw_import)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person meets of the extension in Blender: every panel drawn, icons, menus, polls; with the argument
"messages" also Blender's own check of every text."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, arguments, empty_scene, koshi, result

ICONS = set(bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys())
# Every property that was drawn, and whether with the dot that shows and sets keys.
ANIMATABLE: dict[str, set[bool]] = {}
FIXED: dict[str, set[bool]] = {}
FOLDER = Path(koshi("panels").__file__).parent.parent


class Layout:
    """Takes the place of a UILayout: notes what is drawn, and refuses what Blender would."""

    def __init__(self, drawn: dict[str, list[str]], lined_up: bool = False, dotted: bool = True) -> None:
        self.__dict__.update(drawn=drawn, lined_up=lined_up, dotted=dotted)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in bpy.types.UILayout.bl_rna.properties, name
        if name == "use_property_split":
            self.__dict__["lined_up"] = value
        if name == "use_property_decorate":
            self.__dict__["dotted"] = value

    def part(self) -> Layout:
        """A layout within this one."""
        return Layout(self.drawn, self.lined_up, self.dotted)

    def __getattr__(self, name: str) -> Any:
        function = bpy.types.UILayout.bl_rna.functions.get(name)
        if function is None and name not in ("introspect", "property_search"):
            raise AttributeError(f"a layout has no {name}")

        def draw(*given: Any, **named: Any) -> Any:
            self.check(name, given, named)
            if name == "panel":
                return self.part(), self.part()
            return Operated() if name == "operator" else self.part()

        return draw

    def check(self, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        known = set(bpy.types.UILayout.bl_rna.functions[name].parameters.keys())
        unknown = set(named) - known
        assert not unknown, f"{name}() has no {unknown}"
        if (icon := named.get("icon", 'NONE')) not in ICONS:
            self.drawn["bad icons"].append(icon)
        if name == "prop":
            data, prop = given
            assert prop in data.bl_rna.properties, f"no {prop} in {data}"
            if not self.lined_up and named.get("text") != "":
                self.drawn["not split"].append(prop)
            key = f"{data.bl_rna.identifier}.{prop}"
            animatable = data.id_data is not None and data.bl_rna.properties[prop].is_animatable  # not preferences
            (ANIMATABLE if animatable else FIXED).setdefault(key, set()).add(self.lined_up and self.dotted)
        if name in ("operator", "operator_menu_enum"):
            self.drawn["operators"].append(given[0])
            module, _, function = given[0].partition(".")
            assert function in dir(getattr(bpy.ops, module)), given[0]
        if name == "menu":
            self.drawn["menus"].append(given[0])


class Operated:
    """What `layout.operator` returns: takes the operator's properties."""


def draw_everything() -> dict[str, Any]:
    """Draw all panels, the menu and the preferences with a filled scene."""
    drawn: dict[str, list[str]] = {"bad icons": [], "operators": [], "menus": [], "not split": []}
    classes = [getattr(bpy.types, name) for name in dir(bpy.types) if name.startswith(("KOSHI_PT_", "KOSHI_MT_"))]
    classes = [cls for cls in classes if not hasattr(cls, "preset_subdir")]  # Blender's own: a list of files
    panels = [cls for cls in classes if "_PT_" in cls.__name__]
    for cls in panels:
        if not hasattr(cls, "poll") or cls.poll(bpy.context):
            cls.draw(SimpleNamespace(layout=Layout(drawn)), bpy.context)
    named: dict[str, list[str]] = {"bad icons": drawn["bad icons"], "operators": [], "menus": []}
    twice = []
    for cls in (cls for cls in classes if "_MT_" in cls.__name__):
        shown: dict[str, list[str]] = {"bad icons": drawn["bad icons"], "operators": [], "menus": []}
        cls.draw(SimpleNamespace(layout=Layout(shown)), bpy.context)
        named["operators"] += shown["operators"]
        several = ("koshi.prompt_jump", "koshi.interpolated_strip")  # one entry for each way
        told = [name for name in shown["operators"] if name not in several]
        twice += sorted({name for name in told if told.count(name) > 1})
    for menu in bpy.types.Menu.__subclasses__():
        for function in getattr(getattr(menu, "draw", None), "_draw_funcs", ()):
            if "koshi" in function.__module__:
                function(SimpleNamespace(layout=Layout(named)), bpy.context)
    chosen = bpy.context.preferences.addons[PACKAGE].preferences
    koshi("panels.preferences_draw").draw(Shown(chosen, Layout(drawn)), bpy.context)
    return {
        "panels": len(panels),
        "twice": twice,
        "bad icons": sorted(set(drawn["bad icons"])),
        "not split": sorted(set(drawn["not split"])),
        "buttons": sorted(set(drawn["operators"])),
        "in menus": sorted(set(named["operators"])),
    }


class Shown:
    """The preferences with a layout of ours."""

    def __init__(self, chosen: Any, layout: Layout) -> None:
        self.__dict__.update(chosen=chosen, layout=layout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chosen, name)


def icons_in_code() -> list[str]:
    """Every icon that a call in the extension's code names (also one of two after an `if`), and this Blender lacks."""
    missing = []
    for path in sorted([*FOLDER.glob("panels/*.py"), *FOLDER.glob("operators/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).endswith("invoke_confirm"):
                continue  # a question has icons of its own
            for keyword in node.keywords:
                if keyword.arg != "icon":
                    continue
                texts = [n.value for n in ast.walk(keyword.value) if isinstance(n, ast.Constant)]
                missing += [f"{path.name}: {t}" for t in texts if isinstance(t, str) and t.isupper() and t not in ICONS]
    return missing


def operators() -> dict[str, Any]:
    """Each operator's label and whether it is found by name; and what is said where it cannot run."""
    found: dict[str, Any] = {}
    for name in dir(bpy.ops.koshi):
        operator = getattr(bpy.ops.koshi, name)
        about = operator.get_rna_type()
        cls = getattr(bpy.types, f"KOSHI_OT_{name}")
        found[f"koshi.{name}"] = {
            "label": about.name,
            "tip": about.description,
            "internal": 'INTERNAL' in getattr(cls, "bl_options", ()),
        }
    return found


def refusals() -> list[str]:
    """Operators that cannot run just now and do not say why."""
    silent = []
    for name in dir(bpy.ops.koshi):
        operator = getattr(bpy.ops.koshi, name)
        if operator.poll():
            continue
        try:
            operator('EXEC_DEFAULT')
        except RuntimeError as error:
            if "context is incorrect" in str(error):
                silent.append(name)
    return silent


def refusals_everywhere() -> dict[str, list[str]]:
    """The same with nothing there, with a render under way, and with something of everything."""
    seen = {}
    empty_scene()
    bpy.context.scene.koshi.prompts.clear()
    seen["nothing"] = refusals()
    os.environ["KOSHI_PYTHON"], os.environ["KOSHI_CONNECTION"] = "", str(Path(bpy.app.tempdir, "none.json"))
    running = koshi("operators.start").connect(bpy.context.scene)  # there is no backend: it is busy until it knows
    seen["busy"] = refusals()
    running.cancel()
    running.run()
    assert not koshi("operators.state").status.busy
    bpy.context.scene.sequence_editor_create()
    seen["sequencer"] = refusals()
    bpy.context.preferences.addons[PACKAGE].preferences.use_remote = True
    seen["remote"] = refusals()
    bpy.context.preferences.addons[PACKAGE].preferences.use_remote = False
    return seen


def strip_of(scene: bpy.types.Scene, kind: str) -> Any:
    """A new strip, which is the active one: a take, a picture, or a colour."""
    place = Path(bpy.app.tempdir, "Scene_00000000")
    place.mkdir(exist_ok=True)
    picture = bpy.data.images.new("picture", 8, 8)
    picture.filepath_raw, picture.file_format = str(place / "0001.png"), 'PNG'
    picture.save()
    editor, compat = scene.sequence_editor_create(), koshi("operators.compat")
    if kind == "take":
        about = koshi("operators.strip_about").told({"seed": 42, "prompts": [{"text": "a sea"}]})
        footage = koshi("operators.sequencer").Footage("0" * 64, place, 1, 1, about=about)
        made = compat.all_strips(editor)[koshi("operators.sequencer").show_frame(scene, footage, 0, [])]
    elif kind == "picture":
        made = compat.strips(editor).new_image("picture", picture.filepath_raw, 7, 1)
    else:
        span = {"length": 9} if bpy.app.version >= (5, 0) else {"frame_end": 10}
        made = compat.strips(editor).new_effect(name="color", type='COLOR', channel=9, frame_start=1, **span)
    editor.active_strip = made
    return made


def right_click() -> dict[str, list[str]]:
    """What Koshi adds to the sequencer's right-click menu, by what is the active strip."""
    scene, seen = empty_scene(), {}
    for kind in ("", "color", "picture", "take"):
        if kind:
            strip_of(scene, kind)
        shown: dict[str, list[str]] = {"bad icons": [], "operators": [], "menus": []}
        for function in bpy.types.SEQUENCER_MT_context_menu.draw._draw_funcs:
            if "koshi" in function.__module__:
                function(SimpleNamespace(layout=Layout(shown)), bpy.context)
        seen[kind] = shown["menus"] + shown["operators"]
    return seen


def filled_scene() -> None:
    """Something for each panel to show."""
    scene = empty_scene()
    strip_of(scene, "take")
    settings = scene.koshi
    settings.prompts[0].use_weight = True
    settings.loras.add()
    settings.guided_images.add()
    for name in (
        "motion_source", "video_source", "hybrid_over", "hybrid_composite", "hybrid_mask", "mask_source", "guided_as",
        "noise_mode", "color_mode", "depth_source", "loop",
    ):  # fmt: skip
        for choice in settings.bl_rna.properties[name].enum_items:
            setattr(settings, name, choice.identifier)
            draw_everything()
    settings.motion_source, settings.depth_source = '3D', "files"
    settings.model = 'CUSTOM'


def dots() -> dict[str, list[str]]:
    """Properties without the dot they need, with one they have no use for, and those of Koshi's that no panel has."""
    ours = bpy.context.scene.koshi.bl_rna
    known = {f"{ours.identifier}.{prop.identifier}" for prop in ours.properties if prop.is_animatable}
    return {
        "lacking": sorted(key for key, seen in ANIMATABLE.items() if False in seen),
        "useless": sorted(key for key, seen in FIXED.items() if True in seen),
        "nowhere": sorted(known - {f"{ours.identifier}.rna_type"} - set(ANIMATABLE)),
    }


seen: dict[str, Any] = {"silent": refusals_everywhere(), "right_click": right_click()}
filled_scene()
seen |= {"drawn": draw_everything(), "dots": dots(), "icons": icons_in_code(), "operators": operators()}
keys = bpy.context.window_manager.keyconfigs
seen["keys"] = [
    item.idname
    for configuration in (keys.addon, keys.user) if configuration
    for keymap in configuration.keymaps for item in keymap.keymap_items if item.idname.startswith("koshi.")
]  # fmt: skip
if "messages" in arguments():
    import messages

    seen["messages"] = messages.checked(PACKAGE)
result(seen)

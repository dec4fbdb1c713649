# SPDX-License-Identifier: GPL-3.0-or-later
"""Every text that Blender shows of the extension, as Blender's own tool for translators finds and checks them.

Also a script: prints them as RESULT, for tools/messages.py.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import PACKAGE, koshi, result

# Neither words nor sentences, or what follows in brackets.
ALLOWED = {
    "host:port", "as pip is configured", "for the NVIDIA card, some 3 GB", "for the processor, some 200 MB",
}  # fmt: skip
EXAMPLE = re.compile(r"^\[?\w+[./].*(####|\.png)|^\[\w+\.png\] & ")  # of a file's name, in an empty field
# Blender's texts are in American English, and its own check of spelling is, too.
BRITISH = re.compile(
    r"\b(\w*(colour|centre|grey|favour|behaviour|neighbour|labelled|modell|catalogue|artefact)\w*"
    r"|\w{4,}(isation|ising|ised|ise|yse|ysed)|travell\w+|cancell(ed|ing)|licence)\b",
    re.IGNORECASE,
)
NOT_BRITISH = {
    "exercise", "precise", "otherwise", "noise", "raised", "likewise", "clockwise", "concise", "raise", "praise",
    "denoise", "denoised", "denoising", "promise", "cancelled", "cancelling",
}  # fmt: skip
SMALL = {"a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "of", "on", "or", "the", "to",
         "with"}  # fmt: skip


def _module(name: str) -> Any:
    """A module of Blender's tools for translators (5.0 put an underscore before the name)."""
    try:
        return importlib.import_module(f"_bl_i18n_utils.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"bl_i18n_utils.{name}")


def checked(package: str = PACKAGE) -> dict[str, Any]:
    """All texts with context and places, and what is wrong with them, by the name of the rule."""
    extract, settings = _module("bl_extract_messages"), _module("settings").I18nSettings()
    settings.SOURCE_DIR = os.path.dirname(bpy.utils.system_resource('SCRIPTS'))  # where it looks for key maps
    kept: dict[str, Any] = {}
    report = extract.print_info
    extract.print_info = lambda reports, pot: kept.update(reports)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = extract.dump_addon_messages(package, True, settings)
    finally:
        extract.print_info = report
    folder = Path(koshi("panels").__file__).parent.parent
    pieces = _pieces(folder)
    texts, labels = [], set()
    for (context, text), message in found.msgs.items():
        places = [_place(source, folder) for source in message.sources]
        if not any(places) or text in pieces or not re.search(r"[A-Za-z]{2}", text) or EXAMPLE.search(text):
            continue
        texts.append([context, text, sorted(filter(None, places))[0]])
        if context == "Operator" or all(_is_label(place) for place in places if place):
            labels.add(text)
    keys = {(context, text) for context, text, _ in texts}
    check = kept["check_ctxt"]
    faults = {rule: sorted(text for _, text in keys & set(check[rule]) if text not in ALLOWED)
              for rule in ("not_capitalized", "end_point", "undoc_ops", "multi_lines")}  # fmt: skip
    faults["british"] = sorted(
        f"{word}: {text}" for _, text in keys for word in {m.group(0) for m in BRITISH.finditer(text)}
        if word.lower() not in NOT_BRITISH
    )  # fmt: skip
    faults["title_case"] = sorted(text for text in _rna_names() if not _in_title_case(text))
    faults["double_space"] = sorted(text for _, text in keys if "  " in text)
    return {"texts": sorted(texts, key=lambda one: (one[2], one[0], one[1])), "faults": faults}


def _place(source: str, folder: Path) -> str:
    """Where a text of ours comes from, or nothing if it is Blender's own."""
    source = source.strip()
    if re.match(r"bpy\.types\.(KOSHI|Koshi)", source):
        return source
    found = re.search(r"/koshi/((?:panels|operators)/.*):\d+$", source)
    if found:
        return found.group(1)
    return "blender_manifest.toml" if source.startswith("Add-on Koshi") else ""


def _is_label(place: str) -> bool:
    return place.startswith("bpy.types.KOSHI_PT")


def _rna_names() -> set[str]:
    """The names of properties, of the choices of menus, of operators and of panels."""
    names = set()
    for name in dir(bpy.types):
        if not name.startswith(("KOSHI", "Koshi")):
            continue
        cls = getattr(bpy.types, name)
        names.add(getattr(cls, "bl_label", ""))
        shown = cls.bl_rna
        if "_OT_" in name:
            shown = getattr(bpy.ops.koshi, name.partition("_OT_")[2]).get_rna_type()
        for prop in shown.properties:
            if prop.identifier == "rna_type" or getattr(prop, "is_hidden", False) or prop.name == prop.identifier:
                continue
            if prop.identifier.startswith("bl_") or prop.identifier in bpy.types.Operator.bl_rna.properties:
                continue
            names.add(prop.name)
            if prop.type == 'ENUM' and not shown.identifier.startswith("KOSHI_PT"):
                names |= {item.name for item in prop.enum_items_static}
    return names - {""}


def _in_title_case(name: str) -> bool:
    """Whether a label is written as Blender writes labels."""
    words = re.findall(r"[A-Za-z][\w'.-]*", name)
    # Names have their own capitals: FLUX.1 schnell, Klein 4B.
    if name.startswith("FLUX") or name[0].isdigit():
        return True
    return all(word[0].isupper() or (word.lower() in SMALL and i > 0) for i, word in enumerate(words))


def _pieces(folder: Path) -> set[str]:
    """What remains of texts that are put together of parts, which nobody could translate."""
    found = set()
    for path in [*folder.glob("panels/*.py"), *folder.glob("operators/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    if any(isinstance(part, ast.JoinedStr) for part in ast.walk(value)):
                        found |= {"".join(_constants(part)) for part in ast.walk(value)}
    return found


def _constants(node: ast.AST) -> list[str]:
    """The texts in a piece of code, in their order, as Blender's tool strings them together."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in _constants(child)]


if __name__ == "__main__":
    result(checked())

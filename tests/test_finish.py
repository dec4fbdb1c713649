# SPDX-License-Identifier: GPL-3.0-or-later
"""The native finish: every panel draws, every icon is there, what cannot run says why, F3 finds what there is, the
texts pass Blender's own check, and a new project can be rendered."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, versions

sys.path.insert(0, str(ROOT / "tools"))
import messages

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
CHECKED = versions("4.5")  # texts do not differ by version


@pytest.fixture(scope="session")
def seen(blender: Blender) -> Any:
    """What the script saw in each version; the texts in one."""
    return blender.script("finish", *(["messages"] if blender.version in CHECKED else []))


def test_everything_draws_with_icons_that_are_there(seen: Any) -> None:
    assert seen["drawn"]["panels"] > 20
    assert seen["drawn"]["bad icons"] == []
    assert seen["icons"] == []
    assert seen["drawn"]["not split"] == []  # labels at the left, values at the right, as everywhere in Blender
    assert seen["drawn"]["twice"] == []  # a menu that two people have filled


def test_what_is_animatable_has_its_dot_and_nothing_else(seen: Any) -> None:
    assert seen["dots"] == {"lacking": [], "useless": [], "nowhere": []}


def test_what_cannot_run_says_why(seen: Any) -> None:
    assert {case: silent for case, silent in seen["silent"].items() if silent} == {}


def test_operators_are_found_by_name(seen: Any) -> None:
    """F3 looks through menus: whatever is of use outside of its panel is in one, under a name that says what it is."""
    menus = set(seen["drawn"]["in menus"])
    for name, about in seen["operators"].items():
        assert about["internal"] != (name in menus), f"{name} is to be in the menu Render > Koshi, or INTERNAL"
        if not about["internal"]:
            assert " " in about["label"], f"{name}: {about['label']!r} says too little"
        assert len(about["tip"]) > 15, name


def test_a_strips_menu_has_what_can_be_done_with_it(seen: Any) -> None:
    assert seen["right_click"] == {
        "": [], "color": [], "picture": ["koshi.strip_as_video"], "take": ["KOSHI_MT_strip"],
    }  # fmt: skip


def test_a_log_that_is_not_there_is_told(blender: Blender, tmp_path: Path) -> None:
    press = "import bpy; [print(bpy.ops.koshi.open_log(log=log)) for log in ('SETUP', 'BACKEND', 'BLENDER')]"
    nowhere = {"KOSHI_DATA": str(tmp_path / "data"), "KOSHI_CACHE": str(tmp_path / "cache")}
    said = blender.run("--python-exit-code", 5, "--python-expr", press, **nowhere).stdout
    told = re.findall(r"There is no log yet: (.+)", said)
    assert len({*told}) == said.count("{'CANCELLED'}") == 3, said
    assert all(log.startswith(str(tmp_path)) for log in told)


def test_no_key_is_taken(seen: Any) -> None:
    assert seen["keys"] == []


def test_texts_pass_blenders_check(seen: Any) -> None:
    if "messages" not in seen:
        pytest.skip(f"the texts are checked in Blender {', '.join(CHECKED)}")
    faults = {rule: texts for rule, texts in seen["messages"]["faults"].items() if texts}
    assert faults == {}


BEHIND = 0.04  # a translation may be that far behind the texts; `make messages` lists what it lacks


def test_translations_follow_the_texts(seen: Any) -> None:
    if "messages" not in seen:
        pytest.skip(f"the texts are collected in Blender {', '.join(CHECKED)}")
    texts = [(context, text, place) for context, text, place in seen["messages"]["texts"]]
    assert len(texts) > 500
    folder = ROOT / "panels" / "locale"
    spoken = {path.stem: messages.reader().read_po(path.read_text(encoding="utf-8")) for path in folder.glob("*.po")}
    assert "de_DE" in spoken
    template = (folder / "koshi.pot").read_text(encoding="utf-8")
    assert sum(messages.quoted(text) not in template for _, text, _ in texts) <= BEHIND * len(texts)
    for language, known in spoken.items():
        faults = messages.faults(texts, known)
        assert faults["other form"] == [], language
        for what in ("lacking", "gone"):
            assert len(faults[what]) <= BEHIND * len(texts), (language, what, faults[what])


def test_what_others_say_is_translated_too() -> None:
    """The reader's thread and the set-up's program know no Blender: their words stand again where they are shown."""
    said = re.findall(r'\bput\("stage", "(.+?)"\)', (ROOT / "operators" / "reader.py").read_text(encoding="utf-8"))
    for path in (ROOT / "bridge_server" / "setup").glob("*.py"):
        said += re.findall(r'\btell\("(.+?)"', path.read_text(encoding="utf-8"))
    assert len(said) > 10
    known = messages.reader().read_po((ROOT / "panels" / "locale" / "de_DE.po").read_text(encoding="utf-8"))
    assert [text for text in said if ("*", text) not in known] == []


def test_a_po_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Quotes, line breaks, lines in pieces, contexts; what is empty or marked as fuzzy does not count."""
    texts = [("*", 'a "word"', "x"), ("Operator", "a\nb {}", "y"), ("*", "empty", "z")]
    said = {("*", 'a "word"'): 'ein „Wort“ \\ "so"', ("Operator", "a\nb {}"): "c\nd {}"}
    written = messages.po_text(texts, said, "de_DE")
    read = messages.reader().read_po(
        written + '\n#, fuzzy\nmsgctxt "*"\nmsgid "f"\nmsgstr "g"\n\nmsgid "in "\n"pieces"\nmsgstr ""\n"ja"\n'
    )
    assert read == {**said, ("*", "in pieces"): "ja"}


def test_new_project(blender: Blender, tmp_path: Path) -> None:
    made = blender.script("project", tmp_path / "project.blend")
    for kind, source in (("blocks", "EXACT"), ("empty", "CAMERA")):
        about = made[kind]
        assert (about["size"], about["range"], about["view"]) == ([256, 256], [1, 48], "Standard")
        assert about["source"] == source
        assert {"location", "rotation_euler"} <= set(about["moved"])
        assert [frame for _, frame in about["markers"]] == [frame for frame, _ in about["prompts"]] == [1, 25]
        assert about["sequencer"]
        assert about["lost"] == []  # it is a new file
    assert made["blocks"]["objects"] == ["Camera", "Sun", "Towers", "Water"]
    assert made["empty"]["objects"] == ["Camera"]
    assert (made["blocks"]["workspaces"], made["empty"]["workspaces"]) == (["Koshi"], [])
    assert made["shot"] == {"frames": 48, "width": 256, "prompts": 2, "moves": True}  # what it would send

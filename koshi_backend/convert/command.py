# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi convert` does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import KoshiError
from ..guided_checks import guided_tables
from ..lora.uses import read_uses
from ..mask_words import WORDS, rename_words
from ..outputs import check_folder, write_whole
from ..settings import GUIDE_FILES
from ..shot import Shot, load_shot
from . import deforum, deforum_out, parseq, parseq_out, plain, table
from .dialects import CHANGES, Dialect, detect, named
from .leftover import FILES
from .loose import read_lines, read_loose, read_text
from .report import Report


class Converted(NamedTuple):
    """document: the shot as it is written. shot: the same, checked but for its files, whose names stay relative."""

    document: dict[str, Any]
    shot: Shot
    report: Report


def convert(options: argparse.Namespace) -> dict[str, Any]:
    """Read, write and report. Raises KoshiError("bad_settings") for a file that cannot be read."""
    out: Path | None = options.out
    for file in (out, options.report):
        if file is not None:
            check_folder(file.parent)
    found = read_file(options.file, options.dialect, options.strength_convention, None if options.table else out)
    told = found.report.as_dict()
    document: Any = found.document
    if options.table:
        text = table.as_csv(found.shot)
        document = {"columns": table.columns(found.shot), "rows": table.rows(found.shot)}
    else:
        if options.to != "koshi":
            left = Report("koshi", "it is a shot", CHANGES)
            make = deforum_out.to_settings if options.to == "deforum" else parseq_out.to_manifest
            # Relative file names in the document begin where it would have been written.
            home = options.file.parent if out is None else out.parent
            document = make(found.shot, left, home, out)
            found = _joined(found, left, options.to)
            told = found.report.as_dict()
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, text.encode())
    if options.report is not None:
        found.report.write(options.report)
    if not options.json:
        print(found.report.as_text(), end="", file=sys.stderr)
        if out is None:
            print(text, end="")
    shown = {"table" if options.table else "document": document} if out is None and options.json else {}
    return {"ok": True, **told, "frames": found.shot.frames, "out": None if out is None else str(out), **shown}


def read_file(
    path: Path, dialect: str | None = None, convention: str | None = None, out: Path | None = None
) -> Converted:
    """A file of any tool as a shot. out: where the shot will be written, for its relative file names."""
    data = _table_of(read_text(path), path)
    return read_settings(data, path.parent, dialect, convention, out)


def read_settings(
    data: Mapping[str, Any],
    folder: Path,
    dialect: str | None = None,
    convention: str | None = None,
    out: Path | None = None,
) -> Converted:
    """A table of any tool as a shot. folder: where its relative file names begin."""
    found, decided = detect(data) if dialect is None else (named(dialect), "--dialect says so")
    meaning = found.convention
    if found.name == "schedules":
        meaning, because = plain.convention_of(data)
    report = Report(found.name, decided, convention or meaning)
    if convention is not None:
        report.note(f"The strength convention was given: {convention}. That of {found.title} is {meaning}.")
    elif found.name == "schedules" and {"strength", "strength_schedule", "denoise"} & set(data):
        report.note(f"No tool wrote this file, so the name of the strength decides: {because}.")
    if found.name == "koshi":
        return _koshi(data, report, folder, convention, out)
    document = _document(data, found, report, folder, out)
    return Converted(document, _checked(document), report)


def _document(
    data: Mapping[str, Any], dialect: Dialect, report: Report, folder: Path, out: Path | None
) -> dict[str, Any]:
    if dialect.name == "schedules":
        return plain.to_shot(data, report, folder, out)
    if dialect.name == "parseq":
        settings, names = parseq.as_settings(data, report)
        return deforum.to_shot(settings, dialect, report, folder, out, names)
    return deforum.to_shot(parseq.replace_by_manifest(data, report, folder, dialect), dialect, report, folder, out)


def _koshi(
    data: Mapping[str, Any], report: Report, folder: Path, convention: str | None, out: Path | None
) -> Converted:
    """A shot as it is; keys that Koshi does not know are left out and reported."""
    document = {name: value for name, value in data.items() if name in Shot.model_fields or name == "frame_end"}
    report.unknown += [str(name) for name in data if name not in document]
    if convention is not None:
        document["strength_convention"] = convention
    report.strength_convention = str(document.get("strength_convention", CHANGES))
    _beside(document, folder, out)
    shot = _checked(document)
    report.carried.update({name: name for name in document})
    return Converted(document, shot, report)


def _beside(document: dict[str, Any], folder: Path, out: Path | None) -> None:
    """Relative file names of a shot, as the place that it is written to has to say them."""
    guides = dict(document["guides"]) if isinstance(document.get("guides"), dict) else {}
    for field in FILES if out is not None else ():
        table, name = (guides, field.partition(".")[2]) if "." in field else (document, field)
        if out is not None and table.get(name) is not None:
            table[name] = _moved(table[name], folder, out)
    if guides:
        document["guides"] = guides
    if out is not None and isinstance(masking := document.get("masking"), dict):
        document["masking"] = masking = dict(masking)
        rename_words(masking, lambda name: str(_moved(name, folder, out)))
    if out is not None and (pictures := guided_tables(document)):
        document["guided_images"] = [{**one, "image": _moved(one.get("image"), folder, out)} for one in pictures]
    if out is not None and isinstance(loras := document.get("loras"), list):
        document["loras"] = [
            {**one, "file": _moved(one.get("file"), folder, out)} if isinstance(one, dict) else one for one in loras
        ]


def _moved(file: Any, folder: Path, out: Path) -> Any:
    """A file name that began at `folder`, from where `out` lies."""
    if not isinstance(file, str) or Path(file).expanduser().is_absolute():
        return file
    return os.path.relpath(folder / file, out.parent)


def _checked(document: Mapping[str, Any]) -> Shot:
    """The shot of a document, with the document's own file names, which need not be there yet.

    Raises KoshiError("bad_shot").
    """
    files = {name: document[name] for name in ("init_image", "audio", "color_image") if document.get(name)}
    guides = document.get("guides")
    named = {name: guides[name] for name in GUIDE_FILES if guides.get(name)} if isinstance(guides, dict) else {}
    # Some settings ask for a file: one that is certainly there stands in.
    draft: dict[str, Any] = {name: __file__ if name in files else value for name, value in document.items()}
    pictures = [one.get("image") for one in guided_tables(draft)]
    if pictures:
        draft["guided_images"] = [
            {**one, "image": __file__} if isinstance(one, dict) and isinstance(one.get("image"), str) else one
            for one in draft["guided_images"]
        ]
    if isinstance(masking := document.get("masking"), dict):
        draft["masking"] = dict(masking)
        rename_words(draft["masking"], lambda name: __file__)
    # Whether a model can wear them is seen when it is known.
    loras = draft.pop("loras", None)
    if isinstance(guides, dict):
        # Vectors are never asked for.
        draft["guides"] = {**guides, **dict.fromkeys(named, __file__), "vector": None}
    shot = load_shot(draft)
    images = [one.model_copy(update={"image": name}) for one, name in zip(shot.guided_images, pictures, strict=True)]
    guided: dict[str, Any] = {"guided_images": images}
    if isinstance(masking, dict) and (words := {name: masking[name] for name in WORDS if masking.get(name)}):
        guided["masking"] = shot.masking.model_copy(update=words)
    if loras:
        guided["loras"] = read_uses(loras, draft)
    return shot.model_copy(update={**files, **guided, "guides": shot.guides.model_copy(update=named)})


def _table_of(text: str, path: Path) -> dict[str, Any]:
    """The one table that a file holds. Raises KoshiError("bad_settings")."""
    if not text.strip():
        raise KoshiError("bad_settings", f"{path} is empty.")
    try:
        data = read_loose(text)
    except KoshiError as error:
        if text.lstrip().startswith(("{", "[")):
            raise KoshiError("bad_settings", f"{path}: {error.message}", error.hint) from error
        lines = read_lines(text)
        if not lines.table:
            hint = "Give a settings file, a Parseq document, a shot, or lines such as zoom: 0:(1.0), 30:(1.02)."
            raise KoshiError("bad_settings", f"{path} holds no settings.", hint) from error
        data = lines.table
    for wrapper in ("deforum_settings", "settings"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), (dict, list)):
            data = data[wrapper]
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if isinstance(data, list) and data:
        raise KoshiError("bad_settings", f"{path} holds {len(data)} settings.", "Convert them one at a time.")
    if not isinstance(data, dict) or not data:
        raise KoshiError("bad_settings", f"{path} holds no settings, but {type(data).__name__}.")
    return _without_graph(data)


def _without_graph(data: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a ComfyUI prompt's nodes as one table."""
    nodes = [node for node in data.values() if isinstance(node, dict) and "class_type" in node]
    if not nodes or len(nodes) < len(data) / 2:
        if isinstance(data.get("nodes"), list) and "links" in data:
            hint = "In ComfyUI save it in the API format."
            raise KoshiError("bad_settings", "A ComfyUI workflow does not name its settings.", hint)
        return data
    table: dict[str, Any] = {"class_type": "ComfyUI"}
    for node in nodes:
        inputs = node.get("inputs")
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if not isinstance(value, list):  # a list is a wire from another node
                table.setdefault(name, value)
    return table


def _joined(found: Converted, left: Report, target: str) -> Converted:
    """One report of the way in and the way out."""
    report = found.report
    if report.dialect == "koshi":
        report.carried = left.carried
    report.not_carried += [{**entry, "why": f"to {target}: {entry['why']}"} for entry in left.not_carried]
    for note in left.notes:
        report.note(note)
    return found

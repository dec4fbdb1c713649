# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi models verify` says of a model's files: every tensor against the networks, every file's checksum."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import KoshiError, problem
from .checkpoint import Part, tensors_of, weight_files
from .checkpoint_contents import FAMILY_NAMES
from .family import check_channels, open_text
from .hub_cache import Known
from .installed import installed_files
from .loader import OpenedTransformer, open_autoencoder, open_transformer
from .parts import ModelFiles, folder_files, part_of, single_files
from .pull import recorded
from .pull_plan import matches
from .registry import MODELS, ModelInfo, Traits, find_model, find_traits


def check_files(name: str) -> dict[str, Any]:
    """Find a model's parts, and compare names, shapes and types of all their tensors with the networks.

    Reads headers only, no weights, and downloads nothing.
    Returns {"ok", "model", "family", "taken_for", "parts": [{"part", "path", "tensors", "parameters", "bytes",
    "types"}], "problems"}; types: how many tensors are stored in which.
    Raises KoshiError as `find_model` does for a name that leads to no model.
    """
    return _checked(name)[0]


def verify_files(name: str, tell: Callable[[str, int, int], None] = lambda file, done, total: None) -> dict[str, Any]:
    """The same, and read every file whose checksum is known from the hub.

    tell: the file that is being read, bytes that are done and to do.
    Returns what `check_files` does with "checksums": {"right", "wrong", "unknown"}, each a list of files; unknown:
    weights of which the hub has told nothing.
    """
    report, files = _checked(name)
    found = find_model(name)
    known = recorded(found) if isinstance(found, ModelInfo) else {}
    folder = files.name if files is not None and files.name.is_dir() else files.name.parent if files else None
    sums: dict[str, list[str]] = {"right": [], "wrong": [], "unknown": []}
    report["checksums"] = sums
    if files is None or folder is None:
        return report
    read = {one: folder / one for one in known if (folder / one).is_file()}
    total, done = sum(file.stat().st_size for file in read.values()), 0
    for one, file in read.items():
        tell(one, done, total)
        sums["right" if _matches(file, known[one]) else "wrong"].append(one)
        done += file.stat().st_size
    # Of a listing that the hub's own client has left, most was never wanted: only a folder that is here lacks files.
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    gone = [one for one in known if one.endswith(".safetensors") and one.split("/")[0] in there and one not in read]
    sums["unknown"] = sorted({str(file) for file in _weights(files)} - {str(file) for file in read.values()})
    report["problems"] += [
        problem(one, "its checksum is not the hub's: it is damaged.", f"koshi models pull {name} --repair")
        for one in sums["wrong"]
    ]
    report["problems"] += [problem(one, "this file is gone.", f"koshi models pull {name}") for one in gone]
    report["ok"] = not report["problems"]
    return report


def _matches(file: Path, known: Known) -> bool:
    try:
        return matches(file, known)
    except OSError:  # cannot be read
        return False


def _weights(files: ModelFiles) -> Iterator[Path]:
    for path in (files.transformer, files.autoencoder, *files.texts.values(), *filter(None, [files.decoder])):
        try:
            yield from weight_files(path)
        except KoshiError:
            continue  # has been said


def _checked(name: str) -> tuple[dict[str, Any], ModelFiles | None]:
    found, traits = find_model(name), find_traits(name)
    report: dict[str, Any] = {
        "ok": False, "model": name, "family": FAMILY_NAMES[traits.family], "taken_for": kind_of(traits), "parts": [],
        "problems": [],
    }  # fmt: skip
    files = None
    with _noted(report):
        files = _gather(found, traits, report)
    report["ok"] = not report["problems"]
    return report, files


@contextmanager
def _noted(report: dict[str, Any]) -> Iterator[None]:
    """One part's faults must not hide those of the next."""
    try:
        yield
    except KoshiError as error:
        report["problems"] += error.problems or [problem("files", error.message, error.hint)]


def _gather(found: ModelInfo | Path, traits: Traits, report: dict[str, Any]) -> ModelFiles | None:
    transformer: OpenedTransformer | None = None
    if isinstance(found, Path):
        # The transformer first: should other parts not be found, it is known to be sound.
        transformer = _transformer(found / "transformer" if found.is_dir() else found, report)
        if transformer is None and found.is_file():
            return None  # which other parts would go with it is told by its tensors
        files = folder_files(found, traits) if found.is_dir() else single_files(found, traits)
    else:
        there = installed_files(found)
        if there is None:
            raise KoshiError("not_installed", f"{found.title} is not installed.", f"koshi models pull {found.name}")
        files = there
        transformer = _transformer(files.transformer, report)
    with _noted(report):
        autoencoder = open_autoencoder(files.autoencoder, files.decoder)
        if transformer is not None:
            check_channels(files, transformer.net.config.channels, autoencoder.net.config.channels)
        _add(report, "vae", files.autoencoder, "autoencoder")
        if files.decoder:
            _add(report, "decoder", files.decoder, "autoencoder")
    with _noted(report):
        if transformer is not None:
            open_text(files, torch.device("cpu"), torch.bfloat16, transformer.net)
        for part, path in files.texts.items():
            _add(report, part, path, part_of(traits.family, part))
    nothing = {"tensors": 0, "parameters": 0, "bytes": 0, "types": {}}
    report["parts"].append({"part": "tokenizer", "path": str(files.settings), **nothing})
    return files


def _transformer(path: Path, report: dict[str, Any]) -> OpenedTransformer | None:
    opened: OpenedTransformer | None = None
    with _noted(report):
        opened = open_transformer(path)
        _add(report, "transformer", path, "transformer")
    return opened


def _add(report: dict[str, Any], name: str, path: Path, part: Part) -> None:
    report["parts"].append({"part": name, "path": str(path), **stored_facts(path, part)})


def stored_facts(path: Path, part: Part) -> dict[str, Any]:
    """{"tensors", "parameters", "bytes", "types"} of a part's files, from their headers."""
    tensors = tensors_of(path, part).values()
    return {
        "tensors": len(tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "bytes": sum(tensor.end - tensor.begin for tensor in tensors),
        "types": dict(Counter(tensor.kind for tensor in tensors)),
    }


def kind_of(traits: Traits) -> str:
    """The first model in the registry that can do the same."""

    def does(other: Traits) -> tuple[Any, ...]:
        return other.family, other.references, other.contrasted, other.embeds, other.cached

    return next(info.title for info in MODELS.values() if info.repository and does(info.traits) == does(traits))


def as_text(report: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{report['model']}: {report['family']}, run like {report['taken_for']}"]
    lines += [
        f"  {part['part']:15} {part['parameters'] / 1e6:8.1f} million in {part['tensors']:4} tensors "
        f"({', '.join(part['types'])})  {part['path']}"
        if part["tensors"]
        else f"  {part['part']:15} {'':35} {part['path']}"
        for part in report["parts"]
    ]
    if sums := report.get("checksums"):
        lines.append(f"  checksums: {len(sums['right'])} right, {len(sums['wrong'])} wrong")
        lines += [f"  no checksum is known of {file}" for file in sums["unknown"]]
    lines += [f"  {fault['field']}: {fault['message']} {fault['hint']}".rstrip() for fault in report["problems"]]
    return "\n".join([*lines, "  everything fits" if report["ok"] else "  cannot be used as it is"])

# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi models --check` says of a model's files, from their headers alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import KoshiError, problem
from .checkpoint import Part, tensors_of
from .checkpoint_contents import FAMILY_NAMES
from .family import check_channels
from .loader import open_autoencoder, open_transformer
from .parts import folder_files, part_of, single_files
from .pool import installed_files
from .registry import MODELS, ModelInfo, Traits, find_model, find_traits


def check_files(name: str) -> dict[str, Any]:
    """Find a model's parts, and compare the names and shapes of transformer and autoencoder with the networks.

    Reads no weights and downloads nothing. Text encoders are found and counted; they are compared when they are loaded.
    Returns {"ok", "model", "family", "taken_for", "parts": [{"part", "path", "tensors", "parameters"}], "problems"}.
    Raises KoshiError as `find_model` does for a name that leads to no model.
    """
    found, traits = find_model(name), find_traits(name)
    report: dict[str, Any] = {
        "ok": False, "model": name, "family": FAMILY_NAMES[traits.family], "taken_for": _kind(traits), "parts": [],
        "problems": [],
    }  # fmt: skip
    try:
        _gather(found, traits, report)
    except KoshiError as error:
        report["problems"] = error.problems or [problem("files", error.message, error.hint)]
    report["ok"] = not report["problems"]
    return report


def _gather(found: ModelInfo | Path, traits: Traits, report: dict[str, Any]) -> None:
    if isinstance(found, Path):
        # The transformer first: should other parts not be found, it is known to be sound.
        transformer = open_transformer(found / "transformer" if found.is_dir() else found)
        files = None
    else:
        files = installed_files(found)
        if files is None:
            raise KoshiError(
                "not_installed", f"{found.title} is not installed.", "It is fetched when it is first used."
            )
        transformer = open_transformer(files.transformer)
    _add(report, "transformer", transformer.files.path, "transformer")
    if files is None:
        assert isinstance(found, Path)
        files = folder_files(found, traits) if found.is_dir() else single_files(found, traits)
    autoencoder = open_autoencoder(files.autoencoder, files.decoder)
    check_channels(files, transformer.net.config.channels, autoencoder.net.config.channels)
    _add(report, "vae", files.autoencoder, "autoencoder")
    if files.decoder:
        _add(report, "decoder", files.decoder, "autoencoder")
    for part, path in files.texts.items():
        _add(report, part, path, part_of(traits.family, part))
    report["parts"].append({"part": "tokenizer", "path": str(files.settings), "tensors": 0, "parameters": 0})


def _add(report: dict[str, Any], name: str, path: Path, part: Part) -> None:
    tensors = tensors_of(path, part).values()
    count = sum(math.prod(tensor.shape) for tensor in tensors)
    report["parts"].append({"part": name, "path": str(path), "tensors": len(tensors), "parameters": count})


def _kind(traits: Traits) -> str:
    """The first model in the registry that can do the same."""

    def does(other: Traits) -> tuple[Any, ...]:
        return other.family, other.references, other.contrasted, other.embeds, other.cached

    return next(info.title for info in MODELS.values() if info.repository and does(info.traits) == does(traits))


def as_text(report: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{report['model']}: {report['family']}, run like {report['taken_for']}"]
    lines += [
        f"  {part['part']:15} {part['parameters'] / 1e6:8.1f} million in {part['tensors']:4} tensors  {part['path']}"
        if part["tensors"]
        else f"  {part['part']:15} {'':35} {part['path']}"
        for part in report["parts"]
    ]
    lines += [f"  {fault['field']}: {fault['message']} {fault['hint']}".rstrip() for fault in report["problems"]]
    return "\n".join([*lines, "  everything fits" if report["ok"] else "  cannot be used as it is"])

# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi models` says: the models known by name, which are installed, and which is used when nobody chooses."""

from __future__ import annotations

from typing import Any

from .hub_cache import bytes_of, held_bytes
from .installed import installed_folder
from .registry import MODELS


def list_models() -> dict[str, Any]:
    """Every known model with its folder (None: not installed) and bytes on disk. Nothing is downloaded or loaded.

    partial: bytes of a model that is not whole, since a pull was broken off.
    """
    listed = []
    for info in MODELS.values():
        folder = installed_folder(info.name)
        listed.append(
            {
                "name": info.name,
                "title": info.title,
                "licence": info.licence,
                "gated": info.gated,
                "embedded": not info.repository,
                "repository": info.repository or None,
                "file": info.file or None,
                "download_gb": info.download_gb,
                "memory_gb": info.memory_gb,
                "steps": info.traits.steps,
                "guidance": info.traits.guidance,
                "strength": info.traits.strength,
                "side": info.traits.side,
                "references": info.traits.references,
                "installed": None if folder is None else str(folder),
                "bytes": None if folder is None else bytes_of(folder.rglob("*")),
                "partial": held_bytes(info.repository) if folder is None else 0,
                "card": str(folder / "README.md") if folder and (folder / "README.md").is_file() else None,
            }
        )
    default = next(model["name"] for model in listed if model["embedded"])
    return {"ok": True, "default": default, "models": listed}


def as_text(report: dict[str, Any]) -> str:
    """The same for a person: a line a model."""
    lines = []
    for model in report["models"]:
        if model["embedded"]:
            place = f"embedded, {model['bytes'] / 1e6:.0f} MB"
        elif model["installed"]:
            place = f"installed, {model['bytes'] / 1e9:.1f} GB"
        else:
            place = f"not installed, {model['download_gb']:.0f} GB" + (", gated" if model["gated"] else "")
            if model["partial"]:
                place = f"{model['partial'] / 1e9:.1f} of {model['download_gb']:.0f} GB here: pull goes on from there"
        default = "  (default)" if model["name"] == report["default"] else ""
        lines.append(
            f"{model['name']:23} {model['steps']} steps, best at {model['side']} x {model['side']}, "
            f"{model['memory_gb']:.3g} GB in memory, {model['licence']}; {place}{default}"
        )
    return "\n".join(lines)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the Hugging Face cache is, and what of a model's repository is in it. Standard library only; asks no network.

The layout is the hub's own (huggingface_hub's guide "Understand caching"): `models--OWNER--NAME` with `refs/main`,
which names a commit, `snapshots/COMMIT`, the files by their names, and `blobs`, the files by their hash.
Beside them Koshi writes what it has pulled, with the checksums that the hub gave.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

RECORD = "koshi-pull.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Known(NamedTuple):
    """What the hub says of a file. size: in bytes. sha256: of its bytes, or "" where only git's hash, blob, is told."""

    size: int
    sha256: str = ""
    blob: str = ""


def hub_folder() -> Path:
    """HF_HUB_CACHE, else `hub` in HF_HOME, else where the hub's client keeps its cache on this system.

    Where that client is loaded, what it has read when it was counts.
    """
    if (client := sys.modules.get("huggingface_hub.constants")) is not None:
        return Path(str(client.HF_HUB_CACHE))
    home = os.getenv("HF_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    chosen = os.getenv("HF_HUB_CACHE", os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(chosen)))


def repository_folder(repository: str, hub: Path | None = None) -> Path:
    """Where the cache keeps a model's repository, whether or not it does."""
    return (hub or hub_folder()) / "--".join(["models", *repository.split("/")])


def snapshot_folder(repository: str, hub: Path | None = None) -> Path | None:
    """The folder with the files that were fetched last, which may be only some of them; None if there is none."""
    place = repository_folder(repository, hub)
    try:
        commit = (place / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = place / "snapshots" / commit
    return folder if _COMMIT.fullmatch(commit) and folder.is_dir() else None


def held_bytes(repository: str, hub: Path | None = None) -> int:
    """Bytes of a model's files that are here, whole or not: in blobs, or where there are no links under their names."""
    place = repository_folder(repository, hub)
    held = (file for part in ("blobs", "snapshots") for file in place.glob(f"{part}/**/*"))
    return bytes_of(file for file in held if not file.is_symlink())


def bytes_of(files: Iterable[Path]) -> int:
    """Bytes of files; those that go meanwhile, as a pull moves them, count as none."""
    whole = 0
    for file in files:
        with contextlib.suppress(OSError):
            whole += file.stat().st_size if file.is_file() else 0
    return whole


def read_record(snapshot: Path) -> dict[str, Known]:
    """What the hub said of a snapshot's files, by their paths in it, as far as that is known.

    From Koshi's own record, else from the listing that the hub's client keeps, else from the hashes that are the names
    of the files that a snapshot links to.
    """
    place = snapshot.parent.parent
    files = _table(place / RECORD, snapshot.name)
    if files is None:
        listing = _table(place / "trees" / f"{snapshot.name}.json", None) or {}
        files = {
            name: {"size": facts.get("size"), "sha256": facts.get("lfs_sha256", ""), "blob": facts.get("blob_id", "")}
            for name, facts in listing.items()
            if isinstance(facts, dict)
        }
    known = {}
    for name, facts in files.items():
        if isinstance(facts, dict) and type(facts.get("size")) is int:
            known[name] = Known(facts["size"], str(facts.get("sha256") or ""), str(facts.get("blob") or ""))
    for file in snapshot.rglob("*"):
        name = file.relative_to(snapshot).as_posix()
        if name in known or not file.is_symlink():
            continue
        blob = Path(os.readlink(file)).name
        if re.fullmatch(r"[0-9a-f]{64}", blob):
            known[name] = Known(-1, sha256=blob)
        elif _COMMIT.fullmatch(blob):
            known[name] = Known(-1, blob=blob)
    return known


def _table(file: Path, commit: str | None) -> dict[str, Any] | None:
    """The files of a record of this commit; None if there is none, or one that makes no sense."""
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        if commit is not None and written["commit"] != commit:
            return None
        files = written["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if isinstance(files, dict) else None

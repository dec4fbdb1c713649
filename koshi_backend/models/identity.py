# SPDX-License-Identifier: GPL-3.0-or-later
"""Which model is this? A hash of the weights' bytes, remembered by path, size and time of change.

Frames in the store carry it in their key, so that a replaced or retrained model never serves old pictures.
Standard library only: known frames are served without loading torch's models.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import KoshiError
from ..paths import cache_folder
from .parts import ModelFiles, folder_files

log = logging.getLogger(__name__)

_WEIGHED = (".safetensors", ".gguf", ".json", ".jinja", ".txt")


def model_identity(files: ModelFiles | Path, quantise: str = "none") -> str:
    """SHA-256 over the names and contents of a model's files; a folder in diffusers layout will do.

    quantise: what the weights are made while they are loaded (quantise.py): another model, as far as pictures go.
    Files whose path, size and modification time are known from before are not read again (a 16 GB model takes some
    10 s to hash). Raises KoshiError("bad_model_file") for unreadable files.
    """
    files = folder_files(files) if isinstance(files, Path) else files
    whole = _weighed(files)
    if whole is None:
        raise KoshiError("bad_model", f"The folder {files.name} holds no model.", "Check the path.")
    if files.traits.cached:  # weights do not tell it
        whole.update(b"cached")
    if quantise != "none":
        whole.update(f"quantised:{quantise}".encode())
    return whole.hexdigest()


def text_identity(files: ModelFiles | Path) -> str:
    """The same of a model's text encoders alone: weights and configuration. Raises KoshiError as `model_identity`."""
    files = folder_files(files) if isinstance(files, Path) else files
    whole = _weighed(files, "text_encoder")
    if whole is None:
        raise KoshiError("bad_model", f"{files.name} has no text encoder.", "Check the path.")
    return whole.hexdigest()


def _weighed(files: ModelFiles, begin: str = "") -> hashlib._Hash | None:
    """Of the files whose names begin so; None where there are none."""
    known = _read_cache()
    whole, changed = hashlib.sha256(), False
    named = ((name, file) for name, file in files.listed() if name.startswith(begin))
    listed = [(name, file) for name, file in named if file.suffix.lower() in _WEIGHED]
    for name, file in sorted(listed, key=lambda one: one[0].split("/")):
        try:
            stat = file.stat()
            stamp = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
            if stamp not in known:
                with file.open("rb") as stream:
                    known[stamp] = hashlib.file_digest(stream, "sha256").hexdigest()
                changed = True
        except OSError as error:
            raise KoshiError("bad_model_file", f"The model file {file} cannot be read: {error.strerror}.") from error
        whole.update(f"{name}:{known[stamp]}\n".encode())
    if changed:
        _write_cache(known)
    return whole if listed else None


def remember(hashes: Mapping[Path, str]) -> None:
    """Note the SHA-256 of files that were read for another reason: they need not be read again to be known."""
    known = _read_cache()
    for file, sha256 in hashes.items():
        stat = file.stat()
        known[f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"] = sha256
    _write_cache(known)


def _cache_file() -> Path:
    return cache_folder() / "model_hashes.json"


def _read_cache() -> dict[str, str]:
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _write_cache(known: dict[str, str]) -> None:
    """Losing the cache only costs time, so a folder that cannot be written is no error."""
    try:
        _cache_file().parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=_cache_file().parent, prefix=".part-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=1)
            os.replace(aside, _cache_file())
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.info("model hashes were not remembered: %s", error)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for results: refused before any work if they are unfit, and written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from .errors import KoshiError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def check_file(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a path that cannot become a file of one of these kinds. Raises KoshiError("bad_output")."""
    if path.suffix.lower() not in suffixes:
        raise KoshiError("bad_output", f"{str(path)!r} has no known kind.", f"Let it end in {', '.join(suffixes)}.")
    if "\0" in str(path):
        raise KoshiError("bad_output", f"{str(path)!r} is no path.", "Name a file.")
    if _is_dir(path):
        raise KoshiError("bad_output", f"{path} is a folder.", "Name a file.")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Refuse a path that neither is a folder nor can become one. Raises KoshiError("bad_output")."""
    home = path.absolute()
    try:
        while not home.exists() and home != home.parent:
            home = home.parent
        fit = home.is_dir() and os.access(home, os.W_OK | os.X_OK)
    except (OSError, ValueError):  # too long, or with a NUL
        fit = False
    if not fit:
        raise KoshiError("bad_output", f"{path} is no folder that can be written to.", "Choose another folder.")


def write_whole(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write `content`, or let it write, a file beside `path`, then rename it into place.

    Raises KoshiError("bad_output") with the system's reason; an older file stays what it was.
    """
    mark = hashlib.sha256(path.name.encode()).hexdigest()[:12]
    aside = path.with_name(f".part-{os.getpid()}-{mark}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            content(aside)
        os.replace(aside, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KoshiError("bad_output", f"{path} cannot be written: {reason}.", "Choose another place.") from error
    finally:
        try:
            aside.unlink(missing_ok=True)
        except OSError:  # the folder is not there or not ours; then the file is not there either
            pass


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Koshi keeps things on this computer. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """KOSHI_CACHE, else the user's cache folder as the platform names it, with /koshi. Not created here."""
    if set_by_user := os.environ.get("KOSHI_CACHE"):
        return Path(set_by_user).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "koshi"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "koshi"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koshi"


def store_folder() -> Path:
    """KOSHI_STORE, else `frames` in the cache folder."""
    if set_by_user := os.environ.get("KOSHI_STORE"):
        return Path(set_by_user).expanduser()
    return cache_folder() / "frames"


def prompts_folder() -> Path:
    """Where encoded prompts are kept: `prompts` within the store's folder."""
    return store_folder() / "prompts"

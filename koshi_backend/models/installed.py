# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the models known by name are on this computer. Standard library only: Blender's menu asks it, too."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import KoshiError
from .parts import ModelFiles, folder_files, single_files, snapshot
from .registry import MODELS, PARTS, ModelInfo, is_whole

log = logging.getLogger(__name__)


def installed_folder(name: str) -> Path | None:
    """The folder of a named model's files if they are all there; looks nowhere but on this machine."""
    files = installed_files(MODELS[name])
    return None if files is None else files.name if files.name.is_dir() else files.name.parent


def installed_files(info: ModelInfo) -> ModelFiles | None:
    """A named model's files: its diffusers folders where they are whole, else its single file and what goes with it."""
    folder = snapshot(info)
    if folder is None:
        return None
    if is_whole(folder, PARTS[info.traits.family]):
        return folder_files(folder, info.traits)
    try:
        return single_files(folder / info.file, info.traits) if (folder / info.file).is_file() else None
    except KoshiError as error:
        log.info("%s is there without all of its parts: %s", info.title, error)
        return None

# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a frame, from a name with #### in it. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path

_MARKS = re.compile(r"#+")


def frame_file(pattern: str, number: int) -> Path:
    """The file of frame `number`: the last row of # in the name stands for it, padded with zeros as Blender does.

    A name without # is one file for all frames.
    """
    path = Path(pattern).expanduser()
    found = list(_MARKS.finditer(path.name))
    if not found:
        return path
    start, end = found[-1].span()
    return path.with_name(f"{path.name[:start]}{number:0{end - start}d}{path.name[end:]}")

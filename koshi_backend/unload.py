# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving memory back while there is nothing to paint: to Blender's own render, say."""

from __future__ import annotations

from .models import pool
from .motion import raft, rife


def unload() -> int:
    """Let go of all networks that are loaded; the next picture loads its own again. Returns how many models that were.

    What a process has of a card without any model (some 400 MB of CUDA) stays until the process ends.
    """
    raft.forget()
    rife.forget()
    return pool.unload()

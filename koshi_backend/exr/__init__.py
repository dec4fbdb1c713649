# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenEXR files, as Blender writes them: depth, motion vectors and colours, in full precision."""

from .passes import exr_pass
from .reader import content_hash, read_exr

__all__ = ["content_hash", "exr_pass", "read_exr"]

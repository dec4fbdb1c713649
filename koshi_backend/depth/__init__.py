# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth of a picture: given as a file, estimated by a model, guessed from a latent, or a plane.

Light to import: the model's libraries are loaded when one is.
"""

from .files import GreyScale, read_depth
from .groups import GROUP_WEIGHTS, group_nearness
from .maps import FAR, DepthMap, plane, resize_depth
from .stabilise import Alignment, align, carry_depth, first_alignment

__all__ = [
    "FAR",
    "GROUP_WEIGHTS",
    "Alignment",
    "DepthMap",
    "GreyScale",
    "align",
    "carry_depth",
    "first_alignment",
    "group_nearness",
    "plane",
    "read_depth",
    "resize_depth",
]

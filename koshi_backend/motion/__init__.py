# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: every kind of it makes a MotionField, and one resampler follows it."""

from .deforum import deforum_matrix, flat_push
from .field import MotionField
from .resample import resample

__all__ = ["MotionField", "deforum_matrix", "flat_push", "resample"]

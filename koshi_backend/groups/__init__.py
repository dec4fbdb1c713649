# SPDX-License-Identifier: GPL-3.0-or-later
"""What channel groups carry: the founding hypothesis of `koshi groups`, put to the test on a model's own pictures.

The hypothesis: FLUX.2's 128 packed channels are eight groups of 16 that mean structure, layout, palette, light,
texture, detail, semantic content and transitions, and weighting them imitates depth.
"""

from .measure import Groups, Sample, draw_sample, measure_groups
from .moves import Moves, measure_moves
from .report import as_json, table
from .sheet import draw_sheet
from .verdict import Verdict, judge

__all__ = [
    "Groups",
    "Moves",
    "Sample",
    "Verdict",
    "as_json",
    "draw_sample",
    "draw_sheet",
    "judge",
    "measure_groups",
    "measure_moves",
    "table",
]

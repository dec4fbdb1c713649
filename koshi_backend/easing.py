# SPDX-License-Identifier: GPL-3.0-or-later
"""How one prompt goes over into the next. Standard library only: Blender imports this module."""

from __future__ import annotations

import math
from collections.abc import Callable

LEAST = 1e-6  # a share below this is none


def _logistic(share: float) -> float:
    """The S-curve of deforum-studio, 1 / (1 + e^-8(x - 1/2)), stretched to begin at 0 and to end at 1."""
    low = 1.0 / (1.0 + math.exp(4.0))
    return (1.0 / (1.0 + math.exp(-8.0 * (share - 0.5))) - low) / (1.0 - 2.0 * low)


# How much of the next prompt there is at a part of the way to it. All but hold rise from 0 to 1.
EASINGS: dict[str, Callable[[float], float]] = {
    "hold": lambda share: 0.0,
    "linear": lambda share: share,
    "ease_in": lambda share: share * share,
    "ease_out": lambda share: share * (2.0 - share),
    "ease_in_out": lambda share: share * share * (3.0 - 2.0 * share),
    "sigmoid": _logistic,
}

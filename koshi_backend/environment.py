# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the process that must be made before torch is loaded. Standard library only."""

from __future__ import annotations

import ctypes
import os
import sys

# From glibc's malloc.h. 32 MiB is the most that it takes for the first.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 32 << 20), (-1, 1 << 30)


def prepare() -> None:
    """Let idle OpenMP threads sleep instead of spin, and let memory that was freed be used again.

    Beside one other busy process on two cores, moving a 256 x 256 picture takes 35 ms instead of 118 to 980 ms;
    Blender is such a process. What the user has set stands.
    Pictures of some megabytes are given back to the system by default, and fresh pages cost 2 microseconds each: with
    them kept, following a camera at 1024 x 1024 takes 62 and 65 ms instead of 75 and 93 (benchmarks/motion.py).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (AttributeError, OSError):  # another C library than glibc
            return
        for name, value in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(name, value)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of double precision, on every device."""

from __future__ import annotations

from torch import Tensor


def doubled(values: Tensor) -> Tensor:
    """In float64: on the device, or on the processor where the device has no such type, as Apple's have not."""
    return (values.cpu() if values.device.type == "mps" else values).double()

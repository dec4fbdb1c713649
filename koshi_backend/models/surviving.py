# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done when memory runs out: let go, and once more with less of the model on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .model import FluxModel
from .shortage import OutOfMemory, out_of_memory_explained, release

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def surviving(model: FluxModel, doing: str, work: Callable[[], _T]) -> _T:
    """Do something with a model. Where memory runs out: release, and once more at the next policy of offloading.

    doing: what is done, as it reads after "while". The work is begun anew: what it has changed by then must not matter.
    Raises OutOfMemory if that does not help. The model stays at that policy. Where it is the computer's memory that ran
    out beside a card's, the policy stays as it is: the next one would take more of that.
    Work may hold work that survives by itself. What that has tried in vain is not tried again around it.
    """
    first: OutOfMemory
    try:
        with out_of_memory_explained(doing, model.device, model.policy):
            return work()
    except OutOfMemory as error:
        first = error.with_traceback(None)
    return once_more(model, doing, work, first)


def once_more(model: FluxModel, doing: str, work: Callable[[], _T], first: OutOfMemory) -> _T:
    """What `surviving` does after the first try, which has ended with `first`."""
    if first.final:
        raise first
    log.warning("%s", first.message)
    model.release()
    release(model.device)
    if model.placement is None or not model.placement.sound:
        raise _final(first)
    try:
        if first.device.type == model.device.type:
            with out_of_memory_explained("moving the model off the device", model.device, model.placement.policy):
                model.placement.lower()
            release(model.device)
        log.warning("it is tried once more, with offload %s", model.policy)
        with out_of_memory_explained(doing, model.device, model.policy):
            return work()
    except OutOfMemory as error:
        raise _final(error) from None


def _final(error: OutOfMemory) -> OutOfMemory:
    error.final = True
    return error

# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that has run out: how much there was, who says so, and what a person is told."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import KoshiError

log = logging.getLogger(__name__)

_GIB = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# How libraries say it that have no error of their own for it.
_SAID = re.compile(
    r"out of memory|DefaultCPUAllocator|(CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED|Insufficient memory", re.IGNORECASE
)
_SAID_OFF_THE_CARD = re.compile(r"DefaultCPUAllocator|Insufficient memory", re.IGNORECASE)  # the second is OpenCV's
_COMMIT_LIMIT = 1455  # Windows: "the paging file is too small for this operation to complete"; no errno stands for it
_limits: dict[torch.device, int] = {}  # bytes of cards that this process may take, where that is not all


class OutOfMemory(KoshiError):
    """Memory ran out.

    device: whose memory that was; "cpu" for the computer's own, also where a card computes.
    asked: bytes that were asked for last, None if nobody says. free, total: bytes that the device had, None likewise.
    policy: of offloading ("none", "model", "block"), under which it happened. remedies: three things to do.
    final: whether it is not to be tried again: that has been done with less of the model there, or is of no use.
    """

    def __init__(self, doing: str, device: torch.device, asked: int | None = None, policy: str = "none") -> None:
        self.doing, self.device, self.asked, self.policy = doing, device, asked, policy
        self.final = False
        self.free, self.total = memory(device)
        card = device.type != "cpu"
        wanted = "more than there is was needed" if asked is None else f"{size_text(asked)} more were needed"
        left = f", and {size_text(self.free)} of {size_text(self.total)} were free" if self.free and self.total else ""
        how = "" if policy == "none" else f" with the model offloaded ({policy})"
        offload = "offload more of the model (Offload in Blender's preferences, --offload block)"
        self.remedies = (
            "Render at a smaller size or with fewer references",
            "choose a smaller or a quantised model" if policy == "block" else offload,
            f"close other programs that use the {'card' if card else 'memory'}",
        )
        super().__init__(
            "out_of_memory",
            f"The {'graphics card' if card else 'computer'} ran out of memory while {doing}{how}: {wanted}{left}.",
            f"{self.remedies[0]}, {self.remedies[1]}, or {self.remedies[2]}. Finished frames are kept.",
        )


def memory(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes that this process can still have, and has in all, of a card or of the computer; None where nobody says."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        taken = torch.cuda.memory_allocated(device)
        free += torch.cuda.memory_reserved(device) - taken
        limit = _limits.get(device, total)
        return max(min(free, limit - taken), 0), min(total, limit)
    if device.type == "cpu":
        with contextlib.suppress(OSError, ValueError, KeyError):  # other systems than Linux
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            told = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
            return told["MemAvailable"], told["MemTotal"]
    return None, None


def limit_card(device: torch.device, bytes_: int | None) -> None:
    """Let this process take no more than so much of a card; None: all."""
    if device.type != "cuda":
        return
    total = torch.cuda.mem_get_info(device)[1]
    allowed = total if bytes_ is None else min(bytes_, total)
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    _limits[device] = allowed


def release(device: torch.device) -> None:
    """Give back what is held and not used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextlib.contextmanager
def out_of_memory_explained(doing: str, device: torch.device, policy: str = "none") -> Iterator[None]:
    """Turn whatever says that memory ran out into `OutOfMemory`, and let go of what the failed work held."""
    told: OutOfMemory | None = None
    try:
        yield
    except KoshiError:
        raise
    except Exception as error:  # of torch, NumPy, OpenCV and Python itself; everything else goes on as it is
        if not is_out_of_memory(error):
            raise
        log.info("out of memory while %s: %s", doing, error)
        where = torch.device("cpu") if _is_off_the_card(error) else device
        told = OutOfMemory(doing, where, asked_for(str(error)), policy)
        traceback.clear_frames(error.__traceback__)
    if told is not None:
        raise told


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a card or off it."""
    return isinstance(error, torch.OutOfMemoryError) or _is_off_the_card(error) or bool(_SAID.search(str(error)))


def _is_off_the_card(error: BaseException) -> bool:
    """Whether an error says that the computer's own memory ran out, be it while a card computes."""
    if isinstance(error, OSError):  # what cannot be mapped, or reserved
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) == _COMMIT_LIMIT
    return isinstance(error, MemoryError) or bool(_SAID_OFF_THE_CARD.search(str(error)))


def asked_for(message: str) -> int | None:
    """Bytes that were asked for, from what the allocators of torch and NumPy say."""
    found = re.search(r"allocate ([\d.]+) ?((?:[KMGT]i)?B|bytes)\b", message, re.IGNORECASE)
    if found is None:
        return None
    return int(float(found[1]) * _GIB.get(found[2], 1))


def size_text(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"

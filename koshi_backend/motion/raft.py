# SPDX-License-Identifier: GPL-3.0-or-later
"""RAFT, the learnt optical flow, where torchvision and its published weights are there. Neither comes with Koshi."""

from __future__ import annotations

import functools
import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import KoshiError

_SMALLEST_SIDE = 128  # RAFT's coarsest level has nothing to compare below it
_WITHOUT = "Use dis_medium, which needs nothing."


def raft_flow(first: Tensor, second: Tensor) -> Tensor:
    """For each pixel of `first`, how far away it lies in `second`: float32 [H, W, 2], x right and y down, pixels.

    first, second: [1, 3, H, W] in 0..1. Both are compared whole: 1 GB of memory at 1024 x 1024.
    Raises KoshiError("flow_unavailable"). Never downloads.
    """
    net = _net(str(first.device))
    height, width = first.shape[2:]
    down, across = (max(-(-side // 8) * 8, _SMALLEST_SIDE) - side for side in (height, width))
    pair = [F.pad(p.float(), (0, across, 0, down), mode="replicate") * 2.0 - 1.0 for p in (first, second)]
    with torch.inference_mode():
        flow = net(*pair)[-1][0, :, :height, :width]
    return flow.permute(1, 2, 0).contiguous().clone()


def forget() -> None:
    """Let go of the network that is loaded."""
    _net.cache_clear()


@functools.cache
def _net(device: str) -> nn.Module:
    try:
        models = importlib.import_module("torchvision.models.optical_flow")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        raise KoshiError(
            "flow_unavailable", "The flow raft needs torchvision, which is not installed or does not fit.", _WITHOUT
        ) from error
    net: nn.Module = models.raft_large(weights=None, progress=False)
    net.load_state_dict(_published_weights(models.Raft_Large_Weights.C_T_SKHT_V2))
    return net.eval().requires_grad_(False).to(device)


def _published_weights(weights: Any) -> dict[str, Tensor]:
    """torchvision's own file, from where torchvision keeps it, if it is the published one."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    wanted = file.stem.rpartition("-")[2]  # the file's name ends in the first digits of its SHA-256
    if not file.is_file():
        raise KoshiError(
            "flow_unavailable",
            f"The flow raft needs its weights, {file}, which are not there.",
            f"Fetch {weights.url} into that folder, or: {_WITHOUT[0].lower()}{_WITHOUT[1:]}",
        )
    with file.open("rb") as stream:
        if not hashlib.file_digest(stream, "sha256").hexdigest().startswith(wanted):
            raise KoshiError("flow_unavailable", f"{file} is damaged or not the published file.", "Fetch it again.")
    # The file is there, so this reads it; weights_only admits tensors and nothing that could run.
    state: dict[str, Tensor] = weights.get_state_dict(progress=False, weights_only=True, map_location="cpu")
    return state

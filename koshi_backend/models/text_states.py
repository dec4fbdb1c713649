# SPDX-License-Identifier: GPL-3.0-or-later
"""Encoded prompts on disk, so that a text encoder of some gigabytes is not loaded for a prompt that is known.

One entry is one safetensors file, checked by its key and by sums; a damaged one counts as missing. Losing entries
costs time only: what cannot be written is not kept, without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..paths import prompts_folder
from ..shelf import Shelf

log = logging.getLogger(__name__)

LIMIT_GB = 2.0  # some 250 prompts of Klein 4B, each 7.9 MB


class PromptStore(Shelf):
    """A folder of encoded prompts, by the key of all that they depend on (`PromptEncoder.key`).

    root: default `prompts` in the frame store's folder. limit_gb: size in 10^9 bytes above which old entries go.
    """

    def __init__(self, root: Path | None = None, limit_gb: float = LIMIT_GB) -> None:
        super().__init__(Path(root) if root is not None else prompts_folder(), int(limit_gb * 1e9))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The entry's tensors in memory, or None when there is none or it is damaged (it is then removed)."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            sums = json.loads(meta.get("sha256", "{}"))
            damaged = meta.get("key") != key or sums != {name: _checksum(tensor) for name, tensor in tensors.items()}
        except FileNotFoundError:
            return None  # evicted by another process just now
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            log.warning("the encoded prompt %s cannot be read: %s", key[:12], error)
            damaged = True
        if damaged:
            log.warning("the encoded prompt %s is damaged and will be made again", key[:12])
            with contextlib.suppress(OSError):  # of a folder that may only be read
                path.unlink()
            return None
        self._used(path)
        return tensors

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep an entry, if it can be written."""
        here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        sums = {name: _checksum(tensor) for name, tensor in here.items()}
        try:
            self._keep(self.path(key), save(here, metadata={"key": key, "sha256": json.dumps(sums)}))
        except OSError as error:
            log.warning("the encoded prompt is not kept: %s cannot be written (%s)", self.root, error.strerror)


def _checksum(tensor: Tensor) -> str:
    flat = tensor.contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode() + flat.numpy().tobytes()).hexdigest()

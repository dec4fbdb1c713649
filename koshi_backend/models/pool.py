# SPDX-License-Identifier: GPL-3.0-or-later
"""From a model's name to a loaded model, which stays loaded for the next picture."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import KoshiError
from .budget import UNKNOWN, Job, Need, Offload, Wanted, budget, choose, pick_offload, pick_vram, policy_for
from .checkpoint import FETCH_AGAIN
from .family import load_family
from .identity import model_identity
from .installed import installed_files, installed_folder
from .model import FluxModel
from .parts import ModelFiles, folder_files, single_files
from .placement import POLICIES
from .pull import pull
from .pull_progress import LogProgress
from .quantise import Quantise, pick_quantise
from .registry import TINY_FOLDER, Traits, find_model, find_traits
from .shortage import OutOfMemory, out_of_memory_explained, release
from .text_states import PromptStore

__all__ = ["installed_files", "installed_folder", "load_model", "loaded_on", "model_files", "pick_device", "pick_dtype"]

log = logging.getLogger(__name__)

_loaded: dict[tuple[str, Traits, torch.device, torch.dtype, Wanted, float | None], FluxModel] = {}


def model_files(name: str, cancelled: Callable[[], bool] = lambda: False) -> ModelFiles:
    """Where a model's parts are; a model from the hub is downloaded on first use, with progress on stderr.

    cancelled: whether to stop a download. Raises KoshiError("unknown_model" | "bad_model" | "bad_model_file"), and as
    `pull` does.
    """
    found, traits = find_model(name), find_traits(name)
    if isinstance(found, Path):
        return folder_files(found, traits) if found.is_dir() else single_files(found, traits)
    if not found.repository:
        return folder_files(TINY_FOLDER, traits)
    there = installed_files(found)  # looked up first: a model that is there needs no network
    if there is None:
        pull(found, LogProgress(), cancelled)
        there = installed_files(found)
    if there is None:
        raise KoshiError("bad_model", f"{found.title} was fetched, and yet parts are missing.", FETCH_AGAIN)
    return there


def pick_device(wanted: str | torch.device | None = None, *, or_processor: bool = False) -> torch.device:
    """The device that is named (argument, else KOSHI_DEVICE), else or for "auto" CUDA, Apple's GPU or the processor.

    or_processor: whether the processor, with a warning, takes the place of a named CUDA device where there is no CUDA:
        for scripts written for a GPU machine. Raises KoshiError("bad_device") for any other that is not there.
    """
    name = str(wanted or os.environ.get("KOSHI_DEVICE") or "auto")
    cuda = torch.cuda.is_available()
    if name == "auto":
        if cuda:
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KoshiError("bad_device", f"{name!r} is not a device.", "Use cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda" and not cuda and or_processor:
        log.warning("device %s was asked for, but there is no CUDA on this computer: using the processor", name)
        return torch.device("cpu")
    there = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        none = device.type == "cuda" and not there["cuda"]
        why = f"PyTorch {torch.__version__} finds no CUDA here. " if none else ""
        raise KoshiError(
            "bad_device", f"This computer has no device {name!r}.", f"{why}Leave it out to use the best there is."
        )
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device


def pick_dtype(device: torch.device, wanted: torch.dtype | None = None) -> torch.dtype:
    """bfloat16 on a GPU; float32 on a processor, where it is the exact one and seldom the slower one.

    Raises KoshiError("bad_value") for anything but float32, bfloat16 and float16, the last of which processors cannot.
    """
    if wanted is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if wanted not in (torch.float32, torch.bfloat16, torch.float16):
        raise KoshiError("bad_value", f"dtype is {wanted!r}.", "Use torch.bfloat16, torch.float16 or torch.float32.")
    if wanted is torch.float16 and device.type == "cpu":
        log.warning("float16 is not for processors: using float32")
        return torch.float32
    return wanted


def load_model(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    offload: Wanted | None = None,
    vram: float | None = None,
    quantize: Quantise | None = None,
    job: Job = UNKNOWN,
) -> FluxModel:
    """The loaded model. The last one used stays; another one takes its place.

    offload, vram, quantize: as `pick_offload`, `pick_vram` and `pick_quantise` choose when None. job: what it is to do;
    with it the policy is chosen where nobody has said one, and one that is loaded goes down to another where this job
    needs more room than the last. Where memory runs out while it is loaded, it is loaded once more at the next policy.
    Raises KoshiError; "out_of_memory" if that does not help.
    """
    files, wanted, limit = model_files(name), pick_offload(offload), pick_vram(vram)
    narrow = pick_quantise(quantize)
    identity = model_identity(files, narrow)
    key = (identity, files.traits, device, dtype, wanted, limit)
    if key not in _loaded or not _sound(_loaded[key]):
        _loaded.clear()  # before the next one is loaded: two would not fit on most cards
        release(device)
        free, tried = budget(device, limit), list[Offload]()

        def choice(need: Need) -> Offload:
            lower = POLICIES[min(POLICIES.index(tried[0]) + 1, len(POLICIES) - 1)] if tried else None
            tried.append(lower or choose(wanted, need, free))
            return tried[-1]

        for last in (False, True):
            try:
                _loaded[key] = load_family(files, device, dtype, identity, PromptStore(), choice, narrow, job)
                break
            except OutOfMemory as error:
                if last or not tried or error.device.type != device.type:  # less on a card is more in memory
                    error.final = True
                    raise
                log.warning("%s It is loaded once more.", error.message)
            release(device)
    else:
        _make_room(_loaded[key], wanted, job.at(files.traits.side), limit)
    return _loaded[key]


def loaded_on(device: torch.device) -> FluxModel | None:
    """The model that is loaded on a device, whoever asked for it; None if there is none, or none of any use."""
    return next((model for key, model in _loaded.items() if key[2] == device and _sound(model)), None)


def unload() -> int:
    """Let go of the models that are loaded, and of their memory; returns how many that were."""
    devices = [key[2] for key in _loaded]
    _loaded.clear()
    for device in devices:
        release(device)
    return len(devices)


def _make_room(model: FluxModel, wanted: Wanted, job: Job, limit: float | None) -> None:
    """Bring a model that is loaded to the policy that its next job needs, where that is more than any before needed.

    What the last job has left on the device is let go first: it is part of the need, and must not lack in the room.
    """
    if wanted != "auto" or model.placement is None or model.weights is None or model.need is None:
        return
    need = model.weights.need(job)
    if need.whole <= model.need.whole:  # all of a model's needs differ by what lies beside its weights alone
        return
    model.release()
    release(model.device)
    room = budget(model.device, limit)
    if room is not None:
        room += model.placement.held + sum(lora.bytes() for lora in model.loras.values())
        if limit is not None:  # off CUDA nobody has subtracted from it what is held
            room = min(room, int(limit * 1e9))
    policy = policy_for(wanted, model.placement.policy, need, room)
    with out_of_memory_explained("moving the model off the device", model.device, model.policy):
        while model.placement.policy != policy:
            log.info("the next job needs more room: offload %s", policy)
            model.placement.lower()
            release(model.device)
    model.need = need


def _sound(model: FluxModel) -> bool:
    return model.placement is None or model.placement.sound

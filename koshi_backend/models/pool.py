# SPDX-License-Identifier: GPL-3.0-or-later
"""From a model's name to a loaded model, which stays loaded for the next picture."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from ..errors import KoshiError
from .family import load_family
from .identity import model_identity
from .model import FluxModel
from .parts import ModelFiles, folder_files, single_files, snapshot
from .placement import Offload, pick_offload, place
from .registry import MODELS, PARTS, SETTINGS, TINY_FOLDER, ModelInfo, Traits, find_model, find_traits, is_whole

log = logging.getLogger(__name__)

_loaded: dict[tuple[str, Traits, torch.device, torch.dtype, Offload], FluxModel] = {}


def installed_folder(name: str) -> Path | None:
    """The folder of a named model's files if they are all there; looks nowhere but on this machine."""
    files = installed_files(MODELS[name])
    return None if files is None else files.name if files.name.is_dir() else files.name.parent


def installed_files(info: ModelInfo) -> ModelFiles | None:
    """A named model's files: its diffusers folders where they are whole, else its single file and what goes with it."""
    folder = snapshot(info)
    if folder is None:
        return None
    if is_whole(folder, PARTS[info.traits.family]):
        return folder_files(folder, info.traits)
    try:
        return single_files(folder / info.file, info.traits) if (folder / info.file).is_file() else None
    except KoshiError as error:
        log.info("%s is there without all of its parts: %s", info.title, error)
        return None


def _wanted(info: ModelInfo) -> list[str]:
    return [*SETTINGS, *(f"{part}/*" for part in PARTS[info.traits.family])]


def model_files(name: str) -> ModelFiles:
    """Where a model's parts are; a model from the hub is downloaded on first use, with progress on stderr.

    Raises KoshiError("unknown_model" | "bad_model" | "bad_model_file" | "download_failed" | "downloads_off").
    """
    found, traits = find_model(name), find_traits(name)
    if isinstance(found, Path):
        return folder_files(found, traits) if found.is_dir() else single_files(found, traits)
    if not found.repository:
        return folder_files(TINY_FOLDER, traits)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError

    there = installed_files(found)  # looked up first: a model that is there needs no network
    if there is not None:
        return there
    if constants.HF_HUB_OFFLINE:  # Blender starts the backend so where its online access is off
        raise KoshiError(
            "downloads_off",
            f"{found.title} is not on this computer, and downloads are off.",
            "In Blender turn on Preferences > System > Network > Allow Online Access, press Stop in Koshi's own, and "
            "render again. Elsewhere, unset HF_HUB_OFFLINE.",
        )
    log.info("downloading %s, %.0f GB, licence %s", found.title, found.download_gb, found.licence)
    try:
        return folder_files(Path(snapshot_download(found.repository, allow_patterns=_wanted(found))), traits)
    except GatedRepoError as error:
        raise KoshiError(
            "download_failed",
            f"{found.title} is a gated model ({found.licence}).",
            f"Accept its licence on the hub's page of {found.repository}, then log in with `hf auth login`.",
        ) from error
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        log.exception("download of %s failed", found.repository)
        raise KoshiError(
            "download_failed",
            f"{found.title} could not be downloaded ({type(error).__name__}).",
            f"Check the network, or fetch {found.repository} elsewhere and give the folder's path as the model.",
        ) from error


def pick_device(wanted: str | torch.device | None = None) -> torch.device:
    """The device to run on: as asked (argument, else KOSHI_DEVICE), else CUDA, else Apple's GPU, else the processor.

    A CUDA device that is not there is replaced by the processor, with a warning, so that scripts written for a
    GPU machine still run.
    """
    name = str(wanted or os.environ.get("KOSHI_DEVICE") or "")
    cuda = torch.cuda.is_available()
    if not name:
        if cuda:
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KoshiError("bad_device", f"{name!r} is not a device.", "Use cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda" and not cuda:
        log.warning("device %s was asked for, but there is no CUDA on this computer: using the processor", name)
        return torch.device("cpu")
    if name == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise KoshiError(
            "bad_device", f"This computer has no device {name!r}.", "Leave it out to use the best there is."
        )
    return device


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


def load_model(name: str, device: torch.device, dtype: torch.dtype, offload: Offload | None = None) -> FluxModel:
    """The loaded model. The last one used stays; another one takes its place.

    offload: as `pick_offload` chooses when None; a processor has nothing to offload to.
    """
    files, policy = model_files(name), pick_offload(offload)
    identity = model_identity(files)
    key = (identity, files.traits, device, dtype, policy)
    if key not in _loaded:
        _loaded.clear()  # before the next one is loaded: two would not fit on most cards
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if device.type == "cpu" or policy == "none":
            _loaded[key] = load_family(files, device, dtype, identity)
        else:
            _loaded[key] = place(load_family(files, torch.device("cpu"), dtype, identity), device, policy)
    return _loaded[key]

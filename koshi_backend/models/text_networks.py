# SPDX-License-Identifier: GPL-3.0-or-later
"""How the networks of text encoders are loaded.

A network is built without memory and then given its weights one tensor at a time, straight from the mapped files.
What a family does not use (upper layers, heads, a vision tower) is never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from ..errors import KoshiError, problem, raise_problems
from .checkpoint import FETCH_AGAIN, Part
from .layout import Source
from .quantised import put_quantised
from .tensor_files import TensorFiles
from .text_base import Unread, unreadable
from .widening import held_as, widen_at_use


def read_config(folder: Path, *kinds: type[PretrainedConfig]) -> Any:
    """config.json of a text encoder of one of the `kinds`."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except StrictDataclassError as error:  # a field of the wrong kind
        raise KoshiError(
            "bad_model",
            f"{folder / 'config.json'} cannot be used: {' '.join(str(error).split())}.",
            FETCH_AGAIN,
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable("text encoder", folder, error) from error
    if not isinstance(config, kinds):
        raise KoshiError(
            "bad_model",
            f"The text encoder in {folder} is of the kind {config.model_type!r}, not {kinds[0].model_type!r}.",
            "Name a folder of the right family.",
        )
    return config


def build(kind: type[PreTrainedModel], config: Any, folder: Path) -> Any:
    """A network without memory for its weights."""
    try:
        with torch.device("meta"):
            return kind(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise unreadable("text encoder", folder, error) from error


def prepare(
    net: nn.Module,
    path: Path,
    part: Part,
    plain: Callable[[str], str | None],
    dtype: torch.dtype,
    exact: Callable[[str], bool] = lambda name: False,
) -> Unread:
    """Compare a network with its files. Returns what gives it its weights on a device, in `dtype` (float32 where
    `exact` says so) or as `held_as` has them for it, and freezes it; and how many bytes those will be.

    path: a folder of shards, or a file, which may hold other parts of a model as well. part: which it is.
    plain: a tensor's name without the prefixes that differ between files and versions; None for what is known
    but not used, which is never read. Missing, unknown and misshapen tensors are all listed.
    """
    files = TensorFiles(path, part)
    stored = {short: name for name in files.shapes if (short := plain(name)) is not None}
    wanted = {name: plain(name) or name for name in net.state_dict()}  # two names may be one tensor
    shapes = {wanted[name]: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    faults: list[dict[str, Any]] = []
    for short, shape in shapes.items():
        if short not in stored:
            faults.append(problem(short, "this tensor is missing."))
        elif fault := files.fault(stored[short]):
            faults.append(problem(stored[short], fault))
        elif (found := files.shapes[stored[short]]) != shape:
            faults.append(problem(stored[short], f"the tensor has shape {found}, not {shape}."))
        elif not files.is_floating(stored[short]):
            faults.append(problem(stored[short], "the tensor holds whole numbers, which Koshi does not read."))
    faults += [
        problem(name, "Koshi does not know this tensor.") for short, name in stored.items() if short not in shapes
    ]
    raise_problems("bad_model", f"The text encoder in {path}", faults)

    layers = {f"{name}.weight" for name, layer in net.named_modules() if type(layer) is nn.Linear}

    tables = {f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, nn.Embedding)}

    def stays_packed(name: str, short: str) -> bool:
        return name in layers and files.is_packed(stored[short]) and not exact(short)

    def kind(short: str, device: torch.device) -> torch.dtype:
        return torch.float32 if exact(short) else held_as(files.kind(stored[short]), device, dtype)

    def size(device: torch.device) -> tuple[int, int]:
        found = {"tables": 0, "rest": 0}
        for short, name in {short: name for name, short in wanted.items()}.items():  # each tensor once
            whole = math.prod(shapes[short]) * kind(short, device).itemsize
            if stays_packed(name, short):
                whole = files.size(stored[short])
            found["tables" if name in tables else "rest"] += whole
        return found["tables"], found["rest"]

    def fill(device: torch.device) -> None:
        read, packed = {}, {}
        for name, short in wanted.items():
            origin = stored[short]
            if stays_packed(name, short):
                packed[name] = [files.packed(origin, device)], Source((origin,))
            elif short not in read:
                read[short] = files.read(origin, device, kind(short, device))
        state = {name: read[short] for name, short in wanted.items() if name not in packed}
        put_quantised(net, packed, state, dtype)
        net.load_state_dict(state, strict=True, assign=True)
        if dtype is torch.float32:
            widen_at_use(net)
        net.eval().requires_grad_(False)

    return Unread(fill, size)

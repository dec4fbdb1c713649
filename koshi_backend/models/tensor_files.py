# SPDX-License-Identifier: GPL-3.0-or-later
"""Safetensors files as one set of named tensors, and a module filled from them.

The headers are compared with the module before any weight is read, so that a file that does not fit is refused at
once. Weights go from the mapped file straight to the device and type they are wanted in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import KoshiError, problem, raise_problems
from .layout import Source

Part = Literal["transformer", "autoencoder"]
# ComfyUI's single files put these before the names, the longer ones first. One file may hold a whole model.
_PREFIXES: dict[Part, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model."),
    "autoencoder": ("first_stage_model.", "vae."),
}
_TEXT_PREFIXES = ("text_encoders.", "cond_stage_model.", "conditioner.")
FETCH_AGAIN = "Fetch the model's files again."
_Net = TypeVar("_Net", bound=nn.Module)


class TensorFiles:
    """The named tensors of one safetensors file or of a folder's shards, read only when asked for.

    part: what is looked for; the tensors of a whole model's other parts, told by their prefixes, are left out.
        None takes everything under the name it has.
    shapes: of every tensor, by its name without prefix.

    Raises KoshiError("bad_model_file") when a file is missing, cut short or not safetensors, or when two files
    hold the same tensor.
    """

    def __init__(self, path: Path, part: Part | None = None) -> None:
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._place: dict[str, tuple[Any, str]] = {}
        mine: tuple[str, ...] = _PREFIXES[part] if part else ()
        others: tuple[str, ...] = ()
        if part:
            others = (*(p for key, prefixes in _PREFIXES.items() if key != part for p in prefixes), *_TEXT_PREFIXES)
        for file in _files(path):
            handle = _open(file)
            for stored in handle.keys():  # noqa: SIM118 - a safetensors handle is no dict
                if stored.startswith(others):
                    continue
                name = stored.removeprefix(next(filter(stored.startswith, mine), ""))
                if name in self.shapes:
                    raise KoshiError(
                        "bad_model_file",
                        f"{path} holds the tensor {name} twice, the second time in {file.name}.",
                        "Keep one set of weights in the folder.",
                    )
                self.shapes[name] = tuple(handle.get_slice(stored).get_shape())
                self._place[name] = (handle, stored)

    def read(self, name: str) -> Tensor:
        handle, stored = self._place[name]
        tensor: Tensor = handle.get_tensor(stored)
        return tensor

    def is_floating(self, name: str) -> bool:
        """Whether the tensor holds floating numbers. Read from the header."""
        handle, stored = self._place[name]
        return handle.get_slice(stored).get_dtype().startswith(("F", "BF"))


def fill(
    net: _Net, files: TensorFiles, source: Callable[[str], Source], device: torch.device, dtype: torch.dtype
) -> _Net:
    """Give a module on the meta device its weights. Statistics keep their type.

    source: where a native tensor is found in `files`.
    Raises KoshiError("bad_model") that lists every missing, unknown and misshapen tensor under its name in the file.
    """
    _compare(net, files, source)
    state: dict[str, Tensor] = {}
    for name, wanted in net.state_dict().items():
        origin = source(name)
        whole = origin.join([files.read(part) for part in origin.names])
        keep = not wanted.is_floating_point() or name.startswith("bn.")
        state[name] = whole.to(device) if keep else whole.to(device, dtype)
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def _compare(net: nn.Module, files: TensorFiles, source: Callable[[str], Source]) -> None:
    faults: list[dict[str, Any]] = []
    used: set[str] = set()
    for name, wanted in net.state_dict().items():
        origin = source(name)
        used.update(origin.names)
        missing = [part for part in origin.names if part not in files.shapes]
        if missing:
            faults += [problem(part, "this tensor is missing.") for part in missing]
            continue
        shapes, where = [files.shapes[part] for part in origin.names], " + ".join(origin.names)
        shape = origin.shape(shapes)
        if shape != tuple(wanted.shape):
            found = " + ".join(str(s) for s in shapes)
            faults.append(problem(where, f"the shape is {found}; it must come to {tuple(wanted.shape)}."))
        elif wanted.is_floating_point() and not all(map(files.is_floating, origin.names)):
            faults.append(
                problem(where, "the tensor holds whole numbers. Koshi reads no weights quantised to integers.")
            )
    faults += [problem(name, "Koshi does not know this tensor.") for name in files.shapes if name not in used]
    raise_problems("bad_model", f"The model in {files.path}", faults)


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a diffusers folder; empty for a single file or where there is none."""
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        return {}
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KoshiError("bad_model_file", f"{file} is not JSON.", FETCH_AGAIN) from error
    return written if isinstance(written, dict) else {}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    indices = sorted(path.glob("*.safetensors.index.json"))
    if indices:
        try:
            listed = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values()
            files = [path / name for name in sorted(set(listed))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KoshiError("bad_model_file", f"{indices[0]} is damaged or cut short.", FETCH_AGAIN) from error
    else:
        files = sorted(path.glob("*.safetensors"))
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        what = ", ".join(absent) if absent else "a .safetensors file"
        raise KoshiError("bad_model_file", f"{path} lacks {what}.", FETCH_AGAIN)
    return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise KoshiError(
            "bad_model_file",
            f"The model file {file} cannot be read: it is damaged, cut short, or not a safetensors file ({error}).",
            "Fetch it again.",
        ) from error

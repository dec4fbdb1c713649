# SPDX-License-Identifier: GPL-3.0-or-later
"""Safetensors and GGUF files as one set of named tensors, and a module filled from them.

The headers are compared with the module before any weight is read, so that a file that does not fit is refused at
once. Each tensor is mapped, copied into its place in the type and on the device it is wanted in, and unmapped: there
is no second copy, and nothing stays mapped that another program could cut short (which would end the process).
Weights that a file has quantised stay so in linear layers; everywhere else they are decoded as they are read.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import KoshiError, problem, raise_problems
from .checkpoint import FETCH_AGAIN, Part, Stored, tensors_of
from .layout import Source
from .packed import Packed
from .packed_read import read_packed
from .packing import FLOATS
from .quantise import Quantise, is_quantised_on_load, quantised
from .quantised import put_quantised
from .shortage import is_out_of_memory
from .widening import held_as, widen_at_use

_Net = TypeVar("_Net", bound=nn.Module)
# What weights may be stored as. All else is refused before it is read.
_KINDS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class TensorFiles:
    """The named tensors of one safetensors file or of a folder's shards, read only when asked for.

    part: what is looked for; the tensors of a whole model's other parts, told by their prefixes, are left out.
        None takes everything under the name it has.
    shapes: of every tensor, by its name without prefix; of a quantised one, that of what it stands for.

    Raises KoshiError("bad_model_file") when a file is missing, cut short or not safetensors, or when two files
    hold the same tensor.
    """

    def __init__(self, path: Path, part: Part | None = None) -> None:
        self.path = path
        self._stored: dict[str, Stored] = tensors_of(path, part)
        self.shapes = {name: tensor.shape for name, tensor in self._stored.items()}

    def replace(self, old: tuple[str, ...], new: TensorFiles, prefix: str) -> None:
        """Let all of `new`, under names that begin with `prefix`, stand for the tensors that begin with `old`."""
        self._stored = {name: tensor for name, tensor in self._stored.items() if not name.startswith(old)}
        self._stored |= {prefix + name.removeprefix(prefix): tensor for name, tensor in new._stored.items()}
        self.shapes = {name: tensor.shape for name, tensor in self._stored.items()}

    def read(self, name: str, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of its own, on `device` (None: the processor) in `dtype` (None: as it is stored).

        A quantised one is decoded. Raises KoshiError("bad_model") as `packed` does.
        """
        stored = self._stored[name]
        if stored.packing not in ("", "float8"):
            return self.packed(name, device).dense(dtype or torch.float32).view(stored.shape)
        return _read(stored, self.kind(name), device, dtype)

    def packed(self, name: str, device: torch.device | None = None) -> Packed:
        """A quantised tensor as it is, on `device`. Raises KoshiError("bad_model") as `read_packed` does."""

        def read(stored: Stored, kind: torch.dtype | None = None) -> Tensor:
            return _read(stored, kind or _KINDS[stored.kind], device)

        return read_packed(self._stored[name], self.path, name, read)

    def is_packed(self, name: str) -> bool:
        """Whether the tensor is a quantised one, which a layer can keep as it is."""
        stored = self._stored[name]
        return bool(stored.packing) and stored.kind not in FLOATS

    def size(self, name: str) -> int:
        """Bytes of a tensor in its file, those of its scales included."""
        stored = self._stored[name]
        return sum(part.end - part.begin for part in (stored, *stored.parts.values()))

    def fault(self, name: str) -> str:
        """What is wrong with a quantised tensor; "" if nothing. From the headers."""
        return self._stored[name].fault

    def kind(self, name: str) -> torch.dtype:
        """The type that a tensor is stored in; float32 for one that is quantised with scales, which has no such type.

        Raises KoshiError("bad_model") for one that torch cannot hold.
        """
        stored = self._stored[name]
        if stored.packing not in ("", "float8"):
            return torch.float32
        if stored.kind not in _KINDS:
            fault = problem(name, f"the tensor is of type {stored.kind}, which Koshi does not read.")
            raise_problems("bad_model", f"The model in {self.path}", [fault])
        return _KINDS[stored.kind]

    def is_floating(self, name: str) -> bool:
        """Whether the tensor holds, or stands for, floating numbers that can be read. From the header."""
        stored = self._stored[name]
        kind = _KINDS.get(stored.kind)
        return bool(stored.packing) or (kind is not None and kind.is_floating_point)


def _read(
    stored: Stored, kind: torch.dtype, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """What lies in a file as numbers of `kind`, brought to `dtype`."""
    whole = torch.empty(stored.shape, dtype=dtype or kind, device=device)
    if not whole.numel():
        return whole
    start = stored.begin - stored.begin % mmap.ALLOCATIONGRANULARITY
    try:
        with stored.file.open("rb") as file:
            # Private, because torch takes only memory that may be written to. Nothing writes to it.
            mapped = mmap.mmap(file.fileno(), stored.end - start, access=mmap.ACCESS_COPY, offset=start)
    except (OSError, ValueError) as error:  # gone, or shorter than when its header was read
        if is_out_of_memory(error):
            raise
        raise KoshiError(
            "bad_model_file", f"{stored.file} changed while it was read ({error}).", FETCH_AGAIN
        ) from error
    source = torch.frombuffer(mapped, dtype=kind, count=whole.numel(), offset=stored.begin - start)
    return whole.copy_(source.view(stored.shape))


def fill(
    net: _Net,
    files: TensorFiles,
    source: Callable[[str], Source],
    device: torch.device,
    dtype: torch.dtype,
    quantise: Quantise = "none",
) -> _Net:
    """Give a module on the meta device its weights, in `dtype` or as `held_as` has them for it, and freeze it.

    source: where a native tensor is found in `files`, which have been compared with the module.
    A module's FLOAT32, where it has such, are endings of the names that are float32 in every `dtype`.
    Linear layers whose weights the files have quantised become `QuantisedLinear`; so do those that `quantise` is for.
    """
    state: dict[str, Tensor] = {}
    exact: tuple[str, ...] = getattr(net, "FLOAT32", ())
    layers = {f"{name}.weight" for name, layer in net.named_modules() if type(layer) is nn.Linear}
    packed: dict[str, tuple[list[Packed], Source]] = {}
    for name, wanted in net.state_dict().items():
        origin = source(name)
        if name in layers and any(map(files.is_packed, origin.names)):
            packed[name] = [files.packed(part, device) for part in origin.names], origin
            continue
        kind: torch.dtype | None = None
        if wanted.is_floating_point():
            kinds = {held_as(files.kind(part), device, dtype) for part in origin.names}
            kind = torch.float32 if name.endswith(exact) else kinds.pop() if len(kinds) == 1 else dtype
        whole = origin.join([files.read(part, device, kind) for part in origin.names])
        if name in layers and is_quantised_on_load(name, quantise):
            packed[name] = [quantised(whole, quantise)], Source((name,))
        else:
            state[name] = whole
    put_quantised(net, packed, state, dtype)
    net.load_state_dict(state, strict=True, assign=True)
    if dtype is torch.float32:
        widen_at_use(net)
    return net.eval().requires_grad_(False)


def compare(net: nn.Module, files: TensorFiles, source: Callable[[str], Source]) -> None:
    """Raise KoshiError("bad_model") that lists every missing, unknown and misshapen tensor under its name in the file.

    Reads no weights.
    """
    faults: list[dict[str, Any]] = []
    used: set[str] = set()
    found = files.shapes
    for name, wanted in net.state_dict().items():
        origin = source(name)
        used.update(origin.names)
        missing = [part for part in origin.names if part not in found]
        if missing:
            faults += [problem(part, "this tensor is missing.") for part in missing]
            continue
        unfit = [problem(part, text) for part in origin.names if (text := files.fault(part))]
        if unfit:
            faults += unfit
            continue
        shapes, where = [found[part] for part in origin.names], " + ".join(origin.names)
        shape = origin.shape(shapes)
        if shape != tuple(wanted.shape):
            told = " + ".join(str(s) for s in shapes)
            faults.append(problem(where, f"the shape is {told}; it must come to {tuple(wanted.shape)}."))
        elif wanted.is_floating_point() and not all(map(files.is_floating, origin.names)):
            text = "the tensor holds whole numbers, and nothing beside it says what they stand for."
            faults.append(problem(where, text))
    faults += [problem(name, "Koshi does not know this tensor.") for name in found if name not in used]
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

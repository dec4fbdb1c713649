# SPDX-License-Identifier: GPL-3.0-or-later
"""From a LoRA's file to what it changes in a loaded network."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import KoshiError, problem, raise_problems
from ..models.checkpoint_contents import FAMILY_NAMES, Family
from ..models.flux1 import Flux1Transformer
from ..models.flux2 import Flux2Transformer
from ..models.flux3 import Flux3Transformer
from ..models.model import FluxModel
from ..models.surviving import surviving
from ..models.tensor_files import TensorFiles
from .branches import Branch, Kronecker, LowRank, Shift, Whole
from .file import LoraFile, check_family, lora_identity, open_lora, warn_of_text
from .names import dotted, size_of
from .targets import Target, Transformer, targets
from .wear import Change, Lora

log = logging.getLogger(__name__)

_FAMILIES: dict[type, Family] = {Flux1Transformer: "flux1", Flux2Transformer: "flux2", Flux3Transformer: "flux3"}
_WIDTHS: dict[tuple[Family, int], str] = {
    ("flux2", 3072): "Klein 4B", ("flux2", 4096): "Klein 9B", ("flux2", 6144): "dev",
}  # fmt: skip


def fit_loras(model: FluxModel, name: str, files: Sequence[str | Path]) -> list[Lora]:
    """These LoRAs, fitted to a model, in the order given. They stay with the model until others are asked for. Where
    there is no room for one, the model makes some (surviving.py).

    name: the model's, for what is said of it.
    Raises KoshiError("bad_lora") for one that is for another family or size, or that has tensors which nothing in the
    model goes with: all of them are listed; and KoshiError("bad_model_file") for one that cannot be read.
    """
    wanted = {lora_identity(file): Path(file) for file in files}
    for identity in model.loras.keys() - wanted.keys():
        del model.loras[identity]
    for identity, file in wanted.items():
        if identity not in model.loras:
            whole = open_lora(file)
            work = partial(fit, whole, model.transformer, name, model.device, model.dtype)
            changes = surviving(model, "loading a LoRA", work)
            model.loras[identity] = lora = Lora(identity, changes)
            log.info("%s changes %d layers and takes %.0f MB", file, len(changes), lora.bytes() / 1e6)
    return [model.loras[lora_identity(file)] for file in files]


def fit(lora: LoraFile, net: Transformer, name: str, device: torch.device, dtype: torch.dtype) -> list[Change]:
    """What a LoRA changes in a network. Raises KoshiError as `fit_loras` does; headers are compared first."""
    check_family(lora, name, _FAMILIES[type(net)])
    places = targets(net)
    _check_sizes(lora, net, name, places)
    warn_of_text(lora)
    reader = _Reader(lora)
    changes = [
        Change(places[module].layer, slice(places[module].start, places[module].stop), branch)
        for module, parts in lora.names.modules.items()
        for branch in reader.branches(parts, places[module], device, dtype)
    ]
    raise_problems("bad_lora", f"The LoRA {lora.path}", reader.faults)
    return changes


def _check_sizes(lora: LoraFile, net: Transformer, name: str, places: Mapping[str, Target]) -> None:
    faults: list[dict[str, Any]] = []
    widths: set[int] = set()
    hidden = net.config.hidden
    for module, parts in lora.names.modules.items():
        if module not in places:
            faults += [problem(stored, f"{name} has no layer that goes with this tensor.") for stored in parts.values()]
            continue
        (rows, columns), size = places[module].size, size_of(parts, lora.shapes)
        if size is not None and size != (rows, columns):
            if columns == hidden:
                widths.add(size[1])
            text = f"it changes a weight of {size[0]} x {size[1]}; {name}'s has {rows} x {columns}."
            faults.append(problem(next(iter(parts.values())), text))
        faults += _shape_faults(parts, lora.shapes, rows)
    if faults and len(widths) == 1 and hidden not in widths:
        family, width = _FAMILIES[type(net)], widths.pop()
        # Of a layer that several families have, the width may be one that only another one has: all others are 3072.
        other: Family = "flux2" if width != 3072 and ("flux2", width) in _WIDTHS else family
        theirs, ours = _size_name(other, width), _size_name(family, hidden)
        text = f"{lora.path} is a LoRA for {theirs}; {name} is {ours}."
        raise KoshiError("bad_lora", text, "Use one that was trained on a model of this size.", faults)
    raise_problems("bad_lora", f"The LoRA {lora.path}", faults)


def _size_name(family: Family, width: int) -> str:
    known = f" {_WIDTHS[family, width]}" if (family, width) in _WIDTHS else ""
    return f"{FAMILY_NAMES[family]}{known}, of width {width}"


def _shape_faults(parts: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], rows: int) -> list[dict[str, Any]]:
    """What does not fit within one module."""
    shape = {part: shapes[stored] for part, stored in parts.items()}
    faults = []
    for outer, inner in (("up", "down"), ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")):
        if outer in shape and inner in shape:
            first, second = shape[outer], shape[inner]
            if len(first) < 2 or len(second) < 2 or math.prod(first[1:]) != second[0] or not second[0]:
                text = f"its shape {first} does not go with {second}, that of {parts[inner]}."
                faults.append(problem(parts[outer], text))
    for bias in ("up_bias", "diff_b"):
        if bias in shape and math.prod(shape[bias]) != rows:
            faults.append(problem(parts[bias], f"its shape is {shape[bias]}; the layer has {rows} rows."))
    for stored in (parts[part] for part in ("lokr_w1", "lokr_w2") if part in shape and len(shape[part]) != 2):
        faults.append(problem(stored, f"its shape is {shapes[stored]}, which is no matrix."))
    if "alpha" in shape and math.prod(shape["alpha"]) != 1:
        faults.append(problem(parts["alpha"], f"its shape is {shape['alpha']}; alpha is one number."))
    return faults


class _Reader:
    """Reads a LoRA's tensors; gathers what is wrong with their numbers."""

    def __init__(self, lora: LoraFile) -> None:
        self._lora, self._files = lora, TensorFiles(lora.path)
        self.faults: list[dict[str, Any]] = []

    def branches(
        self, parts: Mapping[str, str], target: Target, device: torch.device, dtype: torch.dtype
    ) -> list[Branch]:
        """What one module's tensors add. Factors and scale are multiplied in float32, then brought to `dtype`."""
        tensors = {part: self._read(stored) for part, stored in parts.items()}
        module = dotted(next(iter(parts.values())))

        def laid(change: Tensor) -> Tensor:
            """Rows in the network's own order, where they are meant to be."""
            return _swapped(change, target.swapped).to(device=device, dtype=dtype)

        found: list[Branch] = []
        if "down" in tensors:
            down, up = tensors["down"].flatten(1), tensors["up"].flatten(1)
            scale = self._scale(module, tensors, len(down))
            found.append(LowRank(down.to(device=device, dtype=dtype), laid(up * scale)))
            if "up_bias" in tensors:
                found.append(Shift(laid(tensors["up_bias"].flatten() * scale)))
        elif "diff" in tensors:
            found.append(Whole(laid(tensors["diff"].flatten(1))))
        elif "lokr_w1" in tensors or "lokr_w1_a" in tensors:
            first, second = (_factor(tensors, name) for name in ("lokr_w1", "lokr_w2"))
            first = first * self._kronecker_scale(module, tensors)
            if target.swapped:
                found.append(Whole(laid(torch.kron(first, second))))
            else:
                found.append(Kronecker(first.to(device=device, dtype=dtype), second.to(device=device, dtype=dtype)))
        if "diff_b" in tensors:
            found.append(Shift(laid(tensors["diff_b"].flatten())))
        return found

    def _scale(self, module: str, tensors: Mapping[str, Tensor], rank: int) -> float:
        """alpha / rank: alpha from the file, else from peft's settings; where there is none, alpha is the rank."""
        settings = self._lora.settings
        if "alpha" in tensors:
            return float(tensors["alpha"]) / rank
        alpha = _patterned(settings.get("alpha_pattern"), module, settings.get("lora_alpha", rank))
        return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)

    def _kronecker_scale(self, module: str, tensors: Mapping[str, Tensor]) -> float:
        """alpha / rank where a factor is stored as two; a LoKr of whole factors has no rank. peft scales those too.

        Source: LyCORIS lokr.py. Where both factors are stored as two, their rank is the same.
        """
        settings = self._lora.settings
        if settings.get("peft_type") == "LOKR":
            rank = _patterned(settings.get("rank_pattern"), module, settings.get("r", 8))
            return float(_patterned(settings.get("alpha_pattern"), module, settings.get("alpha", 8))) / rank
        ranks = [len(tensors[part]) for part in ("lokr_w2_b", "lokr_w1_b") if part in tensors]
        return float(tensors["alpha"]) / ranks[0] if ranks and "alpha" in tensors else 1.0

    def _read(self, stored: str) -> Tensor:
        if not self._files.is_floating(stored) and not stored.endswith(".alpha"):
            self.faults.append(problem(stored, "the tensor holds whole numbers, which Koshi does not read as a LoRA."))
            return torch.zeros(self._lora.shapes[stored])
        tensor = self._files.read(stored, dtype=torch.float32)
        if not bool(torch.isfinite(tensor).all()):
            self.faults.append(problem(stored, "the tensor holds numbers that are not finite."))
        return tensor


def _factor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"]


def _swapped(change: Tensor, swapped: bool) -> Tensor:
    return torch.cat(change.chunk(2)[::-1]) if swapped else change


def _patterned(patterns: Any, module: str, usual: Any) -> Any:
    """peft's setting of a module, by its dotted name: the first pattern that this ends with, else the usual one."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return usual

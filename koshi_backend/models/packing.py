# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantised tensors among those of safetensors files: a weight and the tensors that say how it is read are one.

Standard library only; of the weights nothing is read. What is known, by the names beside `layer.weight`:

    .weight_scale [.input_scale] [.comfy_quant]     ComfyUI and Black Forest Labs: float8 or int8, times the scale
    .scale_weight [.scale_input]                    ComfyUI before, with one tensor `scaled_fp8` for the whole file
    .absmax .quant_map .quant_state.* [.nested_*]   bitsandbytes, after `.weight`: 4 bits

Sources: ComfyUI's QUANTIZATION.md, and QuantState.as_dict of https://github.com/bitsandbytes-foundation/bitsandbytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .tensor_kinds import PACKED

if TYPE_CHECKING:
    from .checkpoint import Stored

FLOAT8 = ("F8_E4M3", "F8_E5M2")
FLOATS = ("F16", "BF16", "F32", "F64")
_MARKER = re.compile(r"(.*\.)?scaled_fp8$")
# Of layers' inputs: for computing in 8 bits, which Koshi does not do.
_UNUSED = (".input_scale", ".scale_input")
_SCALES = (".weight_scale", ".scale_weight")
_COMFY = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8_tensorwise": "I8", "int8_blockwise": "I8"}
_BITSANDBYTES = ".quant_state.bitsandbytes__"
_FOUR_BITS = ("nf4", "fp4")
# Tables of rows, not layers: they may be cast to float8 without a scale in a file whose layers have scales.
_TABLES = re.compile(r"(shared|embed_tokens|token_embedding)\.weight$")
_LONGEST_NOTE = 1 << 16  # bytes of a layer's JSON


def gathered(tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> dict[str, Stored]:
    """The tensors with every quantised one as the matrix that it stands for.

    Its `shape` is then the matrix's, `packing` says how it is read ("scaled", "bits4", "float8" or "ggml"), and `parts`
    has its companions, which are no tensors of their own any more. What is wrong with it is its `fault`.
    metadata: of the files; its names may have prefixes that those in `tensors` have lost.
    """
    found = dict(tensors)
    marked = any(_MARKER.match(name) for name in found)
    for name in [name for name in found if _MARKER.match(name)]:
        del found[name]
    notes = _notes(metadata)
    for name in list(found):
        tensor = found.get(name)
        if tensor is None:  # has been taken as a companion
            continue
        if tensor.kind in PACKED:
            found[name] = tensor._replace(packing="ggml")
        elif (state := next((key for key in found if key.startswith(name + _BITSANDBYTES)), None)) is not None:
            found[name] = _bits4(name, tensor, found, state)
        elif name.endswith(".weight"):
            found[name] = _scaled(name, tensor, found, notes, marked)
        elif tensor.kind in FLOAT8:
            found[name] = tensor._replace(packing="float8")
    return found


def _notes(metadata: Mapping[str, str]) -> dict[str, Any]:
    """ComfyUI's notes on layers, from the header; {} where there are none or they make no sense."""
    try:
        layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
        return dict(layers) if isinstance(layers, dict) else {}
    except (ValueError, AttributeError):
        return {}


def _scaled(
    name: str, tensor: Stored, found: dict[str, Stored], notes: Mapping[str, Any], marked: bool
) -> Stored:
    """A weight in 8 bits, with its scale where it has one; any other as it is."""
    layer = name.removesuffix(".weight")
    scale = next((found.pop(layer + end) for end in _SCALES if layer + end in found), None)
    inputs = [found.pop(layer + end) for end in _UNUSED if layer + end in found]
    note = found.pop(f"{layer}.comfy_quant", None)
    facts = _read_note(note) if note is not None else _noted(layer, notes)
    if facts is not None:
        fault = _unread(facts)
        if fault:
            found.pop(f"{layer}.weight_scale_2", None)
            return tensor._replace(fault=fault)
        if tensor.kind == "U8":  # a container
            tensor = tensor._replace(kind=_COMFY[facts["format"]])
    eight = tensor.kind in FLOAT8 or tensor.kind == "I8"
    if scale is None:
        wanted = facts is not None or inputs or (marked and len(tensor.shape) == 2 and not _TABLES.search(name))
        if eight and wanted:
            return tensor._replace(fault=f"the tensor is quantised, and its scale {layer}.weight_scale is missing.")
        return tensor._replace(packing="float8") if tensor.kind in FLOAT8 else tensor
    if not eight and tensor.kind not in FLOATS:
        return tensor._replace(fault=f"the tensor has a scale, and is of type {tensor.kind}, which Koshi cannot scale.")
    if not _fits(scale.shape, tensor.shape):
        text = f"its scale {scale.name} has shape {scale.shape}, which does not go with {tensor.shape}."
        return tensor._replace(fault=text)
    if scale.kind not in FLOATS:
        return tensor._replace(fault=f"its scale {scale.name} is of type {scale.kind}, which is none of a scale.")
    return tensor._replace(packing="scaled", parts={"scale": scale})


def _fits(scale: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a scale is one number, one for each row, or one for each block of rows and columns."""
    if math.prod(scale) == 1:
        return True
    if len(shape) != 2:
        return False
    rows, columns = (*scale, 1)[:2] if len(scale) in (1, 2) else (0, 0)
    return rows > 0 and columns > 0 and shape[0] % rows == 0 and shape[1] % columns == 0


def _noted(layer: str, notes: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the header notes of a layer, under its name with or without a prefix."""
    keys = (key for key in notes if key == layer or key.endswith(f".{layer}"))
    found = notes.get(next(keys, ""))
    return dict(found) if isinstance(found, dict) else None


def _unread(facts: Mapping[str, Any]) -> str:
    """Why a layer cannot be read; "" if it can."""
    kind = facts.get("format")
    if kind not in _COMFY:
        return f"the tensor is quantised as {kind!r}, which Koshi does not read; it reads {', '.join(_COMFY)}."
    if facts.get("convrot"):
        return "the tensor is rotated (convrot), which Koshi does not read."
    return ""


def _read_note(note: Stored) -> dict[str, Any]:
    """The JSON that a tensor of bytes holds; a note without a format where there is none."""
    try:
        if note.end - note.begin > _LONGEST_NOTE:
            return {}
        with note.file.open("rb") as stream:
            stream.seek(note.begin)
            facts = json.loads(stream.read(note.end - note.begin))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _bits4(name: str, tensor: Stored, found: dict[str, Stored], state: str) -> Stored:
    """bitsandbytes' 4 bits: two numbers in a byte, the largest of each block, and a table of 16."""
    ends = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    parts = {end: found.pop(f"{name}.{end}") for end in ends if f"{name}.{end}" in found}
    kind, facts = state.rpartition("__")[2], _read_note(found.pop(state))
    shape, block = facts.get("shape"), facts.get("blocksize")
    if kind not in _FOUR_BITS:
        return tensor._replace(fault=f"the tensor is quantised as {kind!r}, which Koshi does not read.")
    if (
        not isinstance(shape, list)
        or not shape
        or any(type(side) is not int or side < 1 for side in shape)
        or type(block) is not int
        or block < 2
        or block % 2
    ):
        return tensor._replace(fault=f"what {state} says of the tensor makes no sense.")
    numbers = math.prod(shape)
    blocks = -(-numbers // block)
    wanted = {"absmax": blocks, "quant_map": 16}
    if "nested_blocksize" in facts:
        inner, offset = facts["nested_blocksize"], facts.get("nested_offset")
        if type(inner) is not int or inner < 1 or not isinstance(offset, (int, float)) or not math.isfinite(offset):
            return tensor._replace(fault=f"what {state} says of the tensor makes no sense.")
        wanted |= {"nested_absmax": -(-blocks // inner), "nested_quant_map": 256}
    fault = ""
    for part, count in wanted.items():
        if part not in parts:
            fault = fault or f"the tensor is quantised, and {name}.{part} is missing."
        elif math.prod(parts[part].shape) != count:
            fault = fault or f"{parts[part].name} has {math.prod(parts[part].shape)} numbers, not {count}."
        elif parts[part].kind != ("U8" if part == "absmax" and "nested_absmax" in wanted else "F32"):
            fault = fault or f"{parts[part].name} is of type {parts[part].kind}, which it cannot be."
    if tensor.kind != "U8" or math.prod(tensor.shape) != -(-numbers // 2):
        fault = fault or f"its {math.prod(tensor.shape)} bytes are not those of shape {tuple(shape)}."
    if fault:
        return tensor._replace(shape=tuple(shape), fault=fault)
    return tensor._replace(shape=tuple(shape), packing="bits4", parts=parts, facts=facts)

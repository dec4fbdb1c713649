# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in safetensors and GGUF files: names, types, shapes and places, from the headers alone.

Standard library only: a shot is checked without loading torch. The rules are those of the format's own library
(https://github.com/huggingface/safetensors): an 8-byte length, a JSON table, then the tensors without gaps.
gguf_header.py has those of GGUF.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ..errors import KoshiError
from .gguf_header import MAGIC, read_gguf
from .packing import gathered
from .tensor_kinds import SAFETENSORS, Damaged

FETCH_AGAIN = "Fetch the model's files again."
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
Part = Literal["transformer", "autoencoder", "clip", "t5", "language", "vision_language"]

# What ComfyUI's single files put before the names. One file may hold a whole model.
_PREFIXES: dict[Part, re.Pattern[str]] = {
    "transformer": re.compile(r"(model\.)?diffusion_model\."),
    "autoencoder": re.compile(r"(first_stage_model|vae)\."),
    "clip": re.compile(r"text_encoders\.clip_\w+\.(transformer\.)?"),
    "t5": re.compile(r"text_encoders\.t5\w*\.(transformer\.)?"),
    "language": re.compile(r"text_encoders\.(?!clip_|t5)\w+\.(transformer\.)?"),
    "vision_language": re.compile(r"text_encoders\.(?!clip_|t5)\w+\.(transformer\.)?"),
}
_OTHER_TEXT = re.compile(r"(text_encoders|cond_stage_model|conditioner)\.")
# Its text encoders come with a number that only whole CLIPs use, and with their tokenizer as bytes.
_COMFY_EXTRAS = re.compile(r"(text_encoders\.\w+\.)?(logit_scale|tekken_model|spiece_model)$")
_LONGEST_HEADER = 100_000_000  # bytes, as in the format's own library


class Stored(NamedTuple):
    """A tensor in a file. kind: its type, as the header has it. begin, end: bytes of the file.

    packing, parts, facts, fault: of a quantised one, as `packing.gathered` has them.
    """

    file: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int
    packing: str = ""
    parts: Mapping[str, Stored] = MappingProxyType({})
    facts: Mapping[str, Any] = MappingProxyType({})
    fault: str = ""


def read_header(file: Path) -> Mapping[str, Stored]:
    """The tensors of a safetensors or GGUF file by name. A header that is known from before is not read again.

    Raises KoshiError("bad_model_file") for a file that is missing, cut short, or of neither format.
    """
    return _header(file)[0]


def _header(file: Path) -> tuple[Mapping[str, Stored], Mapping[str, str]]:
    """The same, and what else the header says of the file."""
    refuse_pickle(file)
    try:
        stat = file.stat()
        return _parsed(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error if isinstance(error, Damaged) else "no header"
        kind = "GGUF" if file.suffix.lower() == ".gguf" else "safetensors"
        raise KoshiError(
            "bad_model_file",
            f"The model file {file} cannot be read: it is damaged, cut short, or not a {kind} file ({reason}).",
            "Fetch it again.",
        ) from error


def refuse_pickle(file: Path) -> None:
    """Raise KoshiError("bad_model_file") for the formats that may run a program of their own when they are opened."""
    if file.suffix.lower() in PICKLES:
        raise KoshiError(
            "bad_model_file",
            f"{file} is a pickle, which can run any program when it is opened. Koshi does not open it.",
            "Use the model's .safetensors file.",
        )


@functools.lru_cache(maxsize=256)
def _parsed(file: Path, size: int, changed: int, inode: int) -> tuple[Mapping[str, Stored], Mapping[str, str]]:
    with file.open("rb") as stream:
        first = stream.read(8)
        if first.startswith(MAGIC):
            stream.seek(0)
            return MappingProxyType({one.name: Stored(file, *one) for one in read_gguf(stream, size)}), {}
        length = int.from_bytes(first, "little")
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise Damaged(f"{size} bytes do not hold its header")
        table = json.loads(stream.read(length), object_pairs_hook=_without_twins)
    if not isinstance(table, dict):
        raise Damaged("its header is no table")
    metadata = table.pop("__metadata__", None)
    found = {name: _stored(file, name, facts, 8 + length) for name, facts in table.items()}
    at = 8 + length
    for tensor in sorted(found.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at:
            raise Damaged(f"the tensor {tensor.name} does not begin where the one before it ends")
        if tensor.end > size:
            raise Damaged(f"the tensor {tensor.name} ends at byte {tensor.end} of {size}")
        at = tensor.end
    if at != size:
        raise Damaged(f"its tensors end at byte {at} of {size}")
    return MappingProxyType(found), metadata if isinstance(metadata, dict) else {}


def _stored(file: Path, name: str, facts: Any, base: int) -> Stored:
    try:
        kind, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
            raise TypeError
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"its entry for the tensor {name} makes no sense") from error
    if kind not in SAFETENSORS:
        raise Damaged(f"the tensor {name} is of type {kind!r}, which Koshi does not know")
    if (end - begin) * 8 != math.prod(shape) * SAFETENSORS[kind].bits:
        raise Damaged(f"the tensor {name} has {end - begin} bytes, which is not {kind} of shape {shape}")
    return Stored(file, name, kind, shape, base + begin, base + end)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise Damaged(f"the name {twin} is there twice")
    return table


def weight_files(path: Path) -> list[Path]:
    """A file itself, or a folder's shards: what its index lists, else all its safetensors files.

    Raises KoshiError("bad_model_file") for a shard that is missing, an index that is damaged and an empty folder.
    """
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
    if absent:
        raise KoshiError("bad_model_file", f"{path} lacks {', '.join(absent)}.", FETCH_AGAIN)
    if not files:
        for pickle in sorted(file for file in path.glob("*") if file.suffix.lower() in PICKLES):
            refuse_pickle(pickle)
        raise KoshiError("bad_model_file", f"{path} lacks a .safetensors file.", FETCH_AGAIN)
    return files


def tensors_of(path: Path, part: Part | None = None) -> dict[str, Stored]:
    """The tensors of a file or of a folder's shards, by their names without prefix; quantised ones as `gathered` does.

    part: what is looked for. What belongs to another part, as its prefix tells, is left out; so is what has no prefix
        where others have this part's, except for the transformer, whose reader thus finds what belongs to nothing.
        None takes everything under the name it has.

    Raises KoshiError("bad_model_file") for files that cannot be read, or that hold a tensor twice.
    """
    found: dict[str, Stored] = {}
    files = weight_files(path)
    read = [_header(file) for file in files]
    headers, notes = [header for header, _ in read], {key: text for _, found in read for key, text in found.items()}
    own = _PREFIXES[part] if part else None
    marked = own is not None and any(own.match(name) for header in headers for name in header)
    for file, header in zip(files, headers, strict=True):
        for stored, tensor in header.items():
            match = own.match(stored) if own else None
            if part not in (None, "transformer", "autoencoder") and _COMFY_EXTRAS.match(stored):
                continue
            if match is None and part and (_of_another(stored) or (marked and part != "transformer")):
                continue
            name = stored[match.end() :] if match else stored
            if name in found:
                raise KoshiError(
                    "bad_model_file",
                    f"{path} holds the tensor {name} twice, the second time in {file.name}.",
                    "Keep one set of weights in the folder.",
                )
            found[name] = tensor
    return gathered(found, notes)


def _of_another(stored: str) -> bool:
    return any(pattern.match(stored) for pattern in (*_PREFIXES.values(), _OTHER_TEXT))

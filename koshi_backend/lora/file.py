# SPDX-License-Identifier: GPL-3.0-or-later
"""A LoRA's file, by its header alone: what it is for, and whether Koshi can wear it.

Standard library only: a shot is checked without loading torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contents import file_hash
from ..errors import KoshiError, problem, raise_problems
from ..models.checkpoint import read_header
from ..models.checkpoint_contents import FAMILY_NAMES, Family
from .names import Names, sort_names, told_family

log = logging.getLogger(__name__)

LOW_RANK = frozenset({"down", "up", "up_bias", "alpha", "diff_b"})
KRONECKER = frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha", "diff_b"})
WHOLE = frozenset({"diff", "diff_b", "alpha"})
_NUMBERS, _PATTERNS = ("r", "alpha", "lora_alpha"), ("rank_pattern", "alpha_pattern")
_WEIGHT_DECOMPOSED = ("dora_scale", "lora_magnitude_vector")


@dataclass(frozen=True)
class LoraFile:
    """What a file says of itself.

    family: of FLUX, None where the names do not tell. title: its name, or that of another family, or "".
    settings: peft's, from the header or from adapter_config.json beside the file; lora_alpha, use_rslora and so on.
    """

    path: Path
    names: Names
    shapes: Mapping[str, tuple[int, ...]]
    family: Family | None
    title: str
    settings: Mapping[str, Any]


def open_lora(path: Path) -> LoraFile:
    """Read a LoRA's header. No weight is read.

    Raises KoshiError("bad_model_file") for a file that cannot be read or is no safetensors file, and
    KoshiError("bad_lora") that lists every tensor that Koshi cannot apply: none is ever left out silently. Tensors for
    text encoders are the one thing that is left out, with a warning: prompts are read as the model alone reads them.
    """
    stored = read_header(path)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    metadata, names = _metadata(path), sort_names(stored)
    family, title = told_family(names, shapes, metadata)
    if not names.modules or (title and family is None):
        return LoraFile(path, names, shapes, family, title, {})
    raise_problems("bad_lora", f"The LoRA {path}", _faults(names))
    return LoraFile(path, names, shapes, family, title, _settings(path, metadata))


def check_family(lora: LoraFile, model: str, family: Family) -> None:
    """Refuse a LoRA that is for another family than the model is of. Raises KoshiError("bad_lora")."""
    hint = f"Use one that was trained on {FAMILY_NAMES[family]}."
    if not lora.names.modules:
        only = "a LoRA of text encoders alone, which Koshi does not apply" if lora.names.text else "no LoRA"
        raise KoshiError("bad_lora", f"{lora.path} holds {only}.", hint)
    if lora.title and lora.family != family:
        text = f"{lora.path} is a LoRA for {lora.title}; {model} is a {FAMILY_NAMES[family]} model."
        raise KoshiError("bad_lora", text, hint)


def warn_of_text(lora: LoraFile) -> None:
    """Say what is left out."""
    if lora.names.text:
        log.warning(
            "%s also changes text encoders (%d tensors, such as %s), which Koshi leaves as they are",
            lora.path, len(lora.names.text), lora.names.text[0],
        )  # fmt: skip


def lora_identity(path: str | Path) -> str:
    """SHA-256 of all that a LoRA's effect depends on: its file, and peft's settings where they lie beside it."""
    path = Path(path)
    try:
        parts = [_hash_of(str(path), path.stat().st_size, path.stat().st_mtime_ns)]
        if beside := _beside(path):
            parts.append(hashlib.sha256(beside.read_bytes()).hexdigest())
    except OSError as error:
        raise KoshiError("bad_lora", f"The LoRA {path} cannot be read: {error.strerror}.", "Check the path.") from error
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _hash_of(path: str, size: int, changed: int) -> str:
    return file_hash(path)


def _faults(names: Names) -> list[dict[str, Any]]:
    faults = [problem(name, "Koshi does not know this tensor.") for name in names.unknown]
    for parts in names.modules.values():
        here = set(parts)
        for part in here.intersection(_WEIGHT_DECOMPOSED):
            text = "this is a DoRA, which scales the model's own weights anew; Koshi applies LoRA and LoKr."
            faults.append(problem(parts[part], text))
        here -= set(_WEIGHT_DECOMPOSED)
        if here <= LOW_RANK and {"down", "up"} <= here:
            continue
        if here <= KRONECKER and _whole_factors(here):
            continue
        if here <= WHOLE and here & {"diff", "diff_b"}:
            continue
        strange = here - LOW_RANK - KRONECKER - WHOLE
        text = "Koshi does not apply this kind of tensor."
        if not strange:  # each of them is known, but not without the others, or not together
            text = "what belongs to this tensor is missing, or does not go with it."
        faults += [problem(parts[part], text) for part in sorted(strange or here)]
    return faults


def _whole_factors(here: set[str]) -> bool:
    """Whether both of LoKr's factors are there, each as a whole or as two."""
    return all(
        (factor in here) != ({f"{factor}_a", f"{factor}_b"} <= here)
        and (factor not in here or not {f"{factor}_a", f"{factor}_b"} & here)
        for factor in ("lokr_w1", "lokr_w2")
    )


def _sound(written: dict[str, Any]) -> dict[str, Any]:
    """Those of peft's settings that count, if they are what they should be."""
    found = {key: written[key] for key in (*_NUMBERS, *_PATTERNS, "use_rslora", "peft_type") if written.get(key)}
    for pattern, number in [(".", found[key]) for key in _NUMBERS if key in found] + [
        pair for key in _PATTERNS for pair in found.get(key, {}).items()
    ]:
        re.compile(pattern)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError
    return found


def _beside(path: Path) -> Path | None:
    """peft's own file of settings, which belongs to a file of this name alone."""
    config = path.parent / "adapter_config.json"
    return config if path.name == "adapter_model.safetensors" and config.is_file() else None


def _metadata(path: Path) -> dict[str, str]:
    """What the trainer noted in the header, which has been read and is sound."""
    with path.open("rb") as stream:
        table = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    found = table.get("__metadata__", {})
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings of the transformer's LoRA: diffusers keeps them in the header, peft in a file beside it."""
    try:
        if "lora_adapter_metadata" in metadata:
            written = json.loads(metadata["lora_adapter_metadata"])
            begin = "transformer."
            return _sound({key.removeprefix(begin): value for key, value in written.items() if key.startswith(begin)})
        beside = _beside(path)
        return _sound(json.loads(beside.read_text(encoding="utf-8"))) if beside else {}
    except (OSError, ValueError, TypeError, AttributeError, re.error) as error:
        text, hint = f"peft's settings of the LoRA {path} cannot be read.", "Fetch it again, with adapter_config.json."
        raise KoshiError("bad_lora", text, hint) from error

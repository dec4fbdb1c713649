# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that Koshi knows by name: where their files are, what they are licensed under, how they like to run.

Standard library only: a shot is checked, and `koshi doctor` answers, without loading torch.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from ..errors import KoshiError

TINY_FOLDER = Path(__file__).resolve().parent.parent / "weights" / "koshi-tiny"

# What each family's diffusers folder holds. The single files at a repository's root hold the same weights again.
PARTS: dict[str, tuple[str, ...]] = {
    "flux1": ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    "flux2": ("transformer", "vae", "text_encoder", "tokenizer"),
}
SETTINGS = ("model_index.json", "koshi.json", "scheduler/*")


@dataclass(frozen=True)
class Traits:
    """What a model can do and how it likes to run.

    references: whether pictures can be shown in context. contrasted: whether guidance is an evaluation against the
    negative prompt. embeds: whether the transformer takes guidance as a number. steps, guidance: that it is made for.
    side: of a square picture at its best, in pixels.
    """

    family: Literal["flux1", "flux2"] = "flux2"
    references: bool = True
    contrasted: bool = False
    embeds: bool = False
    steps: int = 4
    guidance: float = 1.0
    side: int = 1024

    @property
    def guided(self) -> bool:
        """Whether guidance has any effect."""
        return self.embeds or self.contrasted


_SCHNELL = Traits("flux1", references=False)
_DEV = Traits("flux1", references=False, embeds=True, steps=28, guidance=3.5)
_BASE = Traits(contrasted=True, steps=50, guidance=4.0)
_OPEN, _FLUX1, _FLUX = "Apache-2.0", "FLUX.1-dev Non-Commercial", "FLUX Non-Commercial"


@dataclass(frozen=True)
class ModelInfo:
    """One named model.

    repository: its name on the Hugging Face hub, "" when the files ship with Koshi. gated: its licence has to be
    accepted there first. download_gb: size of the parts that Koshi downloads, in 10^9 bytes.
    """

    name: str
    title: str
    repository: str
    licence: str
    gated: bool
    download_gb: float
    traits: Traits


_HUB = "black-forest-labs/"
MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            "koshi-tiny", "koshi-tiny (ships with Koshi)", "", "GPL-3.0-or-later", False, 0.0, Traits(side=256)
        ),
        ModelInfo("flux.2-klein-4b", "FLUX.2 Klein 4B", _HUB + "FLUX.2-klein-4B", _OPEN, False, 16.0, Traits()),
        ModelInfo("flux.2-klein-9b", "FLUX.2 Klein 9B", _HUB + "FLUX.2-klein-9B", _FLUX, True, 35.0, Traits()),
        ModelInfo(
            "flux.2-klein-base-4b", "FLUX.2 Klein 4B Base", _HUB + "FLUX.2-klein-base-4B", _OPEN, False, 16.0, _BASE
        ),
        ModelInfo(
            "flux.2-klein-base-9b", "FLUX.2 Klein 9B Base", _HUB + "FLUX.2-klein-base-9B", _FLUX, True, 35.0, _BASE
        ),
        ModelInfo(
            "flux.2-dev", "FLUX.2 dev", _HUB + "FLUX.2-dev", _FLUX, True, 113.0,
            Traits(embeds=True, steps=28, guidance=4.0),
        ),
        ModelInfo("flux.1-schnell", "FLUX.1 schnell", _HUB + "FLUX.1-schnell", _OPEN, True, 34.0, _SCHNELL),
        ModelInfo("flux.1-dev", "FLUX.1 dev", _HUB + "FLUX.1-dev", _FLUX1, True, 34.0, _DEV),
        ModelInfo(
            "flux.1-krea-dev", "FLUX.1 Krea dev", _HUB + "FLUX.1-Krea-dev", _FLUX1, True, 34.0,
            replace(_DEV, guidance=2.5),
        ),
        ModelInfo(
            "flux.1-kontext-dev", "FLUX.1 Kontext dev", _HUB + "FLUX.1-Kontext-dev", _FLUX1, True, 34.0,
            replace(_DEV, references=True, guidance=2.5),
        ),
    )
}  # fmt: skip


class FluxVersion(Enum):
    """Model names for `create_pipeline`. The value is the registry's name."""

    KOSHI_TINY = "koshi-tiny"
    FLUX_1_SCHNELL = "flux.1-schnell"
    FLUX_1_DEV = "flux.1-dev"
    FLUX_1_KREA_DEV = "flux.1-krea-dev"
    FLUX_1_KONTEXT_DEV = "flux.1-kontext-dev"
    FLUX_2_DEV = "flux.2-dev"
    FLUX_2_KLEIN_4B = "flux.2-klein-4b"
    FLUX_2_KLEIN_9B = "flux.2-klein-9b"
    FLUX_2_KLEIN_BASE_4B = "flux.2-klein-base-4b"
    FLUX_2_KLEIN_BASE_9B = "flux.2-klein-base-9b"


def find_model(name: str) -> ModelInfo | Path:
    """The registry's entry, or the folder that `name` is a path to.

    Raises KoshiError("unknown_model") for anything else.
    """
    if name in MODELS:
        return MODELS[name]
    path, is_folder, is_file = Path(name), False, False
    try:
        path = path.expanduser()
        is_folder, is_file = bool(name.strip()) and path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        pass
    if is_folder:
        lacking = [part for part in PARTS[folder_traits(path).family] if not (path / part).is_dir()]
        if lacking:
            raise KoshiError(
                "bad_model",
                f"The model folder {name!r} lacks {', '.join(lacking)}.",
                "Name a folder in diffusers layout, or fetch the model's files again.",
            )
        return path
    if is_file:
        raise KoshiError(
            "unknown_model",
            f"model {name!r} is a single file.",
            "Name the folder that holds transformer, vae, text_encoder and tokenizer.",
        )
    near = difflib.get_close_matches(name, MODELS, n=1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise KoshiError(
        "unknown_model",
        f"model {name!r} is not known, and there is no folder of that name.",
        f"{meant}Known models: {', '.join(MODELS)}.",
    )


def find_traits(name: str) -> Traits:
    """What a model by name or folder can do. Raises KoshiError as `find_model` does."""
    found = find_model(name)
    return found.traits if isinstance(found, ModelInfo) else folder_traits(found)


def folder_traits(folder: Path) -> Traits:
    """What a folder in diffusers layout says of itself: the pipeline's class, and whether guidance is embedded.

    Without a model_index.json the parts tell the family, and FLUX.2 counts as distilled Klein.
    Raises KoshiError("bad_model_file").
    """
    index, config = _settings(folder / "model_index.json"), _settings(folder / "transformer" / "config.json")
    kind, embeds = str(index.get("_class_name", "")), bool(config.get("guidance_embeds", False))
    if kind.startswith(("FluxPipeline", "FluxKontext")) or (not kind and (folder / "text_encoder_2").is_dir()):
        base = _DEV if embeds else _SCHNELL
        return replace(base, references=kind.startswith("FluxKontext"), side=512)
    if embeds or kind.startswith("Flux2Pipeline"):
        return Traits(embeds=True, steps=28, guidance=4.0, side=512)
    return replace(Traits() if index.get("is_distilled", True) else _BASE, side=512)


def _settings(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not isinstance(written, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise KoshiError(
            "bad_model_file", f"{file} is damaged or cut short.", "Fetch the model's files again."
        ) from error
    return written

# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that Koshi knows by name: where their files are, what they are licensed under, how they like to run.

Standard library only: a shot is checked, and `koshi doctor` answers, without loading torch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import KoshiError

TINY_FOLDER = Path(__file__).resolve().parent.parent / "weights" / "koshi-tiny"

PARTS = ("transformer", "vae", "text_encoder", "tokenizer")
# Parts of a diffusers repository that Koshi reads. The single files at a repository's root hold the same weights again.
REPOSITORY_PARTS = ("model_index.json", "koshi.json", "scheduler/*", *(f"{part}/*" for part in PARTS))


@dataclass(frozen=True)
class ModelInfo:
    """One named model.

    repository: its name on the Hugging Face hub, "" when the files ship with Koshi.
    download_gb: size of the parts that Koshi downloads, in 10^9 bytes.
    steps: denoising steps it was distilled for. side: of a square picture at its best, in pixels.
    """

    name: str
    title: str
    repository: str
    licence: str
    gated: bool
    download_gb: float
    steps: int
    side: int


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo("koshi-tiny", "koshi-tiny (ships with Koshi)", "", "GPL-3.0-or-later", False, 0.0, 4, 256),
        ModelInfo(
            "flux.2-klein-4b",
            "FLUX.2 Klein 4B",
            "black-forest-labs/FLUX.2-klein-4B",
            "Apache-2.0",
            False,
            16.0,
            4,
            1024,
        ),
        ModelInfo(
            "flux.2-klein-9b",
            "FLUX.2 Klein 9B",
            "black-forest-labs/FLUX.2-klein-9B",
            "FLUX Non-Commercial",
            True,
            35.0,
            4,
            1024,
        ),
    )
}


class FluxVersion(Enum):
    """Model names for `create_pipeline`. The value is the registry's name."""

    KOSHI_TINY = "koshi-tiny"
    FLUX_1_SCHNELL = "flux.1-schnell"
    FLUX_1_DEV = "flux.1-dev"
    FLUX_2_DEV = "flux.2-dev"
    FLUX_2_KLEIN_4B = "flux.2-klein-4b"
    FLUX_2_KLEIN_9B = "flux.2-klein-9b"


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
        lacking = [part for part in PARTS if not (path / part).is_dir()]
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
    if name in {version.value for version in FluxVersion}:
        raise KoshiError(
            "unknown_model",
            f"model {name!r} belongs to a family that this version of Koshi cannot run yet.",
            f"Choose one of {', '.join(MODELS)}.",
        )
    near = difflib.get_close_matches(name, MODELS, n=1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise KoshiError(
        "unknown_model",
        f"model {name!r} is not known, and there is no folder of that name.",
        f"{meant}Known models: {', '.join(MODELS)}.",
    )


def default_steps(name: str) -> int:
    """Denoising steps for a model by name or folder; Klein's 4 when the folder does not say."""
    info = MODELS.get(name)
    return info.steps if info else 4


def default_side(name: str) -> int:
    """The side of a square picture that suits a model; 512 for a folder of one's own."""
    info = MODELS.get(name)
    return info.side if info else 512

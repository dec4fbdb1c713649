# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that Koshi knows by name: where their files are, what they are licensed under, how they like to run.

Standard library only: a shot is checked, and `koshi doctor` answers, without loading torch.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import KoshiError
from .checkpoint import FETCH_AGAIN, PICKLES, read_header, refuse_pickle, weight_files
from .checkpoint_contents import FAMILY_NAMES, Contents, Family, contents, family_of

TINY_FOLDER = Path(__file__).resolve().parent.parent / "weights" / "koshi-tiny"

# What each family's diffusers folder holds. The single files at a repository's root hold the same weights again.
PARTS: dict[Family, tuple[str, ...]] = {
    "flux1": ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    "flux2": ("transformer", "vae", "text_encoder", "tokenizer"),
    "flux3": ("transformer", "vae", "text_encoder", "tokenizer"),
}
# What names of quantised files end in: flux-2-klein-4b-fp8, flux1-dev-Q4_K_S, flux1-dev_fp8_scaled.
_QUANTISED = re.compile(r"([-_.](fp8|e4m3fn|e5m2|scaled|mixed|int8|nf4|bnb|4bit|bf16|fp16|f16|q\d(_[0-9klms]+)*))+$")
SETTINGS = ("model_index.json", "koshi.json", "scheduler/*")


@dataclass(frozen=True)
class Traits:
    """What a model can do and how it likes to run.

    references: whether pictures can be shown in context. contrasted: whether guidance is an evaluation against the
    negative prompt. embeds: whether the transformer takes guidance as a number. cached: whether it was trained to see
    references as keys and values that are computed once. steps, guidance: that it is made for. strength: at which
    a feedback loop works well, where nothing is said.
    side: of a square picture at its best, in pixels.
    """

    family: Family = "flux2"
    references: bool = True
    cached: bool = False
    contrasted: bool = False
    embeds: bool = False
    steps: int = 4
    guidance: float = 1.0
    strength: float = 0.5
    side: int = 1024

    @property
    def guided(self) -> bool:
        """Whether guidance has any effect."""
        return self.embeds or self.contrasted


# Without a reference a noised start alone has to hold on to the motion, at .3 as well as both at .5 (docs/feedback.md).
_SCHNELL = Traits("flux1", references=False, strength=0.3)
_DEV = replace(_SCHNELL, embeds=True, steps=28, guidance=3.5)
_BASE = Traits(contrasted=True, steps=50, guidance=4.0)
_KLEIN3 = Traits("flux3", steps=16)
_KLEIN3_BASE = Traits("flux3", contrasted=True, steps=50, guidance=3.5)
_OPEN, _FLUX1, _FLUX = "Apache-2.0", "FLUX.1-dev Non-Commercial", "FLUX Non-Commercial"


@dataclass(frozen=True)
class ModelInfo:
    """One named model.

    repository: its name on the Hugging Face hub, "" when the files ship with Koshi. gated: its licence has to be
    accepted there first, as far as is known. file: the published single file with the same transformer, "" where its
    name is not known. download_gb: size of the parts that Koshi downloads; memory_gb: of the weights that it loads, in
    bfloat16; both in 10^9 bytes.
    """

    name: str
    title: str
    repository: str
    file: str
    licence: str
    gated: bool
    download_gb: float
    memory_gb: float
    traits: Traits


# Parameters, two bytes each: transformers as published (3.876, 9.079, 32.223, 11.901, 5.549 billion), the layers in use
# of the text encoders by their configurations (27 of Qwen3-4B 3.11, of Qwen3-8B 5.83; 30 of Mistral-Small 17.34; 32 of
# Qwen3-VL-4B 3.62, of 4.44 that are downloaded; T5-XXL's encoder 4.76 with CLIP-L 0.12), and the autoencoders' 0.084
# each. Pictures take memory on top of it.
_HUB = "black-forest-labs/"
MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            "koshi-tiny", "koshi-tiny (ships with Koshi)", "", "", "GPL-3.0-or-later", False, 0.0, 0.024,
            Traits(side=256),
        ),
        ModelInfo(
            "flux.2-klein-4b", "FLUX.2 Klein 4B", _HUB + "FLUX.2-klein-4B", "flux-2-klein-4b.safetensors",
            _OPEN, False, 16.0, 14.1, Traits(),
        ),
        ModelInfo(
            "flux.2-klein-9b", "FLUX.2 Klein 9B", _HUB + "FLUX.2-klein-9B", "flux-2-klein-9b.safetensors",
            _FLUX, True, 35.0, 30.0, Traits(),
        ),
        ModelInfo(
            "flux.2-klein-base-4b", "FLUX.2 Klein 4B Base", _HUB + "FLUX.2-klein-base-4B",
            "flux-2-klein-base-4b.safetensors", _OPEN, False, 16.0, 14.1, _BASE,
        ),
        ModelInfo(
            "flux.2-klein-base-9b", "FLUX.2 Klein 9B Base", _HUB + "FLUX.2-klein-base-9B",
            "flux-2-klein-base-9b.safetensors", _FLUX, True, 35.0, 30.0, _BASE,
        ),
        ModelInfo(
            "flux.2-klein-9b-kv", "FLUX.2 Klein 9B KV", _HUB + "FLUX.2-klein-9b-kv", "flux-2-klein-9b-kv.safetensors",
            _FLUX, True, 35.0, 30.0, Traits(cached=True),
        ),
        ModelInfo(
            "flux.2-dev", "FLUX.2 dev", _HUB + "FLUX.2-dev", "flux2-dev.safetensors",
            _FLUX, True, 113.0, 99.3, Traits(embeds=True, steps=28, guidance=4.0),
        ),
        ModelInfo(
            "flux.1-schnell", "FLUX.1 schnell", _HUB + "FLUX.1-schnell", "flux1-schnell.safetensors",
            _OPEN, True, 34.0, 33.7, _SCHNELL,
        ),
        ModelInfo(
            "flux.1-dev", "FLUX.1 dev", _HUB + "FLUX.1-dev", "flux1-dev.safetensors", _FLUX1, True, 34.0, 33.7, _DEV
        ),
        ModelInfo(
            "flux.1-krea-dev", "FLUX.1 Krea dev", _HUB + "FLUX.1-Krea-dev", "flux1-krea-dev.safetensors",
            _FLUX1, True, 34.0, 33.7, replace(_DEV, guidance=2.5),
        ),
        ModelInfo(
            "flux.1-kontext-dev", "FLUX.1 Kontext dev", _HUB + "FLUX.1-Kontext-dev", "flux1-kontext-dev.safetensors",
            _FLUX1, True, 34.0, 33.7, replace(_DEV, references=True, guidance=2.5, strength=0.5),
        ),
        ModelInfo(
            "flux.3-image-klein", "FLUX.3 Image Klein", _HUB + "flux-3-image-klein", "",
            "FLUX Kommunity", False, 20.0, 18.5, _KLEIN3,
        ),
        ModelInfo(
            "flux.3-image-klein-base", "FLUX.3 Image Klein Base", _HUB + "flux-3-image-klein-base", "",
            "FLUX Kommunity", False, 20.0, 18.5, _KLEIN3_BASE,
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
    FLUX_2_KLEIN_9B_KV = "flux.2-klein-9b-kv"
    FLUX_3_IMAGE_KLEIN = "flux.3-image-klein"
    FLUX_3_IMAGE_KLEIN_BASE = "flux.3-image-klein-base"


def find_model(name: str) -> ModelInfo | Path:
    """The registry's entry, or the diffusers folder or single file that `name` is a path to.

    A path may end in # and a model's name, which says what tensors do not tell. A folder that holds no whole diffusers
    model stands for the native file in it.
    Raises KoshiError("unknown_model" | "bad_model" | "bad_model_file") for anything else.
    """
    if name in MODELS:
        return MODELS[name]
    path, _ = _parted(name)
    if path is None:
        bare = name.partition("#")[0]
        near = difflib.get_close_matches(bare, MODELS, n=1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise KoshiError(
            "unknown_model",
            f"model {name!r} is not known, and there is no folder or file of that name.",
            f"{meant}Known models: {', '.join(MODELS)}.",
        )
    if path.is_file():
        _check_file(path)
        return path
    lacking = [part for part in PARTS[folder_traits(path).family] if not (path / part).is_dir()]
    if not lacking and is_whole(path, PARTS[folder_traits(path).family]):
        return path
    native = _native_file(path)
    if native is None and lacking:
        raise KoshiError(
            "bad_model",
            f"The model folder {name!r} lacks {', '.join(lacking)}.",
            "Name a folder in diffusers layout, a model's .safetensors file, or fetch the model's files again.",
        )
    return native or path  # a folder with a missing shard, which its reader names


def is_whole(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether a folder has all these parts, and all the shards that their indices name."""
    try:
        return all(
            any((folder / part).glob("*")) if part.startswith("tokenizer") else weight_files(folder / part)
            for part in parts
        )
    except KoshiError:
        return False


def find_traits(name: str) -> Traits:
    """What a model by name, folder or file can do. Raises KoshiError as `find_model` does."""
    found = find_model(name)
    if isinstance(found, ModelInfo):
        return found.traits
    flag = _parted(name)[1]
    if flag is None:
        return folder_traits(found) if found.is_dir() else file_traits(found)
    if flag not in MODELS:
        raise KoshiError(
            "unknown_model",
            f"model {name!r}: {flag!r} after # is no model's name.",
            f"Known models: {', '.join(MODELS)}.",
        )
    wrong = _contradiction(MODELS[flag], contents(found / "transformer" if found.is_dir() else found))
    if wrong:
        raise KoshiError("bad_model", f"model {name!r}: {wrong}.", "Leave # and what follows out, or name another.")
    return MODELS[flag].traits


def published(file: Path) -> ModelInfo | None:
    """The model whose published file has this name, but for what quantised files add to it, and may hold this
    transformer."""
    name = _QUANTISED.sub("", file.stem.lower())
    named = (info for info in MODELS.values() if info.file and Path(info.file).stem == name)
    return next((info for info in named if not _contradiction(info, contents(file))), None)


def file_traits(file: Path) -> Traits:
    """What a single file is, by its published name; else FLUX.1 dev or schnell, FLUX.2 dev or distilled Klein.

    In FLUX.3 the tensors tell base and distilled apart.
    """
    info, held = published(file), contents(file)
    if info is not None:
        return info.traits
    if held.family == "flux1":
        return replace(_DEV if held.guidance else _SCHNELL, side=512)
    if held.family == "flux3":
        return replace(_KLEIN3 if held.flow_map else _KLEIN3_BASE, side=512)
    return replace(MODELS["flux.2-dev"].traits if held.guidance else Traits(), side=512)


def _parted(name: str) -> tuple[Path | None, str | None]:
    """An existing path, and what follows the last # where it is no part of the path."""
    for text, flag in ((name, None), name.rpartition("#")[::2]):
        try:
            path = Path(text).expanduser()
            if text.strip() and (path.is_dir() or path.is_file()):
                return path, flag
        except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
            pass
    return None, None


def _check_file(file: Path) -> None:
    refuse_pickle(file)
    if file.suffix.lower() not in (".safetensors", ".gguf"):
        raise KoshiError(
            "bad_model_file",
            f"{file} is neither a safetensors nor a GGUF file.",
            "Koshi reads .safetensors and .gguf files, and folders of the former.",
        )
    if contents(file).family is None:
        raise KoshiError(
            "bad_model", f"{file} holds no FLUX transformer.", "Name the file of a FLUX model's transformer."
        )


def _native_file(folder: Path) -> Path | None:
    """The one file at a folder's root with a transformer, as in a repository of Black Forest Labs."""
    found = [file for file in sorted(folder.glob("*.safetensors")) if family_of(read_header(file))]
    if len(found) > 1:
        raise KoshiError(
            "bad_model",
            f"{folder} holds several models: {', '.join(file.name for file in found)}.",
            "Name one of the files.",
        )
    if not found:
        for pickle in sorted(file for file in folder.glob("*") if file.suffix.lower() in PICKLES):
            refuse_pickle(pickle)
    return found[0] if found else None


def _contradiction(info: ModelInfo, held: Contents) -> str:
    """What tensors tell against a model's name; "" if nothing."""
    if held.family is None:
        return "it holds no FLUX transformer"
    if held.family != info.traits.family:
        return f"it holds a {FAMILY_NAMES[held.family]} transformer, and {info.title} is of another family"
    if held.guidance != info.traits.embeds:
        return f"its transformer embeds {'' if held.guidance else 'no '}guidance, unlike {info.title}"
    if held.family == "flux3" and held.flow_map == info.traits.contrasted:
        return f"its transformer is {'a distilled' if held.flow_map else 'no distilled'} one, unlike {info.title}"
    return ""


def folder_traits(folder: Path) -> Traits:
    """What a folder in diffusers layout says of itself: the pipeline's class, and whether guidance is embedded.

    Without a model_index.json the parts tell the family, and FLUX.2 counts as distilled Klein. FLUX.3 is told by its
    transformer's class, for its folders are modular pipelines, which have no such file.
    Raises KoshiError("bad_model_file").
    """
    index, config = _settings(folder / "model_index.json"), _settings(folder / "transformer" / "config.json")
    kind, embeds = str(index.get("_class_name", "")), bool(config.get("guidance_embeds", False))
    if str(config.get("_class_name", "")).startswith("Flux3"):
        return replace(_KLEIN3 if config.get("flow_map", False) else _KLEIN3_BASE, side=512)
    if kind.startswith(("FluxPipeline", "FluxKontext")) or (not kind and (folder / "text_encoder_2").is_dir()):
        base = _DEV if embeds else _SCHNELL
        shown = kind.startswith("FluxKontext")
        return replace(base, references=shown, strength=0.5 if shown else base.strength, side=512)
    if embeds or kind.startswith("Flux2Pipeline"):
        return Traits(embeds=True, steps=28, guidance=4.0, side=512)
    return replace(Traits() if index.get("is_distilled", True) else _BASE, side=512)


def _settings(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not isinstance(written, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise KoshiError("bad_model_file", f"{file} is damaged or cut short.", FETCH_AGAIN) from error
    return written

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of a model are: in one diffusers folder, or gathered around a single file.

What a single file does not hold is looked for beside it, in the ComfyUI tree that it is in, and among the models that
are installed, in this order; it is known by its tensors, not by its name. Standard library only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import KoshiError, problem, raise_problems
from .checkpoint import Part
from .checkpoint_contents import CELLS, FAMILY_NAMES, Contents, Family, contents
from .hub_cache import snapshot_folder
from .registry import MODELS, PARTS, TINY_FOLDER, ModelInfo, Traits, file_traits, folder_traits

log = logging.getLogger(__name__)

SMALL_DECODER = "small_decoder.safetensors"
# An autoencoder beside a model, the first before the others. All hold FLUX.1's or FLUX.2's, which is FLUX.3's too.
_AUTOENCODERS = ("ae.safetensors", "flux2-vae.safetensors", "full_encoder_" + SMALL_DECODER)
_SETTINGS = ("koshi.json", "model_index.json")
_COMFY_MODELS = ("diffusion_models", "unet", "checkpoints")
_COMFY_TEXTS = ("text_encoders", "clip")
_SIBLINGS = {7680: "flux.2-klein-4b", 12288: "flux.2-klein-9b", 15360: "flux.2-dev"}  # by channels of text
_STACKED = {"flux2": 3, "flux3": 8}  # layers of a language model that are read, unless koshi.json says otherwise


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's parts are.

    name: the folder or file that was named. transformer, autoencoder: a folder of shards or a file. texts: of the text
    encoders likewise, by the names of their folders. settings: a diffusers folder; its tokenizers, its text encoders'
    config.json and its koshi.json count. decoder: takes the place of the autoencoder's own.
    """

    name: Path
    traits: Traits
    transformer: Path
    autoencoder: Path
    texts: dict[str, Path]
    settings: Path
    decoder: Path | None = None

    def listed(self) -> Iterator[tuple[str, Path]]:
        """Everything that is read, under a name that does not depend on where it is."""
        parts = {"transformer": self.transformer, "vae": self.autoencoder, **self.texts}
        parts |= {name: self.settings / name for name in PARTS[self.traits.family] if name.startswith("tokenizer")}
        parts |= {name: self.settings / name for name in _SETTINGS if (self.settings / name).is_file()}
        if self.decoder:
            parts[SMALL_DECODER] = self.decoder
        for name, path in self.texts.items():
            if path != self.settings / name:
                parts[f"{name}/config.json"] = self.settings / name / "config.json"
        for name, path in parts.items():
            if path.is_dir():
                yield from ((f"{name}/{file.name}", file) for file in path.glob("*") if file.is_file())
            else:
                yield name, path


def folder_files(folder: Path, traits: Traits | None = None) -> ModelFiles:
    """A folder in diffusers layout. Nothing is checked."""
    traits = traits or folder_traits(folder)
    decoder = folder / SMALL_DECODER if traits.family != "flux1" and (folder / SMALL_DECODER).is_file() else None
    texts = {name: folder / name for name in _texts(traits)}
    return ModelFiles(folder, traits, folder / "transformer", folder / "vae", texts, folder, decoder)


def single_files(file: Path, traits: Traits | None = None) -> ModelFiles:
    """A transformer's file with the parts that go with it.

    Raises KoshiError("bad_model") that names every part that is nowhere, with what was looked for.
    """
    held, traits = contents(file), traits or file_traits(file)
    if held.family is None:
        raise KoshiError("bad_model", f"{file} holds no FLUX transformer.")
    search = _Search(file, held, traits)
    settings = search.settings()
    autoencoder = search.autoencoder(settings)
    texts = {name: search.text(name, settings) for name in _texts(traits)}
    search.complain()
    assert settings is not None and autoencoder is not None
    there = {name: path for name, path in texts.items() if path is not None}
    decoder = file.parent / SMALL_DECODER
    used = decoder if held.family != "flux1" and decoder.is_file() else None
    log.info("%s goes with %s", file, ", ".join(map(str, dict.fromkeys([autoencoder, *there.values(), settings]))))
    return ModelFiles(file, traits, file, autoencoder, there, settings, used)


def snapshot(info: ModelInfo) -> Path | None:
    """A named model's folder on this computer, which may hold only some of its files. Asks no network."""
    if not info.repository:
        return TINY_FOLDER
    return snapshot_folder(info.repository)


def part_of(family: Family, name: str) -> Part:
    """What is in a family's folder of this name, which is a text encoder's."""
    if family == "flux1":
        return "clip" if name == "text_encoder" else "t5"
    return "language" if family == "flux2" else "vision_language"


def text_width(settings: Path, traits: Traits) -> tuple[int, int]:
    """Channels of the states, and of CLIP's vector (FLUX.1 only), that a folder's text encoders make; 0 if not told."""
    if traits.family == "flux1":
        clip, t5 = (_read(settings / name / "config.json") for name in _texts(traits))
        return _whole(t5, "d_model"), _whole(clip, "hidden_size")
    layers = _read(settings / "koshi.json").get("text_encoder_out_layers")
    return _language_width(settings) * (len(layers) if isinstance(layers, list) else _STACKED[traits.family]), 0


class _Search:
    """The way from one file to its other parts; gathers what is not found."""

    def __init__(self, file: Path, held: Contents, traits: Traits) -> None:
        self.file, self.held, self.traits = file, held, traits
        self.lacking: list[dict[str, Any]] = []
        self.unread: list[str] = []
        self.tree = next((p.parent for p in file.parents if p.name in _COMFY_MODELS), None)

    def settings(self) -> Path | None:
        """The folder whose tokenizers and text encoders belong to this transformer."""
        wanted = (self.held.context, self.held.pooled if self.held.family == "flux1" else 0)
        needed = [p for p in PARTS[self.traits.family] if p.startswith(("tokenizer", "text_encoder"))]
        seen = []
        for folder in (self.file.parent, *self._installed()):
            if not all((folder / part).is_dir() for part in needed):
                continue
            made = text_width(folder, self.traits)
            if made == wanted:
                return folder
            seen.append(f"{folder} makes {made[0]}")
        takes = f"{self.held.context_name} takes {self.held.context} channels of text" if self.held.context else (
            f"{self.held.context_name} is missing"
        )  # fmt: skip
        text = f"no tokenizer and text encoder's config.json go with it. {takes}" + "".join(f"; {s}" for s in seen)
        self._lack("tokenizer", text + ".", f"Put {', '.join(needed)} beside it, or install {self._sibling()}.")
        return None

    def autoencoder(self, settings: Path | None) -> Path | None:
        latent = self.held.channels // CELLS
        if latent in self.held.latent:
            return self.file
        beside = [self.file.parent / name for name in ("vae", *_AUTOENCODERS)]
        # All FLUX.2 models share one, with FLUX.3; koshi-tiny's is its own.
        families: tuple[Family, ...] = ("flux3", "flux2") if self.traits.family == "flux3" else (self.traits.family,)
        folders = (folder for family in families for folder in self._installed(family))
        installed = [f / "vae" for f in folders if f != TINY_FOLDER or f == settings]
        for path in [*beside, *self._comfy("vae"), *installed]:
            if latent in self._contents(path).latent:
                return path
        names = ", ".join(_AUTOENCODERS)
        self._lack(
            "vae",
            f"no autoencoder with {latent} channels is found.",
            f"Put vae/ or {names} beside it, or install {self._sibling()}.",
        )
        return None

    def text(self, name: str, settings: Path | None) -> Path | None:
        part = part_of(self.traits.family, name)
        if settings is None:
            return None  # has been said
        width = {"clip": self.held.pooled, "t5": self.held.context}.get(part) or _language_width(settings)
        if width in self.held.texts.get(part, ()):
            return self.file
        comfy = (path for folder in _COMFY_TEXTS for path in self._comfy(folder))
        for path in (self.file.parent / name, *comfy, settings / name):
            if width in self._contents(path).texts.get(part, ()):
                return path
        self._lack(
            name,
            f"no text encoder of width {width} is found.",
            f"Put {name}/ beside it, a file of it into ComfyUI's text_encoders, or install {self._sibling()}.",
        )
        return None

    def complain(self) -> None:
        if self.lacking and self.unread:
            self.lacking.append(problem("files that cannot be read", " ".join(self.unread)))
        kind = FAMILY_NAMES[self.traits.family]
        raise_problems("bad_model", f"{self.file}, the transformer of a {kind} model,", self.lacking)

    def _lack(self, part: str, message: str, hint: str) -> None:
        self.lacking.append(problem(part, f"{self.file.name} does not hold it, and {message}", hint))

    def _sibling(self) -> str:
        """A named model with the same text encoder."""
        usual = {"flux1": "flux.1-schnell", "flux2": "flux.2-klein-4b", "flux3": "flux.3-image-klein"}
        return _SIBLINGS.get(self.held.context, usual[self.traits.family])

    def _installed(self, family: Family | None = None) -> Iterator[Path]:
        """Folders of named models of this family (or `family`), those of the same kind first."""
        infos = [info for info in MODELS.values() if info.traits.family == (family or self.traits.family)]
        for info in sorted(infos, key=lambda info: info.traits != self.traits):
            folder = snapshot(info)
            if folder is not None:
                yield folder

    def _comfy(self, folder: str) -> list[Path]:
        """The larger ones first, which are the less quantised ones."""
        found = (self.tree / folder).rglob("*.safetensors") if self.tree else ()
        return sorted(found, key=lambda file: (_AUTOENCODERS.index(file.name) if file.name in _AUTOENCODERS else 9,
                                               -file.stat().st_size, file.name))  # fmt: skip

    def _contents(self, path: Path) -> Contents:
        """A file that cannot be read is no candidate. Should nothing else be found, it is named."""
        if not (path.is_file() or any(path.glob("*.safetensors*"))):
            return Contents()
        try:
            return contents(path)
        except KoshiError as error:
            log.warning("%s", error)
            self.unread.append(error.message)
            return Contents()


def _texts(traits: Traits) -> list[str]:
    return [part for part in PARTS[traits.family] if part.startswith("text_encoder")]


def _language_width(settings: Path) -> int:
    """Of Qwen3's configuration, or of the language model's in Mistral's or Qwen3-VL's."""
    config = _read(settings / "text_encoder" / "config.json")
    inner = config.get("text_config")
    return _whole(inner if isinstance(inner, dict) else config, "hidden_size")


def _read(file: Path) -> dict[str, Any]:
    """Empty for what cannot be understood: its reader says so better."""
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}


def _whole(table: dict[str, Any], name: str) -> int:
    value = table.get(name)
    return value if type(value) is int else 0

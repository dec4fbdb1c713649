# SPDX-License-Identifier: GPL-3.0-or-later
"""Transformers and autoencoders of all FLUX families from files.

Both layouts are read: native single files (with or without ComfyUI's prefix) and diffusers folders, sharded or not.
Layout, family and configuration are found from the tensors' names and shapes (configurations.py). Missing, unknown
and misshapen tensors are all listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch
from torch import nn

from ..errors import KoshiError
from .autoencoder import Autoencoder
from .checkpoint_contents import FAMILY_NAMES, Family, family_of
from .configurations import Finder, as_is, autoencoder_config, count, flux1_config, flux2_config, flux3_config
from .flux1 import Flux1Transformer
from .flux2 import Flux2Transformer
from .flux3 import Flux3Transformer
from .layout import Source, autoencoder_source, transformer_source
from .layout1 import flux1_transformer_source
from .layout3 import TRAINING_ONLY, flux3_transformer_source
from .quantise import Quantise
from .tensor_files import TensorFiles, compare, fill, read_config

Transformer = Flux1Transformer | Flux2Transformer | Flux3Transformer
_Chosen = TypeVar("_Chosen", bound=Transformer)
_Net = TypeVar("_Net", bound=nn.Module)
_Class = type[Flux1Transformer] | type[Flux2Transformer] | type[Flux3Transformer]

_CLASSES: dict[Family, _Class] = {"flux1": Flux1Transformer, "flux2": Flux2Transformer, "flux3": Flux3Transformer}
_SOURCES: dict[Family, Finder] = {
    "flux1": flux1_transformer_source,
    "flux2": transformer_source,
    "flux3": flux3_transformer_source,
}


@dataclass(frozen=True)
class Opened(Generic[_Net]):
    """A network without memory, and the files whose names and shapes fit it. No weight has been read."""

    net: _Net
    files: TensorFiles
    source: Finder

    def load(self, device: torch.device, dtype: torch.dtype, quantise: Quantise = "none") -> _Net:
        """The network with its weights, frozen. Call it once. quantise: its layers, as far as the files have not."""
        return fill(self.net, self.files, self.source, device, dtype, quantise)


OpenedTransformer = Opened[Flux1Transformer] | Opened[Flux2Transformer] | Opened[Flux3Transformer]


def find_family(path: Path) -> _Class:
    """The class that a folder's or a single file's transformer is loaded as. Reads only the headers."""
    return _CLASSES[_detect(TensorFiles(path, "transformer"))[0]]


def open_transformer(path: Path) -> OpenedTransformer:
    """Find a transformer's family and sizes, and compare all its tensors with them.

    Raises KoshiError("bad_model") when the files hold no transformer, a variant that Koshi cannot run, or tensors
    that do not fit; KoshiError("bad_model_file") when a file is missing or damaged.
    """
    files = TensorFiles(path, "transformer")
    family, source = _detect(files)
    written = read_config(path)
    with torch.device("meta"):
        opened: OpenedTransformer
        if family == "flux1":
            opened = Opened(Flux1Transformer(flux1_config(files, source, written)), files, source)
        elif family == "flux3":
            opened = Opened(Flux3Transformer(flux3_config(files, source, written)), files, source)
        else:
            opened = Opened(Flux2Transformer(flux2_config(files, source, written)), files, source)
    compare(opened.net, files, source)
    return opened


@overload
def load_transformer(path: Path, device: torch.device, dtype: torch.dtype) -> Flux2Transformer: ...
@overload
def load_transformer(path: Path, device: torch.device, dtype: torch.dtype, family: type[_Chosen]) -> _Chosen: ...
def load_transformer(
    path: Path, device: torch.device, dtype: torch.dtype, family: type[Any] = Flux2Transformer
) -> Transformer:
    """A transformer from a folder or a single file.

    family: the class that the caller can run; `find_family` tells which one a path holds.
    Raises KoshiError as `open_transformer` does, and when the files hold another family.
    """
    found = find_family(path)
    if found is not family:
        names = {_CLASSES[key]: name for key, name in FAMILY_NAMES.items()}
        raise KoshiError(
            "bad_model",
            f"{path} holds a {names[found]} transformer, where one of {names[family]} is needed.",
            "Name a model of that family, or keep all parts of a model in one folder.",
        )
    return open_transformer(path).load(device, dtype)


def open_autoencoder(path: Path, decoder: Path | None = None) -> Opened[Autoencoder]:
    """Find an autoencoder's sizes, and compare all its tensors with them.

    The family is told by the latent's channels, 16 or 32 (`config.channels`).
    decoder: a file with a decoder alone, in native names, that takes the place of the one in `path`.
    Raises KoshiError as `open_transformer` does.
    """
    files = TensorFiles(path, "autoencoder")
    native = any(name.startswith("encoder.down.") for name in files.shapes)
    levels = count(files, "encoder.down" if native else "encoder.down_blocks")
    if not levels:
        only_decoder = any(name.endswith("conv_out.weight") for name in files.shapes)
        what = "only one half of an autoencoder" if only_decoder else "no FLUX autoencoder"
        raise KoshiError("bad_model", f"{path} holds {what}.", "Name a file or folder with both encoder and decoder.")
    if decoder is not None:
        _check_decoder(decoder, new := TensorFiles(decoder, "autoencoder"))
        files.replace(("decoder.", "post_quant_conv."), new, "decoder.")

    def source(name: str) -> Source:
        as_it_is = native or (decoder is not None and name.startswith("decoder."))
        return Source((name,)) if as_it_is else autoencoder_source(name, levels)

    blocks = count(files, "encoder.down.0.block" if native else "encoder.down_blocks.0.resnets")
    with torch.device("meta"):
        net = Autoencoder(autoencoder_config(files, source, levels, blocks, read_config(path)))
    compare(net, files, source)
    return Opened(net, files, source)


def load_autoencoder(path: Path, device: torch.device, dtype: torch.dtype, decoder: Path | None = None) -> Autoencoder:
    """FLUX.1's autoencoder, or FLUX.2's and FLUX.3's, as `open_autoencoder` finds it. Statistics stay as stored."""
    return open_autoencoder(path, decoder).load(device, dtype)


def _check_decoder(path: Path, files: TensorFiles) -> None:
    names = [name.removeprefix("decoder.") for name in files.shapes]
    if not any(name.startswith("up.") for name in names) or any(name.startswith("encoder.") for name in names):
        raise KoshiError(
            "bad_model",
            f"{path} is not a decoder alone in native names.",
            "Use black-forest-labs/FLUX.2-small-decoder's small_decoder.safetensors, or take the file away.",
        )


def _detect(files: TensorFiles) -> tuple[Family, Finder]:
    """Family and layout."""
    found = family_of(files.shapes)
    if found is None:
        raise KoshiError(
            "bad_model", f"{files.path} holds no FLUX transformer.", "Name a folder or file of a FLUX model."
        )
    family, native = found
    if family == "flux3":
        for name in [name for name in files.shapes if name.startswith(TRAINING_ONLY)]:
            del files.shapes[name]
    return family, as_is if native else _SOURCES[family]

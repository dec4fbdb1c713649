# SPDX-License-Identifier: GPL-3.0-or-later
"""Transformers and autoencoders of all FLUX families from files.

Both layouts are read: native single files (with or without ComfyUI's prefix) and diffusers folders, sharded or not.
Layout, family and configuration are found from the tensors' names and shapes; config.json only adds what shapes do
not show. Missing, unknown and misshapen tensors are all listed.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import torch
from torch import nn

from ..errors import KoshiError, problem, raise_problems
from . import flux1, flux2, flux3
from .autoencoder import FLUX1_CHANNELS, LATENT_CHANNELS, Autoencoder, AutoencoderConfig, FixedNormalisation
from .checkpoint import FETCH_AGAIN
from .checkpoint_contents import FAMILY_NAMES, Family, family_of
from .flux1 import Flux1Config, Flux1Transformer
from .flux2 import Flux2Config, Flux2Transformer
from .flux3 import Flux3Config, Flux3Transformer
from .layout import Source, autoencoder_source, transformer_source
from .layout1 import flux1_transformer_source
from .layout3 import TRAINING_ONLY, flux3_transformer_source
from .tensor_files import TensorFiles, compare, fill, read_config

Transformer = Flux1Transformer | Flux2Transformer | Flux3Transformer
_Chosen = TypeVar("_Chosen", bound=Transformer)
_Net = TypeVar("_Net", bound=nn.Module)
_Finder = Callable[[str], Source]

_Class = type[Flux1Transformer] | type[Flux2Transformer] | type[Flux3Transformer]

_CLASSES: dict[Family, _Class] = {"flux1": Flux1Transformer, "flux2": Flux2Transformer, "flux3": Flux3Transformer}
_SOURCES: dict[Family, _Finder] = {
    "flux1": flux1_transformer_source,
    "flux2": transformer_source,
    "flux3": flux3_transformer_source,
}
# Published FLUX.1 models that take more channels beside the noise, by the channels of their first layer.
_FLUX1_VARIANTS = {
    2 * flux1.CHANNELS: "FLUX.1 Canny or FLUX.1 Depth (128 channels: noise and a control picture)",
    6 * flux1.CHANNELS: "FLUX.1 Fill (384 channels: noise, a picture and its mask)",
}


@dataclass(frozen=True)
class Opened(Generic[_Net]):
    """A network without memory, and the files whose names and shapes fit it. No weight has been read."""

    net: _Net
    files: TensorFiles
    source: _Finder

    def load(self, device: torch.device, dtype: torch.dtype) -> _Net:
        """The network with its weights, frozen. Call it once."""
        return fill(self.net, self.files, self.source, device, dtype)


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
            opened = Opened(Flux1Transformer(_flux1_config(files, source, written)), files, source)
        elif family == "flux3":
            opened = Opened(Flux3Transformer(_flux3_config(files, source, written)), files, source)
        else:
            opened = Opened(Flux2Transformer(_flux2_config(files, source, written)), files, source)
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
    levels = _count(files, "encoder.down" if native else "encoder.down_blocks")
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

    blocks = _count(files, "encoder.down.0.block" if native else "encoder.down_blocks.0.resnets")
    with torch.device("meta"):
        net = Autoencoder(_autoencoder_config(files, source, levels, blocks, read_config(path)))
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


def _detect(files: TensorFiles) -> tuple[Family, _Finder]:
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
    return family, _as_is if native else _SOURCES[family]


class _Shape(NamedTuple):
    """What the shapes of FLUX.1 and FLUX.2 tell in the same way."""

    hidden: int
    heads: int
    context: int
    channels: int
    mlp: int
    double_blocks: int
    single_blocks: int
    guidance: bool


def _flux1_config(files: TensorFiles, source: _Finder, written: dict[str, Any]) -> Flux1Config:
    shape = _transformer_shape(files, source)
    if shape.channels != flux1.CHANNELS:
        known = _FLUX1_VARIANTS.get(shape.channels, f"a FLUX.1 variant that takes {shape.channels} channels")
        raise KoshiError(
            "bad_model",
            f"{files.path} is {known}; Koshi cannot run it.",
            "Choose FLUX.1 schnell, dev, Krea-dev or Kontext-dev.",
        )
    return Flux1Config(
        hidden=shape.hidden,
        heads=shape.heads,
        context=shape.context,
        pooled=_size(files, source, ("vector_in.in_layer.weight", 1)),
        double_blocks=shape.double_blocks,
        single_blocks=shape.single_blocks,
        mlp_ratio=shape.mlp / shape.hidden,
        guidance=shape.guidance,
        axes=_axes(written, shape.hidden // shape.heads),
    )


def _flux2_config(files: TensorFiles, source: _Finder, written: dict[str, Any]) -> Flux2Config:
    shape = _transformer_shape(files, source)
    return Flux2Config(
        hidden=shape.hidden,
        heads=shape.heads,
        context=shape.context,
        double_blocks=shape.double_blocks,
        single_blocks=shape.single_blocks,
        channels=shape.channels,
        mlp_ratio=shape.mlp / shape.hidden,
        guidance=shape.guidance,
        theta=_number(written, "rope_theta", flux2.THETA),
    )


def _flux3_config(files: TensorFiles, source: _Finder, written: dict[str, Any]) -> Flux3Config:
    single, own, norms = "single_blocks.0", "txt_mode_blocks.0", ("query_norm.scale", "key_norm.scale")
    picture, shown, last = "emb_in.image.weight", "emb_in.image_cond.weight", "final_layer.image.linear.weight"
    hidden = _size(files, source, (picture, 0), ("txt_in.weight", 0), (f"{single}.attn_out.weight", 0), (last, 1))
    head = _size(files, source, *((f"{block}.norm.{norm}", 0) for block in (single, own) for norm in norms))
    mlp = _size(files, source, *((f"{block}.mlp_out.weight", 1) for block in (single, own)))
    flow_map = source("ref_time_in.in_layer.weight").names[0].rsplit(".", 2)[0]
    return Flux3Config(
        hidden=hidden,
        heads=max(hidden // head, 1),
        context=_size(files, source, ("txt_in.weight", 1)),
        own_blocks=_count(files, "txt_mode_blocks"),
        single_blocks=_count(files, "single_blocks" if source is _as_is else "single_transformer_blocks"),
        channels=_size(files, source, (picture, 1), (shown, 1), (last, 0)),
        mlp_ratio=mlp / hidden,
        flow_map=any(name.startswith(flow_map) for name in files.shapes),
        theta=_number(written, "rope_theta", flux3.THETA),
    )


def _transformer_shape(files: TensorFiles, source: _Finder) -> _Shape:
    single, double = "single_blocks.0", "double_blocks.0"
    last, norms = f"{single}.linear2.weight", ("query_norm.scale", "key_norm.scale")
    hidden = _size(
        files, source, ("img_in.weight", 0), ("txt_in.weight", 0), (last, 0), ("final_layer.linear.weight", 1)
    )
    head = _size(files, source, *((f"{part}.norm.{n}", 0) for part in (single, f"{double}.img_attn") for n in norms))
    mlp = _size(files, source, (f"{double}.img_mlp.2.weight", 1), (f"{double}.txt_mlp.2.weight", 1))
    native = source is _as_is
    guidance = source("guidance_in.in_layer.weight").names[0].rsplit(".", 2)[0]
    return _Shape(
        hidden=hidden,
        heads=max(hidden // head, 1),
        context=_size(files, source, ("txt_in.weight", 1)),
        channels=_size(files, source, ("img_in.weight", 1)),
        mlp=mlp,
        double_blocks=_count(files, "double_blocks" if native else "transformer_blocks"),
        single_blocks=_count(files, "single_blocks" if native else "single_transformer_blocks"),
        guidance=any(name.startswith(guidance) for name in files.shapes),
    )


def _autoencoder_config(
    files: TensorFiles, source: _Finder, levels: int, blocks: int, written: dict[str, Any]
) -> AutoencoderConfig:
    """The group count comes from config.json, else it is FLUX's 32."""
    halves = [f"encoder.down.{k}" for k in range(levels)] + [f"decoder.up.{k}" for k in range(levels)]
    told = ("norm2.weight", "conv2.weight", "conv2.bias")
    widths = tuple(_size(files, source, *((f"{half}.block.0.{name}", 0) for name in told)) for half in halves)
    channels = _size(files, source, ("decoder.conv_in.weight", 1))
    if channels not in (FLUX1_CHANNELS, LATENT_CHANNELS):
        raise KoshiError(
            "bad_model",
            f"The autoencoder in {files.path} has {channels} latent channels. FLUX.1 has 16, FLUX.2 has 32.",
            FETCH_AGAIN,
        )
    groups = int(_number(written, "norm_num_groups", 32))
    unfit = sorted({width for width in widths if width % groups})
    if unfit:
        raise KoshiError(
            "bad_model",
            f"The autoencoder in {files.path} has {unfit[0]} channels, which do not part into {groups} groups.",
            "For a model of your own, write norm_num_groups into config.json.",
        )
    usual = FixedNormalisation()
    return AutoencoderConfig(
        widths=widths[:levels],
        decoder_widths=widths[levels:],
        blocks=blocks,
        groups=groups,
        statistics_eps=_number(written, "batch_norm_eps", 1e-4),
        channels=channels,
        fixed=None
        if channels == LATENT_CHANNELS
        else FixedNormalisation(
            _number(written, "shift_factor", usual.shift), _number(written, "scaling_factor", usual.scale)
        ),
    )


def _size(files: TensorFiles, source: _Finder, *witnesses: tuple[str, int]) -> int:
    """A size that several native tensors tell: each by its name and dimension.

    What most of them say counts, so that one misshapen tensor is found to differ from the rest, not the rest from it.
    """
    names = [source(native).names[0] for native, _ in witnesses]
    shapes = [files.shapes.get(name, ()) for name in names]
    sizes = [shape[at] for shape, (_, at) in zip(shapes, witnesses, strict=True) if len(shape) > at and shape[at]]
    if not sizes:
        absent = names[0] not in files.shapes
        fault = problem(names[0], "this tensor is missing." if absent else f"the shape {shapes[0]} makes no sense.")
        raise_problems("bad_model", f"The model in {files.path}", [fault])
    return statistics.mode(sizes)


def _as_is(name: str) -> Source:
    return Source((name,))


def _count(files: TensorFiles, prefix: str) -> int:
    """How many blocks `prefix.0`, `prefix.1`, ... there are."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({int(m[1]) for m in map(pattern.match, files.shapes) if m})


def _axes(written: dict[str, Any], head: int) -> tuple[int, int, int]:
    """Rotary axes of FLUX.1: config.json's, else an eighth for the picture and the rest for row and column."""
    axes = written.get("axes_dims_rope", [head // 8, head * 7 // 16, head * 7 // 16])
    if (
        not isinstance(axes, list)
        or [type(axis) for axis in axes] != [int] * 3
        or any(axis < 2 or axis % 2 for axis in axes)
        or sum(axes) != head
    ):
        raise KoshiError(
            "bad_model",
            f"axes_dims_rope is {axes!r}; it must be three even numbers that sum to the head's width, {head}.",
            "Fetch the model's files again; for a model of your own, write it into config.json.",
        )
    return axes[0], axes[1], axes[2]


def _number(written: dict[str, Any], name: str, default: float) -> float:
    value = written.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise KoshiError("bad_model", f"config.json says {name} is {value!r}.", FETCH_AGAIN)
    return value

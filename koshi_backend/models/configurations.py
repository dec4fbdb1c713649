# SPDX-License-Identifier: GPL-3.0-or-later
"""A network's configuration from the shapes of its tensors.

config.json (`written`) only adds what shapes do not show. Each size has several witnesses.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import KoshiError, problem, raise_problems
from . import flux1, flux2, flux3
from .autoencoder import FLUX1_CHANNELS, LATENT_CHANNELS, AutoencoderConfig, FixedNormalisation
from .checkpoint import FETCH_AGAIN
from .flux1 import Flux1Config
from .flux2 import Flux2Config
from .flux3 import Flux3Config
from .layout import Source
from .tensor_files import TensorFiles

# Where a native tensor is found in the files.
Finder = Callable[[str], Source]

# Published FLUX.1 models that take more channels beside the noise, by the channels of their first layer.
_FLUX1_VARIANTS = {
    2 * flux1.CHANNELS: "FLUX.1 Canny or FLUX.1 Depth (128 channels: noise and a control picture)",
    6 * flux1.CHANNELS: "FLUX.1 Fill (384 channels: noise, a picture and its mask)",
}


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


def flux1_config(files: TensorFiles, source: Finder, written: dict[str, Any]) -> Flux1Config:
    """Raises KoshiError("bad_model") for FLUX.1's variants with further channels, which Koshi cannot run."""
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


def flux2_config(files: TensorFiles, source: Finder, written: dict[str, Any]) -> Flux2Config:
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


def flux3_config(files: TensorFiles, source: Finder, written: dict[str, Any]) -> Flux3Config:
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
        own_blocks=count(files, "txt_mode_blocks"),
        single_blocks=count(files, "single_blocks" if source is as_is else "single_transformer_blocks"),
        channels=_size(files, source, (picture, 1), (shown, 1), (last, 0)),
        mlp_ratio=mlp / hidden,
        flow_map=any(name.startswith(flow_map) for name in files.shapes),
        theta=_number(written, "rope_theta", flux3.THETA),
    )


def _transformer_shape(files: TensorFiles, source: Finder) -> _Shape:
    single, double = "single_blocks.0", "double_blocks.0"
    last, norms = f"{single}.linear2.weight", ("query_norm.scale", "key_norm.scale")
    hidden = _size(
        files, source, ("img_in.weight", 0), ("txt_in.weight", 0), (last, 0), ("final_layer.linear.weight", 1)
    )
    head = _size(files, source, *((f"{part}.norm.{n}", 0) for part in (single, f"{double}.img_attn") for n in norms))
    mlp = _size(files, source, (f"{double}.img_mlp.2.weight", 1), (f"{double}.txt_mlp.2.weight", 1))
    native = source is as_is
    guidance = source("guidance_in.in_layer.weight").names[0].rsplit(".", 2)[0]
    return _Shape(
        hidden=hidden,
        heads=max(hidden // head, 1),
        context=_size(files, source, ("txt_in.weight", 1)),
        channels=_size(files, source, ("img_in.weight", 1)),
        mlp=mlp,
        double_blocks=count(files, "double_blocks" if native else "transformer_blocks"),
        single_blocks=count(files, "single_blocks" if native else "single_transformer_blocks"),
        guidance=any(name.startswith(guidance) for name in files.shapes),
    )


def autoencoder_config(
    files: TensorFiles, source: Finder, levels: int, blocks: int, written: dict[str, Any]
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


def _size(files: TensorFiles, source: Finder, *witnesses: tuple[str, int]) -> int:
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


def as_is(name: str) -> Source:
    return Source((name,))


def count(files: TensorFiles, prefix: str) -> int:
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

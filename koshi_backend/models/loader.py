# SPDX-License-Identifier: GPL-3.0-or-later
"""From safetensors files to modules on a device.

Both layouts are read: native single files (with or without ComfyUI's prefix) and diffusers folders, sharded or not.
The configuration is found from the tensors' shapes. Missing, unknown and misshapen tensors are all listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import KoshiError, problem, raise_problems
from .autoencoder import Autoencoder, AutoencoderConfig
from .flux2 import THETA, Flux2Config, Flux2Transformer
from .layout import Source, autoencoder_source, transformer_source

_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_Net = TypeVar("_Net", bound=nn.Module)


class TensorFiles:
    """The named tensors of one safetensors file or of a folder's shards, read only when asked for.

    Raises KoshiError("bad_model_file") when a file is missing, cut short or not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._place: dict[str, tuple[Any, str]] = {}
        for file in _files(path):
            handle = _open(file)
            for stored in handle.keys():  # noqa: SIM118 - a safetensors handle is no dict
                name = stored
                for prefix in _PREFIXES:
                    name = name.removeprefix(prefix)
                self.shapes[name] = tuple(handle.get_slice(stored).get_shape())
                self._place[name] = (handle, stored)

    def read(self, name: str) -> Tensor:
        handle, stored = self._place[name]
        tensor: Tensor = handle.get_tensor(stored)
        return tensor


def load_transformer(path: Path, device: torch.device, dtype: torch.dtype) -> Flux2Transformer:
    """A FLUX.2 transformer from a folder or a single file."""
    files = TensorFiles(path)
    native = "img_in.weight" in files.shapes
    if not native and "x_embedder.weight" not in files.shapes:
        raise KoshiError(
            "bad_model", f"{path} holds no FLUX.2 transformer.", "Name a folder or file of the FLUX.2 family."
        )
    source = _as_is if native else transformer_source
    config = transformer_config(_native_shapes(files, native), _read_config(path))
    with torch.device("meta"):
        net = Flux2Transformer(config)
    return _fill(net, files, source, device, dtype)


def load_autoencoder(path: Path, device: torch.device, dtype: torch.dtype) -> Autoencoder:
    """A FLUX.2 autoencoder from a folder or a single file. The statistics stay in float32."""
    files = TensorFiles(path)
    native = "encoder.down.0.block.0.conv1.weight" in files.shapes
    config = autoencoder_config(files.shapes, native, _read_config(path))
    levels = len(config.widths)
    with torch.device("meta"):
        net = Autoencoder(config)
    net = _fill(net, files, _as_is if native else lambda name: autoencoder_source(name, levels), device, dtype)
    return net


def transformer_config(shapes: dict[str, tuple[int, ...]], written: dict[str, Any]) -> Flux2Config:
    """The configuration that native tensor shapes imply; `written` (config.json) only adds the rotary base."""
    try:
        hidden, channels = shapes["img_in.weight"]
        head = shapes["single_blocks.0.norm.query_norm.scale"][0]
        mlp = shapes["single_blocks.0.linear2.weight"][1] - hidden
        context = shapes["txt_in.weight"][1]
    except (KeyError, IndexError, ValueError) as error:
        raise KoshiError(
            "bad_model", f"The transformer lacks the tensor {error}.", "Fetch the model's files again."
        ) from error
    return Flux2Config(
        hidden=hidden,
        heads=hidden // head,
        context=context,
        double_blocks=_count(shapes, "double_blocks"),
        single_blocks=_count(shapes, "single_blocks"),
        channels=channels,
        mlp_ratio=mlp / hidden,
        guidance="guidance_in.in_layer.weight" in shapes,
        theta=_number(written, "rope_theta", THETA),
    )


def autoencoder_config(shapes: dict[str, tuple[int, ...]], native: bool, written: dict[str, Any]) -> AutoencoderConfig:
    """The configuration that the shapes imply; the group count comes from config.json, else FLUX.2's 32."""
    down, block = ("encoder.down", "block") if native else ("encoder.down_blocks", "resnets")
    levels = _count(shapes, down)
    try:
        widths = tuple(shapes[f"{down}.{k}.{block}.0.conv1.weight"][0] for k in range(levels))
        up = [
            shapes[
                f"decoder.up.{k}.block.0.conv1.weight"
                if native
                else f"decoder.up_blocks.{levels - 1 - k}.resnets.0.conv1.weight"
            ][0]
            for k in range(levels)
        ]
    except KeyError as error:
        raise KoshiError(
            "bad_model", f"The autoencoder lacks the tensor {error}.", "Fetch the model's files again."
        ) from error
    if not levels:
        raise KoshiError("bad_model", "These files hold no FLUX.2 autoencoder.", "Fetch the model's files again.")
    return AutoencoderConfig(
        widths=widths,
        decoder_widths=tuple(up),
        blocks=_count(shapes, f"{down}.0.{block}"),
        groups=int(_number(written, "norm_num_groups", 32)),
        statistics_eps=_number(written, "batch_norm_eps", 1e-4),
    )


def _number(written: dict[str, Any], name: str, default: float) -> float:
    value = written.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise KoshiError("bad_model", f"config.json says {name} is {value!r}.", "Fetch the model's files again.")
    return value


def _fill(
    net: _Net, files: TensorFiles, source: Callable[[str], Source], device: torch.device, dtype: torch.dtype
) -> _Net:
    """Give a module on the meta device its weights, straight from the mapped files."""
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    faults: list[dict[str, Any]] = []
    used: set[str] = set()
    state: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        origin = source(name)
        used.update(origin.names)
        missing = [part for part in origin.names if part not in files.shapes]
        if missing:
            faults += [problem(part, "this tensor is missing.") for part in missing]
            continue
        whole = origin.join([files.read(part) for part in origin.names])
        if tuple(whole.shape) != shape:
            faults.append(problem(name, f"the tensor has shape {tuple(whole.shape)}, not {shape}."))
            continue
        keep = not whole.is_floating_point() or name.startswith("bn.")
        state[name] = whole.to(device) if keep else whole.to(device, dtype)
    faults += [problem(name, "Koshi does not know this tensor.") for name in files.shapes if name not in used]
    raise_problems("bad_model", f"The model in {files.path}", faults)
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def _as_is(name: str) -> Source:
    return Source((name,))


def _native_shapes(files: TensorFiles, native: bool) -> dict[str, tuple[int, ...]]:
    """Shapes under native names, as far as the configuration needs them."""
    if native:
        return files.shapes
    shapes: dict[str, tuple[int, ...]] = {}
    for name, count in (
        ("double_blocks", "transformer_blocks"),
        ("single_blocks", "single_transformer_blocks"),
    ):
        for k in range(_count(files.shapes, count)):
            shapes[f"{name}.{k}."] = ()
    for name in (
        "img_in.weight",
        "txt_in.weight",
        "single_blocks.0.norm.query_norm.scale",
        "single_blocks.0.linear2.weight",
        "guidance_in.in_layer.weight",
    ):
        (other,) = transformer_source(name).names
        if other in files.shapes:
            shapes[name] = files.shapes[other]
    return shapes


def _count(shapes: dict[str, tuple[int, ...]], prefix: str) -> int:
    """How many blocks `prefix.0`, `prefix.1`, ... there are."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return max((int(m[1]) + 1 for m in map(pattern.match, shapes) if m), default=0)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    indices = sorted(path.glob("*.safetensors.index.json"))
    if indices:
        try:
            listed = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values()
            files = [path / name for name in sorted(set(listed))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KoshiError(
                "bad_model_file", f"{indices[0]} is damaged or cut short.", "Fetch the model's files again."
            ) from error
    else:
        files = sorted(path.glob("*.safetensors"))
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        what = ", ".join(absent) if absent else "a .safetensors file"
        raise KoshiError("bad_model_file", f"{path} lacks {what}.", "Fetch the model's files again.")
    return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise KoshiError(
            "bad_model_file",
            f"The model file {file} cannot be read: it is damaged, cut short, or not a safetensors file ({error}).",
            "Fetch it again.",
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        return {}
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KoshiError("bad_model_file", f"{file} is not JSON.", "Fetch the model's files again.") from error
    return written if isinstance(written, dict) else {}

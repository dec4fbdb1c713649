# SPDX-License-Identifier: GPL-3.0-or-later
"""Transformers in every quantised format.

GGUF and nf4 are written by their own libraries; fp8 and int8 by our own few lines of torch, in ComfyUI's and Black
Forest Labs' layout (test_quantised.py compares what is read with ComfyUI's comfy_kitchen where that is installed).

Each writer takes tensors by native names, and a file's name. What is quantised is what published files quantise: the
linear layers of the blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import torch
from bitsandbytes.functional import quantize_4bit
from gguf.quants import quantize
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
E4M3 = torch.float8_e4m3fn


def is_layer(name: str, tensor: torch.Tensor) -> bool:
    return "blocks." in name and tensor.ndim == 2 and name.endswith(".weight")


def as_bytes(value: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def one_scale(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ComfyUI and Black Forest Labs do: the largest number of a matrix becomes float8's largest."""
    scale = weight.float().abs().amax() / torch.finfo(E4M3).max
    return (weight.float() / scale).to(E4M3), scale


def comfy(state: State, file: Path) -> None:
    """ComfyUI's files since 2025: a note with each layer."""
    whole = dict(state)
    for name in [name for name, tensor in state.items() if is_layer(name, tensor)]:
        layer = name.removesuffix(".weight")
        whole[name], whole[f"{layer}.weight_scale"] = one_scale(state[name])
        whole[f"{layer}.input_scale"] = torch.tensor(0.5)
        whole[f"{layer}.comfy_quant"] = as_bytes({"format": "float8_e4m3fn"})
    save_file(whole, file)


def noted(state: State, file: Path) -> None:
    """As Black Forest Labs publish Klein's: notes in the header; here with ComfyUI's prefix as well."""
    prefix, whole, layers = "model.diffusion_model.", {}, {}
    for name, tensor in state.items():
        whole[prefix + name] = tensor
        if is_layer(name, tensor):
            layer = prefix + name.removesuffix(".weight")
            whole[prefix + name], whole[f"{layer}.weight_scale"] = one_scale(tensor)
            layers[layer] = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    notes = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(whole, file, {"_quantization_metadata": notes})


def scaled_fp8(state: State, file: Path) -> None:
    """ComfyUI's files of FLUX.1's time. A layer that is not quantised has a scale of 1."""
    whole = dict(state)
    for name in [name for name, tensor in state.items() if is_layer(name, tensor)]:
        layer = name.removesuffix(".weight")
        whole[name], whole[f"{layer}.scale_weight"] = one_scale(state[name])
        whole[f"{layer}.scale_input"] = torch.tensor(1.0)
    whole["img_in.scale_weight"] = torch.tensor(1.0)
    whole["scaled_fp8"] = torch.empty(2, dtype=E4M3)
    save_file(whole, file)


def cast(state: State, file: Path) -> None:
    """Every number cast, without scales."""
    save_file({name: tensor.to(E4M3) for name, tensor in state.items()}, file)


def int8(state: State, file: Path) -> None:
    """ComfyUI's whole numbers, with a scale for each row."""
    whole = dict(state)
    for name in [name for name, tensor in state.items() if is_layer(name, tensor)]:
        layer, weight = name.removesuffix(".weight"), state[name].float()
        scale = weight.abs().amax(1, keepdim=True) / 127
        whole[name], whole[f"{layer}.weight_scale"] = (weight / scale).round().to(torch.int8), scale
        whole[f"{layer}.comfy_quant"] = as_bytes({"format": "int8_tensorwise"})
    save_file(whole, file)


def nf4(state: State, file: Path, nested: bool = True) -> None:
    """bitsandbytes' 4 bits; nested: their scales in 8 bits, as it does unless told otherwise."""
    whole = dict(state)
    for name in [name for name, tensor in state.items() if is_layer(name, tensor)]:
        whole[name], facts = quantize_4bit(state[name], quant_type="nf4", compress_statistics=nested)
        whole |= {f"{name}.{key}": tensor for key, tensor in facts.as_dict(packed=True).items()}
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, file)


def nf4_plain(state: State, file: Path) -> None:
    nf4(state, file, nested=False)


def ggml(kind: str) -> Callable[[State, Path], None]:
    """As ComfyUI-GGUF's converter: biases and norms in float32, everything else of two dimensions in bfloat16."""

    def write(state: State, file: Path) -> None:
        writer = gguf.GGUFWriter(str(file), arch="flux")
        writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q8_0))
        for name, tensor in state.items():
            wanted = gguf.GGMLQuantizationType.F32
            if tensor.ndim == 2:
                wanted = gguf.GGMLQuantizationType[kind if is_layer(name, tensor) else "BF16"]
            writer.add_tensor(name, quantize(tensor.float().numpy(), wanted), raw_dtype=wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    return write


# By format: the file's ending, its writer, and the least PSNR in dB against the bfloat16 source on koshi-tiny.
FORMATS: dict[str, tuple[str, Callable[[State, Path], None]]] = {
    "comfy": (".safetensors", comfy),
    "noted": (".safetensors", noted),
    "scaled_fp8": (".safetensors", scaled_fp8),
    "cast": (".safetensors", cast),
    "int8": (".safetensors", int8),
    "nf4": (".safetensors", nf4),
    "nf4_plain": (".safetensors", nf4_plain),
    **{kind: (".gguf", ggml(kind)) for kind in ("BF16", "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")},
}

# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth from a picture by a model: Depth Anything and DPT (MiDaS), through transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import KoshiError, problem, raise_problems
from ..quiet import quiet
from .maps import DepthMap, Kind
from .stabilise import first_alignment

# The default: 25 million parameters, Apache-2.0, 99 MB.
DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
_FAMILIES = ("depth_anything", "dpt")
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "model-*.safetensors", "*.index.json")
_FETCH_AGAIN = "Fetch the model's files again."


@dataclass(frozen=True)
class _Preparation:
    """How a model wants its pictures (preprocessor_config.json): scaled to about `height` x `width` in whole
    multiples, the colours less `mean` over `std`."""

    height: int
    width: int
    multiple: int
    keep_aspect: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the model sees a picture; transformers' rule: the side that is scaled least decides."""
        down, across = self.height / height, self.width / width
        if self.keep_aspect:
            down = across = across if abs(1 - across) < abs(1 - down) else down
        sides = (round(down * height / self.multiple), round(across * width / self.multiple))
        return max(sides[0], 1) * self.multiple, max(sides[1], 1) * self.multiple

    def __call__(self, picture: Tensor) -> Tensor:
        size = self.size_for(*picture.shape[2:])
        scaled = F.interpolate(picture.float(), size, mode=self.mode, antialias=True, align_corners=False)
        mean, std = (scaled.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (scaled.clamp(0.0, 1.0) - mean) / std


class DepthModel:
    """A loaded depth model. Make one with `DepthModel.load`.

    kind: "relative" for a model that knows nearness up to a scale and a shift (Depth Anything, MiDaS), "scene" for one
    that tells metres (Depth Anything Metric).
    """

    def __init__(self, net: nn.Module, preparation: _Preparation, kind: Kind, device: torch.device) -> None:
        self.net = net.to(device)
        self.kind = kind
        self.device = device
        self._prepare = preparation

    @classmethod
    def load(cls, name: str | Path = DEFAULT_MODEL, device: torch.device | None = None) -> DepthModel:
        """A model from a folder, or from the hub's local cache by its repository's name. Nothing is downloaded.

        Always in float32: the 8 bits of bfloat16 make steps in a depth map, and the models are small.
        Raises KoshiError("depth_model_missing" | "bad_model" | "bad_model_file").
        """
        folder = depth_model_folder(name)
        config = _read_json(folder / "config.json")
        net = _load_net(folder, str(config.get("model_type")))
        return cls(net, _preparation(folder, net.config), _kind(config), device or torch.device("cpu"))

    @torch.inference_mode()
    def nearness(self, picture: Tensor) -> Tensor:
        """Inverse depth of a picture [1, 3, H, W] in 0..1: float32 [H, W], larger is nearer.

        In 1 / metres for a "scene" model, else up to a scale and a shift that differ from picture to picture.
        """
        raw = self.net(pixel_values=self._prepare(picture.to(self.device))).predicted_depth[:, None].float()
        if not torch.isfinite(raw).all():
            raise KoshiError("bad_model", "The depth model's answer is not a number.", _FETCH_AGAIN)
        if self.kind == "scene":
            raw = 1.0 / raw.clamp_min(1e-3)
        return F.interpolate(raw, picture.shape[2:], mode="bilinear", align_corners=False)[0, 0]

    def depth(self, picture: Tensor) -> DepthMap:
        """The depth map of a picture alone. For one after another, align them (`stabilise`), or depth breathes."""
        raw = self.nearness(picture)
        return first_alignment(raw, self.kind).depth(raw)


def depth_model_folder(name: str | Path) -> Path:
    """The folder of a depth model's files, from a path or from the hub's local cache.

    Raises KoshiError("depth_model_missing").
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        pass
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(_FILES), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise KoshiError(
            "depth_model_missing",
            f"The depth model {str(name)!r} is not on this computer.",
            f"Fetch it with `hf download {DEFAULT_MODEL}`, or name a folder that holds one.",
        ) from error


def _load_net(folder: Path, family: str) -> nn.Module:
    if family not in _FAMILIES:
        raise KoshiError(
            "bad_model",
            f"The model in {folder} is of the family {family!r}.",
            "Use a Depth Anything or a DPT (MiDaS) model in transformers' layout.",
        )
    if not any(folder.glob("*.safetensors")):
        raise KoshiError("bad_model_file", f"{folder} lacks a .safetensors file.", _FETCH_AGAIN)
    from transformers import AutoModelForDepthEstimation

    try:
        with quiet():
            net, report = AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise KoshiError(
            "bad_model_file",
            f"The depth model in {folder} cannot be read: a file is damaged or cut short ({type(error).__name__}).",
            _FETCH_AGAIN,
        ) from error
    # The first fusion layer joins nothing: MiDaS files lack these tensors, and they are never used.
    faults = [
        problem(name, "this tensor is missing.")
        for name in report["missing_keys"]
        if ".fusion_stage.layers.0.residual_layer1." not in f".{name}"
    ]
    faults += [problem(str(name), "this tensor has the wrong shape.") for name in report["mismatched_keys"]]
    raise_problems("bad_model", f"The depth model in {folder}", faults)
    if getattr(net.config, "max_depth", 1) is None:
        net.head.max_depth = 1  # "ignored for relative models", says transformers, and multiplies by it
    return net.eval().requires_grad_(False)


def _kind(config: dict[str, Any]) -> Kind:
    if config.get("model_type") == "depth_anything":
        return "scene" if config.get("depth_estimation_type") == "metric" else "relative"
    # MiDaS' DPT models tell nearness; those on DINOv2 (facebook/dpt-dinov2-*) were trained for metres.
    backbone = config.get("backbone_config")
    return "scene" if isinstance(backbone, dict) and backbone.get("model_type") == "dinov2" else "relative"


def _preparation(folder: Path, config: Any) -> _Preparation:
    file = folder / "preprocessor_config.json"
    written = _read_json(file) if file.is_file() else {}
    backbone = getattr(config, "backbone_config", None)
    patch = getattr(backbone, "patch_size", None) or getattr(config, "patch_size", None) or 16
    size = written.get("size", 518 if config.model_type == "depth_anything" else 384)
    try:
        height, width = (size["height"], size["width"]) if isinstance(size, dict) else (size, size)
        plain = written.get("do_normalize", True) is False
        made = _Preparation(
            int(height),
            int(width),
            max(int(written.get("ensure_multiple_of", patch)), int(patch)),
            bool(written.get("keep_aspect_ratio", True)),
            tuple(float(v) for v in ((0.0,) * 3 if plain else written.get("image_mean", (0.485, 0.456, 0.406)))),
            tuple(float(v) for v in ((1.0,) * 3 if plain else written.get("image_std", (0.229, 0.224, 0.225)))),
            "bilinear" if written.get("resample") == 2 else "bicubic",
        )
        if not (0 < made.height <= 4096 and 0 < made.width <= 4096 and 0 < made.multiple <= 256):
            raise ValueError(f"a size of {made.width} x {made.height} in steps of {made.multiple}")
        if len(made.mean) != 3 or len(made.std) != 3 or min(made.std) <= 0:
            raise ValueError("mean and std are not three colours")
    except (KeyError, TypeError, ValueError) as error:
        raise KoshiError("bad_model_file", f"{file} cannot be understood ({error}).", _FETCH_AGAIN) from error
    return made


def _read_json(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise KoshiError("bad_model_file", f"{file.parent} lacks {file.name}.", _FETCH_AGAIN) from error
    except (OSError, ValueError) as error:
        raise KoshiError("bad_model_file", f"{file} is damaged or cut short.", _FETCH_AGAIN) from error
    if not isinstance(written, dict):
        raise KoshiError("bad_model_file", f"{file} holds no settings.", _FETCH_AGAIN)
    return written


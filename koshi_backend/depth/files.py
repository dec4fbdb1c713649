# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth maps from files: OpenEXR from Blender, NumPy arrays, and grey pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from ..errors import KoshiError
from ..exr import exr_pass, read_exr
from .maps import FAR, DepthMap, Kind, resize_depth

_LARGEST_SIDE = 16384
_PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
_KINDS = "Give an .exr, an .npy, or a grey picture (.png)."


@dataclass(frozen=True)
class GreyScale:
    """How the greys of a picture are read as depth.

    near: the colour of what is near. spacing: "inverse" if greys are even in 1 / depth (MiDaS, Depth Anything and the
    ControlNet pictures made by them), "linear" if even in depth (a normalised Z pass).
    nearest, farthest: the depths of the two ends, 0 < nearest < farthest. A picture cannot know them.
    """

    near: Literal["white", "black"] = "white"
    spacing: Literal["inverse", "linear"] = "inverse"
    nearest: float = 1.0
    farthest: float = 5.0


def read_depth(
    path: str | Path,
    width: int,
    height: int,
    *,
    grey: GreyScale | None = None,
    layer: str | None = None,
    device: torch.device | None = None,
) -> DepthMap:
    """The depth map of a file, at width x height.

    OpenEXR: the pass Depth of a MultiLayer file (layer: whose, where several view layers have it), or the one channel
    of a single-layer file, or equal R, G and B. NumPy: [H, W]. Both hold the scene's own units; nothing (inf, or 1e10
    as Blender writes it) becomes FAR. Pictures of 8 or 16 bits hold greys, see GreyScale; 8 bits make visible steps.
    Raises KoshiError("bad_depth" | "bad_exr").
    """
    path = Path(path)
    ending = path.suffix.lower()
    kind: Kind = "scene"
    if ending == ".exr":
        values = _from_exr(path, layer)
    elif ending == ".npy":
        values = _from_numpy(path)
    elif ending in _PICTURES:
        values, kind = _from_grey(path, grey or GreyScale()), "relative"
    else:
        raise KoshiError("bad_depth", f"{path} is no depth map that Koshi can read.", _KINDS)
    return DepthMap(torch.from_numpy(resize_depth(_checked(values, path), width, height)).to(device), kind)


def _from_exr(path: Path, layer: str | None) -> np.ndarray:
    channels = read_exr(path, lambda name: ".Depth." in f".{name}" or "." not in name)
    single = {name: array for name, array in channels.items() if "." not in name}
    if layer is None and single:
        for name in ("Z", "V", "Y"):
            if name in single:
                return single[name]
        if set("RGB") <= set(single):
            if np.array_equal(single["R"], single["G"]) and np.array_equal(single["R"], single["B"]):
                return single["R"]
            raise KoshiError(
                "bad_depth",
                f"{path} holds colours, not depth.",
                "Turn on the pass Z in Blender's view layer and save OpenEXR MultiLayer.",
            )
    try:
        return exr_pass(channels, "Depth", layer)
    except KoshiError as error:
        raise KoshiError("bad_depth", f"{path}: {error.message}", error.hint) from error


def _from_numpy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise KoshiError("bad_depth", f"There is no depth map {path}.", "Check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise KoshiError("bad_depth", f"{path} is no NumPy array ({error}).", "Save it with numpy.save.") from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise KoshiError(
            "bad_depth",
            f"{path} holds an array {array.dtype} of shape {list(array.shape)}.",
            "Save real numbers of shape [height, width].",
        )
    _check_size(path, *array.shape)
    return np.array(array, dtype=np.float64)


def _from_grey(path: Path, grey: GreyScale) -> np.ndarray:
    if not 0 < grey.nearest < grey.farthest < FAR:
        raise KoshiError(
            "bad_depth",
            f"The depths of a grey picture run from {grey.nearest:g} to {grey.farthest:g}.",
            "Give a nearest above 0 and a farthest beyond it.",
        )
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise KoshiError("bad_depth", f"There is no depth map {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise KoshiError("bad_depth", f"{path} cannot be read: {error}.", "Check the path.") from error
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:  # a picture larger than OpenCV dares to open
        pixels = None
    if pixels is None:
        raise KoshiError("bad_depth", f"The depth map {path} cannot be read as a picture.", _KINDS)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise KoshiError("bad_depth", f"The greys of {path} are of type {pixels.dtype}.", "Save 8 or 16 bits, or EXR.")
    _check_size(path, *pixels.shape[:2])
    light = pixels.astype(np.float64) / np.iinfo(pixels.dtype).max
    if light.ndim == 3:
        colours = light[..., :3]
        if np.ptp(colours, axis=-1).max() > 0.03:  # JPEG leaves up to 3 of 255 between the channels of a grey
            raise KoshiError("bad_depth", f"{path} is a picture in colour.", "Depth is grey: save it without colours.")
        light = colours[..., 0]
    share = light if grey.near == "white" else 1.0 - light
    if grey.spacing == "linear":
        return grey.farthest + share * (grey.nearest - grey.farthest)
    return 1.0 / (share / grey.nearest + (1.0 - share) / grey.farthest)


def _check_size(path: Path, rows: int, columns: int) -> None:
    if max(rows, columns) > _LARGEST_SIDE:
        raise KoshiError(
            "bad_depth", f"{path} has {columns} x {rows} pixels.", f"At most {_LARGEST_SIDE} a side: save it smaller."
        )


def _checked(values: np.ndarray, path: Path) -> np.ndarray:
    """Depth above 0 everywhere, nothing as FAR; or the reason why not, with the first pixel at fault."""
    for wrong, what, hint in (
        (np.isnan(values), "is not a number", "Render it again; check the camera's clipping."),
        (values <= 0, "is not above 0", "Depth counts from the camera. Render the whole frame, without a border."),
    ):
        if wrong.any():
            y, x = (int(k) for k in np.argwhere(wrong)[0])
            raise KoshiError(
                "bad_depth",
                f"{path}: the depth of {int(wrong.sum())} pixels {what}, the first at x {x}, y {y}"
                f" ({float(values[y, x]):g}).",
                hint,
            )
    return np.where(values >= FAR / 10, FAR, values)

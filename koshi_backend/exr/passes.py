# SPDX-License-Identifier: GPL-3.0-or-later
"""Render passes among the channels of an OpenEXR file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import KoshiError

_ORDERS = ("XYZW", "XYZ", "RGBA", "RGB")
_ONE = ("Z", "V", "Y", "X")  # what the channel of a one-channel pass is called


def exr_pass(channels: Mapping[str, np.ndarray], name: str, layer: str | None = None) -> np.ndarray:
    """A pass of `read_exr`'s channels: [H, W] for one with a single channel, else [H, W, C] in the order XYZW or RGBA.

    name: as in Blender ("Depth", "Vector", "Combined"). layer: the view layer; needed only where several have the pass.
    Raises KoshiError("bad_exr") where there is none, or more than one.
    """
    prefix = find_pass(channels, name, layer)
    letters = {full.rpartition(".")[2]: full for full in channels if full.rpartition(".")[0] == prefix}
    for order in _ORDERS:
        if set(order) == set(letters):
            return np.stack([channels[letters[letter]] for letter in order], axis=-1)
    if len(letters) == 1 and next(iter(letters)) in _ONE:
        return channels[next(iter(letters.values()))]
    raise KoshiError(
        "bad_exr", f"The pass {name} has the channels {', '.join(sorted(letters))}.", "Save it from Blender again."
    )


def find_pass(names: Iterable[str], name: str, layer: str | None = None) -> str:
    """The channel names' common part up to the last dot: "ViewLayer.Depth", "Depth", or "" for plain R, G, B, A.

    Raises KoshiError("bad_exr").
    """
    prefixes = sorted({full.rpartition(".")[0] for full in names})
    found = [p for p in prefixes if p.split(".")[-1] == name and (layer is None or p == f"{layer}.{name}")]
    if not found and name == "Combined" and layer is None and "" in prefixes:
        found = [""]
    if len(found) == 1:
        return found[0]
    if found:
        layers = ", ".join(p.rpartition(".")[0] for p in found)
        raise KoshiError("bad_exr", f"Several view layers have a pass {name}: {layers}.", "Name one of them.")
    there = ", ".join(p or "colours" for p in prefixes) or "nothing"
    where = "" if layer is None else f" in the view layer {layer!r}"
    raise KoshiError(
        "bad_exr",
        f"There is no pass {name}{where}; the file holds {there}.",
        f"Turn on the pass {name} in Blender's view layer and save OpenEXR MultiLayer.",
    )

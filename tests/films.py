# SPDX-License-Identifier: GPL-3.0-or-later
"""Films whose frames show their own number, so that no frame can be taken for its neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from torch import Tensor

BITS = 7


def numbered(number: int, width: int, height: int, alpha: bool = False) -> np.ndarray:
    """uint8 [H, W, 3 or 4]: `number` in binary as upright stripes, the last one always light; a darker upper left
    corner, to tell which way is up. alpha: the right half of the picture is transparent, over white."""
    lights = np.array([200 if number >> bit & 1 else 30 for bit in range(BITS)] + [200], np.uint8)
    row = lights[np.arange(width) * len(lights) // width]
    picture = np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)
    picture[: height // 4] = 110
    picture[: height // 4, : width // 4] = 0
    if not alpha:
        return picture
    see = np.full((height, width, 1), 255, np.uint8)
    see[:, width // 2 :] = 0
    picture[:, width // 2 :] = 255
    return np.concatenate([picture, see], axis=2)


def number_of(picture: Tensor, bits: int = BITS) -> int:
    """The number that a picture [1, 3, H, W] shows. bits: as many as can be seen."""
    height, width = picture.shape[2:]
    places = [int((bit + 0.5) * width / (BITS + 1)) for bit in range(bits)]
    lights = picture[0, :, height // 2 :].mean((0, 1))
    return sum(int(lights[x] > 0.45) << bit for bit, x in enumerate(places))


def write_film(
    path: Path,
    count: int,
    codec: str = "libx264",
    *,
    size: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    first: int = 0,
) -> Path:
    """`count` numbered frames as a video. times: of each frame, in hundredths of a second, for variable rates."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25 if times is None else 100)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = options or {}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        alpha = "a" in pix_fmt
        for k in range(count):
            pixels = numbered(first + k, width, height, alpha)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if alpha else "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], Fraction(1, 100)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path

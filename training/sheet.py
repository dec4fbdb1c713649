# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture sheet: every scene, time and style, drawn by the model; scenes across, styles and times down."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, Spec, plain
from .painter import Painter, batches
from .reality import Wish
from .stage import TELL_SECONDS, write_atomically

LARGEST = 1_500_000  # bytes
SIDES = (128, 112, 96, 80, 64)  # of a cell in pixels: the first with which the file is small enough
GAP, LEFT, TOP, FONT = 2, 104, 22, 15
INK, PAPER = "#333333", "#ffffff"


def wished(seed: int) -> list[Wish]:
    """All 160 in the order of the sheet: row by row, a row for every style and time."""
    found = []
    for style, (n, when), scene in itertools.product(STYLES, enumerate(TIMES), SCENES):
        adjective = ADJECTIVES[scene][(n + STYLES.index(style)) % 2]
        spec = Spec(scene, when, style, adjective)
        found.append(Wish(spec, plain(spec), seed + len(found)))
    return found


def drawn(painter: Painter, wishes: list[Wish]) -> Tensor:
    """All pictures, [160, 3, 256, 256] of 0..1."""
    found: list[Tensor] = []
    begin = last = time.monotonic()
    for places in batches(wishes):
        found.append(painter.draw([wishes[k] for k in places]))
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            done = sum(map(len, found))
            print(f"picture {100 * done / len(wishes):5.1f} %  {last - begin:.0f} s", flush=True)
    return torch.cat(found)


def laid_out(pictures: Tensor, side: int) -> Image.Image:
    """The pictures, reduced to `side` pixels, with the scenes' names above and styles and times on the left."""
    small = F.interpolate(pictures, size=(side, side), mode="area")
    columns, rows = len(SCENES), len(pictures) // len(SCENES)
    cell = side + GAP
    block = len(TIMES) * cell + 3 * GAP  # the rows of a style stand a little apart from the next
    image = Image.new("RGB", (LEFT + columns * cell, TOP + block * -(-rows // len(TIMES))), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=FONT)
    for column, scene in enumerate(SCENES):
        draw.text((LEFT + column * cell + side / 2, TOP / 2), scene, fill=INK, font=font, anchor="mm")
    for row in range(rows):
        style, when = divmod(row, len(TIMES))
        y = TOP + style * block + when * cell
        draw.text((LEFT - 8, y + side / 2), TIMES[when], fill=INK, font=font, anchor="rm")
        if when == 0:
            draw.text((LEFT - 8, y + 4), STYLES[style], fill="#000000", font=font, anchor="ra", stroke_width=0.4)
        for column in range(columns):
            tile = (small[row * columns + column].permute(1, 2, 0) * 255 + 0.5).byte().numpy()
            image.paste(Image.fromarray(np.ascontiguousarray(tile)), (LEFT + column * cell, y))
    return image


def encoded(image: Image.Image, suffix: str, bits: int = 8) -> bytes:
    """The file's bytes. bits: of each colour that a PNG keeps."""
    buffer = io.BytesIO()
    if suffix == ".png":
        step = 2 ** (8 - bits)
        kept = image if bits == 8 else image.point(lambda v: min(255, round(v / step) * step))
        kept.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=90, subsampling=0, optimize=True)
    return buffer.getvalue()


def draw_sheet(painter: Painter, out: Path, seed: int = 0) -> Path:
    """Draw the sheet and write it as .png or .jpg, under 1.5 MB: with smaller cells or, as a PNG, fewer shades of
    each colour where that is what it takes. Raises ValueError for another suffix."""
    suffix = out.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{out}: name a .png or a .jpg")
    pictures = drawn(painter, wished(80_000 + 1000 * seed))
    tries = [(side, bits) for side in SIDES for bits in ((8, 7, 6) if suffix == ".png" else (8,))]
    for side, bits in tries:
        image = laid_out(pictures, side)
        data = encoded(image, suffix, bits)
        if len(data) <= LARGEST:
            break
    write_atomically(out, lambda aside: aside.write_bytes(data))
    print(f"picture: {out}, {image.width} x {image.height}, {len(data) / 1e6:.2f} MB", flush=True)
    return out

# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements as one picture: groups exchanged, what changed, and what that change is made of."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..models.flux2_model import Flux2Model
from ..pictures import to_pil
from .measure import EACH, GROUPS, KINDS, MEASURES, SHOWN, Groups, Sample, decode_grid, donor, exchanged, pca_basis
from .moves import PUSH, Moves
from .verdict import NAMES

TILE, LABEL, LINE, BARS, GAP = 128, 128, 18, 72, 2
PAPER, INK = (250, 250, 248), (40, 40, 40)
COLOURS = {
    "light": (240, 200, 80),
    "structure": (90, 90, 100),
    "detail": (190, 60, 60),
    "tint": (80, 150, 200),
    "colour": (120, 190, 120),
}
GAIN = 3.0  # of a change, about mid-grey


def draw_sheet(model: Flux2Model, name: str, sample: Sample, groups: Groups, moves: Moves) -> Image.Image:
    """A contact sheet, of one picture of the sample and averages over all."""
    number = min(SHOWN, len(sample.grid) - 1)
    own, other = sample.grid[number], sample.grid[donor(sample, number)]
    base = decode_grid(model, [own])
    rows: list[tuple[str, list[Image.Image], list[str]]] = [
        (
            f"{name}\n{len(sample.grid)} pictures",
            [to_pil(base), to_pil(decode_grid(model, [other]))],
            ["a picture", "its channels come from"],
        )
    ]
    fours = torch.arange(EACH * GROUPS).reshape(GROUPS, EACH)
    channels = torch.eye(EACH * GROUPS, device=own.device)
    principal = [f"PCA {k * EACH + 1}-{(k + 1) * EACH}" for k in range(GROUPS)]
    for title, basis, names, measured in (
        ("channel group\nexchanged", channels, list(NAMES), groups.named),
        ("four of a PCA\nexchanged", pca_basis(sample.grid), principal, groups.pca),
    ):
        swapped = decode_grid(model, [exchanged(own, other, basis, four) for four in fours])
        rows.append((title, [to_pil(p[None]) for p in swapped], names))
        rows.append((f"change x {GAIN:g}", [_change(p[None], base) for p in swapped], []))
        rows.append(("what changes,\nmean of all", [_bars(values) for values in measured.values], []))
    shown = [to_pil(p) for p in moves.shown.values()]
    rows.append((f"translation_z {PUSH:g}", shown, list(moves.shown)))
    return _assemble(rows)


def _change(picture: Tensor, base: Tensor) -> Image.Image:
    return to_pil(0.5 + GAIN * (picture - base))


def _bars(values: np.ndarray) -> Image.Image:
    """A bar of the kinds of change, its width the group's share (an even share is a quarter of the tile)."""
    picture = Image.new("RGB", (TILE, BARS), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    wide = min(int(TILE * values[MEASURES.index("share")] * GROUPS / 4), TILE)
    top = 0.0
    for kind in KINDS:
        high = float(values[MEASURES.index(kind)]) * (BARS - LINE)
        draw.rectangle((0, top, max(wide - 1, 1), top + high), fill=COLOURS[kind])
        top += high
    draw.text((0, BARS - LINE + 3), f"{values[MEASURES.index('share')]:.1%} of all change", fill=INK, font=font)
    return picture


def _assemble(rows: list[tuple[str, list[Image.Image], list[str]]]) -> Image.Image:
    font = ImageFont.load_default(12)
    heights = [(LINE if names else 0) + max(_fitted(t).height for t in tiles) + 3 * GAP for _, tiles, names in rows]
    sheet = Image.new("RGB", (LABEL + GROUPS * (TILE + GAP), sum(heights) + LINE + GAP), PAPER)
    draw, y = ImageDraw.Draw(sheet), 0
    for (title, tiles, names), height in zip(rows, heights, strict=True):
        below = y + (LINE if names else 0)
        draw.multiline_text((6, below + 4), title, fill=INK, font=font)
        for k, tile in enumerate(tiles):
            x = LABEL + k * (TILE + GAP)
            sheet.paste(_fitted(tile), (x, below))
            if k < len(names):
                draw.text((x, y + 2), names[k], fill=INK, font=font)
        y += height
    x = LABEL
    for kind, colour in COLOURS.items():
        draw.rectangle((x, y + 4, x + 10, y + 14), fill=colour)
        draw.text((x + 15, y + 1), kind, fill=INK, font=font)
        x += TILE
    return sheet


def _fitted(tile: Image.Image) -> Image.Image:
    """At the tiles' width."""
    if tile.width == TILE:
        return tile
    return tile.resize((TILE, round(tile.height * TILE / tile.width)), Image.Resampling.LANCZOS)

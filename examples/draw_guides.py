# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw the pictures and masks among the guides that are a few shapes and no renders. Needs NumPy alone.

    python examples/draw_guides.py

Writes into guides/: hills.png, a sketch of hills by night; cut.png, the same with a transparent sky; mask_####.png, a
soft spot that crosses the picture in twelve frames.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

GUIDES = Path(__file__).resolve().parent / "guides"
SIDE, MASK_SIDE, FRAMES = 192, 64, 12  # pixels, frames
MOON = (0.68, 0.28)
SKY = [(0.50, (26, 24, 64)), (0.36, (40, 34, 78)), (0.25, (66, 54, 94)), (0.17, (112, 92, 116))]  # rings about the moon
RIDGES = [(0.55, (44, 38, 80)), (0.68, (28, 25, 54)), (0.82, (14, 13, 30))]  # height, colour


def main() -> None:
    """Write all of them."""
    GUIDES.mkdir(exist_ok=True)
    picture, ground = hills()
    save(GUIDES / "hills.png", picture)
    alpha = np.where(ground, 255, 0).astype(np.uint8)[..., None]
    save(GUIDES / "cut.png", np.concatenate([picture * ground[..., None], alpha], axis=-1))
    for frame in range(FRAMES):
        save(GUIDES / f"mask_{frame:04d}.png", spot(frame))


def hills() -> tuple[np.ndarray, np.ndarray]:
    """The sketch, bytes [H, W, 3], and where its hills are, bool [H, W]."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    away = np.hypot(x - MOON[0], y - MOON[1])
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    picture[:] = (18, 17, 50)
    for radius, color in (*SKY, (0.11, (255, 242, 204))):
        picture[away < radius] = color
    ground = np.zeros((SIDE, SIDE), bool)
    for k, (height, color) in enumerate(RIDGES):
        ridge = height + 0.06 * np.sin(7 * x * (1 + 0.4 * k) + 2 * k) + 0.03 * np.sin(19 * x + k)
        picture[y > ridge] = color
        ground |= y > ridge
    return picture, ground


def spot(frame: int) -> np.ndarray:
    """A mask, bytes [H, W]: white in the middle of the spot, and grey in eight steps around it."""
    y, x = np.mgrid[:MASK_SIDE, :MASK_SIDE] / MASK_SIDE
    middle = (frame + 0.5) / FRAMES
    away = np.hypot(x - middle, y - 0.55)
    return (np.ceil((1.0 - (away - 0.12) / 0.24).clip(0, 1) * 8) / 8 * 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    """Bytes [H, W], [H, W, 3] or [H, W, 4] as a PNG file."""
    height, width = pixels.shape[:2]
    kind = 0 if pixels.ndim == 2 else {3: 2, 4: 6}[pixels.shape[2]]
    rows = pixels.reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data, 9)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture world: any place, time, style and weather, seen through a camera.

The layout of a place depends on (seed, scene) only. The camera looks at the finished picture, so that whatever the
style, a moved camera moves every pixel as a similarity says: `motion` gives it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from .canvas import REACH, Array, Canvas
from .captions import ADJECTIVES, OUTDOORS, SCENES, STYLES, TIMES, Spec
from .scenes_land import city, desert, forest, mountains, sea
from .scenes_other import nebula, reef, tunnel
from .styles import TILES, stylise, weather

DRAW = dict(
    sea=sea, forest=forest, mountains=mountains, desert=desert, city=city, reef=reef, nebula=nebula, tunnel=tunnel
)


class Camera(NamedTuple):
    """zoom: 2 shows half as much. pan: what lies in the middle, in world units. tilt: degrees, turns the picture."""

    zoom: float = 1.0
    pan_x: float = 0.0
    pan_y: float = 0.0
    tilt: float = 0.0


def halves(width: int, height: int) -> tuple[float, float]:
    """Half of the world that an unmoved camera sees; a wide picture sees more to the sides and less above."""
    aspect = width / height
    long, short = max(aspect, 1 / aspect) ** 0.65, max(aspect, 1 / aspect) ** -0.35
    return (long, short) if aspect >= 1 else (short, long)


def matrix(width: int, height: int, camera: Camera) -> Array:
    """World units to pixel positions (the centre of the first pixel is 0, 0) as a 3 x 3 matrix."""
    half_x, _ = halves(width, height)
    scale = width / (2 * half_x) * camera.zoom
    a = math.radians(camera.tilt)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) * scale
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    out = np.eye(3)
    out[:2, :2], out[:2, 2] = turn, middle - turn @ (camera.pan_x, camera.pan_y)
    return out


def motion(width: int, height: int, before: Camera, after: Camera) -> Array:
    """Pixel positions under one camera to pixel positions under another, 3 x 3."""
    return matrix(width, height, after) @ np.linalg.inv(matrix(width, height, before))


def render(seed: int, spec: Spec, width: int = 256, height: int | None = None, camera: Camera | None = None) -> Array:
    """A picture, float32 RGB [height, width, 3] of 0..1. Views beyond the world's edge repeat it."""
    height, camera = height or width, camera or Camera()
    view = matrix(width, height, camera)
    corners = [(x, y, 1) for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)]
    seen = np.abs((np.linalg.inv(view) @ np.array(corners).T)[:2]).max(1)
    if camera == Camera():
        seen = np.array(halves(width, height))
    # Whole tiles, so that a mosaic's joints stay where they are whatever the camera sees.
    half_x, half_y = (min(math.ceil(v * TILES - 1e-6) / TILES, REACH) for v in seen)
    scale = float(np.hypot(*view[:2, 0]))
    canvas = Canvas(seed, half_x, half_y, scale, spec.time)
    # Columns and rows are whole: the canvas' true scale may differ a little from the camera's.
    rows, columns = canvas.X.shape
    img = np.clip(DRAW[spec.scene](canvas, spec.adjective), 0, 1).astype(np.float32)
    img = np.clip(weather(canvas, img, spec.weather, seed), 0, 1).astype(np.float32)
    img = np.clip(stylise(canvas, img, spec.style, seed), 0, 1).astype(np.float32)
    if np.random.default_rng([seed, 3]).random() < 0.5:
        img = np.ascontiguousarray(img[:, ::-1])
    inside = np.eye(3)
    inside[0, 0], inside[0, 2] = columns / (2 * half_x), (columns - 1) / 2
    inside[1, 1], inside[1, 2] = rows / (2 * half_y), (rows - 1) / 2
    place = view @ np.linalg.inv(inside)
    if np.allclose(place, np.eye(3), atol=1e-6) and (rows, columns) == (height, width):
        return img
    if np.allclose(place[:2, :2], np.eye(2), atol=1e-6) and np.allclose(
        place[:2, 2], np.round(place[:2, 2]), atol=1e-6
    ):
        left, top = (round(-v) for v in place[:2, 2])
        if left >= 0 and top >= 0 and left + width <= columns and top + height <= rows:
            return np.ascontiguousarray(img[top : top + height, left : left + width])
    out = cv2.warpAffine(img, place[:2], (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(out, 0, 1)


def sheet(rows: list[list[Array]], path: Path, gap: int = 3) -> None:
    """Rows of pictures as one PNG."""
    height = max(p.shape[0] for p in rows[0])
    lines = []
    for row in rows:
        parts = [np.pad(p, ((0, height - p.shape[0] + gap), (0, gap), (0, 0))) for p in row]
        lines.append(np.concatenate(parts, 1))
    whole = (np.concatenate(lines) * 255 + 0.5).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(whole).save(path, optimize=True)


def contact_sheets(folder: Path, size: int = 160) -> list[Path]:
    """Sheets of the world to look at: times and styles, weather, the camera, shapes. Returns their paths."""
    big = 2 * size  # drawn twice as large and reduced

    def at(seed: int, spec: Spec, width: int = big, height: int | None = None, camera: Camera | None = None) -> Array:
        img = render(seed, spec, width, height, camera)
        return cv2.resize(img, (img.shape[1] // 2, img.shape[0] // 2), interpolation=cv2.INTER_AREA)

    def word(scene: str, k: int) -> str:
        return ADJECTIVES[scene][k % 2]

    sheets: dict[str, list[list[Array]]] = {"world": [], "weather": [], "camera": [], "shapes": []}
    moves = [Camera(), Camera(1.15), Camera(1.3, 0.1), Camera(1.3, 0.2, 0.05), Camera(1.3, 0.2, 0.05, 6), Camera(0.9)]
    for i, scene in enumerate(SCENES):
        row = [at(100 + i * 9 + j, Spec(scene, time, "photo", word(scene, j))) for j, time in enumerate(TIMES)]
        for j, style in enumerate(STYLES[1:]):
            row.append(at(300 + i * 9 + j, Spec(scene, TIMES[(i + j) % 4], style, word(scene, i + j))))
        sheets["world"].append(row)
        if scene in OUTDOORS:
            kinds = [(w, t) for w in ("rain", "snow", "mist") for t in ("day", "sunset", "night")]
            allowed = [(w, t) if w in OUTDOORS[scene] else ("clear", t) for w, t in kinds]
            sheets["weather"].append([at(500 + i, Spec(scene, t, "photo", word(scene, 0), w)) for w, t in allowed])
        style = STYLES[i % 5]
        sheets["camera"].append(
            [at(600 + i, Spec(scene, TIMES[i % 4], style, word(scene, i)), camera=m) for m in moves]
        )
        shapes = ((big * 16 // 9, big), (big * 4 // 3, big), (big * 9 // 16, big))
        sheets["shapes"].append(
            [at(700 + i, Spec(scene, TIMES[(i + 1) % 4], "photo", word(scene, i)), w, h) for w, h in shapes]
        )
    paths = []
    for name, rows in sheets.items():
        sheet(rows, folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths

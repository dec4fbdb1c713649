# SPDX-License-Identifier: GPL-3.0-or-later
"""Weather and styles: filters on a drawn canvas. Everything they add is fixed to the world, not to the screen."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Array, Canvas, mix, ramp, rgb

TILES = 8  # mosaic tiles per unit; canvases end on a tile's edge
# Ink drawings: gamma of the tones, and the paper, which is all that tells the hour in space or underground.
INK = {"dawn": 0.75, "day": 0.8, "sunset": 1.1, "night": 1.7}
PAPER = {"dawn": (250, 222, 222), "day": (248, 242, 226), "sunset": (252, 212, 150), "night": (176, 192, 232)}
GREY = np.array([0.3, 0.55, 0.15], np.float32)


def weather(c: Canvas, img: Array, kind: str, seed: int) -> Array:
    """Rain, snow or mist in front of an outdoor scene; "clear" changes nothing."""
    if kind == "clear":
        return img
    r = np.random.default_rng([seed, 17])
    grey = (img @ GREY)[..., None]
    if kind == "mist":
        bank = np.clip(0.62 + 0.22 * c.noise(2, 5, 2, heaven=True), 0, 0.92) * ramp(-0.9, 0.1, c.Y)
        return mix(img, c.haze * 0.7 + c.lit(214, 220, 226) * 0.3, bank * 0.85)
    if kind == "rain":
        img = (img * 0.55 + grey * 0.45) * 0.82
        starts = r.uniform(-2, 2, (190, 2))
        lengths = r.uniform(0.12, 0.26, (190, 1))
        drops = c.lines(starts, starts + lengths * (-0.22, 1.0), 0.013, r.uniform(0.35, 0.75, 190))
        return mix(img, c.lit(222, 232, 244) * 0.8 + 0.2, drops * 0.75)
    # Snow lies on what is below the horizon and falls everywhere.
    img = img * 0.8 + grey * 0.2
    bright = ramp(0.02, 0.30, c.Y) * ramp(-0.6, 0.6, c.noise(7, 9, 1, heaven=True) + 0.25) * 0.55
    img = mix(img, c.lit(240, 244, 252), bright)
    spots = r.uniform(size=(210, 3))
    flakes = c.dots(spots[:, 0] * 4 - 2, spots[:, 1] * 4 - 2, 0.010 + 0.016 * spots[:, 2] ** 2, 0.6 + 0.4 * spots[:, 2])
    return mix(img, c.lit(255, 255, 255) * 0.5 + 0.5, flakes)


def stylise(c: Canvas, img: Array, style: str, seed: int) -> Array:
    """A picture [H, W, 3] of 0..1 in a style; "photo" is the picture as it was drawn."""
    if style == "photo":
        return img
    return {"watercolor": watercolor, "ink": ink, "mosaic": mosaic, "neon": neon}[style](c, img, seed)


def blur(c: Canvas, img: Array, sigma: float) -> Array:
    """Gaussian blur; sigma in world units."""
    return cv2.GaussianBlur(img, (0, 0), max(sigma * c.scale, 0.3))


def watercolor(c: Canvas, img: Array, seed: int) -> Array:
    """Flat washes with dark edges on warm paper."""
    size = max(3, round(c.scale * 5 / 128 / 2) * 2 + 1)
    wash = (img * 255).astype(np.uint8)
    for _ in range(2):
        wash = cv2.medianBlur(wash, size)
    s = wash.astype(np.float32) / 255
    edge = np.abs(blur(c, s, 0.008) - blur(c, s, 0.03)).mean(2, keepdims=True)
    blot = Canvas.noise(c, 4, 4, heaven=True)[..., None]
    s = 1 - (1 - s) * (0.80 + 0.10 * blot)
    return np.clip(s * (1 - 1.5 * np.minimum(edge, 0.2)), 0, 1) * rgb(255, 251, 240)


def slope(c: Canvas, img: Array, sigma: float) -> Array:
    """How steep a picture is, summed over its colours; a step of 1 gives 0.4 along a line about 3 sigma wide."""
    s = np.atleast_3d(blur(c, img.astype(np.float32), sigma))
    return (np.hypot(*np.gradient(s, axis=(0, 1))) * c.scale * sigma).sum(2)


def ink(c: Canvas, img: Array, seed: int) -> Array:
    """Four tones of ink with outlines; the later the hour, the more ink, on paper of the hour's colour."""
    grey = blur(c, img @ GREY, 0.014)
    low, high = np.quantile(grey[::4, ::4], [0.04, 0.92])
    grey = np.clip((grey - low) / max(high - low, 0.08), 0, 1) ** INK[c.time]
    tone = grey * 3
    tone = (np.floor(tone) + ramp(0.40, 0.60, tone - np.floor(tone))) / 3
    line = ramp(0.04, 0.12, slope(c, grey, 0.013))
    return mix(c.flat(rgb(28, 26, 40)), rgb(*PAPER[c.time]), (0.14 + 0.86 * tone) * (1 - 0.88 * line))


def mosaic(c: Canvas, img: Array, seed: int) -> Array:
    """Square tiles, four small ones where there is much to see."""
    height, width = img.shape[:2]
    columns, rows = round(2 * c.half_x * TILES), round(2 * c.half_y * TILES)
    r = np.random.default_rng([seed, 11])

    def laid(per: int) -> Array:
        """The picture in tiles, per x per in one big one, with dark joints."""
        shape = (columns * per, rows * per)
        shade = r.standard_normal((64 * per, 64 * per, 1)).astype(np.float32)
        top, left = (64 * per - shape[1]) // 2, (64 * per - shape[0]) // 2
        small = cv2.resize(img, shape, interpolation=cv2.INTER_AREA)
        small = small * (1 + 0.07 * shade[top : top + shape[1], left : left + shape[0]])
        mean = small.mean(2, keepdims=True)
        small = np.clip(mean + (small - mean) * 1.25, 0, 1) ** 0.88
        x, y = (np.mod((np.arange(n) + 0.5) / n * k, 1) for n, k in ((width, shape[0]), (height, shape[1])))
        ex, ey = (np.minimum(q, 1 - q) * 2 / per for q in (x, y))
        joint = ramp(0.07, 0.15, np.minimum(ey[:, None], ex[None]))
        return mix(c.flat(rgb(46, 42, 48)), cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), joint)

    fine = cv2.resize(blur(c, img, 0.01), (columns * 8, rows * 8), interpolation=cv2.INTER_AREA)
    busy = fine.reshape(rows, 8, columns, 8, 3).std((1, 3)).max(-1) > 0.085
    split = cv2.resize(busy.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.clip(mix(laid(1), laid(2), split), 0, 1)


def neon(c: Canvas, img: Array, seed: int) -> Array:
    """Glowing outlines in the dark, wide enough for the autoencoder to keep them (5 pixels at 256)."""
    edge = slope(c, img, 0.018)
    line = ramp(0.15, 0.80, edge / max(float(np.quantile(edge[::4, ::4], 0.97)), 0.08))
    s = blur(c, img, 0.02)
    high, low = s.max(2, keepdims=True), s.min(2, keepdims=True)
    hue = blur(c, (s - low * 0.85) / (high - low * 0.85 + 0.06), 0.012)
    glow = blur(c, line, 0.045) * 0.6
    dark = s * np.array([0.20, 0.13, 0.34], np.float32)
    return np.clip(dark + hue * (line + glow)[..., None] + 0.25 * (line**3)[..., None], 0, 1)

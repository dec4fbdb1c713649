# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawing surface of the picture world: coordinates, noise, antialiased shapes, sky and light.

World coordinates: x to the right, y down, the middle of a picture at 0, 0; a square picture shows -1..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Array = np.ndarray
REACH = 2.0  # the world is drawn for x and y within this

# sky top, middle, horizon; light on things; haze; sun colour; sun (x, y, radius)
PALETTES: dict[str, tuple] = {
    "dawn": (
        [98, 120, 190], [226, 170, 190], [255, 214, 190],
        [0.92, 0.80, 0.86], [236, 196, 204], [255, 240, 214], (-0.48, -0.12, 0.15),
    ),
    "day": (
        [38, 112, 214], [104, 174, 240], [206, 234, 250],
        [1.04, 1.02, 0.98], [190, 216, 236], [255, 252, 232], (0.48, -0.62, 0.13),
    ),
    "sunset": (
        [70, 40, 112], [226, 84, 74], [255, 182, 66],
        [0.94, 0.58, 0.44], [232, 124, 84], [255, 226, 120], (0.30, -0.10, 0.22),
    ),
    "night": (
        [8, 14, 50], [22, 36, 92], [58, 80, 146],
        [0.36, 0.43, 0.66], [50, 68, 124], [240, 242, 255], (-0.42, -0.60, 0.15),
    ),
}  # fmt: skip
CLOUDS = {"dawn": (255, 226, 222), "day": (255, 255, 255), "sunset": (255, 140, 92), "night": (62, 74, 128)}


def rgb(r: float, g: float, b: float) -> Array:
    """A colour of 0..255 as float32 of 0..1."""
    return np.array((r, g, b), np.float32) / 255


def mix(a: Array, b: Array, mask: Array) -> Array:
    """Blend colour or picture a towards b by the mask [H, W]."""
    return a + (b - a) * mask[..., None]


def ramp(a: float, b: float, x: Array) -> Array:
    """A smooth step from 0 at a to 1 at b (a may be the larger)."""
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


class Canvas:
    """A rectangle of the world, -half_x..half_x by -half_y..half_y, at `scale` pixels per unit.

    What is random about a place comes from `seed` alone and is drawn in the same order at every time of day.
    """

    def __init__(self, seed: int, half_x: float, half_y: float, scale: float, time: str) -> None:
        self.layout = np.random.default_rng([seed, 7])
        self.heaven = np.random.default_rng([seed, 13])
        self.half_x, self.half_y, self.scale, self.time = half_x, half_y, scale, time
        width, height = round(2 * half_x * scale), round(2 * half_y * scale)
        # Pixel centres, so that pictures of any size show the same rectangle.
        x = ((np.arange(width) + 0.5) / width * 2 - 1) * half_x
        y = ((np.arange(height) + 0.5) / height * 2 - 1) * half_y
        self.X, self.Y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        top, middle, horizon, light, haze, sun, (sx, sy, radius) = PALETTES[time]
        self.top, self.middle, self.horizon = rgb(*top), rgb(*middle), rgb(*horizon)
        self.haze, self.sun_colour = rgb(*haze), rgb(*sun)
        self.light = np.array(light, np.float32)
        self.sun = (sx + self.u(-0.06, 0.06), sy + self.u(-0.03, 0.03), radius)
        self.night = time == "night"

    def u(self, a: float, b: float) -> float:
        """A uniform random number of the layout."""
        return float(self.layout.uniform(a, b))

    def flat(self, colour: Array) -> Array:
        """A picture of one colour."""
        return np.broadcast_to(colour, (*self.X.shape, 3)).astype(np.float32)

    def lit(self, *colour: float) -> Array:
        """A colour of 0..255 under this time's light."""
        return np.clip(rgb(*colour) * self.light, 0, 1)

    def noise(self, cx: float, cy: float, octaves: int = 1, heaven: bool = False) -> Array:
        """Smooth value noise about -1..1, with cx by cy cells in 2.5 units; heaven: not part of the layout."""
        r = self.heaven if heaven else self.layout
        out, amplitude = np.zeros_like(self.X), 1.0
        for _ in range(octaves):
            fx, fy = cx / 2.5, cy / 2.5
            grid = r.standard_normal((int(2 * REACH * fy) + 4, int(2 * REACH * fx) + 4)).astype(np.float32) * 0.55
            at = ((self.X + REACH) * fx + 1).astype(np.float32), ((self.Y + REACH) * fy + 1).astype(np.float32)
            out += amplitude * cv2.remap(grid, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            cx, cy, amplitude = cx * 2, cy * 2, amplitude * 0.5
        return out

    def wave(self, cells: int, amplitude: float) -> Array:
        """A smooth random curve over the columns [1, W]."""
        grid = self.layout.standard_normal((1, int(2 * REACH * cells / 2.5) + 4)).astype(np.float32)
        x = ((self.X[:1] + REACH) * cells / 2.5 + 1).astype(np.float32)
        return amplitude * cv2.remap(grid, x, np.zeros_like(x), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)

    def polygons(self, *polygons: Sequence[tuple[float, float]] | Array) -> Array:
        """Antialiased mask of filled polygons."""
        mask = np.zeros(self.X.shape, np.uint8)
        origin = np.array((self.half_x, self.half_y), np.float32)
        for p in polygons:
            corners = ((np.asarray(p, np.float32) + origin) * self.scale - 0.5) * 16
            cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return mask.astype(np.float32) / 255

    def dots(self, xs: Array, ys: Array, radii: Array, values: Array) -> Array:
        """Filled circles, the values laid over each other; for stars and snow."""
        out = np.zeros_like(self.X)
        for x, y, radius, value in zip(xs, ys, radii, values, strict=True):
            at = [round(((v + h) * self.scale - 0.5) * 16) for v, h in ((x, self.half_x), (y, self.half_y))]
            cv2.circle(out, tuple(at), round(radius * self.scale * 16), float(value), -1, cv2.LINE_AA, 4)
        return out

    def lines(self, starts: Array, ends: Array, width: float, values: Array) -> Array:
        """Straight strokes; for rain."""
        out = np.zeros_like(self.X)
        origin = np.array((self.half_x, self.half_y))
        for a, b, value in zip(starts, ends, values, strict=True):
            ends_px = [np.round(((p + origin) * self.scale - 0.5) * 16).astype(int).tolist() for p in (a, b)]
            cv2.line(out, *ends_px, float(value), max(1, round(width * self.scale)), cv2.LINE_AA, 4)
        return out

    def below(self, curve: Array | float, soft: float = 0.012) -> Array:
        """Mask of what lies below a curve."""
        return ramp(-soft, soft, self.Y - curve)

    def disc(self, x: float, y: float, radius: float, soft: float = 0.012) -> tuple[Array, Array]:
        """Distance to a point, and the mask of a disc around it."""
        d = np.sqrt((self.X - x) ** 2 + (self.Y - y) ** 2)
        return d, 1 - ramp(radius - soft, radius + soft, d)

    def mirrored(self, img: Array, line: float, ripple: float, frequency: float, phase: float) -> Array:
        """The picture upside down about y = line, shaken by ripples: a reflection in water."""
        x = (self.X + ripple * np.sin(self.Y * frequency + phase) + self.half_x) * self.scale - 0.5
        y = (2 * line - self.Y + self.half_y) * self.scale - 0.5
        source = np.ascontiguousarray(img, np.float32)
        return cv2.remap(
            source,
            x.astype(np.float32),
            np.maximum(y, 0).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def sky(self, clouds: float = 0.5, horizon: float = 0.15) -> Array:
        """Gradient, stars, sun or moon with its glow, clouds; down to `horizon` and evenly below it."""
        t = np.clip((self.Y + 1.05) / (horizon + 1.05), 0, 1)
        img = mix(self.flat(self.top), self.middle, ramp(0, 0.62, t))
        img = mix(img, self.horizon, ramp(0.5, 1, t))
        x, y, radius = self.sun
        stars = self.heaven.uniform(size=(96, 3))
        if self.night:
            size = 0.010 + 0.006 * stars[:, 2]
            star = self.dots(stars[:, 0] * 4 - 2, stars[:, 1] * 2.1 - 2, size, 0.5 + 0.5 * stars[:, 2])
            img = np.maximum(img, star[..., None] * rgb(225, 230, 255))
        d, disc = self.disc(x, y, radius)
        glow = np.exp(-np.maximum(d - radius, 0) / (0.16 if self.night else 0.22))
        img = img + (self.sun_colour - img) * (glow * (0.5 if self.time == "day" else 0.62))[..., None]
        cover = self.noise(4, 10, 2, heaven=True) + 0.12
        band = ramp(0.15, 0.85, cover) * ramp(0.12, -0.25, self.Y) * clouds * (0.45 if self.night else 0.85)
        img = mix(img, rgb(*CLOUDS[self.time]), band)
        # In front of the clouds: a disc that shows through them reads as a fault.
        img = mix(img, self.sun_colour, disc)
        if self.night:
            craters = [self.disc(x + ox, y + oy, r)[1] for ox, oy, r in ((-0.04, 0.03, 0.035), (0.05, -0.05, 0.025))]
            img = mix(img, self.sun_colour * 0.82, np.maximum(*craters))
        return img


def conifer(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """A fir's outline of stacked triangles; its foot at (x, y)."""
    right = []
    for k in range(1, 5):
        a = k / 4
        level = y - height * (1 - a) * 0.92 - height * 0.06
        right += [(x + width * 0.5 * a, level), (x + width * 0.27 * a, level)]
    return [(x, y - height), *right, *((2 * x - a, b) for a, b in reversed(right))]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes without a horizon: reef, nebula, tunnel. The time of day shows in their colours."""

from __future__ import annotations

import numpy as np

from .canvas import Array, Canvas, mix, ramp, rgb

WATER = {
    "dawn": ((176, 204, 216), (60, 110, 168), (30, 50, 110)),
    "day": ((150, 240, 244), (20, 158, 204), (6, 74, 148)),
    "sunset": ((255, 196, 120), (150, 110, 140), (50, 40, 100)),
    "night": ((38, 76, 140), (10, 32, 84), (4, 10, 44)),
}
NEBULA = {
    "dawn": ((255, 160, 176), (176, 112, 214), (255, 228, 206)),
    "day": ((70, 196, 255), (40, 96, 226), (214, 250, 255)),
    "sunset": ((255, 124, 46), (206, 44, 84), (255, 230, 140)),
    "night": ((134, 80, 240), (40, 40, 150), (222, 190, 255)),
}
TUNNEL = {
    "dawn": ((255, 226, 214), (206, 134, 150), (110, 92, 136)),
    "day": ((250, 255, 255), (96, 170, 214), (48, 84, 128)),
    "sunset": ((255, 224, 120), (226, 96, 52), (112, 44, 62)),
    "night": ((120, 170, 255), (56, 60, 140), (16, 16, 52)),
}
CORALS = [(255, 92, 110), (255, 166, 60), (212, 90, 214), (255, 220, 96), (120, 230, 160)]
FISH = [(255, 150, 30), (255, 226, 70), (250, 96, 84)]


def reef(c: Canvas, adjective: str) -> Array:
    """Fish over corals."""
    surface, middle, deep = (rgb(*v) for v in WATER[c.time])
    k = 0.72 if adjective == "deep" else 1
    t = np.clip((c.Y + 1.1) / 2.2, 0, 1)
    img = mix(c.flat(surface), middle * k, ramp(0, 0.42, t))
    img = mix(img, deep * k, ramp(0.35, 1, t))
    angle = (c.X - c.sun[0] * 0.5) / np.maximum(c.Y + 2.6, 0.3) * 1.4
    rays = ramp(0.1, 0.9, np.sin(angle * 13 + c.u(0, 6)) * 0.6 + 0.4 * np.sin(angle * 23)) * ramp(0.75, -1, c.Y)
    img = img + rays[..., None] * surface * (0.22 if c.night else 0.30)
    light = {"dawn": 0.88, "day": 1.04, "sunset": 0.86, "night": 0.62}[c.time]
    sand = rgb(226, 206, 160) * light * k * (middle * 0.5 + 0.45)
    img = mix(img, sand, c.below(0.70 + c.wave(3, 0.03)))
    bumps = sum(h * np.exp(-(((c.X[:1] - x) / 0.34) ** 2)) for x, h in ((-1.05, 0.42), (1.08, 0.34)))
    rocks = 0.68 + 0.34 * np.minimum(np.abs(c.X[:1]), 1.2) * 0.5 - bumps
    img = mix(img, deep * 0.55 + rgb(40, 44, 66) * 0.35, c.below(rocks, 0.02))
    order = c.layout.permutation(5)
    for i, x in enumerate((-1.42, -0.98, -0.55, -0.12, 0.35, 0.95, 1.40)):
        x = x + c.u(-0.08, 0.08)
        colour = np.clip(rgb(*CORALS[order[i % 5]]) * light * (1.18 if c.night else 1.0), 0, 1)
        y = 0.86 - 0.10 * min(abs(x), 1) + c.u(-0.02, 0.02)
        if i % 2:
            img = mix(img, colour, c.polygons(*branches(x, y)))
        else:
            _, mask = c.disc(x, y + 0.02, 0.24)
            stripe = 0.84 + 0.24 * ramp(-0.4, 0.4, np.sin(np.arctan2(c.Y - y - 0.1, c.X - x) * 12))
            img = mix(img, colour * stripe[..., None], mask * ramp(0.02, -0.02, c.Y - y - 0.06))
    img = mix(img, sand, c.below(0.92 + c.wave(3, 0.02)))
    shoal = ((-0.40, -0.38, 0.17), (0.30, -0.10, 0.21), (0.52, -0.60, 0.13), (-0.62, 0.10, 0.14), (1.15, -0.3, 0.15))
    for i, (x, y, s) in enumerate(shoal):
        colour = np.clip(rgb(*FISH[i % 3]) * max(light, 0.8) * k**0.5, 0, 1)
        img = fish(c, img, (x + c.u(-0.13, 0.13), y + c.u(-0.10, 0.10), s), colour, max(light, 0.8))
    return img


def branches(x: float, y: float) -> list[list[tuple[float, float]]]:
    """A fan coral's five arms from (x, y) upwards."""
    arms = []
    for a in np.linspace(-0.85, 0.85, 5):
        length, w = 0.50 - 0.12 * abs(a), 0.036
        ex, ey = x + np.sin(a) * length * 0.8, y - np.cos(a) * length
        arms.append([(x - w, y + 0.06), (ex - w, ey), (ex, ey - 0.04), (ex + w, ey), (x + w, y + 0.06)])
    return arms


def fish(c: Canvas, img: Array, place: tuple[float, float, float], colour: Array, light: float) -> Array:
    """One fish at (x, y, size), looking right."""
    x, y, s = place
    a = np.linspace(0, 2 * np.pi, 24)
    body = np.stack([x + s * np.cos(a), y + s * 0.52 * np.sin(a)], 1)
    tail = [(x - s * 0.75, y), (x - s * 1.6, y - s * 0.52), (x - s * 1.4, y), (x - s * 1.6, y + s * 0.52)]
    img = mix(img, colour, c.polygons(body, tail))
    band = np.exp(-(((c.X - x - s * 0.18) / (s * 0.17)) ** 4)) * c.polygons(body)
    img = mix(img, np.array([0.98, 0.97, 0.92], np.float32) * light, band)
    return mix(img, rgb(20, 20, 40), c.disc(x + s * 0.66, y - s * 0.1, s * 0.13)[1])


def nebula(c: Canvas, adjective: str) -> Array:
    """A spiral or a cloud of gas, and a ringed planet."""
    gas, rim, core = (rgb(*v) for v in NEBULA[c.time])
    x, y, s = 0.60 + c.u(-0.10, 0.06), 0.52 + c.u(-0.10, 0.06), 0.25 + c.u(-0.03, 0.03)
    cx, cy, turn = -0.12 + c.u(-0.12, 0.10), -0.04 + c.u(-0.08, 0.08), c.u(0, 6)
    r = np.sqrt((c.X - cx) ** 2 + ((c.Y - cy) * 1.35) ** 2)
    bent, cloud = c.noise(3, 3) * 0.5, c.noise(3, 3, 2)
    if adjective == "soft":
        density = ramp(-0.45, 0.75, cloud + bent) * np.exp(-((r / 0.95) ** 2)) * 1.15
    else:
        angle = np.arctan2((c.Y - cy) * 1.35, c.X - cx)
        arms = 0.5 + 0.5 * np.sin(2 * angle - 6.0 * np.log(r + 0.18) + bent * 1.6 + turn)
        density = ramp(0.12, 0.95, arms) * np.exp(-((r / 0.82) ** 2))
    img = c.flat(rgb(7, 7, 22))
    img = mix(img, rim, np.clip(np.exp(-((r / 0.95) ** 2)) * 0.55 + density * 0.3, 0, 1))
    img = mix(img, gas, np.clip(density * 0.95, 0, 1))
    img = mix(img, core, np.clip(np.exp(-((r / 0.21) ** 2)) + density * 0.18, 0, 1))
    stars = c.heaven.uniform(size=(110, 3))
    light = 0.5 + 0.5 * stars[:, 2]
    star = c.dots(stars[:, 0] * 4 - 2, stars[:, 1] * 4 - 2, 0.010 + 0.012 * light**2, light)
    img = np.maximum(img, star[..., None] * rgb(240, 240, 255))
    _, disc = c.disc(x, y, s)
    lit = ramp(-0.16, 0.20, -(c.X - x) * 0.7 - (c.Y - y) * 0.7 + 0.03)
    band = 0.86 + 0.2 * ramp(-0.5, 0.5, np.sin((c.Y - y + 0.3 * (c.X - x)) * 26))
    bright = np.clip(gas * 0.45 + rgb(235, 210, 180) * 0.55, 0, 1) * band[..., None]
    img = mix(img, mix(c.flat(rim * 0.28), bright, lit), disc)
    ry, rx = (c.Y - y) * 0.94 + (c.X - x) * 0.34, (c.X - x) * 0.94 - (c.Y - y) * 0.34
    d = np.sqrt(rx**2 + (ry * 3.4) ** 2)
    ring = ramp(s * 1.28, s * 1.36, d) * ramp(s * 1.86, s * 1.76, d) * (1 - disc * (ry < 0))
    return mix(img, core * 0.9, ring * 0.9)


def tunnel(c: Canvas, adjective: str) -> Array:
    """Rings of stone or light, rails, and the way out."""
    far, wall, gap = (rgb(*v) for v in TUNNEL[c.time])
    dx, dy = c.X - c.u(-0.12, 0.12), c.Y + 0.04 - c.u(-0.08, 0.08)
    r = np.sqrt(dx**2 + dy**2) + 1e-4
    z = -np.log(r) * 2.1 + c.u(0, 1)
    segments = ramp(-0.35, 0.35, np.sin(np.arctan2(dy, dx) * 8 + np.pi * np.floor(z + 0.25)))
    if adjective == "glowing":
        line = np.exp(-(((np.mod(z + 0.5, 1) - 0.5) / 0.13) ** 2))
        img = mix(c.flat(gap * 0.45), gap * 0.9, segments * 0.8)
        img = mix(img, np.clip(wall * 1.25 + 0.1, 0, 1), line)
    else:
        img = mix(c.flat(gap), wall, ramp(-0.35, 0.35, np.sin(z * 2 * np.pi)) * 0.8)
        img = img * (0.82 + 0.24 * segments)[..., None]
    img = img * np.clip(1.10 - 0.30 * r, 0.5, 1.1)[..., None]
    img = mix(img, far, np.clip(np.exp(-((r / 0.34) ** 2)) * 0.75 + (1 - ramp(0.14, 0.17, r)), 0, 1))
    floor = ramp(0, 0.04, dy - np.abs(dx) * 0.55 - 0.10)
    sleepers = mix(c.flat(gap * 0.55), wall * 0.8, ramp(-0.3, 0.3, np.sin(z * 4 * np.pi)))
    img = mix(img, sleepers, floor * 0.92)
    rail = np.exp(-(((np.abs(dx) / np.maximum(dy, 0.02) - 0.62) / 0.10) ** 2)) * ramp(0.10, 0.16, dy)
    return mix(img, far, rail * 0.85)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes under the sky: each takes a canvas and an adjective and returns a picture [H, W, 3]."""

from __future__ import annotations

import numpy as np

from .canvas import Array, Canvas, conifer, mix, ramp, rgb


def sea(c: Canvas, adjective: str) -> Array:
    """A sailing boat before an island."""
    storm = adjective == "stormy"
    h = 0.02 + c.u(-0.04, 0.04)
    img = c.sky(0.4)
    if storm:
        cover = ramp(-0.3, 0.5, c.noise(4, 8, 2, heaven=True))
        img = img * 0.35 + mix(c.flat(c.lit(96, 104, 118)), c.lit(170, 176, 186), cover) * 0.65
    island = h - 0.17 * np.exp(-(((c.X[:1] - c.u(0.60, 0.78)) / 0.26) ** 2)) - 0.01
    img = mix(img, c.haze * 0.55 + c.lit(60, 90, 110) * 0.45, c.below(island))
    d = np.maximum(c.Y - h, 0)
    deep, shallow = (c.lit(40, 66, 84), c.lit(120, 146, 156)) if storm else (c.lit(14, 74, 132), c.lit(92, 176, 204))
    shallow = shallow * 0.55 + c.horizon * (0.35 if c.night else 0.45)
    water = mix(c.flat(shallow), deep, ramp(0, 0.75, d))
    phase = np.log(d + 0.10) * (9 if storm else 13)
    bend = c.noise(4, 5) * (1.7 if storm else 1.1) + c.u(0, 6)
    wave = np.sin(phase + bend + 0.6 * np.sin(3 * c.X + phase * 0.3))
    height = np.clip(d * 2.2, 0.15, 1)
    water = water * (1 + (0.30 if storm else 0.17) * (wave * height))[..., None]
    if storm:
        water = mix(water, c.lit(236, 242, 246), ramp(0.62, 0.92, wave) * height * 0.9)
    glitter = np.exp(-(((c.X - c.sun[0]) / (0.10 + 0.38 * d)) ** 2)) * (0.45 + 0.55 * ramp(-0.1, 0.5, wave))
    strength = (0.28 if storm else 0.85) * (0.55 if c.time == "day" else 1)
    water = mix(water, c.sun_colour * (0.85 if c.night else 1), glitter * strength)
    img = mix(img, water, c.below(h, 0.006))
    x, y, s = c.u(-0.42, 0.16), h + 0.20 + c.u(-0.02, 0.05), c.u(0.9, 1.15)

    def shape(*corners: tuple[float, float]) -> Array:
        return c.polygons([(x + a * s, y + b * s) for a, b in corners])

    img = mix(img, deep * 0.6, shape((-0.16, 0.06), (0.20, 0.06), (0.09, 0.25), (-0.05, 0.25)) * 0.35)
    img = mix(img, c.lit(250, 246, 236) * 0.9 + 0.08, shape((0.02, -0.42), (0.02, -0.05), (0.24, -0.05)))
    img = mix(img, c.lit(226, 96, 70) * 0.9 + 0.06, shape((-0.01, -0.36), (-0.01, -0.05), (-0.15, -0.05)))
    return mix(img, c.lit(92, 48, 34), shape((-0.20, -0.03), (0.26, -0.03), (0.17, 0.065), (-0.13, 0.065)))


def forest(c: Canvas, adjective: str) -> Array:
    """Three rows of trees and a path."""
    img = c.sky(0.35, 0.25)
    autumn = adjective == "autumn"
    ground = 0.42 + c.u(-0.03, 0.03)
    far = c.lit(176, 120, 84) if autumn else c.lit(90, 140, 130)
    img = mix(img, far * 0.5 + c.haze * 0.5, c.below(ground - 0.42 + c.wave(3, 0.05), 0.02))
    leaves = [(206, 92, 36), (226, 152, 44), (168, 56, 40)] if autumn else [(34, 98, 62), (50, 124, 70), (24, 78, 66)]
    for k in range(3):
        base, height, width = ground - 0.18 + 0.17 * k, 0.50 + 0.20 * k, 0.25 + 0.11 * k
        count = 12 - 3 * k
        xs = np.linspace(-1.95, 1.95, count) + c.layout.uniform(-0.08, 0.08, count)
        hs = c.layout.uniform(0.80, 1.22, count) * height
        pick = (c.layout.uniform(size=count) * 3).astype(int)
        if k == 2:
            clear = np.abs(xs) > 0.36
            xs, hs, pick = xs[clear], hs[clear], pick[clear]
        air = (0.42, 0.20, 0)[k]
        trunks = []
        for x in xs:
            a, b = width * 0.07, width * 0.08
            trunks.append([(x - a, base - 0.12), (x + a, base - 0.12), (x + b, base + 0.05), (x - b, base + 0.05)])
        img = mix(img, c.lit(80, 54, 40) * (1 - air) + c.haze * air, c.polygons(*trunks))
        for g, colour in enumerate(leaves):
            chosen = list(zip(xs[pick == g], hs[pick == g], strict=True))
            if autumn:
                mask = np.zeros_like(c.X)
                for x, h in chosen:
                    for ox, oy, r in ((0, 0.62, 0.50), (-0.26, 0.44, 0.40), (0.26, 0.44, 0.40)):
                        crown = c.disc(x + ox * width * 1.3, base - h * oy * 0.9, r * width * 0.95)[1]
                        mask = np.maximum(mask, crown)
            else:
                mask = c.polygons(*(conifer(x, base, width * 1.25, h) for x, h in chosen))
            tree = c.flat(c.lit(*colour) * (1 - air) + c.haze * air)
            if k:
                tree = tree * (0.82 + 0.34 * ramp(0.5, -0.5, np.sin(c.X * 9 + g)))[..., None]
            img = mix(img, tree, mask)
        grass = c.lit(178, 122, 62) if autumn else c.lit(104, 152, 70)
        img = mix(img, grass * (1 - air) + c.haze * air, c.below(base + c.wave(3, 0.02), 0.02))
    d = np.maximum(c.Y - ground - 0.02, 0)
    middle = 0.25 * np.sin(d * 3.2 + c.u(-0.4, 0.4))
    path = np.exp(-(((c.X - middle) / (0.055 + 0.26 * d)) ** 4)) * ramp(0, 0.06, d)
    return mix(img, c.lit(216, 190, 142), path)


def ridge(c: Canvas, peaks: list[tuple[float, float, float]], rough: float = 0.021) -> Array:
    """Height curve [1, W]: the upper envelope of peaks (x, top y, slope) with a rough edge."""
    return np.min([top + np.abs(c.X[:1] - x) * slope for x, top, slope in peaks], 0) + c.wave(14, rough)


def mountains(c: Canvas, adjective: str) -> Array:
    """Two peaks over a lake."""
    img = c.sky(0.55, 0.2)
    spots = ((-1.7, -0.2), (-0.9, -0.22), (-0.2, -0.12), (0.95, -0.26), (1.75, -0.15))
    far = ridge(c, [(x + c.u(-0.06, 0.06), y, 0.7) for x, y in spots], 0.012)
    img = mix(img, c.haze * 0.62 + c.lit(90, 110, 160) * 0.38, c.below(far))
    snowy = adjective != "rocky"
    rock = c.lit(96, 100, 128) if snowy else c.lit(150, 104, 80)
    side = -1 if c.sun[0] < 0 else 1
    zigzag = 0.05 * np.sin(c.Y * 15 + c.u(0, 6)) + 0.02 * np.sin(c.Y * 34)
    peaks = (
        (-0.50 + c.u(-0.12, 0.10), -0.50 + c.u(-0.06, 0.06), 1.0),
        (0.46 + c.u(-0.10, 0.12), -0.66 + c.u(-0.06, 0.06), 1.15),
    )
    for x, y, slope in peaks:
        mask = c.below(ridge(c, [(x, y, slope)]))
        lit = ramp(-0.025, 0.025, side * (c.X - x - zigzag * (1 + c.Y - y)))
        body = mix(c.flat(rock * 0.52), np.clip(rock * 1.18, 0, 1), lit)
        line = y + 0.36 + 0.085 * np.sin(c.X * 21 + c.u(0, 6)) + 0.05 * np.sin(c.X * 43)
        if snowy:
            snow = mix(c.flat(c.lit(168, 184, 222) * 0.86), c.lit(255, 253, 250), lit)
            body = mix(body, snow, ramp(0.014, -0.014, c.Y - line))
        else:
            strata = ramp(-0.25, 0.25, np.sin((c.Y + 0.12 * c.X * side) * 26))
            body = body * (0.86 + 0.22 * strata)[..., None]
        body = mix(body, c.haze, ramp(-0.05, 0.55, c.Y) * 0.55)
        img = mix(img, body, mask)
    lake = 0.36 + c.u(-0.02, 0.02)
    img = mix(img, c.lit(52, 94, 66) * 0.75 + c.haze * 0.25, c.below(lake - 0.09 + c.wave(4, 0.035)))
    water = c.mirrored(img, lake, 0.012, 46, 0) * 0.72 + c.lit(60, 120, 160) * 0.24
    img = mix(img, water, c.below(lake, 0.008))
    shore = 0.93 + c.wave(4, 0.05) - 0.22 * np.exp(-(((c.X[:1] + 0.95) / 0.4) ** 2))
    img = mix(img, c.lit(44, 84, 48), c.below(shore))
    firs = ((-1.45, 0.7), (-1.12, 0.62), (-0.92, 0.80), (-0.72, 0.55), (1.4, 0.45))
    return mix(img, c.lit(22, 62, 48), c.polygons(*(conifer(x, 0.97, 0.19, h) for x, h in firs)))


def desert(c: Canvas, adjective: str) -> Array:
    """Pyramids, dunes, a cactus."""
    img = c.sky(0.22, 0.15)
    sand = np.array((206, 100, 62) if adjective == "red" else (232, 178, 104), np.float32)
    px, size, base = -0.42 + c.u(-0.14, 0.12), 0.34 + c.u(-0.03, 0.04), 0.16
    side = 1 if c.sun[0] > px else -1
    for x, s in ((px + 0.52, size * 0.62), (px, size)):
        top = (x, base - s * 1.25)
        face = c.polygons([top, (x - s, base + 0.04), (x + s, base + 0.04)])
        shade = c.polygons([top, (x - side * s, base + 0.04), (x + side * s * 0.22, base + 0.04)])
        img = mix(img, c.lit(*(sand * 1.02)) * 0.9 + c.haze * 0.1, face)
        img = mix(img, c.lit(*(sand * 0.55)) * 0.85 + c.haze * 0.15, shade)
    img = mix(img, c.lit(*(sand * 0.92)) * 0.7 + c.haze * 0.3, c.below(base + c.wave(3, 0.02)))
    for k in range(3):
        x = (-0.35, 0.48, -0.22)[k] + c.u(-0.12, 0.12)
        y = (0.24, 0.38, 0.62)[k] + c.u(-0.02, 0.02)
        bump = 1 - np.exp(-(((c.X[:1] - x) / (0.55 + 0.1 * k)) ** 2)) * 1.5
        crest = y + (0.10, 0.15, 0.18)[k] * bump + 0.02
        d = np.maximum(c.Y - crest, 0)
        edge = x + 0.34 * np.sin(d * 5.5 + k) * ramp(0, 0.4, d) + 0.25 * d
        lit = ramp(-0.03, 0.03, side * (c.X - edge))
        body = mix(c.flat(c.lit(*(sand * 0.56))), c.lit(*np.minimum(sand * 1.12, 255)), lit)
        body = body * (1 + 0.07 * np.sin(d * 52 + 4 * np.sin(c.X * 2.6)) * lit)[..., None]
        air = (0.16, 0.06, 0)[k]
        img = mix(img, body * (1 - air) + c.haze * air, c.below(crest))
    x, y, w = 0.60 + c.u(-0.12, 0.10), 0.74, 0.062
    trunk = [(-w, 0), (-w, -0.60), (-w / 2, -0.65), (w / 2, -0.65), (w, -0.60), (w, 0)]
    left = [(-0.25, -0.46), (-0.25, -0.24), (0, -0.20), (0, -0.30), (-0.16, -0.32), (-0.16, -0.46)]
    right = [(0.25, -0.56), (0.25, -0.33), (0, -0.28), (0, -0.38), (0.16, -0.41), (0.16, -0.56)]
    cactus = [[(x + a, y + b) for a, b in part] for part in (trunk, left, right)]
    return mix(img, c.lit(46, 108, 62), c.polygons(*cactus))


def city(c: Canvas, adjective: str) -> Array:
    """Two rows of houses or towers over water."""
    img = c.sky(0.35, 0.3)
    street = 0.50 + c.u(-0.02, 0.02)
    old = adjective == "old"
    tints = (
        [(178, 112, 82), (196, 156, 116), (146, 94, 84)] if old else [(96, 118, 156), (150, 140, 140), (112, 126, 132)]
    )
    dark = c.time != "day"
    glow = {"night": 1, "sunset": 0.95, "dawn": 0.75}.get(c.time, 1)
    for k, count in enumerate((13, 9)):
        edges = np.linspace(-2.0, 2.0, count + 1) + c.layout.uniform(-0.03, 0.03, count + 1)
        tops = street - ((0.62, 0.42)[k] + c.layout.uniform(0, (0.34, 0.52)[k], count))
        tower = count // 2 + int(c.u(-1.0, 2.0)) if k else -1
        if k:
            tops[tower], tops[tower - 1] = street - 1.0, street - 0.45
        for i in range(count):
            a, b, top = edges[i] + 0.02 * k, edges[i + 1] - 0.02 * k, tops[i]
            colour = c.lit(*tints[i % 3]) * (1, 0.5)[k == 0] + c.haze * (0, 0.5)[k == 0]
            middle = (a + b) / 2
            outline = [[(a, top), (b, top), (b, street + 0.02), (a, street + 0.02)]]
            if old and k:
                outline.append([(a - 0.02, top), (middle, top - 0.16), (b + 0.02, top)])
            elif i == tower:
                outline.append([(middle - 0.02, top), (middle, top - 0.26), (middle + 0.02, top)])
            shade = 1.0 + 0.32 * np.sign(c.sun[0]) * np.clip((c.X - middle) / (b - a), -0.5, 0.5)
            img = mix(img, colour * shade[..., None], c.polygons(*outline))
            if k:
                img = windows(c, img, (a, b, top), street, dark, glow)
    water = c.mirrored(img, street, 0.018, 40, c.u(0, 6)) * 0.6 + c.lit(40, 70, 104) * 0.34
    img = mix(img, water, c.below(street + 0.05, 0.008))
    quay = c.below(street, 0.006) * (1 - c.below(street + 0.05, 0.006))
    return mix(img, c.lit(70, 66, 72), quay)


def windows(c: Canvas, img: Array, wall: tuple[float, float, float], street: float, dark: bool, glow: float) -> Array:
    """Three columns of windows on a wall (left, right, top), some of them lit."""
    a, b, top = wall
    rows, w = max(int((street - top - 0.06) / 0.13), 1), (b - a) / 5.8
    lit = c.layout.uniform(size=(8, 3))[:rows] > 0.3
    on, off = [], []
    for row in range(len(lit)):
        for column in range(3):
            x, y = a + w * (0.7 + 1.7 * column), top + 0.06 + 0.13 * row
            pane = [(x, y), (x + w, y), (x + w, y + 0.075), (x, y + 0.075)]
            (on if lit[row, column] else off).append(pane)
    glass = c.lit(50, 60, 96) if dark else c.lit(196, 222, 240)
    img = mix(img, glass * (1 if dark else 0.6), c.polygons(*off))
    return mix(img, rgb(255, 214, 110) if dark else glass, c.polygons(*on) * glow)

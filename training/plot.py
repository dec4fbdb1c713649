# SPDX-License-Identifier: GPL-3.0-or-later
"""A training log (JSON lines) as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 480, 70, 170, 24, 40
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22"]


def read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Every figure of a log as a list of (step, value)."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "start" in line or "result" in line:
            continue
        for key, value in line.items():
            if key not in ("step", "seconds") and value > 0:
                curves.setdefault(key, []).append((line["step"], value))
    return curves


def smoothed(curve: list[tuple[float, float]], span: int = 60) -> list[tuple[float, float]]:
    """Running means over about a sixtieth of the curve: single batches scatter a lot."""
    n = max(1, len(curve) // span)
    return [
        (curve[k][0], sum(v for _, v in curve[max(k - n + 1, 0) : k + 1]) / min(n, k + 1)) for k in range(len(curve))
    ]


def plot_log(log: Path, png: Path) -> None:
    """Draw all curves of a log over the steps, on a logarithmic scale. Without a curve nothing is written."""
    curves = dict(sorted(read_log(log).items()))
    if not curves:
        return
    values = [v for curve in curves.values() for _, v in curve]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    last = max(step for curve in curves.values() for step, _ in curve)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)

    def place(step: float, level: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1)
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (level - low) / (high - low)

    for k in range(6):
        level = low + (high - low) * k / 5
        x, y = place(0, level)
        draw.line((x, y, WIDTH - RIGHT, y), fill="#dddddd")
        draw.text((8, y - 6), f"{10**level:.3g}", fill="#444444")
        x, y = place(last * k / 5, low)
        draw.text((x - 10, y + 8), f"{round(last * k / 5)}", fill="#444444")
    draw.text((LEFT, 6), f"{log.stem}: loss by step", fill="#000000")
    for k, (key, raw) in enumerate(curves.items()):
        curve = smoothed(raw)
        colour = COLOURS[k % len(COLOURS)]
        points = [place(step, math.log10(v)) for step, v in curve]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        for x, y in points if len(points) < 4 else points[-1:]:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        draw.text((WIDTH - RIGHT + 12, TOP + 16 * k), f"{key} {curve[-1][1]:.3g}", fill=colour)
    aside = png.with_name(png.name + ".new")
    image.save(aside, format="PNG")
    aside.replace(png)

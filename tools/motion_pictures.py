#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pictures of docs/motion.md: what each kind of motion and of noise does, by Koshi's own fields.

    blender -b -P examples/make_guides.py -- out/scene
    python tools/motion_pictures.py out/scene docs/images

Arrows go from where something was to where it is now. Dark grey is what a move uncovers; a model paints it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402 - the path is set up first
from koshi_backend.depth import read_depth
from koshi_backend.motion import MotionField, resample
from koshi_backend.motion.anchor import Anchored
from koshi_backend.moves import Moves
from koshi_backend.noise import MODES, NoiseRecipe, frame_noise, pixel_noise, unpack
from koshi_backend.pictures import read_picture
from koshi_backend.shot import load_shot, read_shot
from koshi_backend.video_reader import VideoReader

CPU = torch.device("cpu")
TILE, GAP, LINE = 300, 10, 22  # pixels of a sheet: a tile's width, between tiles, a caption's height
PAPER, INK, HIDDEN = (250, 250, 248), (40, 40, 44), 0.16
ARROW, EDGE = (255, 236, 110), (20, 20, 24)
FINE = 3  # arrows are drawn so much larger, for smooth edges
QUALITY = 86


class Tile(NamedTuple):
    """A picture [1, 3, H, W] with a caption, and arrows after a field if there is one."""

    picture: Tensor
    caption: str
    arrows: MotionField | None = None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/motion.md.")
    parser.add_argument("scene", type=Path, help="what examples/make_guides.py wrote with `-- FOLDER`")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    studio = Studio(options.scene)
    sheets = {
        "2d": studio.flat(), "flip": studio.flips(), "borders": studio.borders(), "anchor": studio.anchors(),
        "3d": studio.deforum_3d(), "depth": studio.depth(), "camera": studio.camera(), "guide": studio.guide(),
        "noise": noises(), "pixel_noise": studio.grain(),
    }  # fmt: skip
    for name, (tiles, columns) in sheets.items():
        path = options.out / f"motion_{name}.jpg"
        sheet(tiles, columns).save(path, quality=QUALITY, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KB")
    return 0


Sheet = tuple[list[Tile], int]


class Studio:
    """The demo scene's picture, and the moves that are shown on it."""

    def __init__(self, folder: Path) -> None:
        self.shot = read_shot(folder / "scene.koshi.json")
        self.folder, self.width, self.height = folder, self.shot.width, self.shot.height
        self.first = read_picture(self.shot.init_image or "", self.width, self.height)

    def field(self, index: int = 1, **parts: Any) -> MotionField:
        """The move into a frame of a shot that holds nothing but `parts`."""
        whole = {"width": self.width, "height": self.height, "frames": index + 1, "prompts": [{"text": "any"}], **parts}
        return Moves(load_shot(whole), CPU).into(index, self.first, {})[0]

    def moved(self, caption: str, field: MotionField, border: str = "replicate", arrows: bool = True) -> Tile:
        """The picture after a move, grey where nothing is known."""
        return Tile(shown(self.first, field, border), caption, field if arrows else None)

    def curves(self, caption: str, source: str = "2d", **values: float) -> Tile:
        """The picture after one move by the curves alone."""
        return self.moved(caption, self.field(schedules=values, motion={"source": source}))

    def flat(self) -> Sheet:
        return [
            Tile(self.first, "the frame before"),
            self.curves("zoom 1.15", zoom=1.15),
            self.curves("angle 8", angle=8),
            self.curves("translation_x 40, translation_y -20", translation_x=40, translation_y=-20),
            self.curves("zoom 1.3, centre at (0.1, 0.7)", zoom=1.3, transform_center_x=0.1, transform_center_y=0.7),
            self.curves("zoom 0.85, angle -8", zoom=0.85, angle=-8),
        ], 3

    def flips(self) -> Sheet:
        angles: dict[str, float] = {"theta": 12, "phi": 25, "gamma": 25}
        return [self.curves(f"{n} {v:g}", "2d", **{f"perspective_flip_{n}": v}) for n, v in angles.items()], 3

    def borders(self) -> Sheet:
        tiles = [self.curves("what zoom 0.6 uncovers", zoom=0.6)]
        for border in ("replicate", "wrap", "reflect"):
            field = self.field(schedules={"zoom": 0.6}, feedback={"border": border})
            picture = resample(self.first, field, border)
            tiles.append(Tile(picture, f"border {border}" + (" (painted over)" if border == "replicate" else "")))
        return tiles, 4

    def deforum_3d(self) -> Sheet:
        moves: dict[str, float] = {
            "translation_x": 25, "translation_y": 25, "translation_z": 25,
            "rotation_3d_x": 6, "rotation_3d_y": 6, "rotation_3d_z": 6,
        }  # fmt: skip
        return [self.curves(f"{name} {value:g}", "3d", **{name: value}) for name, value in moves.items()], 3

    def depth(self) -> Sheet:
        shot = self.shot
        file = str(self.folder / "scene_guides" / f"geometry_{shot.frame_start:04d}.exr")
        depth = read_depth(file, self.width, self.height).values
        near = ((1 / depth - 1 / 30) / (1 / 4 - 1 / 30)).clamp(0, 1)

        def over(caption: str, **curves: float) -> Tile:
            field = self.field(
                schedules=curves, motion={"source": "3d"}, guides={"depth": file},
                depth={"source": "files", "nearest": 4.0, "farthest": 30.0},
            )  # fmt: skip
            return self.moved(caption, field)

        return [
            Tile(near.expand(1, 3, -1, -1), "depth: white is near"),
            self.curves("translation_x -30, no depth", "3d", translation_x=-30),
            over("translation_x -30, over the depth", translation_x=-30),
            over("translation_z 30, over the depth", translation_z=30),
        ], 4

    def camera(self) -> Sheet:
        """From one frame that Blender rendered to the next, whose picture shows how right that is."""

        def followed(vectors: bool = True, plane: dict[str, Any] | None = None) -> MotionField:
            whole = self.shot.as_dict()
            whole["schedules"] = {}
            if not vectors:
                whole["guides"]["vector"] = None
            if plane is not None:
                whole["motion"]["plane"], whole["guides"] = plane, {}
            return Moves(load_shot(whole), CPU).into(1, self.first, {})[0]

        facade = {"point": [0.0, 2.0, 0.0], "normal": [0.0, 1.0, 0.0]}
        last = read_picture(self.folder / "last.png", self.width, self.height)
        exact = followed()
        return [
            Tile(self.first, "a frame, rendered by Blender"),
            self.moved("moved on by camera, depth and vectors", exact),
            Tile(last, "the next one, rendered by Blender"),
            self.moved("the same without vectors: the boat is lost", followed(False), arrows=False),
            self.moved("over the plane of the towers, no depth", followed(plane=facade), arrows=False),
            Tile(error(shown(self.first, exact), last, exact.valid), "difference from Blender x 4, where known"),
        ], 3

    def guide(self) -> Sheet:
        clip = ROOT / "examples" / "guides" / "clip.mp4"
        size, now = min(self.width, self.height), 6
        reader = VideoReader(clip)
        film = [reader.picture(k, size, size) for k in (now - 1, now)]
        whole = {"width": size, "height": size, "frames": now + 1, "prompts": [{"text": "any"}]}
        whole["guides"] = {"video": str(clip)}
        tiles = [Tile(film[0], "the film"), Tile(film[1], "its next frame")]
        for source in ("flow", "affine", "perspective"):
            moves = Moves(load_shot({**whole, "motion": {"source": source}}), CPU)
            field = moves.into(now, film[0], {})[0]
            tiles.append(Tile(shown(film[0], field), f"the first, by {source}", field))
        return tiles, 5

    def anchors(self) -> Sheet:
        """Fifty small moves, most of the way to and fro, a part of the picture enlarged."""
        steps = [self.field(schedules={"zoom": 1.004, "angle": 0.3, "translation_x": 0.4})] * 25
        steps += [self.field(schedules={"zoom": 1 / 1.0035, "angle": -0.29, "translation_x": -0.4})] * 25
        kept, repeated = Anchored.at(self.first), self.first
        for step in steps:
            kept, repeated = kept.moved(step), resample(repeated, step)

        def part(picture: Tensor) -> Tensor:
            x, y = int(self.width * 0.24), int(self.height * 0.3)
            cut = picture[..., y : y + self.height // 3, x : x + self.width // 3]
            return torch.nn.functional.interpolate(cut, scale_factor=4, mode="nearest")

        return [
            Tile(part(self.first), "before"),
            Tile(part(repeated), "50 moves, resampled 50 times"),
            Tile(part(kept.shown()), "50 moves from an anchor: resampled once"),
        ], 3

    def grain(self) -> Sheet:
        tiles = [Tile(self.first, "noise 0")]
        for kind in ("gaussian", "perlin"):
            grain = pixel_noise(kind, self.width, self.height, 1)
            tiles.append(Tile((self.first + 0.5 * 0.12 * grain).clamp(0, 1), f"noise 0.12, {kind}"))
        return tiles, 3


def noises() -> Sheet:
    """Three of a latent's channels as colours: a mode a column, frames downwards, while the picture is zoomed."""
    width, height, wanted = 128, 96, (0, 1, 8)
    zoom = {"width": width, "height": height, "frames": 9, "prompts": [{"text": "any"}], "schedules": {"zoom": 1.04}}
    moves = Moves(load_shot(zoom), CPU)
    fields = [moves.into(k, torch.zeros(1, 3, height, width), {})[0] if k else None for k in range(9)]
    tiles: dict[tuple[int, str], Tile] = {}
    for mode in MODES:
        state = None
        for k, field in enumerate(fields):
            recipe = NoiseRecipe(mode, 3, k, width, height, delta=0.2, subseed=4, subseed_strength=k / 8)
            noise, state = frame_noise(recipe, field, state)
            colours = (0.5 + unpack(noise)[:, :3] / 5).clamp(0, 1)
            large = torch.nn.functional.interpolate(colours, scale_factor=10, mode="nearest")
            tiles[k, mode] = Tile(large, f"{mode}, frame {k}")
    return [tiles[k, mode] for k in wanted for mode in MODES], len(MODES)


def shown(picture: Tensor, field: MotionField, border: str = "replicate") -> Tensor:
    """A picture after a move, dark grey where nothing is known."""
    moved = resample(picture, field, border, kernel="spline", limits=(0.0, 1.0))
    return torch.where(field.valid, moved, HIDDEN)


def error(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, (4 * (a - b).abs()).clamp(0, 1), HIDDEN)


def sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    """Tiles in rows, each over its caption."""
    width = TILE if columns <= 3 else 920 // columns
    first = tiles[0].picture
    height = round(width * first.shape[-2] / first.shape[-1])
    rows = -(-len(tiles) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + LINE + GAP) - GAP)
    whole, font = Image.new("RGB", size, PAPER), ImageFont.load_default(13 if columns <= 3 else 12)
    draw = ImageDraw.Draw(whole)
    for k, tile in enumerate(tiles):
        x, y = k % columns * (width + GAP), k // columns * (height + LINE + GAP)
        whole.paste(drawn(tile, width, height), (x, y))
        draw.text((x + 2, y + height + 3), tile.caption, fill=INK, font=font)
    return whole


def drawn(tile: Tile, width: int, height: int) -> Image.Image:
    pixels = (tile.picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
    large = Image.fromarray(pixels).resize((FINE * width, FINE * height), Image.Resampling.BICUBIC)
    if tile.arrows is not None:
        draw_arrows(ImageDraw.Draw(large), tile.arrows, FINE * width)
    return large.resize((width, height), Image.Resampling.LANCZOS)


def draw_arrows(draw: ImageDraw.ImageDraw, field: MotionField, width: int) -> None:
    """From where some evenly spaced pixels were to where they are."""
    rows, columns = field.valid.shape
    scale = width / columns
    step = columns / 8
    for v in np.arange(step / 2, rows, step):
        for u in np.arange(step / 2, columns, step):
            if not bool(field.valid[int(v), int(u)]):
                continue
            start = (field.source[int(v), int(u)].double().numpy() + 0.5) * scale
            end = (np.array([int(u), int(v)]) + 0.5) * scale
            arrow(draw, start, end, width / 300)


def arrow(draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, unit: float) -> None:
    """A dot at the start and a line with a head at the end; where nothing moves, the dot alone."""
    way = end - start
    length = float(np.hypot(*way))
    for color, extra in ((EDGE, 1.0 * unit), (ARROW, 0.0)):
        r = 1.7 * unit + extra
        draw.ellipse((*(start - r), *(start + r)), fill=color)
        if length < 3 * unit:
            continue
        along, head = way / length, min(6.0 * unit, 0.6 * length)
        across = np.array([-along[1], along[0]])
        draw.line((*start, *(end - along * head * 0.8)), fill=color, width=round(1.5 * unit + 2 * extra))
        tip, base = end + along * extra * 1.5, end - along * (head + extra)
        wing = across * (0.5 * head + extra * 1.2)
        draw.polygon([tuple(tip), tuple(base + wing), tuple(base - wing)], fill=color)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 1, the picture world: draws the training pictures into shards.

A shard is a safetensors file: `picture` [n, H, W, 3] uint8, `spec` [n, 5], and in sets of pairs `reference` and
`kind`. Every picture depends on (seed, set, index) only, and a shard is written whole or not at all, so a killed
run goes on with the shards that are missing.

Pairs: "edit" the same view at another time, in another style or weather; "moved" another view of the same place,
warped into this one as the camera loop does, with borders it could not know; "other" another scene.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .canvas import Array
from .captions import ADJECTIVES, OUTDOORS, SCENES, STYLES, TIMES, Spec, draw_spec, from_numbers
from .stage import Room, write_atomically
from .world import Camera, motion, render

SHARD = 32
KINDS = ("edit", "moved", "other")


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one size. share: of all; pairs: with references."""

    name: str
    width: int
    height: int
    share: float
    pairs: bool = False


SETS = (
    PictureSet("square", 256, 256, 0.48),
    PictureSet("wide", 320, 176, 0.08),
    PictureSet("tall", 176, 320, 0.06),
    PictureSet("classic", 288, 224, 0.06),
    PictureSet("large", 512, 512, 0.02),
    PictureSet("square-pairs", 256, 256, 0.20, True),
    PictureSet("wide-pairs", 320, 176, 0.06, True),
    PictureSet("tall-pairs", 176, 320, 0.04, True),
)


def random_camera(rng: np.random.Generator) -> Camera:
    """The plain view, a slight move, or a closer look."""
    if rng.random() < 0.45:
        return Camera()
    zoom = rng.uniform(0.95, 1.08) if rng.random() < 0.5 else float(np.exp(rng.uniform(0, np.log(1.5))))
    return Camera(zoom, rng.uniform(-0.12, 0.12), rng.uniform(-0.08, 0.08), rng.uniform(-5, 5))


def warped(rng: np.random.Generator, seed: int, spec: Spec, size: tuple[int, int], camera: Camera) -> Array:
    """The view as the camera loop would bring it from an earlier view: resampled, its new borders guessed."""
    change = rng.uniform(0.90, 1.0) if rng.random() < 0.7 else rng.uniform(1.0, 1.06)
    before = Camera(
        camera.zoom * change,
        camera.pan_x + rng.uniform(-0.08, 0.08),
        camera.pan_y + rng.uniform(-0.08, 0.08),
        camera.tilt + rng.uniform(-4, 4),
    )
    img = render(seed, spec, *size, before)
    way = motion(*size, before, camera)[:2]
    if rng.random() < 0.5:
        return cv2.warpAffine(img, way, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    border = [float(v) for v in (img.mean((0, 1)) if rng.random() < 0.5 else rng.uniform(0, 1, 3))]
    return cv2.warpAffine(img, way, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=border)


def edited(rng: np.random.Generator, spec: Spec) -> Spec:
    """The same place with another time, style, adjective or weather."""
    other = spec
    while other == spec:
        if rng.random() < 0.6:
            other = other._replace(time=TIMES[rng.integers(4)])
        if rng.random() < 0.6:
            other = other._replace(style=STYLES[rng.integers(5)])
        if rng.random() < 0.2:
            other = other._replace(adjective=ADJECTIVES[spec.scene][rng.integers(2)])
        if rng.random() < 0.2:
            skies = OUTDOORS.get(spec.scene, ("clear",))
            other = other._replace(weather=skies[rng.integers(len(skies))])
    return other


def draw_example(seed: int, which: PictureSet, index: int) -> dict[str, Array]:
    """One picture, or one pair, with its spec; floats of 0..1."""
    rng = np.random.default_rng([seed, SETS.index(which), index])
    place, spec, size = int(rng.integers(1, 2**31)), draw_spec(rng), (which.width, which.height)
    camera = random_camera(rng)
    example = {"picture": render(place, spec, *size, camera), "spec": np.array(spec.numbers())}
    if which.pairs:
        kind = int(rng.choice(3, p=[0.55, 0.35, 0.10]))
        if kind == 0:
            reference = render(place, edited(rng, spec), *size, camera)
        elif kind == 1:
            reference = warped(rng, place, spec, size, camera)
        else:
            others = [s for s in SCENES if s != spec.scene]
            strange = draw_spec(rng)._replace(scene=others[rng.integers(len(others))], adjective="", weather="clear")
            reference = render(place + 1, strange, *size, camera)
        example |= {"reference": reference, "kind": np.array(kind)}
    return example


def shard_file(folder: Path, which: PictureSet, shard: int) -> Path:
    return folder / "pictures" / f"{which.name}-{shard:04d}.safetensors"


def draw_shard(seed: int, which: PictureSet, shard: int, count: int, path: Path) -> None:
    """Draw `count` pictures and write them as one file."""
    examples = [draw_example(seed, which, shard * SHARD + k) for k in range(count)]
    tensors = {}
    for name in examples[0]:
        whole = np.stack([e[name] for e in examples])
        whole = np.clip(whole, 0, 1) * 255 + 0.5 if whole.dtype.kind == "f" else whole
        tensors[name] = torch.from_numpy(whole.astype(np.uint8))
    write_atomically(path, lambda aside: save_file(tensors, aside))


def plan(total: int) -> list[tuple[PictureSet, int, int]]:
    """All shards (set, number, pictures) of about `total` pictures; every set has one at least."""
    shards = []
    for which in SETS:
        left = max(round(total * which.share), 2)
        for shard in range(-(-left // SHARD)):
            shards.append((which, shard, min(SHARD, left - shard * SHARD)))
    return shards


def work(folder: Path, seed: int, shards: list[tuple[PictureSet, int, int]], parent: int) -> None:
    """One worker process: its share of the shards. It ends by itself when the parent was killed."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for which, shard, count in shards:
        path = shard_file(folder, which, shard)
        if not path.is_file():
            draw_shard(seed, which, shard, count, path)
        if os.getppid() != parent:
            return


def draw_pictures(room: Room, total: int, workers: int | None = None) -> None:
    """Draw about `total` pictures with all processors, showing how far it is."""
    workers = workers or os.cpu_count() or 1
    shards = plan(total)
    # Dealt out so that no worker gets all the large ones; the early shards of a set come first everywhere.
    hands = [shards[k::workers] for k in range(workers)]
    context = multiprocessing.get_context("spawn")
    begin = told = time.monotonic()
    arguments = [(room.folder, room.seed, hand, os.getpid()) for hand in hands if hand]
    processes = [context.Process(target=work, args=a, daemon=True) for a in arguments]
    if all(shard_file(room.folder, w, s).is_file() for w, s, _ in shards):
        processes = []
    for process in processes:
        process.start()
    while any(p.is_alive() for p in processes):
        time.sleep(0.2)
        if time.monotonic() - told > 15:
            told = time.monotonic()
            there = sum(shard_file(room.folder, w, s).is_file() for w, s, _ in shards)
            print(f"world {100 * there / len(shards):5.1f} %  {there} of {len(shards)} shards", flush=True)
    missing = [shard_file(room.folder, w, s).name for w, s, _ in shards if not shard_file(room.folder, w, s).is_file()]
    if missing:
        raise RuntimeError(f"{len(missing)} shards could not be drawn, the first is {missing[0]}")
    print(f"world: {sum(n for *_, n in shards)} pictures, {time.monotonic() - begin:.0f} s", flush=True)


class Batch(NamedTuple):
    """pictures and references [n, 3, H, W] of -1..1; references: None for single pictures."""

    pictures: torch.Tensor
    specs: list[Spec]
    references: torch.Tensor | None


class Pictures:
    """Reads the shards; a picture is only touched when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[str, list[tuple[object, int]]] = {}
        for which in SETS:
            for path in sorted((folder / "pictures").glob(f"{which.name}-[0-9]*.safetensors")):
                handle = safe_open(path, framework="pt")
                count = handle.get_slice("spec").get_shape()[0]
                self.rows.setdefault(which.name, []).extend((handle, k) for k in range(count))
        if len(self.rows) < len(SETS):
            raise FileNotFoundError(f"{folder} holds no pictures yet: run `python -m training world` first")

    def take(self, name: str, count: int, rng: np.random.Generator, device: torch.device) -> Batch:
        """`count` random pictures of a set, half of them mirrored (no caption speaks of left or right)."""
        rows = self.rows[name]
        chosen = [rows[i] for i in rng.integers(len(rows), size=count)]
        mirrored = torch.from_numpy(rng.random(count) < 0.5).view(-1, 1, 1, 1).to(device)

        def read(key: str) -> torch.Tensor:
            whole = torch.stack([handle.get_slice(key)[k] for handle, k in chosen]).to(device)
            whole = whole.permute(0, 3, 1, 2).float() / 127.5 - 1
            return torch.where(mirrored, whole.flip(3), whole)

        specs = [from_numbers(handle.get_slice("spec")[k].tolist()) for handle, k in chosen]
        return Batch(read("picture"), specs, read("reference") if name.endswith("-pairs") else None)
